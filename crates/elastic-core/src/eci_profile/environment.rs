//! Environment variables of the virtual node: initial values where the profile says nothing.

use std::collections::BTreeMap;

use super::Problem;
use crate::quantity;

/// Variable to profile key.
const PROFILE_VARIABLES: [(&str, &str); 5] = [
    ("ECI_VPC", "vpcId"),
    ("ECI_VSWITCH", "vSwitchIds"),
    ("ECI_SECURITY_GROUP", "securityGroupId"),
    ("ALIYUN_RESOURCEGROUP_ID", "resourceGroupId"),
    ("ECI_KUBE_PROXY", "enableClusterIp"),
];

/// What a virtual node claims to have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Quota {
    /// vCPU, as a quantity.
    pub cpu: Option<String>,
    /// Memory, as a quantity.
    pub memory: Option<String>,
    /// Pods.
    pub pods: Option<u32>,
    /// GPUs.
    pub gpus: Option<u32>,
}

/// What the variables say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// `ECI_REGION`.
    pub region: Option<String>,
    /// `ALIYUN_CLUSTERID`.
    pub cluster_id: Option<String>,
    /// `KUBERNETES_APISERVER_HOST` and `KUBERNETES_APISERVER_PORT`: where groups reach the API.
    pub api_server: Option<(String, u16)>,
    /// `CLUSTER_DOMAIN`.
    pub cluster_domain: Option<String>,
    /// `KUBELET_PORT`.
    pub kubelet_port: Option<u16>,
    /// `ECI_QUOTA_CPU`, `ECI_QUOTA_MEMORY`, `ECI_QUOTA_POD`, `ECI_QUOTA_GPU`.
    pub quota: Quota,
    /// `ECI_TOKEN_LEAST_LIFE_SECONDS`: service account tokens are asked for with at least this life.
    pub token_least_life_seconds: Option<u32>,
    /// `ECI_TOKEN_RENEWAL`: whether tokens of running groups are renewed (`in-place`) or only warned about (`off`).
    pub token_renewal: Option<bool>,
    /// Initial values of the profile: key to variable and value.
    pub profile: BTreeMap<String, (String, String)>,
}

impl Environment {
    /// Reads the variables that concern the virtual node; others are not looked at.
    pub fn parse(variables: &BTreeMap<String, String>) -> Result<Self, Vec<Problem>> {
        let mut problems = Vec::new();
        let text = |name: &str| {
            variables
                .get(name)
                .map(|value| value.trim().to_owned())
                .filter(|value| !value.is_empty())
        };
        let port = number::<u16>(&text, "KUBERNETES_APISERVER_PORT", &mut problems);
        let environment = Self {
            region: text("ECI_REGION"),
            cluster_id: text("ALIYUN_CLUSTERID"),
            api_server: text("KUBERNETES_APISERVER_HOST").map(|host| (host, port.unwrap_or(6443))),
            cluster_domain: text("CLUSTER_DOMAIN"),
            kubelet_port: number(&text, "KUBELET_PORT", &mut problems),
            quota: Quota {
                cpu: amount(&text, "ECI_QUOTA_CPU", &mut problems),
                memory: amount(&text, "ECI_QUOTA_MEMORY", &mut problems),
                pods: number(&text, "ECI_QUOTA_POD", &mut problems),
                gpus: number(&text, "ECI_QUOTA_GPU", &mut problems),
            },
            token_least_life_seconds: number(&text, "ECI_TOKEN_LEAST_LIFE_SECONDS", &mut problems),
            token_renewal: renewal(&text, &mut problems),
            profile: PROFILE_VARIABLES
                .iter()
                .filter_map(|(variable, key)| {
                    Some(((*key).to_owned(), ((*variable).to_owned(), text(variable)?)))
                })
                .collect(),
        };
        if problems.is_empty() {
            Ok(environment)
        } else {
            Err(problems)
        }
    }
}

fn renewal(text: &impl Fn(&str) -> Option<String>, problems: &mut Vec<Problem>) -> Option<bool> {
    const NAME: &str = "ECI_TOKEN_RENEWAL";
    let value = text(NAME)?;
    match value.as_str() {
        "in-place" => Some(true),
        "off" => Some(false),
        _ => {
            let rule = format!("{value:?} is neither in-place nor off");
            problems.push(Problem::new(NAME, rule));
            None
        }
    }
}

fn number<N: std::str::FromStr>(
    text: &impl Fn(&str) -> Option<String>,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<N> {
    let value = text(name)?;
    let number = value.parse().ok();
    if number.is_none() {
        problems.push(Problem::new(
            name,
            format!("{value:?} is not a number in range"),
        ));
    }
    number
}

fn amount(
    text: &impl Fn(&str) -> Option<String>,
    name: &str,
    problems: &mut Vec<Problem>,
) -> Option<String> {
    let value = text(name)?;
    match quantity::millis(&value) {
        Ok(amount) if amount > 0 => Some(value),
        Ok(_) => {
            problems.push(Problem::new(name, "must be more than nothing"));
            None
        }
        Err(error) => {
            problems.push(Problem::new(name, error.to_string()));
            None
        }
    }
}
