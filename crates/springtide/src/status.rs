//! What `springtide status -o json` gives scripts. Field names are a promise.

use std::path::{Path, PathBuf};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::data_dir::{DataDir, write_private};

/// A cluster that is served.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ClusterStatus {
    /// Process that serves it.
    pub pid: u32,
    /// Names its namespaces and cgroups.
    pub cluster_id: String,
    /// Absolute path.
    pub data_dir: PathBuf,
    /// Administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    pub api: ApiStatus,
    pub cloud: CloudStatus,
    /// Services of type LoadBalancer that have an address; filled when asked.
    #[serde(default)]
    pub load_balancers: Vec<LoadBalancerStatus>,
    /// Nodes; filled when asked.
    #[serde(default)]
    pub nodes: Vec<NodeStatus>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct ApiStatus {
    /// `https://127.0.0.1:…`
    pub url: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CloudStatus {
    pub region: String,
    pub access_key_id: String,
    pub access_key_secret: String,
    /// Opens the cloud's control API.
    #[serde(default)]
    pub control_token: String,
    /// Whether the cloud refuses calls beyond the documented limits.
    #[serde(default)]
    pub call_limits: bool,
    /// True when container groups exist only on paper.
    pub simulated: bool,
    pub eci: EndpointStatus,
    /// The log service.
    #[serde(default)]
    pub sls: EndpointStatus,
    pub v_switches: Vec<VSwitchStatus>,
    pub security_groups: Vec<String>,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq)]
pub struct EndpointStatus {
    /// `127.0.0.1:…`, plain HTTP.
    pub endpoint: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct VSwitchStatus {
    pub id: String,
    pub zone: String,
    pub cidr: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct LoadBalancerStatus {
    pub namespace: String,
    pub name: String,
    /// Loopback address.
    pub ip: String,
    pub ports: Vec<i32>,
}

#[derive(Clone, Debug, Serialize, Deserialize, PartialEq)]
pub struct NodeStatus {
    pub name: String,
    pub ready: bool,
}

impl ClusterStatus {
    pub fn write(&self, data_dir: &DataDir) -> anyhow::Result<()> {
        let text = serde_json::to_vec_pretty(self).context("write the cluster's status as JSON")?;
        write_private(&data_dir.status_file(), &text)
    }

    /// Reads what the serving process wrote; `None` when no process serves this directory.
    pub fn read(data_dir: &DataDir) -> anyhow::Result<Option<Self>> {
        if !data_dir.is_locked() {
            return Ok(None);
        }
        Self::read_file(&data_dir.status_file())
    }

    /// Reads the file even when its process is gone; `None` without one.
    pub fn read_file(path: &Path) -> anyhow::Result<Option<Self>> {
        match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .with_context(|| format!("parse {}", path.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_find_the_promised_fields() {
        let status = ClusterStatus {
            pid: 1,
            cluster_id: "c".to_string(),
            data_dir: "/d".into(),
            kubeconfig: "/d/kubeconfig".into(),
            api: ApiStatus {
                url: "https://127.0.0.1:1".to_string(),
            },
            cloud: CloudStatus {
                region: "cn-hangzhou".to_string(),
                access_key_id: "id".to_string(),
                access_key_secret: "secret".to_string(),
                control_token: "token".to_string(),
                call_limits: true,
                simulated: false,
                eci: EndpointStatus {
                    endpoint: "127.0.0.1:2".to_string(),
                },
                sls: EndpointStatus {
                    endpoint: "127.0.0.1:3".to_string(),
                },
                v_switches: vec![VSwitchStatus {
                    id: "vsw-1".to_string(),
                    zone: "z".to_string(),
                    cidr: "10.4.1.0/24".to_string(),
                }],
                security_groups: vec!["sg-1".to_string()],
            },
            load_balancers: vec![LoadBalancerStatus {
                namespace: "n".to_string(),
                name: "s".to_string(),
                ip: "127.83.1.1".to_string(),
                ports: vec![80],
            }],
            nodes: Vec::new(),
        };
        let json = serde_json::to_value(&status).unwrap();
        for pointer in [
            "/kubeconfig",
            "/api/url",
            "/cloud/region",
            "/cloud/accessKeyId",
            "/cloud/accessKeySecret",
            "/cloud/eci/endpoint",
            "/cloud/sls/endpoint",
            "/cloud/vSwitches/0/id",
            "/cloud/securityGroups/0",
            "/loadBalancers/0/ip",
            "/dataDir",
            "/pid",
        ] {
            assert!(json.pointer(pointer).is_some(), "{pointer} in {json}");
        }
    }

    #[test]
    fn no_status_is_read_when_nobody_serves_the_directory() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            ClusterStatus::read(&DataDir::new(folder.path())).unwrap(),
            None
        );
    }
}
