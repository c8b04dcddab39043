//! Users, keys, sessions, call limits, and nonces beyond a restart.

use crate::control::control;
use crate::gateway::{describe_headers, pairs, v3_call};
use crate::support::{REGION, SECRET, TestCloud, open, paper, quick, request, start, start_with};
use cloud_api::client::CallLimits;
use cloud_api::model::describe::DescribeContainerGroupsRequest;
use cloud_api::model::manage::DeleteContainerGroupRequest;
use cloud_api::model::region::ListUsageRequest;
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig, SignatureVersion};
use jiff::Timestamp;
use local_cloud::backend::StartDelay;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// A policy that allows these actions.
fn allowing(actions: &[&str]) -> Value {
    json!({"Version": "1", "Statement": [{"Effect": "Allow", "Action": actions, "Resource": "*"}]})
}

async fn user(test: &TestCloud, policies: Value) -> Credentials {
    let made = control(
        test,
        "POST",
        "users",
        json!({"name": "bot", "policies": policies}),
    )
    .await;
    assert_eq!(made.0, 200, "{}", made.1);
    let (status, key) = control(test, "POST", "users/bot/keys", Value::Null).await;
    assert_eq!(status, 200, "{key}");
    credentials(&key)
}

fn credentials(key: &Value) -> Credentials {
    let text = |name: &str| key[name].as_str().map(str::to_owned);
    Credentials {
        access_key_id: text("accessKeyId").unwrap(),
        access_key_secret: text("accessKeySecret").unwrap(),
        security_token: text("securityToken"),
    }
}

fn client_as(test: &TestCloud, credentials: Credentials, signature: SignatureVersion) -> EciClient {
    let mut config = EciConfig::new(test.cloud.endpoint(), REGION, credentials).without_limits();
    config.signature = signature;
    config.attempts = 1;
    EciClient::new(config, ClientSources::system()).unwrap()
}

#[tokio::test]
async fn a_user_may_do_what_its_policies_allow_and_nothing_else() {
    let test = start().await;
    let key = user(
        &test,
        json!([allowing(&["eci:Describe*", "eci:ListUsage"])]),
    )
    .await;
    let bot = client_as(&test, key, SignatureVersion::V3);
    bot.call(&ListUsageRequest::default()).await.unwrap();
    let error = bot.call(&request("gg")).await.unwrap_err();
    assert_eq!(
        (error.code(), error.service().unwrap().http_status),
        ("Forbidden.RAM", 403)
    );
    assert!(
        error.is_permission() && error.to_string().contains("eci:CreateContainerGroup"),
        "{error}"
    );
    assert!(test.cloud.group_ids().is_empty());
    let wider = json!({"name": "bot", "policies": [allowing(&["eci:CreateContainerGroup"])]});
    assert_eq!(control(&test, "POST", "users", wider).await.0, 200);
    let id = bot.call(&request("gg")).await.unwrap().container_group_id;
    let delete = DeleteContainerGroupRequest {
        container_group_id: id,
        ..Default::default()
    };
    assert_eq!(bot.call(&delete).await.unwrap_err().code(), "Forbidden.RAM");
    let seen = bot
        .call(&DescribeContainerGroupsRequest::default())
        .await
        .unwrap();
    assert_eq!(
        (seen.container_groups.len(), seen.total_count),
        (0, 0),
        "the list of who may see nothing is empty"
    );
}

#[tokio::test]
async fn keys_are_switched_off_removed_and_bounded() {
    let test = start().await;
    let key = user(&test, json!([allowing(&["*"])])).await;
    let id = key.access_key_id.clone();
    let path = format!("users/bot/keys/{id}");
    let bot = client_as(&test, key, SignatureVersion::V1);
    bot.call(&ListUsageRequest::default()).await.unwrap();
    assert_eq!(
        control(&test, "PUT", &path, json!({"active": false}))
            .await
            .0,
        200
    );
    let error = bot.call(&ListUsageRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), "InvalidAccessKeyId.Inactive");
    assert_eq!(
        control(&test, "POST", "users/bot/keys", Value::Null)
            .await
            .0,
        200
    );
    assert_eq!(
        control(&test, "POST", "users/bot/keys", Value::Null)
            .await
            .0,
        400
    );
    assert_eq!(control(&test, "DELETE", &path, Value::Null).await.0, 200);
    let error = bot.call(&ListUsageRequest::default()).await.unwrap_err();
    assert_eq!(error.code(), "InvalidAccessKeyId.NotFound");
    let (_, listed) = control(&test, "GET", "users", Value::Null).await;
    assert_eq!(
        listed["users"][0]["accessKeys"].as_array().unwrap().len(),
        1
    );
    assert!(!listed.to_string().contains("ecret"), "{listed}");
}

