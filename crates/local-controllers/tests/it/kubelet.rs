//! A stand-in for the kubelets: a bound pod becomes Running and Ready at once, a deleted one goes a moment later, a
//! pod of a Job ends by itself, badly where it carries `outcome=fail`. Pods that carry `manual=1` are left alone.

use std::collections::HashSet;
use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, DeleteParams, Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// A deleted pod goes after this time.
const STOPPING: Duration = Duration::from_millis(150);
/// A pod of a Job runs for this long.
const WORK: Duration = Duration::from_millis(700);

pub async fn run(client: Client, shutdown: CancellationToken) {
    let stream =
        watcher(Api::<Pod>::all(client.clone()), watcher::Config::default()).default_backoff();
    let mut stream = pin!(stream.applied_objects());
    let (mut started, mut stopped) = (HashSet::new(), HashSet::new());
    let mut writes = JoinSet::new();
    let mut next_ip = 0_u32;
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = writes.join_next(), if !writes.is_empty() => continue,
            event = stream.next() => event,
        };
        let Some(Ok(pod)) = event else { continue };
        let is_manual = pod.labels().get("manual").is_some_and(|text| text == "1");
        let is_bound = pod
            .spec
            .as_ref()
            .is_some_and(|spec| spec.node_name.is_some());
        if is_manual || !is_bound {
            continue;
        }
        let (uid, name) = (pod.uid().unwrap(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace().unwrap());
        if pod.metadata.deletion_timestamp.is_some() {
            if stopped.insert(uid) {
                writes.spawn(async move {
                    tokio::time::sleep(STOPPING).await;
                    let _ = api
                        .delete(&name, &DeleteParams::default().grace_period(0))
                        .await;
                });
            }
        } else if started.insert(uid) {
            next_ip += 1;
            let is_of_job = pod
                .owner_references()
                .iter()
                .any(|owner| owner.kind == "Job");
            let is_failing = pod
                .labels()
                .get("outcome")
                .is_some_and(|text| text == "fail");
            let status = running(&format!("10.1.{}.{}", next_ip / 250, next_ip % 250 + 1));
            writes.spawn(async move {
                let _ = api
                    .patch_status(&name, &PatchParams::default(), &Patch::Strategic(status))
                    .await;
                if is_of_job {
                    tokio::time::sleep(WORK).await;
                    let status = Patch::Strategic(ended(i32::from(is_failing)));
                    let _ = api
                        .patch_status(&name, &PatchParams::default(), &status)
                        .await;
                }
            });
        }
    }
    writes.shutdown().await;
}

/// The status of a pod that runs and is ready.
pub fn running(ip: &str) -> serde_json::Value {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
        .unwrap()
        .to_string();
    json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "startTime": now,
        "conditions": [
            {"type": "Ready", "status": "True", "lastTransitionTime": now},
            {"type": "ContainersReady", "status": "True", "lastTransitionTime": now},
        ],
    }})
}

/// The status of a pod that has run to its end.
fn ended(exit_code: i32) -> serde_json::Value {
    let now = jiff::Timestamp::from_second(jiff::Timestamp::now().as_second())
        .unwrap()
        .to_string();
    let terminated = json!({"exitCode": exit_code, "finishedAt": now});
    json!({"status": {
        "phase": if exit_code == 0 { "Succeeded" } else { "Failed" },
        "conditions": [{"type": "Ready", "status": "False", "lastTransitionTime": now}],
        "containerStatuses": [{"name": "c", "image": "i", "imageID": "i", "ready": false, "restartCount": 0,
            "state": {"terminated": terminated}}],
    }})
}
