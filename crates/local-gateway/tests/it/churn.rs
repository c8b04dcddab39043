//! The promise behind it all: no request is lost while pods come, drain and go under load.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use local_network::BackendState;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    backend::Backend,
    client::{Client, Running, get},
};

const CLIENTS: usize = 64;

#[derive(Default)]
struct Outcome {
    good: AtomicUsize,
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
                let error = match client.send(get("/")).await {
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
    eprintln!(
        "{} requests, {} retries, {} failures",
        report.requests, report.retries, report.failures
    );
    let error = outcome.first_error.lock().unwrap().take();
    (outcome.good.load(Ordering::Relaxed), error)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_pods_drain_before_the_table_knows() {
    let (good, error) = churn(Exit::DrainBeforeTheTableKnows, 25).await;
    assert_eq!(error, None, "after {good} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_pods_drain_after_the_table_knew() {
    let (good, error) = churn(Exit::DrainAfterwards, 25).await;
    assert_eq!(error, None, "after {good} requests");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_when_pods_die() {
    let (good, error) = churn(Exit::Kill, 25).await;
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
