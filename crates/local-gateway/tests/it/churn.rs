//! The promise behind it all: no request is lost while pods come, drain and go under load.

use std::{
    collections::VecDeque,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use local_gateway::Dialer;
use local_network::{BackendState, ClusterNetwork};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backend,
    client::{Client, Running, get},
    gateway::{Cluster, listen_in},
};

const CLIENTS: usize = 64;
/// Pods replaced in each test.
const ROUNDS: usize = 15;

#[derive(Default)]
struct Outcome {
    good: AtomicUsize,
    slowest_millis: AtomicU64,
    first_error: std::sync::Mutex<Option<String>>,
}

/// Sends one request after the other until told to stop; every answer has to be a good one.
fn load(
    address: SocketAddr,
    outcome: &Arc<Outcome>,
    stop: &CancellationToken,
) -> Vec<JoinHandle<()>> {
    let client = |_| {
        let (outcome, stop) = (outcome.clone(), stop.clone());
        tokio::spawn(async move {
            let mut client = Client::connect(address).await.unwrap();
            while !stop.is_cancelled() {
                let started = Instant::now();
                let answer = client.send(get("/")).await;
                let millis = started.elapsed().as_millis() as u64;
                outcome.slowest_millis.fetch_max(millis, Ordering::Relaxed);
                let error = match answer {
                    Ok(answer) if answer.status() == 200 => {
                        outcome.good.fetch_add(1, Ordering::Relaxed);
                        continue;
                    }
                    Ok(answer) => format!("{}: {:?}", answer.status(), answer.body()),
                    Err(error) => error,
                };
                outcome.first_error.lock().unwrap().get_or_insert(error);
                return;
            }
        })
    };
    (0..CLIENTS).map(client).collect()
}

async fn wait_for_requests(outcome: &Outcome, more: usize) {
    let goal = outcome.good.load(Ordering::Relaxed) + more;
    let deadline = Instant::now() + Duration::from_secs(20);
    while outcome.good.load(Ordering::Relaxed) < goal
        && outcome.first_error.lock().unwrap().is_none()
    {
        assert!(
            Instant::now() < deadline,
            "stuck at {} requests",
            outcome.good.load(Ordering::Relaxed)
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn publish(running: &Running, pods: &VecDeque<Backend>) {
    running
        .balancer
        .update(&pods.iter().map(Backend::ready).collect::<Vec<_>>());
}

enum Exit {
    /// The endpoint is told to leave while the table still says it is ready.
    DrainBeforeTheTableKnows,
    /// The table says it is terminating first.
    DrainAfterwards,
    /// It dies without a word.
    Kill,
}

/// Replaces pods one by one under load; returns the requests answered and the first that was not.
async fn churn(exit: Exit, rounds: usize) -> (usize, Option<String>) {
    let mut pods = VecDeque::new();
    for _ in 0..4 {
        pods.push_back(Backend::start().await);
    }
    let running = Running::new(&[]).await;
    publish(&running, &pods);
    let (outcome, stop) = (Arc::<Outcome>::default(), CancellationToken::new());
    let clients = load(running.address, &outcome, &stop);
    for _ in 0..rounds {
        wait_for_requests(&outcome, 200).await;
        pods.push_back(Backend::start().await);
        publish(&running, &pods);
        wait_for_requests(&outcome, 50).await;
        let leaving = pods.pop_front().unwrap();
        match exit {
            Exit::DrainBeforeTheTableKnows => {
                leaving.drain().await;
                wait_for_requests(&outcome, 50).await;
            }
            Exit::DrainAfterwards => {
                let mut table: Vec<_> = pods.iter().map(Backend::ready).collect();
                table.push(local_network::Backend {
                    state: BackendState::Terminating,
                    ..leaving.ready()
                });
                running.balancer.update(&table);
                leaving.drain().await;
            }
            Exit::Kill => leaving.kill().await,
        }
        publish(&running, &pods);
    }
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    let report = running.balancer.report();
    let slowest = outcome.slowest_millis.load(Ordering::Relaxed);
    eprintln!(
        "{} requests, {} retries, slowest {slowest} ms",
        report.requests, report.retries
    );
    let error = outcome.first_error.lock().unwrap().take();
    (outcome.good.load(Ordering::Relaxed), error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_pods_drain_before_the_table_knows() {
    let (good, error) = churn(Exit::DrainBeforeTheTableKnows, ROUNDS).await;
    assert_eq!(error, None, "after {good} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_pods_drain_after_the_table_knew() {
    let (good, error) = churn(Exit::DrainAfterwards, ROUNDS).await;
    assert_eq!(error, None, "after {good} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_pods_die() {
    let (good, error) = churn(Exit::Kill, ROUNDS).await;
    assert_eq!(error, None, "after {good} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_the_only_pod_is_replaced() {
    let running = Running::new(&[]).await;
    let mut pod = Backend::start().await;
    running.balancer.update(&[pod.ready()]);
    let (outcome, stop) = (Arc::<Outcome>::default(), CancellationToken::new());
    let clients = load(running.address, &outcome, &stop);
    for _ in 0..5 {
        wait_for_requests(&outcome, 200).await;
        // Nothing is ready for a moment: requests wait.
        pod.drain().await;
        running.balancer.update(&[]);
        tokio::time::sleep(Duration::from_millis(50)).await;
        pod = Backend::start().await;
        running.balancer.update(&[pod.ready()]);
    }
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(outcome.first_error.lock().unwrap().take(), None);
}

/// A pod with its own namespace and address.
async fn start_pod(network: &ClusterNetwork, n: u8) -> (String, Backend) {
    let name = format!("churn-{n}");
    let pod = network
        .attach(&name, Ipv4Addr::new(10, 30, 7, n))
        .await
        .unwrap();
    (
        name,
        Backend::start_on(listen_in(&pod), Duration::from_millis(1)),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_pods_go_with_their_namespaces() {
    let cluster = Cluster::without_gateway().await;
    let network = cluster.network().clone();
    let mut pods = VecDeque::new();
    for n in 1..=3 {
        pods.push_back(start_pod(&network, n).await);
    }
    let table = |pods: &VecDeque<(String, Backend)>| {
        pods.iter().map(|(_, pod)| pod.ready()).collect::<Vec<_>>()
    };
    let running = Running::with_dialer(&table(&pods), Dialer::cluster(network.sockets())).await;
    let (outcome, stop) = (Arc::<Outcome>::default(), CancellationToken::new());
    let clients = load(running.address, &outcome, &stop);
    for n in 4..=15 {
        wait_for_requests(&outcome, 100).await;
        pods.push_back(start_pod(&network, n).await);
        running.balancer.update(&table(&pods));
        let (name, leaving) = pods.pop_front().unwrap();
        if n % 2 == 0 {
            // As a node does: the process ends, then its network goes, and the table may know later.
            leaving.drain().await;
        } else {
            running.balancer.update(&table(&pods));
            leaving.kill().await;
        }
        network.detach(&name).await.unwrap();
        running.balancer.update(&table(&pods));
    }
    stop.cancel();
    for client in clients {
        client.await.unwrap();
    }
    assert_eq!(
        outcome.first_error.lock().unwrap().take(),
        None,
        "{:?}",
        running.balancer.report()
    );
}
