//! Where the cloud's services are asked. A plain function of the environment.

use std::collections::BTreeMap;

/// Texts by name: a ConfigMap's data, or the environment.
pub type Texts = BTreeMap<String, String>;

/// Where the cloud's services are asked.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_has_its_own_endpoints_and_one_given_endpoint_serves_for_both_services() {
        let usual = endpoints("cn-beijing", &Texts::new());
        assert_eq!(usual.eci, "https://eci.cn-beijing.aliyuncs.com");
        assert_eq!(usual.vpc, "https://vpc.cn-beijing.aliyuncs.com");
        let given = [("ECI_ENDPOINT".to_owned(), "http://127.0.0.1:1".to_owned())];
        let found = endpoints("cn-beijing", &given.into());
        assert_eq!(found.vpc, "http://127.0.0.1:1");
        assert_eq!(found.eci, found.vpc);
    }
}
