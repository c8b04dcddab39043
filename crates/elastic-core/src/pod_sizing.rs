//! How much a pod asks the cloud for.
//!
//! The cloud rounds this up to a size it sells (crate `cloud-api` knows which); here only the asked amount is decided.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec};

use crate::names::{ECI_CPU, ECI_MEMORY, USE_SPECS};
use crate::quantity::{self, QuantityError};

const GIB: i64 = 1 << 30;
/// vCPU of a pod that says nothing, in thousandths.
const DEFAULT_CPU_MILLI: i64 = 2_000;
/// Memory of a pod that says nothing.
const DEFAULT_MEMORY_BYTES: i64 = 4 * GIB;
/// Container variable that takes a container out of the sum.
const IGNORE_VARIABLE: &str = "__ECI_RESOURCE_IGNORE__";
/// Most entries of the list of sizes.
const MAX_SPECS: usize = 5;

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PodSize {
    /// vCPU in thousandths.
    pub cpu_milli: i64,
    /// Memory.
    pub memory_bytes: i64,
}

/// One entry of the list of wanted sizes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WantedSpec {
    /// `2-4Gi`.
    Size(PodSize),
    /// A machine type such as `ecs.c6.xlarge`.
    InstanceType(String),
}

/// Why no size could be found.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SizingError {
    /// A container's amount is not a quantity.
    #[error("container {container}: {resource}: {source}")]
    Container {
        /// The container's name.
        container: String,
        /// `cpu` or `memory`.
        resource: &'static str,
        /// What is wrong with the text.
        source: QuantityError,
    },
    /// An annotation cannot be read.
    #[error("annotation {annotation}: {reason}")]
    Annotation {
        /// Its key.
        annotation: &'static str,
        /// What is wrong and what is expected.
        reason: String,
    },
}

/// The sizes to try, in order; never empty.
pub fn wanted_specs(
    spec: &PodSpec,
    annotations: Option<&BTreeMap<String, String>>,
) -> Result<Vec<WantedSpec>, SizingError> {
    let annotation = |key: &str| annotations.and_then(|all| all.get(key)).map(String::as_str);
    if let Some(text) = annotation(USE_SPECS).filter(|text| !text.trim().is_empty()) {
        return parse_specs(text);
    }
    let legacy = |name: &'static str, read: Read| {
        let text = annotation(name).filter(|text| !text.trim().is_empty());
        let wrong = |error: QuantityError| SizingError::Annotation {
            annotation: name,
            reason: error.to_string(),
        };
        text.map(|text| read(text.trim()).map_err(wrong))
            .transpose()
    };
    let cpu_milli = match legacy(ECI_CPU, quantity::millis)? {
        Some(cpu_milli) => Some(cpu_milli),
        None => pod_amount(spec, "cpu", quantity::millis)?,
    };
    let memory_bytes = match legacy(ECI_MEMORY, quantity::units)? {
        Some(memory_bytes) => Some(memory_bytes),
        None => pod_amount(spec, "memory", quantity::units)?,
    };
    let size = PodSize {
        cpu_milli: cpu_milli.unwrap_or(0),
        memory_bytes: memory_bytes.unwrap_or(0),
    };
    Ok(vec![WantedSpec::Size(
        if size
            == (PodSize {
                cpu_milli: 0,
                memory_bytes: 0,
            })
        {
            PodSize {
                cpu_milli: DEFAULT_CPU_MILLI,
                memory_bytes: DEFAULT_MEMORY_BYTES,
            }
        } else {
            size
        },
    )])
}

fn parse_specs(text: &str) -> Result<Vec<WantedSpec>, SizingError> {
    let wrong = |reason: String| SizingError::Annotation {
        annotation: USE_SPECS,
        reason,
    };
    let entries: Vec<&str> = text
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .collect();
    if entries.len() > MAX_SPECS {
        return Err(wrong(format!(
            "at most {MAX_SPECS} specs may be listed, found {}",
            entries.len()
        )));
    }
    entries
        .into_iter()
        .map(|entry| {
            if entry.starts_with("ecs.") {
                return Ok(WantedSpec::InstanceType(entry.to_owned()));
            }
            let expected = || {
                wrong(format!(
                    "{entry:?} is neither <vcpu>-<memory>Gi nor an instance type"
                ))
            };
            let (cpu, memory) = entry.split_once('-').ok_or_else(expected)?;
            let memory = if memory.ends_with("Gi") {
                memory.to_owned()
            } else {
                format!("{memory}Gi")
            };
            let cpu_milli = quantity::millis(cpu).map_err(|_| expected())?;
            let memory_bytes = quantity::units(&memory).map_err(|_| expected())?;
            Ok(WantedSpec::Size(PodSize {
                cpu_milli,
                memory_bytes,
            }))
        })
        .collect()
}

