//! What the controller has to know about its place in the cloud: the profile's words first, the environment's otherwise.
//!
//! A plain function of both; it looks at nothing else.

use std::collections::BTreeMap;

/// Texts by name: a ConfigMap's data, or the environment.
pub type Texts = BTreeMap<String, String>;

/// Most vSwitches a profile may name.
const V_SWITCHES_MAX: usize = 10;
const DEFAULT_CLUSTER_DOMAIN: &str = "cluster.local";
const DEFAULT_API_PORT: u16 = 6443;

/// Everything about the place in the cloud.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Region id.
    pub region: String,
    /// Tags groups, so that they are told from other clusters'.
    pub cluster_id: String,
    /// In the order in which zones are tried.
    pub v_switches: Vec<String>,
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
#[error("{}", .0.join("; "))]
pub struct SettingsError(pub Vec<String>);

/// Puts both sources together. `cluster_uid` names the cluster when nobody else does.
pub fn settings(
    profile: &Texts,
    environment: &Texts,
    cluster_uid: &str,
) -> Result<Settings, SettingsError> {
    let named = |key: &str| {
        let text = environment.get(key).map(|text| text.trim());
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let chosen = |key: &str, variable: &str| {
        let text = profile.get(key).map(|text| text.trim());
        text.filter(|text| !text.is_empty())
            .map(str::to_owned)
            .or_else(|| named(variable))
    };
    let mut wrong = Vec::new();
    let region = named("ECI_REGION").unwrap_or_else(|| {
        wrong.push("ECI_REGION is not set; give the region's id, such as cn-hangzhou".to_owned());
        String::new()
    });
    let v_switches = list(&chosen("vSwitchIds", "ECI_VSWITCH").unwrap_or_default());
    if v_switches.is_empty() {
        wrong.push(
            "neither vSwitchIds in ConfigMap kube-system/eci-profile nor ECI_VSWITCH names a vSwitch"
                .to_owned(),
        );
    } else if v_switches.len() > V_SWITCHES_MAX {
        wrong.push(format!(
            "vSwitchIds names {} vSwitches; at most {V_SWITCHES_MAX} are allowed",
            v_switches.len()
        ));
    }
    let api_port = match named("KUBERNETES_APISERVER_PORT") {
        None => DEFAULT_API_PORT,
        Some(text) => text.parse().unwrap_or_else(|_| {
            wrong.push(format!("KUBERNETES_APISERVER_PORT is {text:?}, not a port"));
            DEFAULT_API_PORT
        }),
    };
    if !wrong.is_empty() {
        return Err(SettingsError(wrong));
    }
    let given = named("ECI_ENDPOINT");
    let vpc_endpoint = named("ECI_VPC_ENDPOINT")
        .or_else(|| given.clone())
        .unwrap_or_else(|| format!("https://vpc.{region}.aliyuncs.com"));
    Ok(Settings {
        cluster_id: named("ALIYUN_CLUSTERID").unwrap_or_else(|| cluster_uid.to_owned()),
        v_switches,
        security_group: chosen("securityGroupId", "ECI_SECURITY_GROUP"),
        cluster_domain: named("CLUSTER_DOMAIN")
            .unwrap_or_else(|| DEFAULT_CLUSTER_DOMAIN.to_owned()),
        api_server: named("KUBERNETES_APISERVER_HOST").map(|host| (host, api_port)),
        eci_endpoint: given.unwrap_or_else(|| format!("https://eci.{region}.aliyuncs.com")),
        vpc_endpoint,
        region,
    })
}

/// The entries of a comma-separated list, each once.
fn list(text: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for entry in text.split(',').map(str::trim).filter(|one| !one.is_empty()) {
        if !entries.iter().any(|known| known == entry) {
            entries.push(entry.to_owned());
        }
    }
    entries
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
        let profile = texts(&[
            ("vSwitchIds", "vsw-b, vsw-a,vsw-b"),
            ("securityGroupId", " "),
        ]);
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
        let environment = texts(&[("KUBERNETES_APISERVER_PORT", "https")]);
        let error = settings(&Texts::new(), &environment, "uid").unwrap_err();
        let text = error.to_string();
        for part in ["ECI_REGION", "vSwitchIds", "KUBERNETES_APISERVER_PORT"] {
            assert!(text.contains(part), "{text}");
        }
    }
}
