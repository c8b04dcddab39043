//! The log service's client against a transport on paper.

use bytes::Bytes;
use cloud_api::client::{BoxError, BoxFuture, Transport};
use cloud_api::log::client::{LogClientConfig, LogError, LogSignature};
use cloud_api::log::compression::CompressType;
use cloud_api::log::model::GetLogsRequest;
use cloud_api::log::signature::{LogRequest, V4Authorization, parse_v1};
use cloud_api::log::{Log, LogClient, LogGroup};
use cloud_api::{ClientSources, Credentials};
use http::{Request, Response};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[derive(Default)]
struct Paper {
    answers: Mutex<VecDeque<(u16, &'static str)>>,
    requests: Mutex<Vec<Request<Bytes>>>,
}

impl Transport for Paper {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, BoxError>> {
        self.requests.lock().unwrap().push(request);
        let answer = self.answers.lock().unwrap().pop_front();
        Box::pin(async move {
            let (status, body) = answer.ok_or("the line is cut")?;
            Ok(Response::builder().status(status).body(Bytes::from(body))?)
        })
    }
}

fn client(
    endpoint: &str,
    signature: LogSignature,
    answers: &[(u16, &'static str)],
) -> (LogClient, Arc<Paper>) {
    let paper = Arc::new(Paper::default());
    paper.answers.lock().unwrap().extend(answers);
    let mut config =
        LogClientConfig::new(endpoint, "cn-hangzhou", Credentials::new("id", "secret"));
    config.signature = signature;
    config.backoff_start = Duration::ZERO;
    let client = LogClient::with_transport(config, ClientSources::system(), paper.clone()).unwrap();
    (client, paper)
}

fn headers(request: &Request<Bytes>) -> Vec<(String, String)> {
    let headers = request.headers().iter();
    headers
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned()))
        .collect()
}

fn header(request: &Request<Bytes>, name: &str) -> String {
    request.headers()[name].to_str().unwrap().to_owned()
}

const ANSWER: &str = r#"{"meta":{"progress":"Complete","count":1},"data":[{"n":"3"}]}"#;

#[tokio::test]
async fn queries_are_signed_either_way_and_name_the_project_in_the_host() {
    for signature in [LogSignature::V1, LogSignature::V4] {
        let (client, paper) = client("http://127.0.0.1:9", signature, &[(200, ANSWER)]);
        let request = GetLogsRequest::new("* | select count(1) as n", 1, 2);
        let answer = client.get_logs("chat", "devices", &request).await.unwrap();
        assert_eq!(answer.data[0]["n"], "3");
        let requests = paper.requests.lock().unwrap();
        let sent = &requests[0];
        assert_eq!(
            sent.uri().to_string(),
            "http://127.0.0.1:9/logstores/devices/logs"
        );
        assert_eq!(header(sent, "host"), "chat.127.0.0.1");
        let headers = headers(sent);
        let signed = LogRequest {
            method: "POST",
            path: sent.uri().path(),
            query: &[],
            headers: &headers,
        };
        let authorization = header(sent, "authorization");
        match signature {
            LogSignature::V1 => {
                let (_, given) = parse_v1(&authorization).unwrap();
                assert_eq!(signed.verify_v1("secret", given), Ok(()));
            }
            LogSignature::V4 => {
                let given = V4Authorization::parse(&authorization).unwrap();
                assert_eq!(signed.verify_v4("secret", &given), Ok(()));
            }
        }
    }
}

#[tokio::test]
async fn a_named_endpoint_gets_the_project_in_front() {
    let (client, paper) = client(
        "cn-hangzhou.log.aliyuncs.com",
        LogSignature::V4,
        &[(200, "[]")],
    );
    client
        .get_histograms("chat", "devices", "a b", 1, 2)
        .await
        .unwrap();
    let requests = paper.requests.lock().unwrap();
    assert_eq!(
        requests[0].uri().to_string(),
        "https://chat.cn-hangzhou.log.aliyuncs.com/logstores/devices?type=histogram&from=1&to=2&query=a%20b"
    );
}

#[tokio::test]
async fn logs_travel_as_one_lz4_block() {
    let (client, paper) = client("http://127.0.0.1:9", LogSignature::V4, &[(200, "")]);
    let group = LogGroup {
        logs: vec![Log {
            time: 5,
            time_ns: 0,
            contents: vec![("k".to_owned(), "v".repeat(200))],
        }],
        ..LogGroup::default()
    };
    client.put_logs("chat", "devices", &group).await.unwrap();
    let requests = paper.requests.lock().unwrap();
    let size: usize = header(&requests[0], "x-log-bodyrawsize").parse().unwrap();
    assert!(requests[0].body().len() < size);
    let raw = CompressType::Lz4
        .decompress(requests[0].body(), size)
        .unwrap();
    assert_eq!(LogGroup::decode(&raw).unwrap(), group);
}

#[tokio::test]
async fn what_may_pass_is_repeated_and_what_cannot_succeed_is_not() {
    let busy = (503, r#"{"errorCode":"ServerBusy","errorMessage":"later"}"#);
    let (first, paper) = client(
        "http://127.0.0.1:9",
        LogSignature::V4,
        &[busy, (200, ANSWER)],
    );
    let request = GetLogsRequest::new("*", 1, 2);
    first.get_logs("p", "l", &request).await.unwrap();
    assert_eq!(paper.requests.lock().unwrap().len(), 2);

    let refused = (
        404,
        r#"{"errorCode":"LogStoreNotExist","errorMessage":"logstore l does not exist"}"#,
    );
    let (second, paper) = client("http://127.0.0.1:9", LogSignature::V4, &[refused]);
    let error = second.get_logs("p", "l", &request).await.unwrap_err();
    assert_eq!(error.code(), "LogStoreNotExist");
    assert!(error.to_string().contains("GetLogs was refused"), "{error}");
    assert_eq!(paper.requests.lock().unwrap().len(), 1);

    let (third, paper) = client("http://127.0.0.1:9", LogSignature::V4, &[]);
    let error = third.get_logs("p", "l", &request).await.unwrap_err();
    assert!(matches!(error, LogError::Transport { .. }), "{error}");
    assert_eq!(paper.requests.lock().unwrap().len(), 3);
}
