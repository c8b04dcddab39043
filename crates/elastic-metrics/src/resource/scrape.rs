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

use super::kubelets::{Kubelet, Kubelets};
use super::samples::{Board, Labels, PodKey};

/// Nodes asked at the same time.
const CALLS: usize = 16;
/// Longest wait for one node.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The node list is read anew after so many rounds, or when a node does not answer.
const ROUNDS_PER_LIST: u32 = 5;
/// Between lists of nodes whose labels alone are wanted.
const NODE_LABELS: Duration = Duration::from_secs(30);

/// What is asked how often, and where the answers go.
pub(crate) struct Collection {
    pub(crate) client: Client,
    pub(crate) board: Arc<Board>,
    pub(crate) kubelets: Kubelets,
    pub(crate) interval: Duration,
}

/// Fills the board from the kubelets until `shutdown`.
pub(crate) async fn collect(collection: Collection, shutdown: CancellationToken) {
    let (client, board) = (collection.client.clone(), collection.board.clone());
    tokio::join!(
        follow_pods(client, board, shutdown.clone()),
        ask_nodes(collection, shutdown)
    );
}

/// Keeps the labels alone, for a board that is filled from elsewhere.
pub(crate) async fn follow_labels(client: Client, board: Arc<Board>, shutdown: CancellationToken) {
    tokio::join!(
        follow_pods(client.clone(), board.clone(), shutdown.clone()),
        follow_node_labels(client, board, shutdown)
    );
}

async fn follow_node_labels(client: Client, board: Arc<Board>, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(NODE_LABELS);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let api: Api<Node> = Api::all(client);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match api.list_metadata(&Default::default()).await {
            Ok(list) => {
                let labels = list.items.iter();
                let labels = labels.map(|node| (node.name_any(), node.labels().clone()));
                board.keep_node_labels(labels.collect());
            }
            Err(error) => tracing::warn!(%error, "nodes could not be listed, their labels stay"),
        }
    }
}

async fn ask_nodes(collection: Collection, shutdown: CancellationToken) {
    let mut ticks = tokio::time::interval(collection.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut nodes: Vec<Kubelet> = Vec::new();
    let mut round = 0u32;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        if round.is_multiple_of(ROUNDS_PER_LIST) || nodes.is_empty() {
            match collection.kubelets.list(&collection.client).await {
                Ok(listed) => {
                    let labels = listed.iter();
                    let labels = labels.map(|node| (node.name.clone(), node.labels.clone()));
                    collection.board.keep_nodes(labels.collect());
                    nodes = listed;
                }
                Err(error) => {
                    tracing::warn!(%error, "nodes could not be listed, asking the ones known")
                }
            }
        }
        round = round.wrapping_add(1);
        let asked = nodes.iter().map(|node| ask(&collection, node));
        // Collected first: a stream of borrowing closures is not general enough to be sent.
        let asked: Vec<_> = asked.collect();
        let answers: Vec<bool> = futures::stream::iter(asked)
            .buffer_unordered(CALLS)
            .collect()
            .await;
        if answers.contains(&false) {
            round = 0;
        }
    }
}

/// Returns whether the node answered.
async fn ask(collection: &Collection, node: &Kubelet) -> bool {
    let asked = collection.kubelets.metrics(&collection.client, node);
    let answered = tokio::time::timeout(TIMEOUT, asked).await;
    let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {TIMEOUT:?}")));
    match answered {
        Ok(text) => {
            collection.board.take(&node.name, &text, Timestamp::now());
            true
        }
        Err(error) => {
            tracing::debug!(node = node.name, error, "node did not give its metrics");
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
