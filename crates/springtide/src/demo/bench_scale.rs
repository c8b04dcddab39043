//! `cargo xtask bench virtual-node --upstream`: a Deployment scaled from 0 to 500 on virtual nodes, on the API server that a
//! kubeconfig leads to and, for the ratio, on our own in the same run. The controllers and the scheduler are the cluster's
//! own; only the virtual node and the cloud (groups on paper, no start delay) are the same on both.
//!
//! Nothing here is asserted: a slow machine prints slow numbers and exits zero.

use std::path::Path;
use std::process::{ExitCode, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use elastic_core::names::PROVIDER_TAINT_KEY;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::process::{Child, Command};

use crate::command::client_from;
use crate::demo::bench::{Measured, millis, print_table};
use crate::demo::bench_virtual_node::{NODE, start_cloud, start_virtual_node};
use crate::printer::{self, Step};

const REPLICAS: usize = 500;
const NAME: &str = "bench-scale";
const NAMESPACE: &str = "default";
/// What others took for the same on upstream's API server, controllers' limits raised. Published elsewhere, on another
/// machine and a newer server: no package registry has these programs.
const KWOK_MS: f64 = 3_600.0;
const GO_VIRTUAL_KUBELET_MS: f64 = 108_900.0;
const TIMEOUT: Duration = Duration::from_secs(300);
const LOOK: Duration = Duration::from_millis(100);
const ON_GIVEN: &str = "0 to 500 Running, the given API server (limit: kwok)";
const ON_OURS: &str = "0 to 500 Running, our API server (limit: the given one)";

/// Measures `repeat` times on both and prints a table on standard output.
pub async fn run(kubeconfig: &Path, repeat: u32) -> anyhow::Result<ExitCode> {
    let version = client_from(kubeconfig).await?.apiserver_version().await;
    let version = version.context("ask the given API server for its version")?;
    let given = rounds(&version.git_version, kubeconfig, repeat).await?;
    let folder = tempfile::tempdir().context("create a temporary directory")?;
    let mut cluster = start_cluster(folder.path()).await?;
    let ours = rounds("ours", &folder.path().join("cluster/kubeconfig"), repeat).await;
    stop_cluster(&mut cluster).await?;
    let ours = ours?;
    let beside = median(&given);
    let measured = |name, limit, value: f64| Measured {
        name,
        unit: "ms",
        limit,
        value,
    };
    let mut all: Vec<Measured> = given
        .iter()
        .map(|value| measured(ON_GIVEN, KWOK_MS, *value))
        .collect();
    all.extend(ours.iter().map(|value| measured(ON_OURS, beside, *value)));
    print_table(&all);
    printer::data(format!(
        "the given API server is {}; kwok's {KWOK_MS} ms and Go virtual-kubelet's {GO_VIRTUAL_KUBELET_MS} ms were published \
         elsewhere, on 1.34: neither can be had from package registries",
        version.git_version
    ));
    Ok(ExitCode::SUCCESS)
}

fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Milliseconds of each round on one cluster, which is left as it was found.
async fn rounds(title: &str, kubeconfig: &Path, repeat: u32) -> anyhow::Result<Vec<f64>> {
    let step = Step::start(format!("{title}: starting the virtual node"));
    let folder = tempfile::tempdir().context("create a temporary directory")?;
    let cloud = start_cloud(folder.path().to_owned()).await?;
    let client = client_from(kubeconfig).await?;
    let mut virtual_node = start_virtual_node(kubeconfig, &cloud.endpoint())?;
    let measured = async {
        wait_for_ready_node(&client).await?;
        let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
        let made = deployments
            .create(&PostParams::default(), &deployment()?)
            .await;
        made.context("create the deployment")?;
        let mut all = Vec::new();
        for round in 1..=repeat {
            step.update(format!("{title}: round {round} of {repeat}"));
            all.push(millis(up(&client).await?));
            scale(&client, 0).await?;
            wait_until_empty(&client).await?;
        }
        deployments
            .delete(NAME, &DeleteParams::background())
            .await?;
        anyhow::Ok(all)
    };
    let measured = measured.await;
    virtual_node.kill().await.context("end the virtual node")?;
    let nodes: Api<Node> = Api::all(client);
    let _ = nodes.delete(NODE, &DeleteParams::default()).await;
    step.done("");
    measured
}

/// This program's own cluster, with controllers and a scheduler, without the parts that are measured.
async fn start_cluster(folder: &Path) -> anyhow::Result<Child> {
    let step = Step::start("starting our own cluster");
    let program = std::env::current_exe().context("find this program")?;
    let child = Command::new(program)
        .args([
            "up",
            "--workers",
            "0",
            "--simulated",
            "--without-addon",
            "--data-dir",
        ])
        .arg(folder.join("cluster"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .context("start our own cluster")?;
    let (kubeconfig, until) = (folder.join("cluster/kubeconfig"), Instant::now() + TIMEOUT);
    loop {
        if kubeconfig.exists()
            && let Ok(client) = client_from(&kubeconfig).await
            && client.apiserver_version().await.is_ok()
        {
            step.done("");
            return Ok(child);
        }
        if Instant::now() > until {
            bail!("our own cluster did not start within {TIMEOUT:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn stop_cluster(child: &mut Child) -> anyhow::Result<()> {
    if let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) {
        let id = nix::unistd::Pid::from_raw(id);
        nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM)
            .context("end our own cluster")?;
    }
    child
        .wait()
        .await
        .context("wait for our own cluster's end")?;
    Ok(())
}

fn deployment() -> anyhow::Result<Deployment> {
    let deployment = json!({
        "metadata": {"name": NAME},
        "spec": {
            "replicas": 0,
            "selector": {"matchLabels": {"app": NAME}},
            "template": {"metadata": {"labels": {"app": NAME}}, "spec": {
                "terminationGracePeriodSeconds": 1,
                "nodeSelector": {"type": "virtual-kubelet"},
                "tolerations": [{"key": PROVIDER_TAINT_KEY, "operator": "Exists"}],
                "containers": [{"name": "main", "image": "bench:1", "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}}],
            }},
        },
    });
    serde_json::from_value(deployment).context("make a deployment")
}

async fn scale(client: &Client, replicas: usize) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), NAMESPACE);
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let scaled = deployments
        .patch_scale(NAME, &PatchParams::default(), &patch)
        .await;
    scaled
        .map(drop)
        .with_context(|| format!("scale to {replicas}"))
}

fn pods(client: &Client) -> Api<Pod> {
    Api::namespaced(client.clone(), NAMESPACE)
}

/// From sending the scale to the last pod seen Running by a watch.
async fn up(client: &Client) -> anyhow::Result<Duration> {
    let selector = watcher::Config::default().labels(&format!("app={NAME}"));
    let mut events = watcher(pods(client), selector).boxed();
    while !matches!(events.try_next().await?, Some(watcher::Event::InitDone)) {}
    let began = Instant::now();
    scale(client, REPLICAS).await?;
    let mut running = std::collections::BTreeSet::new();
    let deadline = tokio::time::sleep(TIMEOUT);
    tokio::pin!(deadline);
    while running.len() < REPLICAS {
        let event = tokio::select! {
            () = &mut deadline => bail!("{} of {REPLICAS} pods are Running after {TIMEOUT:?}", running.len()),
            // A server may end a watch at any time; it goes on by itself.
            event = events.next() => event.context("the watch has ended")?,
        };
        if let Ok(watcher::Event::Apply(pod) | watcher::Event::InitApply(pod)) = event
            && pod
                .status
                .as_ref()
                .and_then(|status| status.phase.as_deref())
                == Some("Running")
        {
            running.insert(pod.name_any());
        }
    }
    Ok(began.elapsed())
}

async fn wait_until_empty(client: &Client) -> anyhow::Result<()> {
    let (until, ours) = (
        Instant::now() + TIMEOUT,
        ListParams::default().labels(&format!("app={NAME}")),
    );
    while !pods(client).list_metadata(&ours).await?.items.is_empty() {
        if Instant::now() > until {
            bail!("pods are left {TIMEOUT:?} after the scale to 0");
        }
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn wait_for_ready_node(client: &Client) -> anyhow::Result<()> {
    let (nodes, until): (Api<Node>, _) = (Api::all(client.clone()), Instant::now() + TIMEOUT);
    loop {
        let found = nodes.get_opt(NODE).await?;
        let conditions = found
            .and_then(|node| node.status?.conditions)
            .unwrap_or_default();
        if conditions
            .iter()
            .any(|one| one.type_ == "Ready" && one.status == "True")
        {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("node {NODE} is not ready after {TIMEOUT:?}");
        }
        tokio::time::sleep(LOOK).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_one() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert!(median(&[]).is_nan());
    }
}
