//! GPUs: how many a container gets, and whether the machine types that a pod names have them.
//!
//! The cloud has GPUs only in machine types, so a pod that asks for some has to name such types and no others. Types that
//! are not known here are left to the cloud, as long as their names speak of GPUs.

use std::collections::BTreeMap;

use cloud_api::instance_type::{self, Choice};
use elastic_core::names::USE_SPECS;
use elastic_core::pod_sizing::{WantedSpec, wanted_specs};
use elastic_core::quantity;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::is_sidecar;
use super::refusal::Refusal;

/// The resource that pods ask for.
const GPU: &str = "nvidia.com/gpu";
/// What else a container group can be asked for.
const KNOWN: [&str; 4] = ["cpu", "memory", "ephemeral-storage", GPU];
/// Resources by which other schedulers give out parts of a GPU.
const SHARED: [&str; 3] = ["aliyun.com/gpu-", "nvidia.com/mig-", "nvidia.com/gpu."];
/// Named in remedies.
const EXAMPLE: &str = "ecs.gn6i-c4g1.xlarge";

/// GPUs of a container, for the cloud; none is not said.
pub(super) fn of(container: &Container) -> Option<i64> {
    count(container).ok().filter(|gpus| *gpus > 0)
}

/// What no container group can give: resources of other kinds, parts of GPUs, GPUs without a machine that has them.
pub(super) fn refuse(pod: &Pod, spec: &PodSpec) -> Result<(), Refusal> {
    let lists = [
        ("containers", Some(&spec.containers)),
        ("initContainers", spec.init_containers.as_ref()),
    ];
    let mut first = None;
    for (list, containers) in lists {
        for (index, container) in containers.into_iter().flatten().enumerate() {
            let path = format!("spec.{list}[{index}].resources");
            unknown(&path, container)?;
            let field = format!("{path}.limits[{GPU}]");
            let refusal = |reason| Refusal {
                field: field.clone(),
                reason,
            };
            if count(container).map_err(refusal)? > 0 {
                first.get_or_insert(field);
            }
        }
    }
    match first {
        Some(field) => machines(pod, spec, field),
        None => unused(pod, spec),
    }
}

fn amounts(
    container: &Container,
) -> impl Iterator<Item = (&'static str, &BTreeMap<String, Quantity>)> {
    let resources = container.resources.as_ref();
    let limits = resources.and_then(|resources| resources.limits.as_ref());
    let requests = resources.and_then(|resources| resources.requests.as_ref());
    let lists = [("limits", limits), ("requests", requests)];
    lists
        .into_iter()
        .filter_map(|(list, found)| Some((list, found?)))
}

/// The limit, else the request; whole GPUs only.
fn count(container: &Container) -> Result<i64, String> {
    let Some(amount) = amounts(container).find_map(|(_, amounts)| amounts.get(GPU)) else {
        return Ok(0);
    };
    match quantity::millis(&amount.0) {
        Ok(millis) if millis >= 0 && millis % 1_000 == 0 => Ok(millis / 1_000),
        _ => Err(format!("{:?} is no whole number of GPUs", amount.0)),
    }
}

fn unknown(path: &str, container: &Container) -> Result<(), Refusal> {
    for (list, amounts) in amounts(container) {
        let Some(name) = amounts.keys().find(|name| !KNOWN.contains(&name.as_str())) else {
            continue;
        };
        let reason = if SHARED.iter().any(|beginning| name.starts_with(beginning)) {
            format!("container groups share no GPUs; ask for whole ones as {GPU}")
        } else {
            format!(
                "virtual nodes have {}; leave it out, or run the pod on a worker that has it",
                KNOWN.join(", ")
            )
        };
        return Err(Refusal {
            field: format!("{path}.{list}[{name}]"),
            reason,
        });
    }
    Ok(())
}

