//! The recorded choices of pods to delete: the same pods on the table, the same ones gone.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use local_controllers::replica_set::plan::choose_victims;
use serde_json::Value;

use super::recorded::exchanges;

#[test]
fn recorded_victims_are_chosen() {
    let mut pods: Vec<Arc<Pod>> = Vec::new();
    let (mut agreeing, mut choices) = (0, 0);
    for exchange in exchanges("controllers/replicaset-victims") {
        let path = exchange["request"]["path"].as_str().unwrap_or_default();
        if exchange["request"]["method"] != "GET" || !path.contains("/pods") {
            continue;
        }
        let listed = read(&exchange["response"]["body"]);
        let note = exchange["note"].as_str().unwrap_or_default();
        if let Some(victim) = note.strip_prefix("victim: ") {
            choices += 1;
            let now = latest(&pods) + SignedDuration::from_secs(1);
            let chosen = choose_victims(pods.clone(), &pods, 1, now).remove(0);
            let node = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.node_name.clone());
            let gone = pods
                .iter()
                .find(|pod| {
                    !listed
                        .iter()
                        .any(|left| left.metadata.uid == pod.metadata.uid)
                })
                .unwrap();
            // Of several pods alike in everything upstream's sort may take any.
            let is_alike = victim.starts_with('a') && node(gone) == node(&chosen);
            if chosen.metadata.name == gone.metadata.name || is_alike {
                agreeing += 1;
            } else {
                println!(
                    "{note}: recorded {:?}, chosen {:?}",
                    gone.metadata.name, chosen.metadata.name
                );
            }
        }
        pods = listed;
    }
    println!("recorded victims: {agreeing} of {choices} agree");
    assert_eq!(agreeing, choices);
}

fn read(list: &Value) -> Vec<Arc<Pod>> {
    let items = list["items"].as_array().unwrap();
    items
        .iter()
        .map(|pod| Arc::new(serde_json::from_value(pod.clone()).unwrap()))
        .collect()
}

/// The last thing that happened to any of the pods.
fn latest(pods: &[Arc<Pod>]) -> Timestamp {
    let ready = pods.iter().flat_map(|pod| {
        pod.status
            .iter()
            .flat_map(|status| status.conditions.iter().flatten())
    });
    let ready =
        ready.filter_map(|condition| condition.last_transition_time.as_ref().map(|time| time.0));
    let created = pods
        .iter()
        .filter_map(|pod| pod.metadata.creation_timestamp.as_ref().map(|time| time.0));
    ready.chain(created).max().unwrap()
}
