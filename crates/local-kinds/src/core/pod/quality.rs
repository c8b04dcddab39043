//! The quality of service class: who is evicted first when a node runs short.

use serde_json::Value;

use crate::check::resources::quantity;
use crate::tree::{entries, list};

const COMPUTE: [&str; 2] = ["cpu", "memory"];

/// `Guaranteed` when every container has equal requests and limits for CPU and memory, `BestEffort` when none has any, else
/// `Burstable`.
pub fn quality_of_service(spec: &Value) -> &'static str {
    let containers: Vec<&Value> = list(spec, "containers")
        .iter()
        .chain(list(spec, "initContainers"))
        .collect();
    let asks = |container: &Value, key: &str| {
        entries(&container["resources"], key)
            .any(|(name, amount)| COMPUTE.contains(&name.as_str()) && quantity(amount).nanos() > 0)
    };
    if !containers
        .iter()
        .any(|one| asks(one, "requests") || asks(one, "limits"))
    {
        return "BestEffort";
    }
    let guaranteed = containers.iter().all(|one| {
        COMPUTE.iter().all(|name| {
            let limit = quantity(&one["resources"]["limits"][name]);
            let request = quantity(&one["resources"]["requests"][name]);
            limit.nanos() > 0 && request == limit
        })
    });
    if guaranteed {
        "Guaranteed"
    } else {
        "Burstable"
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_class_follows_requests_and_limits() {
        let spec = |resources: Value| json!({"containers": [{"resources": resources}]});
        assert_eq!(quality_of_service(&spec(json!({}))), "BestEffort");
        assert_eq!(
            quality_of_service(&spec(json!({"requests": {"cpu": "1"}}))),
            "Burstable"
        );
        let both = json!({"cpu": "1", "memory": "1Gi"});
        let full = json!({"requests": both, "limits": both});
        assert_eq!(quality_of_service(&spec(full)), "Guaranteed");
        let only_storage = json!({"requests": {"ephemeral-storage": "1Gi"}});
        assert_eq!(quality_of_service(&spec(only_storage)), "BestEffort");
    }
}
