//! In which order vSwitches are tried for one pod. Pure; what is remembered about zones is a hint that ages.

use std::collections::HashMap;

use elastic_core::eci_annotations::{InstanceOptions, ScheduleStrategy};
use elastic_core::names::ZONE_LABEL;
use k8s_openapi::api::core::v1::Pod;
use tokio::time::Instant;

use crate::config::VSwitch;

/// Until when a vSwitch is tried last.
pub(crate) type Resting = HashMap<String, Instant>;

/// The vSwitches for `pod`, best first: the ones of the node's zone, then the others in configured order, and those
/// that lately had nothing last. A pod that names vSwitches or a zone gets only these; one that wants them in order gets
/// them in the order of the list.
pub(crate) fn order(
    pod: &Pod,
    options: &InstanceOptions,
    node_zone: &str,
    all: &[VSwitch],
    resting: &Resting,
    now: Instant,
) -> Vec<VSwitch> {
    let mut candidates: Vec<VSwitch> = if options.v_switches.is_empty() {
        all.to_vec()
    } else {
        named(&options.v_switches, all)
    };
    let selected = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.node_selector.as_ref()?.get(ZONE_LABEL));
    if let Some(zone) = selected {
        candidates.retain(|candidate| candidate.zone == *zone || candidate.zone.is_empty());
    }
    if options.strategy == ScheduleStrategy::Ordered {
        return candidates;
    }
    let rests = |candidate: &VSwitch| resting.get(&candidate.id).is_some_and(|until| *until > now);
    // Stable, so the configured order stays within each class.
    candidates.sort_by_key(|candidate| (rests(candidate), candidate.zone != node_zone));
    candidates
}

/// vSwitches a pod names itself may be unknown to the node; their zone is then found out by the cloud.
fn named(ids: &[String], all: &[VSwitch]) -> Vec<VSwitch> {
    ids.iter()
        .map(|id| {
            let known = all.iter().find(|candidate| candidate.id == *id);
            known.cloned().unwrap_or_else(|| VSwitch {
                id: id.clone(),
                zone: String::new(),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    fn switches() -> Vec<VSwitch> {
        let switch = |id: &str, zone: &str| VSwitch {
            id: id.into(),
            zone: zone.into(),
        };
        vec![
            switch("vsw-a1", "a"),
            switch("vsw-a2", "a"),
            switch("vsw-b", "b"),
            switch("vsw-c", "c"),
        ]
    }

    fn ids(pod: serde_json::Value, zone: &str, resting: &Resting, now: Instant) -> Vec<String> {
        let pod: Pod = serde_json::from_value(pod).unwrap();
        let annotations = pod.metadata.annotations.clone().unwrap_or_default();
        let options = InstanceOptions::read(&annotations).unwrap();
        order(&pod, &options, zone, &switches(), resting, now)
            .into_iter()
            .map(|switch| switch.id)
            .collect()
    }

    #[test]
    fn the_nodes_own_zone_comes_first_then_the_configured_order() {
        let now = Instant::now();
        assert_eq!(
            ids(json!({}), "b", &Resting::new(), now),
            ["vsw-b", "vsw-a1", "vsw-a2", "vsw-c"]
        );
    }

    #[test]
    fn a_zone_that_had_nothing_is_tried_last_until_its_rest_is_over() {
        let now = Instant::now();
        let resting = Resting::from([("vsw-b".to_owned(), now + Duration::from_secs(5))]);
        assert_eq!(
            ids(json!({}), "b", &resting, now),
            ["vsw-a1", "vsw-a2", "vsw-c", "vsw-b"]
        );
        assert_eq!(
            ids(json!({}), "b", &resting, now + Duration::from_secs(6))[0],
            "vsw-b"
        );
    }

    #[test]
    fn a_pod_that_names_its_place_gets_no_other() {
        let now = Instant::now();
        let by_annotation =
            json!({"metadata": {"annotations": {"k8s.aliyun.com/eci-vswitch": "vsw-c, vsw-x"}}});
        assert_eq!(
            ids(by_annotation, "a", &Resting::new(), now),
            ["vsw-c", "vsw-x"]
        );
        let by_zone = json!({"spec": {"containers": [], "nodeSelector": {"topology.kubernetes.io/zone": "c"}}});
        assert_eq!(ids(by_zone, "c", &Resting::new(), now), ["vsw-c"]);
    }

    #[test]
    fn an_ordered_pod_goes_strictly_by_the_list() {
        let now = Instant::now();
        let resting = Resting::from([("vsw-a1".to_owned(), now + Duration::from_secs(5))]);
        let ordered = |switches: &str| {
            json!({"metadata": {"annotations": {
                "k8s.aliyun.com/eci-schedule-strategy": "VSwitchOrdered", "k8s.aliyun.com/eci-vswitch": switches}}})
        };
        assert_eq!(
            ids(ordered(""), "b", &resting, now),
            ["vsw-a1", "vsw-a2", "vsw-b", "vsw-c"]
        );
        assert_eq!(
            ids(ordered("vsw-c,vsw-a1"), "b", &resting, now),
            ["vsw-c", "vsw-a1"]
        );
    }
}
