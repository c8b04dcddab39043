//! Lets go of pods that wait for a policy that is gone: nobody else would.

use std::collections::BTreeSet;
use std::time::Duration;

use elastic_core::names::POLICY_GATE;
use elastic_core::resource_policy::{ResourcePolicy, is_waiting, matched};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

use crate::pass::PassError;
use crate::pods;

/// Looks again and again; never ends by itself.
pub(super) async fn let_go(client: &Client, every: Duration) {
    loop {
        if let Err(error) = look(client).await {
            tracing::debug!(%error, cause = ?error.cause(), "pods that wait for nothing cannot be looked for, trying again");
        }
        tokio::time::sleep(every).await;
    }
}

async fn look(client: &Client) -> Result<(), PassError> {
    let waiting = ListParams::default().fields("spec.nodeName=,status.phase=Pending");
    let pods: Api<Pod> = Api::all(client.clone());
    let listed = pods.list(&waiting).await;
    let mut waiting = listed
        .map_err(PassError::about("list", "waiting pods"))?
        .items;
    waiting.retain(|pod| is_waiting(pod) && pod.metadata.deletion_timestamp.is_none());
    if waiting.is_empty() {
        return Ok(());
    }
    let policies: Api<ResourcePolicy> = Api::all(client.clone());
    // After the pods, so that a policy they were given to is seen.
    let listed = policies.list(&ListParams::default()).await;
    let known: BTreeSet<(Option<String>, String)> = listed
        .map_err(PassError::about("list", "resource policies"))?
        .into_iter()
        .map(|policy| (policy.namespace(), policy.name_any()))
        .collect();
    for pod in waiting {
        let name = matched(pod.annotations()).map(|found| found.name);
        let lives = name.is_some_and(|name| known.contains(&(pod.namespace(), name)));
        if !lives {
            let namespace = pod.namespace().unwrap_or_default();
            tracing::info!(
                namespace,
                pod = pod.name_any(),
                "the resource policy of a waiting pod is gone, it waits no longer"
            );
            let write = (pod.name_any(), open(&pod));
            pods::patch_all(client, &namespace, vec![write]).await?;
        }
    }
    Ok(())
}

/// The gate is taken away; the pod is placed as if there never was a policy.
fn open(pod: &Pod) -> Value {
    let gates = pod
        .spec
        .iter()
        .flat_map(|spec| spec.scheduling_gates.iter().flatten());
    let others: Vec<Value> = gates
        .filter(|gate| gate.name != POLICY_GATE)
        .map(|gate| json!(gate))
        .collect();
    json!({"metadata": {"uid": pod.uid(), "resourceVersion": pod.resource_version()}, "spec": {"schedulingGates": others}})
}
