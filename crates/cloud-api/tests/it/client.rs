//! The client against a transport on paper.

use bytes::Bytes;
use cloud_api::client::{BoxError, BoxFuture, Transport};
use cloud_api::encoding::parse_form;
use cloud_api::model::create::{CreateContainerGroupRequest, EnvironmentVarSpec};
use cloud_api::model::describe::DescribeContainerGroupsRequest;
use cloud_api::model::{Action, ContainerSpec};
use cloud_api::signature::{v1, v3};
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig, EciError, SignatureVersion};
use http::{Request, Response};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Answers from a list, remembers what it was asked.
struct Paper {
    answers: Mutex<VecDeque<Result<(u16, String), BoxError>>>,
    requests: Mutex<Vec<Request<Bytes>>>,
}

impl Paper {
    fn new(answers: Vec<Result<(u16, String), BoxError>>) -> Arc<Self> {
        Arc::new(Self {
            answers: Mutex::new(answers.into()),
            requests: Mutex::default(),
        })
    }
}

impl Transport for Paper {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, BoxError>> {
        self.requests.lock().unwrap().push(request);
        let answer = self
            .answers
            .lock()
            .unwrap()
            .pop_front()
            .expect("one call too many");
        Box::pin(async move {
            let (status, body) = answer?;
            Ok(Response::builder().status(status).body(Bytes::from(body))?)
        })
    }
}

fn client(paper: &Arc<Paper>, signature: SignatureVersion) -> EciClient {
    let mut config = EciConfig::new(
        "http://127.0.0.1:8080",
        "cn-hangzhou",
        Credentials::new("id", "secret"),
    );
    config.signature = signature;
    let counter = AtomicU64::new(0);
    let sources = ClientSources {
        now: Arc::new(|| "2024-01-02T03:04:05Z".parse().unwrap()),
        nonce: Arc::new(move || format!("nonce-{}", counter.fetch_add(1, Ordering::Relaxed))),
        jitter: Arc::new(|| 0.5),
    };
    EciClient::with_transport(config, sources, paper.clone()).unwrap()
}

