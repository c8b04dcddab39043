//! Which field labels a kind can be selected by, as the recorded API server accepts and refuses them.

use local_kinds::kind_of;
use serde_json::json;

use crate::golden::exchanges;
use crate::replay::Target;

/// Labels that the registry knows for every kind.
const GENERIC: [&str; 2] = ["metadata.name", "metadata.namespace"];

/// The labels of a query's field selector.
fn labels(path: &str) -> Vec<String> {
    let query = path.split_once('?').map_or("", |(_, query)| query);
    let selector = query
        .split('&')
        .find_map(|one| one.strip_prefix("fieldSelector="));
    let selector = selector
        .unwrap_or_default()
        .replace("%3D", "=")
        .replace("%2C", ",")
        .replace("%21", "!");
    selector
        .split(',')
        .filter_map(|one| one.split_once(['=', '!']))
        .map(|(label, _)| label.to_string())
        .filter(|label| !label.is_empty() && !GENERIC.contains(&label.as_str()))
        .collect()
}

#[test]
fn a_label_is_known_exactly_where_the_recorded_server_knows_it() {
    let mut checked = 0;
    for exchange in exchanges("list-watch/selectors") {
        let Some(target) = Target::parse(&exchange.path) else {
            continue;
        };
        let message = exchange.response["message"].as_str().unwrap_or_default();
        let refused = exchange.status == 400
            && (message.starts_with("field label")
                || message.contains("not a known field selector"));
        if !refused && exchange.status != 200 {
            continue;
        }
        for label in labels(&exchange.path) {
            let known = target
                .row
                .rules
                .selectable_fields()
                .contains(&label.as_str());
            assert_eq!(
                known, !refused,
                "{} of {}: {message}",
                label, target.row.kind
            );
            checked += 1;
        }
    }
    assert!(
        checked > 20,
        "only {checked} labels were found in the recording"
    );
}

#[test]
fn pods_are_found_by_node_and_phase() {
    let rules = kind_of("", "pods").unwrap().rules;
    let pod = json!({"spec": {"nodeName": "a"}, "status": {"phase": "Running"}});
    assert_eq!(rules.selectable_field(&pod, "spec.nodeName"), "a");
    assert_eq!(rules.selectable_field(&pod, "status.phase"), "Running");
    assert_eq!(rules.selectable_field(&pod, "spec.hostNetwork"), "false");
    assert_eq!(rules.selectable_field(&pod, "status.podIPs"), "");
}
