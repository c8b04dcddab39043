//! The exporter against a log service on paper: numbers come, go stale, and failures are told.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cloud_api::client::{BoxError, BoxFuture, HyperTransport, Transport};
use cloud_api::log::client::{LogClient, LogClientConfig};
use cloud_api::{ClientSources, Credentials};
use elastic_metrics::log_exporter::config::{ExporterConfig, ExporterFile};
use elastic_metrics::log_exporter::run_log_exporter;
use http::{Request, Response};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Gives the same answer until it is given another.
struct Paper {
    answer: Mutex<(u16, String)>,
}

impl Transport for Paper {
    fn send(&self, _: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, BoxError>> {
        let (status, body) = self.answer.lock().unwrap().clone();
        Box::pin(async move { Ok(Response::builder().status(status).body(Bytes::from(body))?) })
    }
}

/// Gives each logstore's path its own answer.
struct Shelf {
    answers: Mutex<BTreeMap<&'static str, (u16, String)>>,
}

impl Shelf {
    fn set(&self, path: &'static str, answer: (u16, String)) {
        self.answers.lock().unwrap().insert(path, answer);
    }
}

impl Transport for Shelf {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, BoxError>> {
        let found = self
            .answers
            .lock()
            .unwrap()
            .get(request.uri().path())
            .cloned();
        let (status, body) = found.unwrap_or_else(|| panic!("{} is asked", request.uri()));
        Box::pin(async move { Ok(Response::builder().status(status).body(Bytes::from(body))?) })
    }
}

/// Asks for the page until it is as wanted.
async fn page(address: &str, what: &str, fits: impl Fn(&str) -> bool) -> String {
    let transport = HyperTransport::new(false, 1).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let request = Request::get(format!("http://{address}/metrics"))
            .body(Bytes::new())
            .unwrap();
        let answer = transport.send(request).await.unwrap();
        let page = String::from_utf8(answer.body().to_vec()).unwrap();
        if fits(&page) {
            return page;
        }
        assert!(Instant::now() < deadline, "not {what}: {page}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn answer(rows: serde_json::Value) -> (u16, String) {
    let body = json!({"meta": {"progress": "Complete"}, "data": rows});
    (200, body.to_string())
}

fn client(paper: Arc<dyn Transport>) -> LogClient {
    let mut config =
        LogClientConfig::new("http://127.0.0.1:1", "r", Credentials::new("id", "secret"));
    config.attempts = 1;
    LogClient::with_transport(config, ClientSources::system(), paper).unwrap()
}

fn configuration() -> ExporterConfig {
    let file = json!({"interval": "1s", "queries": [{
        "name": "active_devices", "project": "chat", "logstore": "devices", "query": "* | select room, count(1) as n group by room",
        "value": "n", "labelColumns": {"room": "room"}, "staleAfter": "60s",
    }]});
    serde_json::from_value::<ExporterFile>(file)
        .unwrap()
        .check()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_served_renewed_and_dropped_when_stale() {
    let paper = Arc::new(Paper {
        answer: Mutex::new(answer(json!([{"room": "a", "n": "2721"}]))),
    });
    let client = client(paper.clone());
    let config = configuration();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // The test's own clock decides what is stale; the machine's only how often is asked.
    let second = Arc::new(AtomicI64::new(1_000));
    let clock = second.clone();
    let now = Arc::new(move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap());
    let stop = CancellationToken::new();
    let running = tokio::spawn(run_log_exporter(
        client,
        config,
        listener,
        now,
        stop.clone(),
    ));

    page(&address, "served", |page| {
        page.contains("active_devices{room=\"a\"} 2721\n")
    })
    .await;
    *paper.answer.lock().unwrap() = answer(json!([{"room": "b", "n": "5"}]));
    let renewed = page(&address, "renewed", |page| {
        page.contains("active_devices{room=\"b\"} 5\n")
    })
    .await;
    assert!(!renewed.contains("room=\"a\""), "{renewed}");

    let refusal =
        json!({"errorCode": "LogStoreNotExist", "errorMessage": "logstore devices does not exist"});
    *paper.answer.lock().unwrap() = (404, refusal.to_string());
    let failing = page(&address, "failing", |page| {
        page.contains("reason=\"LogStoreNotExist\"")
    })
    .await;
    assert!(
        failing.contains("active_devices{room=\"b\"} 5\n"),
        "{failing}"
    );
    assert!(
        failing.contains("springtide_log_query_fresh{query=\"active_devices\"} 1\n"),
        "{failing}"
    );
    second.store(1_061, Ordering::Relaxed);
    let stale = page(&address, "stale", |page| {
        !page.contains("active_devices{room")
    })
    .await;
    assert!(
        stale.contains("springtide_log_query_fresh{query=\"active_devices\"} 0\n"),
        "{stale}"
    );
    assert!(
        stale.contains(
            "springtide_log_query_last_success_timestamp_seconds{query=\"active_devices\"} 1000\n"
        ),
        "{stale}"
    );
    stop.cancel();
    running.await.unwrap();
}

/// Three queries of one file: rows, a count over time, and a logstore that is not there.
fn several() -> ExporterConfig {
    let file = json!({"interval": "1s", "queries": [
        {"name": "active_devices", "project": "chat", "logstore": "devices", "query": "* | select count(1) as n", "staleAfter": "30s"},
        {"name": "logs_seen", "project": "chat", "logstore": "orders", "query": "paid", "kind": "histograms", "staleAfter": "90s"},
        {"name": "failures", "project": "chat", "logstore": "gone", "query": "* | select count(1) as n"},
    ]});
    let file = serde_json::from_value::<ExporterFile>(file).unwrap();
    file.check().unwrap()
}

const DEVICES: &str = "/logstores/devices/logs";
const ORDERS: &str = "/logstores/orders";
const GONE: &str = "/logstores/gone/logs";

fn refusal(code: &str) -> (u16, String) {
    let body = json!({"errorCode": code, "errorMessage": "no"});
    (404, body.to_string())
}

fn shelf() -> Arc<Shelf> {
    let part = |count| json!({"from": 1, "to": 2, "count": count, "progress": "Complete"});
    let answers = [
        (DEVICES, answer(json!([{"n": "2721"}]))),
        (ORDERS, (200, json!([part(2), part(5)]).to_string())),
        (GONE, refusal("LogStoreNotExist")),
    ];
    Arc::new(Shelf {
        answers: Mutex::new(BTreeMap::from(answers)),
    })
}

fn has(page: &str, lines: &[&str]) -> bool {
    lines.iter().all(|line| page.contains(&format!("{line}\n")))
}

/// One of the exporter's own facts about a query.
fn fresh(query: &str, value: u8) -> String {
    format!("springtide_log_query_fresh{{query=\"{query}\"}} {value}")
}

fn failed(page: &str, query: &str, reason: &str) -> bool {
    let line =
        format!("springtide_log_query_errors_total{{query=\"{query}\",reason=\"{reason}\"}}");
    page.contains(&line)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_query_of_a_file_has_its_own_numbers_freshness_and_errors() {
    let shelf = shelf();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let second = Arc::new(AtomicI64::new(1_000));
    let clock = second.clone();
    let now = Arc::new(move || Timestamp::from_second(clock.load(Ordering::Relaxed)).unwrap());
    let stop = CancellationToken::new();
    let (log_service, file) = (client(shelf.clone()), several());
    let serving = run_log_exporter(log_service, file, listener, now, stop.clone());
    let running = tokio::spawn(serving);
    let first = page(&address, "served", |page| {
        has(page, &["active_devices 2721", "logs_seen 7"])
            && failed(page, "failures", "LogStoreNotExist")
    })
    .await;
    for (query, value) in [("active_devices", 1), ("logs_seen", 1), ("failures", 0)] {
        assert!(has(&first, &[&fresh(query, value)]), "{query}: {first}");
    }
    let untroubled = "errors_total{query=\"active_devices\"";
    assert!(!first.contains(untroubled), "{first}");
    // Both stop answering; each is dropped when it is too old by its own measure, and each counts its own failures.
    shelf.set(DEVICES, refusal("Unauthorized"));
    shelf.set(ORDERS, refusal("ProjectNotExist"));
    page(&address, "failing", |page| {
        failed(page, "active_devices", "Unauthorized")
            && failed(page, "logs_seen", "ProjectNotExist")
    })
    .await;
    second.store(1_031, Ordering::Relaxed);
    let stale = fresh("active_devices", 0);
    let older = page(&address, "one is stale", |page| has(page, &[&stale])).await;
    assert!(!older.contains("\nactive_devices 2721"), "{older}");
    let living = ["logs_seen 7", &fresh("logs_seen", 1)];
    assert!(has(&older, &living), "{older}");
    second.store(1_091, Ordering::Relaxed);
    let stale = fresh("logs_seen", 0);
    let oldest = page(&address, "both are stale", |page| has(page, &[&stale])).await;
    assert!(!oldest.contains("\nlogs_seen 7"), "{oldest}");
    stop.cancel();
    running.await.unwrap();
}
