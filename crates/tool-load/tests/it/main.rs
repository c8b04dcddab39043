//! Runs whole plans against servers in this process.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tool_load::{LoadPlan, LoadReport, Stage, Target, run};

/// How the test's server behaves.
#[derive(Clone, Copy)]
struct Behaviour {
    delay: Duration,
    /// Every n-th request is answered with 503; 0 = none.
    fail_every: u64,
    /// Close each connection after its answer without announcing it.
    close_silently: bool,
}

const WELL: Behaviour = Behaviour {
    delay: Duration::ZERO,
    fail_every: 0,
    close_silently: false,
};

async fn serve(behaviour: Behaviour) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let served = Arc::new(AtomicU64::new(0));
    let counter = served.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let counter = counter.clone();
            let service = service_fn(move |_| {
                let number = counter.fetch_add(1, Ordering::SeqCst) + 1;
                async move {
                    tokio::time::sleep(behaviour.delay).await;
                    let failed =
                        behaviour.fail_every > 0 && number.is_multiple_of(behaviour.fail_every);
                    let mut response = Response::new(Full::new(Bytes::from_static(b"hello")));
                    if failed {
                        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    }
                    response
                        .headers_mut()
                        .insert("x-pod", format!("pod-{}", number % 2).parse().unwrap());
                    Ok::<_, Infallible>(response)
                }
            });
            tokio::spawn(async move {
                let connection = hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service);
                if behaviour.close_silently {
                    // Long enough for an answer, shorter than the users' pause.
                    let _ = tokio::time::timeout(Duration::from_millis(30), connection).await;
                } else {
                    let _ = connection.await;
                }
            });
        }
    });
    (port, served)
}

fn plan(port: u16, users: u32, millis: u64, think_millis: u64) -> LoadPlan {
    LoadPlan {
        target: Target::parse(&format!("http://127.0.0.1:{port}/a")).unwrap(),
        stages: vec![
            Stage {
                duration: Duration::from_millis(millis / 2),
                users,
            },
            Stage {
                duration: Duration::from_millis(millis / 2),
                users: users / 2,
            },
        ],
        think_time: Duration::from_millis(think_millis),
        request_timeout: Duration::from_secs(2),
        count_header: Some("x-pod".to_string()),
        seed: 7,
    }
}

async fn report(plan: LoadPlan) -> LoadReport {
    let run = run(plan, CancellationToken::new()).await.unwrap();
    run.report().await.unwrap()
}

#[tokio::test]
async fn every_request_the_server_saw_is_in_the_report() {
    let (port, served) = serve(WELL).await;
    let report = report(plan(port, 20, 1500, 20)).await;
    assert_eq!(report.requests, served.load(Ordering::SeqCst));
    assert_eq!(report.successes, report.requests);
    assert!(report.requests > 200, "{report:?}");
    assert_eq!(report.header_values.values().sum::<u64>(), report.requests);
    assert_eq!(report.users_peak, 20);
    let in_series: u64 = report.series.iter().map(|second| second.requests).sum();
    assert_eq!(in_series, report.requests);
}

#[tokio::test]
async fn failed_statuses_are_counted_by_code() {
    let (port, _) = serve(Behaviour {
        fail_every: 4,
        ..WELL
    })
    .await;
    let report = report(plan(port, 4, 600, 5)).await;
    let failed = report.failures["status 503"];
    assert_eq!(failed, report.requests / 4);
    assert!(report.success_rate < 0.8 && report.success_rate > 0.7);
}

#[tokio::test]
async fn connections_that_idle_servers_closed_are_not_failures() {
    let (port, _) = serve(Behaviour {
        close_silently: true,
        ..WELL
    })
    .await;
    let report = report(plan(port, 5, 1000, 60)).await;
    assert_eq!(report.failures.len(), 0, "{:?}", report.failures);
    assert!(report.requests > 20);
}

#[tokio::test]
async fn a_slow_server_shows_in_both_clocks_and_a_timeout_is_its_own_cause() {
    let (port, _) = serve(Behaviour {
        delay: Duration::from_millis(100),
        ..WELL
    })
    .await;
    let mut slow = plan(port, 3, 600, 1);
    slow.request_timeout = Duration::from_millis(30);
    let report = report(slow).await;
    assert_eq!(report.successes, 0);
    assert!(report.failures["timed out"] > 3, "{report:?}");
    assert!(report.response_time.p50 >= 30.0 && report.service_time.p50 >= 29.0);
}

#[tokio::test]
async fn nobody_listening_is_a_connection_failure_and_shutdown_ends_early() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let shutdown = CancellationToken::new();
    let mut endless = plan(port, 2, 600_000, 10);
    endless.stages.truncate(1);
    let mut run = run(endless, shutdown.clone()).await.unwrap();
    let first = tokio::time::timeout(Duration::from_secs(10), run.live.changed()).await;
    first.expect("a second goes by").unwrap();
    shutdown.cancel();
    let report = run.report().await.unwrap();
    assert_eq!(report.successes, 0);
    assert!(
        report
            .failures
            .contains_key("connection refused or unreachable"),
        "{report:?}"
    );
}
