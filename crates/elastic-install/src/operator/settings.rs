//! What the controller has to know about its place in the cloud: the profile's words first, the environment's otherwise.
//!
//! The words are read by `elastic-core`; here they become one answer. A plain function; it looks at nothing else.

use std::collections::BTreeMap;

use elastic_core::eci_profile::{EciProfile, Environment, Problem, describe};

/// Texts by name: a ConfigMap's data, or the environment.
pub type Texts = BTreeMap<String, String>;

const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";

/// Everything about the place in the cloud.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Region id.
    pub region: String,
    /// Tags groups, so that they are told from other clusters'.
    pub cluster_id: String,
    /// In the order in which zones are tried.
    pub v_switches: Vec<String>,
    /// Zones of vSwitches that need not be asked for.
    pub zones: BTreeMap<String, String>,
    /// For groups that name none.
    pub security_group: Option<String>,
    /// Name of the cluster's DNS domain.
    pub cluster_domain: String,
    /// Where pods reach the API.
    pub api_server: Option<(String, u16)>,
    /// Where container instances are asked for.
    pub eci_endpoint: String,
    /// Where vSwitches are asked about.
    pub vpc_endpoint: String,
}

/// What is missing or wrong, all at once.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", describe(.0))]
pub struct SettingsError(pub Vec<Problem>);

/// Where the cloud's services are asked, without needing a profile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoints {
    /// Container instances.
    pub eci: String,
    /// vSwitches.
    pub vpc: String,
}

/// The endpoints of a region, unless the environment names others (`ECI_ENDPOINT`, `ECI_VPC_ENDPOINT`).
pub fn endpoints(region: &str, environment: &Texts) -> Endpoints {
    let named = |key: &str| {
        let text = environment.get(key).map(|text| text.trim().to_owned());
        text.filter(|text| !text.is_empty())
    };
    let given = named("ECI_ENDPOINT");
    let vpc = named("ECI_VPC_ENDPOINT").or_else(|| given.clone());
    Endpoints {
        vpc: vpc.unwrap_or_else(|| format!("https://vpc.{region}.aliyuncs.com")),
        eci: given.unwrap_or_else(|| format!("https://eci.{region}.aliyuncs.com")),
    }
}

/// Puts both sources together. `cluster_uid` names the cluster when nobody else does.
pub fn settings(
    profile: &Texts,
    environment: &Texts,
    cluster_uid: &str,
) -> Result<Settings, SettingsError> {
    let variables = Environment::parse(environment).map_err(SettingsError)?;
    let mut problems = Vec::new();
    let read = EciProfile::parse_over(profile, &variables.profile).unwrap_or_else(|wrong| {
        problems.extend(wrong);
        EciProfile::default()
    });
    if read.v_switch_ids.is_empty() && problems.is_empty() {
        problems.push(Problem::new(
            "vSwitchIds",
            "no vSwitch is named, here or by ECI_VSWITCH; name at least one",
        ));
    }
    let region = variables.region.unwrap_or_else(|| {
        let cause = "not set; give the region's id, such as cn-hangzhou";
        problems.push(Problem::new("ECI_REGION", cause));
        String::new()
    });
    if !problems.is_empty() {
        return Err(SettingsError(problems));
    }
    let endpoints = endpoints(&region, environment);
    Ok(Settings {
        cluster_id: variables
            .cluster_id
            .unwrap_or_else(|| cluster_uid.to_owned()),
        v_switches: read.v_switch_ids,
        zones: read.v_switch_zones,
        security_group: read.security_group_id,
        cluster_domain: variables
            .cluster_domain
            .unwrap_or_else(|| DEFAULT_CLUSTER_DOMAIN.to_owned()),
        api_server: variables.api_server,
        eci_endpoint: endpoints.eci,
        vpc_endpoint: endpoints.vpc,
        region,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_profile_beats_the_environment_and_the_rest_has_defaults() {
        let profile = texts(&[("vSwitchIds", "vsw-b, vsw-a"), ("securityGroupId", " ")]);
        let environment = texts(&[
            ("ECI_REGION", "cn-hangzhou"),
            ("ECI_VSWITCH", "vsw-old"),
            ("ECI_SECURITY_GROUP", "sg-1"),
            ("KUBERNETES_APISERVER_HOST", "10.0.0.1"),
        ]);
        let settings = settings(&profile, &environment, "uid").unwrap();
        assert_eq!(settings.v_switches, ["vsw-b", "vsw-a"]);
        assert_eq!(settings.security_group.as_deref(), Some("sg-1"));
        assert_eq!(settings.cluster_id, "uid");
        assert_eq!(settings.api_server, Some(("10.0.0.1".to_owned(), 6443)));
        assert_eq!(
            settings.eci_endpoint,
            "https://eci.cn-hangzhou.aliyuncs.com"
        );
        assert_eq!(
            settings.vpc_endpoint,
            "https://vpc.cn-hangzhou.aliyuncs.com"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_named_at_once() {
        let profile = texts(&[("enableClusterIp", "maybe")]);
        let error = settings(&profile, &Texts::new(), "uid").unwrap_err();
        let text = error.to_string();
        for part in ["ECI_REGION", "enableClusterIp"] {
            assert!(text.contains(part), "{text}");
        }
        let none = settings(
            &Texts::new(),
            &texts(&[("ECI_REGION", "cn-hangzhou")]),
            "uid",
        );
        assert!(none.unwrap_err().to_string().contains("ECI_VSWITCH"));
    }

    #[test]
    fn one_given_endpoint_serves_for_both_services() {
        let environment = texts(&[("ECI_ENDPOINT", "http://127.0.0.1:1")]);
        let found = endpoints("cn-hangzhou", &environment);
        assert_eq!(found.vpc, "http://127.0.0.1:1");
        assert_eq!(found.eci, found.vpc);
    }
}
