//! What pods request, as the utilization of a resource is measured against it. Quantities that do not parse count as not
//! given: the API server has refused them long before.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::quantity::millis;

/// Thousandths by resource.
pub type Requests = BTreeMap<String, i64>;

/// The requests of each container that runs as long as the pod.
pub(super) fn requests_by_container(spec: &PodSpec) -> Vec<(String, Requests)> {
    let restartable = spec
        .init_containers
        .iter()
        .flatten()
        .filter(|container| is_restartable(container));
    spec.containers
        .iter()
        .chain(restartable)
        .map(|container| (container.name.clone(), requests_of(container)))
        .collect()
}

/// What a pod requests as a whole, when its own `resources` name a resource that can be requested so: those, and for
/// the rest what its containers need at most at one time, and the overhead.
pub(super) fn requests_of_the_whole(spec: &PodSpec) -> Option<Requests> {
    let own = parsed(spec.resources.as_ref()?.requests.as_ref()?);
    let can_be_whole = |resource: &String| {
        matches!(resource.as_str(), "cpu" | "memory") || resource.starts_with("hugepages-")
    };
    if !own.keys().any(can_be_whole) {
        return None;
    }
    let mut requests = most_at_one_time(spec);
    requests.extend(
        own.into_iter()
            .filter(|(resource, _)| can_be_whole(resource)),
    );
    for (resource, milli) in spec.overhead.as_ref().map(parsed).unwrap_or_default() {
        *requests.entry(resource).or_default() += milli;
    }
    Some(requests)
}

fn most_at_one_time(spec: &PodSpec) -> Requests {
    let (mut beside, mut highest) = (Requests::new(), Requests::new());
    for container in spec.init_containers.iter().flatten() {
        let own = requests_of(container);
        if is_restartable(container) {
            add(&mut beside, &own);
            raise(&mut highest, &beside);
        } else {
            let mut during = own;
            add(&mut during, &beside);
            raise(&mut highest, &during);
        }
    }
    let mut running = beside;
    for container in &spec.containers {
        add(&mut running, &requests_of(container));
    }
    raise(&mut highest, &running);
    highest
}

fn add(to: &mut Requests, more: &Requests) {
    for (resource, milli) in more {
        *to.entry(resource.clone()).or_default() += milli;
    }
}

fn raise(to: &mut Requests, least: &Requests) {
    for (resource, milli) in least {
        let entry = to.entry(resource.clone()).or_default();
        *entry = (*entry).max(*milli);
    }
}

fn is_restartable(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

fn requests_of(container: &Container) -> Requests {
    let resources = container.resources.as_ref();
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    requests.map(parsed).unwrap_or_default()
}

fn parsed(quantities: &BTreeMap<String, Quantity>) -> Requests {
    quantities
        .iter()
        .filter_map(|(resource, quantity)| Some((resource.clone(), millis(&quantity.0).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn spec(value: Value) -> PodSpec {
        serde_json::from_value(value).unwrap()
    }

    fn container(name: &str, cpu: &str) -> Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    #[test]
    fn sidecars_count_and_other_init_containers_do_not() {
        let mut sidecar = container("side", "50m");
        sidecar["restartPolicy"] = "Always".into();
        let spec = spec(
            json!({"containers": [container("app", "100m"), {"name": "bare"}],
            "initContainers": [container("init", "1"), sidecar]}),
        );
        let names: Vec<(String, Option<i64>)> = requests_by_container(&spec)
            .into_iter()
            .map(|(name, requests)| (name, requests.get("cpu").copied()))
            .collect();
        assert_eq!(
            names,
            [
                ("app".to_owned(), Some(100)),
                ("bare".to_owned(), None),
                ("side".to_owned(), Some(50))
            ]
        );
        assert_eq!(requests_of_the_whole(&spec), None);
    }

    #[test]
    fn a_pods_own_requests_beat_its_containers() {
        let mut sidecar = container("side", "50m");
        sidecar["restartPolicy"] = "Always".into();
        let whole = |own: Value| {
            requests_of_the_whole(&spec(json!({
                "resources": {"requests": own}, "overhead": {"cpu": "5m"},
                "containers": [container("app", "100m")],
                "initContainers": [sidecar, container("init", "300m")],
            })))
        };
        assert_eq!(whole(json!({"cpu": "2"})).unwrap()["cpu"], 2_005);
        let by_memory = whole(json!({"memory": "1Gi"})).unwrap();
        assert_eq!(
            by_memory["cpu"], 355,
            "the init container runs beside the sidecar"
        );
        assert_eq!(by_memory["memory"], 1_073_741_824_000);
        assert_eq!(whole(json!({"example.com/gpu": "1"})), None);
    }
}
