//! Signatures, clocks, nonces and the envelope, by hand-made requests.

use crate::support::{KEY, REGION, SECRET, TestCloud, start};
use cloud_api::encoding::{canonical_query, encode_pairs};
use cloud_api::signature::{v1, v3};
use cloud_api::time;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

pub type Pairs = Vec<(String, String)>;

pub fn pairs<const N: usize>(list: [(&str, &str); N]) -> Pairs {
    list.map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
}

/// Sends a raw request; answers with status and body.
pub async fn send(test: &TestCloud, head: &str, body: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(test.cloud.address()).await.unwrap();
    let message = format!(
        "{head}content-length: {}\r\nconnection: close\r\n\r\n{body}",
        body.len()
    );
    stream.write_all(message.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}

/// A signed describe call, after whose signing something may be changed.
pub async fn v3_call(
    test: &TestCloud,
    headers: &Pairs,
    secret: &str,
    query: &Pairs,
    sent_query: &Pairs,
) -> (u16, Value) {
    v3_call_at(test, "/", headers, secret, query, sent_query).await
}

async fn v3_call_at(
    test: &TestCloud,
    path: &str,
    headers: &Pairs,
    secret: &str,
    query: &Pairs,
    sent_query: &Pairs,
) -> (u16, Value) {
    let payload_hash = v3::payload_hash(b"");
    let mut headers = headers.clone();
    headers.push(("host".to_owned(), test.cloud.address().to_string()));
    headers.push(("x-acs-content-sha256".to_owned(), payload_hash.clone()));
    let signed = v3::SignedRequest {
        method: "GET",
        path,
        query,
        headers: &headers,
        payload_hash: &payload_hash,
    };
    let authorization = signed.authorization(KEY, secret);
    let mut head = format!(
        "GET {path}?{} HTTP/1.1\r\nauthorization: {authorization}\r\n",
        canonical_query(sent_query)
    );
    for (name, value) in &headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    send(test, &head, "").await
}

pub fn describe_headers(nonce: &str, date: Timestamp) -> Pairs {
    pairs([
        ("x-acs-action", "DescribeContainerGroups"),
        ("x-acs-version", "2018-08-08"),
        ("x-acs-signature-nonce", nonce),
        ("x-acs-date", &time::format(date)),
        ("user-agent", "test (Linux; x86_64)"),
    ])
}

#[tokio::test]
async fn a_right_version_3_signature_is_let_in_once() {
    let test = start().await;
    let (headers, query) = (
        describe_headers("n1", Timestamp::now()),
        pairs([("RegionId", REGION)]),
    );
    let (status, body) = v3_call(&test, &headers, SECRET, &query, &query).await;
    assert_eq!((status, &body["TotalCount"]), (200, &Value::from(0)));
    let request_id = body["RequestId"].as_str().unwrap();
    assert!(request_id.len() == 36 && request_id == request_id.to_uppercase());
    let (status, body) = v3_call(&test, &headers, SECRET, &query, &query).await;
    assert_eq!(
        (status, &body["Code"]),
        (400, &Value::from("SignatureNonceUsed"))
    );
}

#[tokio::test]
async fn wrong_signatures_clocks_and_keys_are_refused_with_the_documented_codes() {
    let test = start().await;
    let now = Timestamp::now();
    let query = pairs([("RegionId", REGION)]);
    let (status, body) = v3_call(&test, &describe_headers("a", now), "wrong", &query, &query).await;
    assert_eq!(
        (status, &body["Code"]),
        (400, &Value::from("SignatureDoesNotMatch"))
    );
    let message = body["Message"].as_str().unwrap();
    assert!(
        message.contains("server string to sign is:ACS3-HMAC-SHA256\n"),
        "{message}"
    );
    let tampered = pairs([("RegionId", REGION), ("Limit", "1")]);
    let (status, body) = v3_call(
        &test,
        &describe_headers("b", now),
        SECRET,
        &query,
        &tampered,
    )
    .await;
    assert_eq!(
        (status, &body["Code"]),
        (400, &Value::from("SignatureDoesNotMatch"))
    );
    for minutes in [-16, 16] {
        let headers = describe_headers("c", now + SignedDuration::from_mins(minutes));
        let (status, body) = v3_call(&test, &headers, SECRET, &query, &query).await;
        assert_eq!(
            (status, &body["Code"]),
            (400, &Value::from("InvalidTimeStamp.Expired"))
        );
    }
    let headers = describe_headers("d", now + SignedDuration::from_mins(14));
    assert_eq!(
        v3_call(&test, &headers, SECRET, &query, &query).await.0,
        200
    );
    let (status, body) = send(
        &test,
        "GET /?Action=DescribeRegions&AccessKeyId=x HTTP/1.1\r\nhost: h\r\n",
        "",
    )
    .await;
    assert_eq!(
        (status, &body["Code"]),
        (404, &Value::from("InvalidAccessKeyId.NotFound"))
    );
    let (status, body) = send(
        &test,
        "GET /?Action=DescribeRegions HTTP/1.1\r\nhost: h\r\n",
        "",
    )
    .await;
    assert_eq!(
        (status, &body["Code"]),
        (400, &Value::from("MissingParameter"))
    );
    assert!(
        body["Message"]
            .as_str()
            .unwrap()
            .contains("\"AccessKeyId\"")
    );
}

async fn v1_call(test: &TestCloud, action: &str, version: &str, in_body: bool) -> (u16, Value) {
    let mut parameters = pairs([
        ("Action", action),
        ("Version", version),
        ("Format", "JSON"),
        ("RegionId", REGION),
        ("AccessKeyId", KEY),
        ("SignatureMethod", "HMAC-SHA1"),
        ("SignatureType", ""),
        ("SignatureVersion", "1.0"),
        ("SignatureNonce", &format!("{action}{version}{in_body}")),
        ("Timestamp", &time::format(Timestamp::now())),
    ]);
    let method = if in_body { "POST" } else { "GET" };
    let signature = v1::sign(SECRET, &v1::string_to_sign(method, &parameters));
    parameters.push(("Signature".to_owned(), signature));
    let form = encode_pairs(
        parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    );
    if in_body {
        let head =
            "POST / HTTP/1.1\r\nhost: h\r\ncontent-type: application/x-www-form-urlencoded\r\n";
        send(test, head, &form).await
    } else {
        send(test, &format!("GET /?{form} HTTP/1.1\r\nhost: h\r\n"), "").await
    }
}

#[tokio::test]
async fn version_1_works_in_the_query_and_in_a_form_body() {
    let test = start().await;
    for in_body in [false, true] {
        let (status, body) = v1_call(&test, "DescribeContainerGroups", "2018-08-08", in_body).await;
        assert_eq!(status, 200, "{body}");
    }
}

#[tokio::test]
async fn unknown_actions_and_versions_are_refused_in_the_envelope() {
    let test = start().await;
    let (status, body) = v1_call(&test, "MakeCoffee", "2018-08-08", false).await;
    assert_eq!(
        (status, &body["Code"]),
        (404, &Value::from("InvalidAction.NotFound"))
    );
    for member in ["RequestId", "HostId", "Message", "Recommend"] {
        assert!(body[member].is_string(), "{member} in {body}");
    }
    let (status, body) = v1_call(&test, "DescribeRegions", "1999-01-01", false).await;
    assert_eq!(
        (status, &body["Code"]),
        (400, &Value::from("InvalidVersion"))
    );
}

#[tokio::test]
async fn the_ledger_and_groups_pages_want_a_signature_or_the_local_token() {
    let test = start().await;
    let id = test.create(&crate::support::request("seen")).await;
    for (path, member) in [
        ("/springtide/ledger", "entries"),
        ("/springtide/groups", "groups"),
    ] {
        let with = |line: &str| format!("GET {path} HTTP/1.1\r\nhost: h\r\n{line}");
        let (status, body) = send(&test, &with("authorization: Bearer local\r\n"), "").await;
        assert_eq!((status, body[member].is_array()), (200, true), "{body}");
        assert_eq!(
            send(&test, &with("authorization: Bearer guess\r\n"), "")
                .await
                .0,
            403
        );
        assert_eq!(send(&test, &with(""), "").await.0, 400);
        let headers = describe_headers(path, Timestamp::now());
        let (status, body) =
            v3_call_at(&test, path, &headers, SECRET, &Pairs::new(), &Pairs::new()).await;
        assert_eq!(status, 200, "{body}");
        if path == "/springtide/groups" {
            assert_eq!(body["groups"][0]["groupId"], Value::from(id.as_str()));
        }
    }
}

#[tokio::test]
async fn an_answer_to_nowhere_is_an_error_not_a_hang() {
    let test = start().await;
    let (status, body) = send(&test, "GET /nowhere HTTP/1.1\r\nhost: h\r\n", "").await;
    assert_eq!(
        (status, &body["Code"]),
        (404, &Value::from("InvalidAction.NotFound"))
    );
}