#[tokio::test]
async fn a_session_is_good_with_its_token_only() {
    let test = start().await;
    user(&test, json!([allowing(&["eci:*"])])).await;
    let (status, key) = control(&test, "POST", "users/bot/sessions", json!({"seconds": 900})).await;
    assert_eq!(status, 200, "{key}");
    let key = credentials(&key);
    for signature in [SignatureVersion::V3, SignatureVersion::V1] {
        let bot = client_as(&test, key.clone(), signature);
        bot.call(&ListUsageRequest::default()).await.unwrap();
        let code = async |token: Option<&str>| {
            let mut key = key.clone();
            key.security_token = token.map(str::to_owned);
            let bot = client_as(&test, key, signature);
            let error = bot.call(&ListUsageRequest::default()).await.unwrap_err();
            error.code().to_owned()
        };
        assert_eq!(code(None).await, "MissingSecurityToken");
        assert_eq!(
            code(Some("guess")).await,
            "InvalidSecurityToken.MismatchWithAccessKey"
        );
    }
    let (status, _) = control(&test, "POST", "users/bot/sessions", json!({"seconds": 1})).await;
    assert_eq!(status, 400);
}

#[tokio::test]
async fn policies_that_cannot_be_meant_are_refused_with_their_place() {
    let test = start().await;
    let condition = json!({"Version": "1", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*", "Condition": {}}]});
    let cases = [
        (
            json!({"name": "bot", "policies": [condition]}),
            "Statement[0].Condition",
        ),
        (json!({"name": "a b", "policies": []}), "name"),
        (
            json!({"name": "bot", "policies": [{"Version": "1", "Statement": [{"Effect": "Maybe"}]}]}),
            "Maybe",
        ),
    ];
    for (body, named) in cases {
        let (status, answer) = control(&test, "POST", "users", body).await;
        assert_eq!(status, 400);
        assert!(
            answer["Message"].as_str().unwrap().contains(named),
            "{answer}"
        );
    }
    let (_, listed) = control(&test, "GET", "users", Value::Null).await;
    assert_eq!(listed["users"], json!([]));
}

#[tokio::test]
async fn calls_beyond_the_limit_are_refused_and_told_when_to_come_again() {
    let limit = |config: &mut local_cloud::LocalCloudConfig| {
        config.call_limits = CallLimits {
            per_minute: BTreeMap::from([("ListUsage", 3)]),
            longest_wait: Duration::ZERO,
        };
    };
    let test = start_with(limit, StartDelay::default()).await;
    let bot = client_as(&test, crate::support::credentials(), SignatureVersion::V3);
    for _ in 0..3 {
        bot.call(&ListUsageRequest::default()).await.unwrap();
    }
    let error = bot.call(&ListUsageRequest::default()).await.unwrap_err();
    assert_eq!(
        (error.code(), error.service().unwrap().http_status),
        ("Throttling", 400)
    );
    let wait = error.service().unwrap().retry_after.unwrap();
    assert!(
        wait > Duration::ZERO && wait <= Duration::from_secs(20),
        "{wait:?}"
    );
    bot.call(&DescribeContainerGroupsRequest::default())
        .await
        .unwrap();
}

#[tokio::test]
async fn a_nonce_is_not_good_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = open(quick(directory.path()), paper(StartDelay::default())).await;
    let client = crate::support::client(&cloud.endpoint());
    let test = TestCloud::new(cloud, client);
    let headers = describe_headers("once", Timestamp::now());
    let query = pairs([("RegionId", REGION)]);
    assert_eq!(
        v3_call(&test, &headers, SECRET, &query, &query).await.0,
        200
    );
    // The host is signed, so the next process has to listen where this one did.
    let address = test.cloud.address();
    test.cloud.shutdown().await;
    let listener = tokio::net::TcpListener::bind(address).await.unwrap();
    let cloud = local_cloud::LocalCloud::start(
        quick(directory.path()),
        paper(StartDelay::default()),
        listener,
        local_cloud::CloudSources::system(),
    )
    .await
    .unwrap();
    let client = crate::support::client(&cloud.endpoint());
    let test = TestCloud::new(cloud, client);
    let (status, body) = v3_call(&test, &headers, SECRET, &query, &query).await;
    assert_eq!((status, &body["Code"]), (400, &json!("SignatureNonceUsed")));
}
