//! The log service through its own client: what is written is found, counted, kept and given away by right.

use crate::support::{KEY, REGION, SECRET, TestCloud, open, paper, quick, start};
use cloud_api::client::{HyperTransport, Transport};
use cloud_api::log::client::{LogClientConfig, LogSignature};
use cloud_api::log::model::{GetLogsRequest, Logstore};
use cloud_api::log::{Log, LogClient, LogError, LogGroup};
use cloud_api::{ClientSources, Credentials};
use local_cloud::LocalCloud;
use local_cloud::backend::StartDelay;
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Output;
use tokio::net::TcpListener;
use tokio::process::Command;

const SCRIPT: &str = include_str!("sdk_log.py");

async fn serve(cloud: &LocalCloud) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    cloud.serve_logs(listener).await.unwrap()
}

fn client_of(address: SocketAddr, credentials: Credentials, signature: LogSignature) -> LogClient {
    let mut config = LogClientConfig::new(format!("http://{address}"), REGION, credentials);
    config.signature = signature;
    config.attempts = 1;
    LogClient::new(config, ClientSources::system()).unwrap()
}

fn client(address: SocketAddr) -> LogClient {
    client_of(address, Credentials::new(KEY, SECRET), LogSignature::V4)
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Logs of devices, one a second from `start` on.
fn devices(start: i64, names: &[&str]) -> LogGroup {
    let log = |(number, name): (i64, &&str)| Log {
        time: u32::try_from(start + number).unwrap(),
        time_ns: 0,
        contents: vec![
            ("device_id".to_owned(), (*name).to_owned()),
            ("latency_ms".to_owned(), (number * 10).to_string()),
        ],
    };
    LogGroup {
        logs: (0..).zip(names).map(log).collect(),
        topic: "chat".to_owned(),
        source: "10.0.0.1".to_owned(),
        tags: vec![("zone".to_owned(), "h".to_owned())],
    }
}

async fn prepare(client: &LogClient) {
    client
        .create_project("chat", "a chat service")
        .await
        .unwrap();
    client
        .create_logstore("chat", &Logstore::new("devices", 7))
        .await
        .unwrap();
}

async fn value(client: &LogClient, query: &str, range: (i64, i64)) -> Value {
    let request = GetLogsRequest::new(query, range.0, range.1);
    let answer = client.get_logs("chat", "devices", &request).await.unwrap();
    assert!(answer.is_complete());
    json!(answer.data)
}

async fn test() -> (TestCloud, LogClient, SocketAddr) {
    let test = start().await;
    let address = serve(&test.cloud).await;
    (test, client(address), address)
}

#[tokio::test(flavor = "multi_thread")]
async fn written_logs_are_found_by_search_sql_and_time() {
    let (_test, client, _) = test().await;
    prepare(&client).await;
    let start = now() - 600;
    let group = devices(start, &["d1", "d2", "d1", "d3"]);
    client.put_logs("chat", "devices", &group).await.unwrap();
    let all = (start, start + 4);
    let counted = value(
        &client,
        "* | select count(distinct device_id) as active_devices",
        all,
    )
    .await;
    assert_eq!(counted, json!([{"active_devices": "3"}]));
    let half_open = value(&client, "* | select count(1) as n", (start, start + 3)).await;
    assert_eq!(half_open, json!([{"n": "3"}]));
    let none = value(
        &client,
        "device_id: d9 | select count(distinct device_id) as n",
        all,
    )
    .await;
    assert_eq!(none, json!([{"n": "0"}]));
    let searched = value(&client, "device_id: d1 and latency_ms > 5", all).await;
    let expected = json!([{
        "__time__": (start + 2).to_string(), "__source__": "10.0.0.1", "__topic__": "chat", "__tag__:zone": "h",
        "device_id": "d1", "latency_ms": "20",
    }]);
    assert_eq!(searched, expected);

    let mut newest = GetLogsRequest::new("*", all.0, all.1);
    newest.reverse = true;
    newest.line = Some(2);
    newest.offset = Some(1);
    let answer = client.get_logs("chat", "devices", &newest).await.unwrap();
    let names: Vec<&Value> = answer.data.iter().map(|row| &row["device_id"]).collect();
    assert_eq!(names, ["d1", "d2"]);

    let histograms = client
        .get_histograms("chat", "devices", "not device_id: d3", start, start + 100)
        .await
        .unwrap();
    assert_eq!(histograms.iter().map(|one| one.count).sum::<i64>(), 3);
    assert_eq!(
        (histograms[0].from, histograms.last().unwrap().to),
        (start, start + 100)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_decides_about_columns() {
    let (_test, client, _) = test().await;
    prepare(&client).await;
    let start = now() - 60;
    client
        .put_logs("chat", "devices", &devices(start, &["d1", "d2"]))
        .await
        .unwrap();
    let index = json!({"line": {"token": [",", " "], "caseSensitive": false}, "keys": {"latency_ms": {"type": "long"}}});
    client
        .create_index("chat", "devices", &index)
        .await
        .unwrap();
    let again = client
        .create_index("chat", "devices", &index)
        .await
        .unwrap_err();
    assert_eq!(again.code(), "IndexAlreadyExist");
    let sum = value(
        &client,
        "* | select sum(latency_ms) as s",
        (start, start + 9),
    )
    .await;
    assert_eq!(sum, json!([{"s": "10"}]));
    let request = GetLogsRequest::new("* | select device_id", start, start + 9);
    let error = client
        .get_logs("chat", "devices", &request)
        .await
        .unwrap_err();
    assert!(
        error
            .to_string()
            .contains("Column 'device_id' cannot be resolved"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_have_the_documented_codes() {
    let (_test, client, _) = test().await;
    let request = GetLogsRequest::new("*", 1, 2);
    let code = |error: LogError| error.code().to_owned();
    assert_eq!(
        code(
            client
                .get_logs("chat", "devices", &request)
                .await
                .unwrap_err()
        ),
        "ProjectNotExist"
    );
    prepare(&client).await;
    assert_eq!(
        code(client.create_project("chat", "").await.unwrap_err()),
        "ProjectAlreadyExist"
    );
    assert_eq!(
        code(
            client
                .get_logs("chat", "other", &request)
                .await
                .unwrap_err()
        ),
        "LogStoreNotExist"
    );
    let twice = client
        .create_logstore("chat", &Logstore::new("devices", 7))
        .await;
    assert_eq!(code(twice.unwrap_err()), "LogStoreAlreadyExist");
    let ttl = client
        .create_logstore("chat", &Logstore::new("other", 0))
        .await
        .unwrap_err();
    assert!(ttl.to_string().contains("ttl must be"), "{ttl}");
    for query in [
        "(a",
        "* | delete from log",
        "* | select nothing(1)",
        "* | select count(1) from other",
    ] {
        let request = GetLogsRequest::new(query, 1, 2);
        let error = client
            .get_logs("chat", "devices", &request)
            .await
            .unwrap_err();
        assert_eq!(error.code(), "ParameterInvalid", "{query}: {error}");
    }
    let backwards = GetLogsRequest::new("*", 2, 1);
    assert_eq!(
        code(
            client
                .get_logs("chat", "devices", &backwards)
                .await
                .unwrap_err()
        ),
        "ParameterInvalid"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_comes_in_without_a_right_signature() {
    let (_test, client, address) = test().await;
    prepare(&client).await;
    let request = GetLogsRequest::new("*", 1, 2);
    let code = |error: LogError| error.code().to_owned();
    let wrong = client_of(address, Credentials::new(KEY, "wrong"), LogSignature::V1);
    assert_eq!(
        code(
            wrong
                .get_logs("chat", "devices", &request)
                .await
                .unwrap_err()
        ),
        "SignatureNotMatch"
    );
    let unknown = client_of(address, Credentials::new("nobody", "x"), LogSignature::V4);
    assert_eq!(
        code(
            unknown
                .get_logs("chat", "devices", &request)
                .await
                .unwrap_err()
        ),
        "Unauthorized"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_may_do_what_its_policy_says() {
    let (test, client, address) = test().await;
    prepare(&client).await;
    let policy = json!({"Version": "1", "Statement": [{"Effect": "Allow", "Action": ["log:PostLogStoreLogs"], "Resource": "acs:log:*:*:project/chat/logstore/devices"}]});
    control(
        &test.cloud,
        "POST",
        "users",
        &json!({"name": "writer", "policies": [policy]}),
    )
    .await;
    let key = control(&test.cloud, "POST", "users/writer/keys", &json!({})).await;
    let text = |name: &str| key[name].as_str().unwrap().to_owned();
    let own = Credentials::new(text("accessKeyId"), text("accessKeySecret"));
    let writer = client_of(address, own, LogSignature::V4);
    writer
        .put_logs("chat", "devices", &devices(now(), &["d1"]))
        .await
        .unwrap();
    let request = GetLogsRequest::new("*", 1, 2);
    let error = writer
        .get_logs("chat", "devices", &request)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "Unauthorized");
    assert!(error.to_string().contains("log:GetLogStoreLogs"), "{error}");
}

/// A call of the cloud's own control interface.
async fn control(cloud: &LocalCloud, method: &str, path: &str, body: &Value) -> Value {
    let request = http::Request::builder()
        .method(method)
        .uri(format!("{}/springtide/control/{path}", cloud.endpoint()))
        .header("authorization", "Bearer local")
        .header("content-type", "application/json")
        .body(bytes::Bytes::from(body.to_string()))
        .unwrap();
    let answer = HyperTransport::new(false, 1)
        .unwrap()
        .send(request)
        .await
        .unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
    serde_json::from_slice(answer.body()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_logs_survive_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let start = now() - 60;
    let first = open(quick(directory.path()), paper(StartDelay::default())).await;
    let before = client(serve(&first).await);
    prepare(&before).await;
    let index = json!({"keys": {"device_id": {"type": "text"}}});
    before
        .create_index("chat", "devices", &index)
        .await
        .unwrap();
    let writes = (0..20).map(|_| {
        let before = before.clone();
        async move {
            before
                .put_logs("chat", "devices", &devices(start, &["d1", "d2"]))
                .await
        }
    });
    for written in futures::future::join_all(writes).await {
        written.unwrap();
    }
    first.shutdown().await;
    drop(before);

    let second = open(quick(directory.path()), paper(StartDelay::default())).await;
    let after = client(serve(&second).await);
    let counted = value(
        &after,
        "* | select count(1) as n, count(distinct device_id) as d",
        (start, start + 9),
    )
    .await;
    assert_eq!(counted, json!([{"n": "40", "d": "2"}]));
    assert_eq!(after.get_logstore("chat", "devices").await.unwrap().ttl, 7);
    after.delete_logstore("chat", "devices").await.unwrap();
    after
        .create_logstore("chat", &Logstore::new("devices", 7))
        .await
        .unwrap();
    let counted = value(&after, "* | select count(1) as n", (start, start + 9)).await;
    assert_eq!(counted, json!([{"n": "0"}]));
    after.delete_project("chat").await.unwrap();
    second.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_makes_too_much_ends_and_the_next_is_answered() {
    let (_test, client, _) = test().await;
    prepare(&client).await;
    let endless = "* | with recursive t(n) as (select 1 from log union all select n + 1 from t) select max(length(hex(zeroblob(n * 100000)))) from t";
    let start = now() - 60;
    client
        .put_logs("chat", "devices", &devices(start, &["d1"]))
        .await
        .unwrap();
    let request = GetLogsRequest::new(endless, start, start + 9);
    let error = client
        .get_logs("chat", "devices", &request)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "ParameterInvalid", "{error}");
    let counted = value(&client, "* | select count(1) as n", (start, start + 9)).await;
    assert_eq!(counted, json!([{"n": "1"}]));
}

async fn run(program: &Path, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
    let output = Command::new(program)
        .args(arguments)
        .envs(environment.iter().copied())
        .output()
        .await;
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(
        output.status.success(),
        "{} {arguments:?}\n{}\n{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The package comes from its registry into a temporary directory; without `python3` or the registry the test fails.
#[tokio::test(flavor = "multi_thread")]
async fn the_vendor_s_python_log_sdk_works_unchanged() {
    let (_test, _client, address) = test().await;
    let directory = tempfile::tempdir().unwrap();
    let environment = directory.path().join("venv");
    let make = ["-m", "venv", environment.to_str().unwrap()];
    run(Path::new("python3"), &make, &[]).await;
    let python = environment.join("bin/python");
    let install = [
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "aliyun-log-python-sdk==0.9.52",
    ];
    run(&python, &install, &[]).await;
    let script = directory.path().join("sdk_log.py");
    std::fs::write(&script, SCRIPT).unwrap();
    // Any port, without touching the library: plain HTTP through a proxy, which is the service itself.
    let proxy = format!("http://{address}");
    let proxied = [("http_proxy", proxy.as_str()), ("no_proxy", "")];
    let arguments = [script.to_str().unwrap(), KEY, SECRET, REGION];
    let output = run(&python, &arguments, &proxied).await;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    for version in ["v1", "v4"] {
        assert!(
            output.contains(&format!("log SDK, signature {version}: ok")),
            "{output}"
        );
    }
}