/// GPUs of all containers together; init containers run one at a time, and before the others.
fn total(spec: &PodSpec) -> i64 {
    let gpus = |container: &Container| of(container).unwrap_or_default();
    let (sidecars, inits): (Vec<&Container>, Vec<&Container>) = spec
        .init_containers
        .iter()
        .flatten()
        .partition(|container| is_sidecar(container));
    let together = spec.containers.iter().chain(sidecars).map(gpus);
    let together = together.fold(0, i64::saturating_add);
    together.max(inits.into_iter().map(gpus).max().unwrap_or_default())
}

/// The sizes that the pod names; one that cannot be read is reported where sizes are read.
fn specs(pod: &Pod, spec: &PodSpec) -> Vec<WantedSpec> {
    wanted_specs(spec, pod.metadata.annotations.as_ref()).unwrap_or_default()
}

fn machines(pod: &Pod, spec: &PodSpec, field: String) -> Result<(), Refusal> {
    let asked = total(spec);
    let annotation = |reason: String| Refusal {
        field: format!("annotation {USE_SPECS}"),
        reason,
    };
    for wanted in specs(pod, spec) {
        let WantedSpec::InstanceType(name) = wanted else {
            let annotations = pod.metadata.annotations.as_ref();
            let named = annotations.is_some_and(|all| all.contains_key(USE_SPECS));
            let remedy = format!("machine types that have GPUs and no others, such as {EXAMPLE}");
            return Err(if named {
                annotation(format!(
                    "the containers ask for {asked} GPUs, and sizes have none; name {remedy}"
                ))
            } else {
                Refusal {
                    field,
                    reason: format!(
                        "GPUs come with a machine type; name in the annotation {USE_SPECS} {remedy}"
                    ),
                }
            });
        };
        let Some(choice) = Choice::parse(&name) else {
            continue;
        };
        if i64::from(choice.gpus()) < asked {
            return Err(annotation(format!(
                "the containers ask for {asked} GPUs, and {name} has {}; name machine types that have enough",
                choice.gpus()
            )));
        }
    }
    Ok(())
}

