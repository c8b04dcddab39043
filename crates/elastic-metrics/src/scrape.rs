//! Asks every node once per interval, and keeps the labels of nodes and pods at hand.

use std::collections::HashMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

use crate::MetricsConfig;
use crate::samples::{Board, Labels, PodKey};

/// Nodes asked at the same time.
const CALLS: usize = 16;
/// Longest wait for one node.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The node list is read anew after so many rounds, or when a node does not answer.
const ROUNDS_PER_LIST: u32 = 5;

pub(crate) async fn collect(
    client: Client,
    board: Arc<Board>,
    config: MetricsConfig,
    shutdown: CancellationToken,
) {
    tokio::join!(
        follow_pods(client.clone(), board.clone(), shutdown.clone()),
        ask_nodes(client, board, config.interval, shutdown)
    );
}

async fn ask_nodes(
    client: Client,
    board: Arc<Board>,
    interval: Duration,
    shutdown: CancellationToken,
) {
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut nodes: Vec<String> = Vec::new();
    let mut round = 0u32;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if round.is_multiple_of(ROUNDS_PER_LIST) || nodes.is_empty() {
            match list_nodes(&client).await {
                Ok(labels) => {
                    nodes = labels.keys().cloned().collect();
                    board.keep_nodes(labels);
                }
                Err(error) => {
                    tracing::warn!(%error, "nodes could not be listed, asking the ones known")
                }
            }
        }
        round = round.wrapping_add(1);
        let asked: Vec<_> = nodes
            .iter()
            .map(|node| ask(client.clone(), board.clone(), node.clone()))
            .collect();
        let answers: Vec<bool> = futures::stream::iter(asked)
            .buffer_unordered(CALLS)
            .collect()
            .await;
        if answers.contains(&false) {
            round = 0;
        }
    }
}

async fn list_nodes(client: &Client) -> Result<HashMap<String, Labels>, kube::Error> {
    let api: Api<Node> = Api::all(client.clone());
    let list = api.list_metadata(&Default::default()).await?;
    Ok(list
        .items
        .into_iter()
        .map(|node| (node.name_any(), node.labels().clone()))
        .collect())
}

/// Returns whether the node answered.
async fn ask(client: Client, board: Arc<Board>, node: String) -> bool {
    let request =
        http::Request::get(format!("/api/v1/nodes/{node}/proxy/metrics/resource")).body(Vec::new());
    let Ok(request) = request else { return false };
    match tokio::time::timeout(TIMEOUT, client.request_text(request)).await {
        Ok(Ok(text)) => {
            board.take(&node, &text, Timestamp::now());
            true
        }
        Ok(Err(error)) => {
            tracing::debug!(node, %error, "node did not give its metrics");
            false
        }
        Err(_) => {
            tracing::debug!(node, timeout = ?TIMEOUT, "node did not give its metrics in time");
            false
        }
    }
}

async fn follow_pods(client: Client, board: Arc<Board>, shutdown: CancellationToken) {
    let api: Api<PartialObjectMeta<Pod>> = Api::all(client);
    let mut stream = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut listed: HashMap<PodKey, Labels> = HashMap::new();
    loop {
        let event = tokio::select! {
            () = shutdown.cancelled() => return,
            event = stream.next() => match event {
                Some(event) => event,
                None => return,
            },
        };
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(pod)) => drop(listed.insert(key(&pod), pod.labels().clone())),
            Ok(Event::InitDone) => board.keep_pods(std::mem::take(&mut listed)),
            Ok(Event::Apply(pod)) => board.put_pod(key(&pod), pod.labels().clone()),
            Ok(Event::Delete(pod)) => board.remove_pod(&key(&pod)),
            Err(error) => tracing::warn!(%error, "watch of pods broke off, it is taken up again"),
        }
    }
}

fn key(pod: &PartialObjectMeta<Pod>) -> PodKey {
    (pod.namespace().unwrap_or_default(), pod.name_any())
}
