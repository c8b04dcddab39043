//! `eci-max-pending-minute` on a clock that stands still: an image that is never pulled.

use std::time::Duration;

use local_cloud::backend::StartDelay;
use serde_json::json;

use super::world::{World, ZONES};

const MINUTE_MS: u64 = 60_000;

#[test]
fn a_group_that_stays_pending_for_too_long_ends_and_its_pod_says_so() {
    let delay = StartDelay {
        pull: Duration::from_secs(3_600),
        ..StartDelay::default()
    };
    let mut world = World::new(1, delay);
    let node = format!("virtual-kubelet-{}", ZONES[0]);
    for policy in ["Always", "Never"] {
        world.create_pod_with(&policy.to_lowercase(), &node, |pod| {
            pod["metadata"]["annotations"] = json!({"k8s.aliyun.com/eci-max-pending-minute": "10"});
            pod["spec"]["restartPolicy"] = json!(policy);
        });
    }
    world.advance(9 * MINUTE_MS);
    let phases = |world: &World| -> Vec<String> {
        let pods = world.api.all("pods");
        pods.iter()
            .map(|pod| format!("{} {}", pod["status"]["phase"], pod["status"]["reason"]))
            .collect()
    };
    assert_eq!(phases(&world), [r#""Pending" null"#, r#""Pending" null"#]);
    world.advance(2 * MINUTE_MS);
    assert_eq!(
        phases(&world),
        [r#""Pending" "ContainerInstanceFailed""#, r#""Failed" null"#]
    );
    let events = world.api.all("events");
    assert!(
        events
            .iter()
            .any(|event| event["reason"] == "ContainerInstanceFailed"),
        "{events:#?}"
    );
    for name in ["always", "never"] {
        world.delete_pod(name, false);
    }
    world.come_to_rest(3, 60).unwrap();
    assert!(world.cloud.groups().is_empty());
}
