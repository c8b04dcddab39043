//! Which field labels a kind can be selected by, and with which values.

use local_kinds::kind_of;
use serde_json::json;

#[test]
fn pods_are_found_by_node_and_phase() {
    let rules = kind_of("", "pods").unwrap().rules;
    let pod = json!({"spec": {"nodeName": "a"}, "status": {"phase": "Running"}});
    assert!(rules.selectable_fields().contains(&"spec.nodeName"));
    assert_eq!(rules.selectable_field(&pod, "spec.nodeName"), "a");
    assert_eq!(rules.selectable_field(&pod, "spec.hostNetwork"), "false");
    assert_eq!(rules.selectable_field(&pod, "status.podIPs"), "");
}