type Read = fn(&str) -> Result<i64, QuantityError>;

/// Sum over the containers, at least the largest init container; sidecar init containers count as containers.
fn pod_amount(
    spec: &PodSpec,
    resource: &'static str,
    read: Read,
) -> Result<Option<i64>, SizingError> {
    let mut sum = None;
    let mut largest_init = None;
    for container in &spec.containers {
        add(&mut sum, container_amount(container, resource, read)?);
    }
    for container in spec.init_containers.iter().flatten() {
        let amount = container_amount(container, resource, read)?;
        if container.restart_policy.as_deref() == Some("Always") {
            add(&mut sum, amount);
        } else {
            largest_init = largest_init.max(amount);
        }
    }
    Ok(sum.max(largest_init))
}

fn add(sum: &mut Option<i64>, amount: Option<i64>) {
    if let Some(amount) = amount {
        *sum = Some(sum.unwrap_or(0).saturating_add(amount));
    }
}

/// What one container asks for: its limit, else its request.
pub fn container_amount(
    container: &Container,
    resource: &'static str,
    read: Read,
) -> Result<Option<i64>, SizingError> {
    let ignored = container.env.iter().flatten().any(|variable| {
        variable.name == IGNORE_VARIABLE
            && variable
                .value
                .as_deref()
                .is_some_and(|value| value.eq_ignore_ascii_case("true"))
    });
    let Some(resources) = container.resources.as_ref().filter(|_| !ignored) else {
        return Ok(None);
    };
    let limit = resources
        .limits
        .as_ref()
        .and_then(|limits| limits.get(resource));
    let Some(amount) = limit.or_else(|| resources.requests.as_ref()?.get(resource)) else {
        return Ok(None);
    };
    let wrong = |source| SizingError::Container {
        container: container.name.clone(),
        resource,
        source,
    };
    read(&amount.0).map(Some).map_err(wrong)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    fn size(spec: Value, annotations: &[(&str, &str)]) -> Result<Vec<WantedSpec>, SizingError> {
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        let annotations = annotations
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect();
        wanted_specs(&spec, Some(&annotations))
    }

    fn of(cpu_milli: i64, gib: f64) -> WantedSpec {
        #[allow(clippy::cast_possible_truncation)]
        let memory_bytes = (gib * GIB as f64) as i64;
        WantedSpec::Size(PodSize {
            cpu_milli,
            memory_bytes,
        })
    }

    #[test]
    fn nothing_asked_means_two_and_four() {
        assert_eq!(
            size(json!({"containers": [{"name": "a"}]}), &[]),
            Ok(vec![of(2_000, 4.0)])
        );
    }

    #[test]
    fn limits_beat_requests_and_containers_add_up() {
        let spec = json!({"containers": [
            {"name": "a", "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}},
            {"name": "b", "resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "2", "memory": "1Gi"}}},
            {"name": "c", "env": [{"name": "__ECI_RESOURCE_IGNORE__", "value": "TRUE"}],
             "resources": {"limits": {"cpu": "8"}}}
        ]});
        assert_eq!(size(spec, &[]), Ok(vec![of(2_250, 1.5)]));
    }

    #[test]
    fn the_largest_init_container_is_the_least() {
        let spec = json!({
            "initContainers": [{"name": "i", "resources": {"requests": {"cpu": "4", "memory": "1Gi"}}}],
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "2Gi"}}}]
        });
        assert_eq!(size(spec, &[]), Ok(vec![of(4_000, 2.0)]));
    }

    #[test]
    fn listed_specs_beat_everything_in_their_order() {
        let spec = json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "8"}}}]});
        let specs = size(spec.clone(), &[(USE_SPECS, "2-4Gi,0.5-1Gi, ecs.c6.large")]);
        assert_eq!(
            specs,
            Ok(vec![
                of(2_000, 4.0),
                of(500, 1.0),
                WantedSpec::InstanceType("ecs.c6.large".into())
            ])
        );
        let error = size(spec, &[(USE_SPECS, "big")]).unwrap_err();
        assert!(
            error
                .to_string()
                .contains("eci-use-specs: \"big\" is neither"),
            "{error}"
        );
    }

    #[test]
    fn an_unreadable_amount_names_its_container() {
        let spec = json!({"containers": [{"name": "a", "resources": {"limits": {"cpu": "much"}}}]});
        assert!(
            size(spec, &[])
                .unwrap_err()
                .to_string()
                .starts_with("container a: cpu:")
        );
    }

    #[test]
    fn the_rules_of_the_cloud_hold_case_by_case() {
        let container = |requests: Value, limits: Value| json!({"name": "a", "resources": {"requests": requests, "limits": limits}});
        let two = |one: Value, other: Value| {
            let mut other = other;
            other["name"] = json!("b");
            json!({"containers": [one, other]})
        };
        let requests = container(json!({"cpu": "1", "memory": "1Gi"}), json!({}));
        let limits = container(json!({}), json!({"cpu": "2", "memory": "4Gi"}));
        let both = container(
            json!({"cpu": "1", "memory": "1Gi"}),
            json!({"cpu": "3", "memory": "3Gi"}),
        );
        let mut sidecar = container(json!({"cpu": "500m", "memory": "1Gi"}), json!({}));
        sidecar["restartPolicy"] = json!("Always");
        type Pairs<'a> = &'a [(&'a str, &'a str)];
        let cases: [(Value, Pairs, WantedSpec); 8] = [
            (two(requests.clone(), requests.clone()), &[], of(2_000, 2.0)),
            (two(limits.clone(), limits.clone()), &[], of(4_000, 8.0)),
            (two(both.clone(), requests.clone()), &[], of(4_000, 4.0)),
            (
                json!({"containers": [requests.clone()]}),
                &[(ECI_CPU, "4"), (ECI_MEMORY, "8Gi")],
                of(4_000, 8.0),
            ),
            (
                json!({"containers": [requests.clone()]}),
                &[(ECI_MEMORY, "8Gi")],
                of(1_000, 8.0),
            ),
            (
                json!({"containers": [both]}),
                &[(USE_SPECS, "0.5-1Gi"), (ECI_CPU, "4")],
                of(500, 1.0),
            ),
            (
                json!({"containers": [requests.clone()], "initContainers": [sidecar]}),
                &[],
                of(1_500, 2.0),
            ),
            (
                json!({"containers": [container(json!({"cpu": "1"}), json!({}))]}),
                &[],
                of(1_000, 0.0),
            ),
        ];
        for (spec, annotations, expected) in cases {
            assert_eq!(
                size(spec.clone(), annotations),
                Ok(vec![expected]),
                "{spec}"
            );
        }
        let many = [(USE_SPECS, "1-2Gi,1-4Gi,2-4Gi,2-8Gi,4-8Gi,4-16Gi")];
        assert!(
            size(json!({"containers": []}), &many)
                .unwrap_err()
                .to_string()
                .contains("at most 5")
        );
    }

    proptest! {
        #[test]
        fn the_sum_knows_no_order_and_ignored_containers_cost_nothing(
            amounts in proptest::collection::vec((1i64..5_000, 1i64..9_000), 1..6), ignored in 0usize..6
        ) {
            let container = |(index, (cpu, memory)): (usize, &(i64, i64))| {
                let mut one = json!({"name": format!("c{index}"), "resources": {"requests": {
                    "cpu": format!("{cpu}m"), "memory": format!("{memory}Mi")}}});
                if index == ignored {
                    one["env"] = json!([{"name": "__ECI_RESOURCE_IGNORE__", "value": "TRUE"}]);
                }
                one
            };
            let mut containers: Vec<Value> = amounts.iter().enumerate().map(container).collect();
            let forth = size(json!({"containers": containers}), &[]);
            containers.reverse();
            prop_assert_eq!(&forth, &size(json!({"containers": containers}), &[]));
            let counted = amounts.iter().enumerate().filter(|(index, _)| *index != ignored);
            let (mut cpu, mut memory) = (0, 0);
            for (_, (one_cpu, one_memory)) in counted {
                cpu += one_cpu;
                memory += one_memory << 20;
            }
            if cpu > 0 {
                let expected = PodSize { cpu_milli: cpu, memory_bytes: memory };
                prop_assert_eq!(forth, Ok(vec![WantedSpec::Size(expected)]));
            }
        }
    }
}