/// A machine with GPUs that no container uses would be paid for nothing.
fn unused(pod: &Pod, spec: &PodSpec) -> Result<(), Refusal> {
    let named = specs(pod, spec)
        .into_iter()
        .find_map(|wanted| match wanted {
            WantedSpec::InstanceType(name) => instance_type::has_gpus(&name).then_some(name),
            WantedSpec::Size(_) => None,
        });
    match named {
        None => Ok(()),
        Some(name) => Err(Refusal {
            field: format!("annotation {USE_SPECS}"),
            reason: format!(
                "{name} has GPUs, and no container asks for one; give the container that uses them the limit {GPU}, or name another type"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn pod(spec: Value, specs: &str) -> Pod {
        let mut annotations = json!({});
        if !specs.is_empty() {
            annotations[USE_SPECS] = json!(specs);
        }
        serde_json::from_value(json!({"metadata": {"annotations": annotations}, "spec": spec}))
            .unwrap()
    }

    fn asks(amounts: Value) -> Value {
        json!({"name": "main", "resources": {"limits": amounts}})
    }

    fn refused(spec: Value, specs: &str) -> Option<String> {
        let pod = pod(spec, specs);
        let found = refuse(&pod, pod.spec.as_ref().unwrap());
        found.err().map(|refusal| refusal.to_string())
    }

    #[test]
    fn pods_that_name_machines_with_enough_gpus_are_accepted() {
        let one = || json!({"containers": [asks(json!({"nvidia.com/gpu": "1"}))]});
        let two = || {
            let ask = || asks(json!({"nvidia.com/gpu": 1, "cpu": "2", "memory": "4Gi"}));
            json!({"containers": [ask(), ask()], "initContainers": [asks(json!({"nvidia.com/gpu": "2"}))]})
        };
        let none = || json!({"containers": [asks(json!({"cpu": "1", "ephemeral-storage": "1Gi", "nvidia.com/gpu": "0"}))]});
        let cases = [
            (one(), "ecs.gn6i-c4g1.xlarge,ecs.gn7i-c8g1.2xlarge"),
            (two(), "ecs.gn6i-c24g1.12xlarge"),
            (two(), "ecs.gn99z-c4g1.xlarge"),
            (none(), "2-4Gi,ecs.c6.large"),
            (none(), ""),
        ];
        for (spec, specs) in cases {
            assert_eq!(refused(spec.clone(), specs), None, "{spec} {specs}");
        }
    }

    #[test]
    fn what_cannot_be_had_is_refused_by_name() {
        let with = |amounts: Value| json!({"containers": [{"name": "plain"}, asks(amounts)]});
        let gpus = |amount: Value| with(json!({"nvidia.com/gpu": amount}));
        let cases = [
            (
                gpus(json!("1")),
                "",
                "spec.containers[1].resources.limits[nvidia.com/gpu]: GPUs come with a machine type; name in the annotation \
                 k8s.aliyun.com/eci-use-specs machine types that have GPUs and no others, such as ecs.gn6i-c4g1.xlarge",
            ),
            (
                gpus(json!("1")),
                "ecs.gn6i-c4g1.xlarge,2-4Gi",
                "annotation k8s.aliyun.com/eci-use-specs: the containers ask for 1 GPUs, and sizes have none; name machine types \
                 that have GPUs and no others, such as ecs.gn6i-c4g1.xlarge",
            ),
            (
                gpus(json!("2")),
                "ecs.gn6i-c4g1.xlarge",
                "annotation k8s.aliyun.com/eci-use-specs: the containers ask for 2 GPUs, and ecs.gn6i-c4g1.xlarge has 1; name \
                 machine types that have enough",
            ),
            (
                gpus(json!("1")),
                "ecs.c6.large",
                "annotation k8s.aliyun.com/eci-use-specs: the containers ask for 1 GPUs, and ecs.c6.large has 0; name machine \
                 types that have enough",
            ),
            (
                gpus(json!("500m")),
                "ecs.gn6i-c4g1.xlarge",
                "spec.containers[1].resources.limits[nvidia.com/gpu]: \"500m\" is no whole number of GPUs",
            ),
            (
                with(json!({"cpu": "1"})),
                "ecs.gn6i-c4g1.xlarge",
                "annotation k8s.aliyun.com/eci-use-specs: ecs.gn6i-c4g1.xlarge has GPUs, and no container asks for one; give the \
                 container that uses them the limit nvidia.com/gpu, or name another type",
            ),
            (
                with(json!({"aliyun.com/gpu-mem": "3"})),
                "",
                "spec.containers[1].resources.limits[aliyun.com/gpu-mem]: container groups share no GPUs; ask for whole ones as \
                 nvidia.com/gpu",
            ),
            (
                with(json!({"amd.com/gpu": "1"})),
                "",
                "spec.containers[1].resources.limits[amd.com/gpu]: virtual nodes have cpu, memory, ephemeral-storage, \
                 nvidia.com/gpu; leave it out, or run the pod on a worker that has it",
            ),
            (
                with(json!({"hugepages-2Mi": "64Mi"})),
                "",
                "spec.containers[1].resources.limits[hugepages-2Mi]: virtual nodes have cpu, memory, ephemeral-storage, \
                 nvidia.com/gpu; leave it out, or run the pod on a worker that has it",
            ),
        ];
        for (spec, specs, expected) in cases {
            assert_eq!(refused(spec, specs).as_deref(), Some(expected));
        }
    }

    #[test]
    fn init_containers_and_sidecars_count_as_they_run() {
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"nvidia.com/gpu": "1"}}});
        let spec = json!({
            "containers": [asks(json!({"nvidia.com/gpu": "1"}))],
            "initContainers": [sidecar, asks(json!({"nvidia.com/gpu": "1"}))]
        });
        let spec: PodSpec = serde_json::from_value(spec).unwrap();
        assert_eq!(total(&spec), 2);
        assert_eq!(of(&spec.containers[0]), Some(1));
        assert_eq!(of(&Container::default()), None);
    }
}
