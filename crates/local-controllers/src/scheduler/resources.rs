//! Amounts of resources: what a node has, what a pod asks for.

use std::collections::BTreeMap;

use elastic_core::quantity::{millis, units};
use k8s_openapi::api::core::v1::{Container, Node, Pod};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

type Quantities = BTreeMap<String, Quantity>;

/// What upstream assumes for scoring when a container asks for nothing.
const SCORED_CPU_MILLIS: i64 = 100;
const SCORED_MEMORY_BYTES: i64 = 200 * 1024 * 1024;

/// Amounts by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Resources {
    /// CPU in thousandths of a core.
    pub cpu_millis: i64,
    /// Memory in bytes.
    pub memory_bytes: i64,
    /// Everything else in its own unit, ephemeral storage included.
    pub others: BTreeMap<String, i64>,
}

impl Resources {
    fn of(quantities: Option<&Quantities>) -> Self {
        let mut resources = Resources::default();
        for (name, quantity) in quantities.into_iter().flatten() {
            match name.as_str() {
                "cpu" => resources.cpu_millis = millis(&quantity.0).unwrap_or(0),
                "memory" => resources.memory_bytes = units(&quantity.0).unwrap_or(0),
                "pods" => {}
                _ => {
                    resources
                        .others
                        .insert(name.clone(), units(&quantity.0).unwrap_or(0));
                }
            }
        }
        resources
    }

    /// Adds other amounts.
    pub fn add(&mut self, other: &Resources) {
        self.cpu_millis = self.cpu_millis.saturating_add(other.cpu_millis);
        self.memory_bytes = self.memory_bytes.saturating_add(other.memory_bytes);
        for (name, amount) in &other.others {
            let known = self.others.entry(name.clone()).or_default();
            *known = known.saturating_add(*amount);
        }
    }

    /// Takes other amounts away.
    pub fn subtract(&mut self, other: &Resources) {
        self.cpu_millis -= other.cpu_millis;
        self.memory_bytes -= other.memory_bytes;
        for (name, amount) in &other.others {
            *self.others.entry(name.clone()).or_default() -= *amount;
        }
    }

    fn raise_to(&mut self, other: &Resources) {
        self.cpu_millis = self.cpu_millis.max(other.cpu_millis);
        self.memory_bytes = self.memory_bytes.max(other.memory_bytes);
        for (name, amount) in &other.others {
            let known = self.others.entry(name.clone()).or_default();
            *known = (*known).max(*amount);
        }
    }
}

/// What a pod asks for.
#[derive(Clone, Debug, Default)]
pub struct PodRequest {
    /// What must fit.
    pub required: Resources,
    /// The same with upstream's assumptions for containers that ask for nothing.
    pub scored_cpu_millis: i64,
    /// As above, for memory.
    pub scored_memory_bytes: i64,
}

/// What a node can give, and to how many pods.
pub fn allocatable(node: &Node) -> (Resources, usize) {
    let status = node.status.as_ref();
    let quantities =
        status.and_then(|status| status.allocatable.as_ref().or(status.capacity.as_ref()));
    let pods = quantities
        .and_then(|quantities| quantities.get("pods"))
        .and_then(|pods| units(&pods.0).ok());
    (
        Resources::of(quantities),
        usize::try_from(pods.unwrap_or(0)).unwrap_or(0),
    )
}

/// What a pod asks for: its containers together, or the largest step of its start, and its overhead.
pub fn request(pod: &Pod) -> PodRequest {
    let Some(spec) = &pod.spec else {
        return PodRequest::default();
    };
    let of = |container: &Container| {
        Resources::of(
            container
                .resources
                .as_ref()
                .and_then(|resources| resources.requests.as_ref()),
        )
    };
    let mut running = Resources::default();
    let mut scored = (0, 0);
    for container in &spec.containers {
        let requests = of(container);
        scored.0 += if requests.cpu_millis == 0 {
            SCORED_CPU_MILLIS
        } else {
            requests.cpu_millis
        };
        scored.1 += if requests.memory_bytes == 0 {
            SCORED_MEMORY_BYTES
        } else {
            requests.memory_bytes
        };
        running.add(&requests);
    }
    let (mut sidecars, mut starting) = (Resources::default(), Resources::default());
    for container in spec.init_containers.iter().flatten() {
        let mut requests = of(container);
        if container.restart_policy.as_deref() == Some("Always") {
            running.add(&requests);
            sidecars.add(&requests);
        } else {
            requests.add(&sidecars);
            starting.raise_to(&requests);
        }
    }
    running.raise_to(&starting);
    override_with_pod_level(
        &mut running,
        spec.resources
            .as_ref()
            .and_then(|resources| resources.requests.as_ref()),
    );
    running.add(&Resources::of(spec.overhead.as_ref()));
    PodRequest {
        scored_cpu_millis: scored.0.max(running.cpu_millis),
        scored_memory_bytes: scored.1.max(running.memory_bytes),
        required: running,
    }
}

fn override_with_pod_level(running: &mut Resources, pod_level: Option<&Quantities>) {
    let given = Resources::of(pod_level);
    if given.cpu_millis > 0 {
        running.cpu_millis = given.cpu_millis;
    }
    if given.memory_bytes > 0 {
        running.memory_bytes = given.memory_bytes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_pod_needs_its_containers_or_its_largest_start_step() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [
                {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}},
                {"name": "b", "resources": {"requests": {"cpu": "0.2"}}},
            ],
            "initContainers": [
                {"name": "side", "restartPolicy": "Always", "resources": {"requests": {"cpu": "50m"}}},
                {"name": "big", "resources": {"requests": {"cpu": "1", "example.com/gpu": "2"}}},
            ],
            "overhead": {"cpu": "10m"},
        }}))
        .unwrap();
        let request = request(&pod);
        assert_eq!(request.required.cpu_millis, 1060);
        assert_eq!(request.required.memory_bytes, 64 << 20);
        assert_eq!(request.required.others["example.com/gpu"], 2);
        assert_eq!(
            request.scored_memory_bytes,
            (64 << 20) + SCORED_MEMORY_BYTES
        );
    }

    #[test]
    fn requests_of_the_whole_pod_win() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "100m"}}}],
            "resources": {"requests": {"cpu": "2"}},
        }}))
        .unwrap();
        assert_eq!(request(&pod).required.cpu_millis, 2000);
    }
}