fn refusal(status: u16, code: &str) -> Result<(u16, String), BoxError> {
    Ok((
        status,
        format!(r#"{{"Code":"{code}","Message":"m","RequestId":"R","HostId":"h"}}"#),
    ))
}

fn created() -> Result<(u16, String), BoxError> {
    Ok((
        200,
        r#"{"RequestId":"R","ContainerGroupId":"eci-1","Extra":null}"#.to_owned(),
    ))
}

fn create(token: Option<&str>) -> CreateContainerGroupRequest {
    CreateContainerGroupRequest {
        container_group_name: "g".to_owned(),
        client_token: token.map(str::to_owned),
        ..Default::default()
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_with_a_token_is_repeated_with_a_new_nonce() {
    let paper = Paper::new(vec![
        Err("connection reset".into()),
        refusal(503, "ServiceUnavailable"),
        created(),
    ]);
    let answer = client(&paper, SignatureVersion::V3)
        .call(&create(Some("t")))
        .await
        .unwrap();
    assert_eq!(answer.container_group_id, "eci-1");
    let requests = paper.requests.lock().unwrap();
    let nonces: Vec<_> = requests
        .iter()
        .map(|request| &request.headers()["x-acs-signature-nonce"])
        .collect();
    assert_eq!(nonces, ["nonce-0", "nonce-1", "nonce-2"]);
    assert!(
        requests
            .iter()
            .all(|request| request.uri() == requests[0].uri())
    );
}

#[tokio::test(start_paused = true)]
async fn a_create_without_a_token_is_repeated_only_when_it_was_throttled() {
    let paper = Paper::new(vec![
        refusal(400, "Throttling.User"),
        Err("connection reset".into()),
    ]);
    let error = client(&paper, SignatureVersion::V3)
        .call(&create(None))
        .await
        .unwrap_err();
    assert!(
        matches!(
            error,
            EciError::Transport {
                action: "CreateContainerGroup",
                ..
            }
        ),
        "{error}"
    );
    assert!(error.is_outcome_unknown());
    assert_eq!(paper.requests.lock().unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_comes_back_at_once_and_typed() {
    let paper = Paper::new(vec![refusal(403, "OperationDenied.NoStock")]);
    let error = client(&paper, SignatureVersion::V3)
        .call(&create(Some("t")))
        .await
        .unwrap_err();
    assert!(error.is_out_of_stock());
    assert_eq!(
        (error.code(), error.request_id()),
        ("OperationDenied.NoStock", "R")
    );
}

#[tokio::test(start_paused = true)]
async fn attempts_are_bounded() {
    let paper = Paper::new((0..4).map(|_| refusal(500, "InternalError")).collect());
    let error = client(&paper, SignatureVersion::V3)
        .call(&create(Some("t")))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "InternalError");
    assert_eq!(paper.requests.lock().unwrap().len(), 4);
}

fn pairs(text: &str) -> Vec<(String, String)> {
    parse_form(text).unwrap()
}

#[tokio::test]
async fn version_3_requests_verify_with_short_and_long_parameters() {
    for length in [10, 100_000] {
        let paper = Paper::new(vec![created()]);
        let mut request = create(None);
        request.container.push(ContainerSpec {
            name: "main".to_owned(),
            environment_var: vec![EnvironmentVarSpec {
                key: "K".to_owned(),
                value: Some("中 +*~".repeat(length / 5)),
                field_ref: None,
            }],
            ..Default::default()
        });
        client(&paper, SignatureVersion::V3)
            .call(&request)
            .await
            .unwrap();
        let sent = paper.requests.lock().unwrap().pop().unwrap();
        let header = |name: &str| sent.headers()[name].to_str().unwrap().to_owned();
        let authorization = v3::Authorization::parse(&header("authorization")).unwrap();
        let headers: Vec<_> = authorization
            .signed_headers
            .iter()
            .map(|name| (name.clone(), header(name)))
            .collect();
        let query = pairs(sent.uri().query().unwrap_or_default());
        assert_eq!(
            query.is_empty(),
            length > 1_000,
            "long parameters travel in the body"
        );
        let signed = v3::SignedRequest {
            method: "POST",
            path: "/",
            query: &query,
            headers: &headers,
            payload_hash: &v3::payload_hash(sent.body()),
        };
        assert_eq!(signed.verify("secret", &authorization.signature), Ok(()));
        let body = pairs(std::str::from_utf8(sent.body()).unwrap());
        assert!(
            query
                .iter()
                .chain(&body)
                .any(|pair| *pair == ("RegionId".to_owned(), "cn-hangzhou".to_owned()))
        );
    }
}

#[tokio::test]
async fn version_1_requests_verify_and_carry_the_action() {
    let paper = Paper::new(vec![created()]);
    client(&paper, SignatureVersion::V1)
        .call(&create(None))
        .await
        .unwrap();
    let sent = paper.requests.lock().unwrap().pop().unwrap();
    let query = pairs(sent.uri().query().unwrap());
    assert_eq!(v1::verify("POST", &query, "secret"), Ok(()));
    assert!(query.contains(&(
        "Action".to_owned(),
        CreateContainerGroupRequest::NAME.to_owned()
    )));
}

#[tokio::test]
async fn lists_are_read_to_their_last_page() {
    let page = |id: &str, next: &str| {
        let body = format!(
            r#"{{"RequestId":"R","ContainerGroups":[{{"ContainerGroupId":"{id}","Status":"Running"}}],"NextToken":{next}}}"#
        );
        Ok((200, body))
    };
    let paper = Paper::new(vec![page("a", "\"p2\""), page("b", "\"\"")]);
    let groups = client(&paper, SignatureVersion::V3)
        .all_container_groups(DescribeContainerGroupsRequest::default())
        .await
        .unwrap();
    let ids: Vec<_> = groups
        .iter()
        .map(|group| group.container_group_id.as_str())
        .collect();
    assert_eq!(ids, ["a", "b"]);
    let second = &paper.requests.lock().unwrap()[1];
    assert!(second.uri().query().unwrap().contains("NextToken=p2"));
}

#[tokio::test]
async fn null_stands_for_a_member_that_is_left_out() {
    let body = r#"{"RequestId":"R","ContainerGroups":[{"ContainerGroupId":"a","ZoneId":null,"Tags":null}]}"#;
    let paper = Paper::new(vec![Ok((200, body.to_owned()))]);
    let request = DescribeContainerGroupsRequest::default();
    let answer = client(&paper, SignatureVersion::V3)
        .call(&request)
        .await
        .unwrap();
    assert_eq!(answer.container_groups[0].zone_id, "");
    let written = serde_json::to_string(&answer.container_groups[0]).unwrap();
    assert!(
        !written.contains("null") && written.contains("\"Tags\":[]"),
        "{written}"
    );
}
