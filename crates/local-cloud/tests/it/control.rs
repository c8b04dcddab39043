//! The control API: closed without the secret, and everything it can do.

use crate::gateway::send;
use crate::support::{TestCloud, request, start, start_with};
use local_cloud::backend::StartDelay;
use serde_json::{Value, json};

/// A call with the right secret.
pub async fn control(test: &TestCloud, method: &str, path: &str, body: Value) -> (u16, Value) {
    let head = format!(
        "{method} /springtide/control/{path} HTTP/1.1\r\nhost: h\r\nauthorization: Bearer local\r\n"
    );
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    send(test, &head, &body).await
}

#[tokio::test]
async fn nobody_comes_in_without_the_secret() {
    let test = start().await;
    let head = |line: &str| format!("GET /springtide/control/faults HTTP/1.1\r\nhost: h\r\n{line}");
    for line in [
        "",
        "authorization: Bearer guess\r\n",
        "authorization: Bearer \r\n",
        "authorization: Basic local\r\n",
    ] {
        assert_eq!(send(&test, &head(line), "").await.0, 403, "{line:?}");
    }
    let closed = start_with(|config| config.local_token = None, StartDelay::default()).await;
    assert_eq!(control(&closed, "GET", "faults", Value::Null).await.0, 403);
}

#[tokio::test]
async fn a_fault_is_ordered_listed_hits_and_is_cleared() {
    let test = start().await;
    let order = json!({"kind": "no-stock", "zone": "cn-hangzhou-h", "times": 5});
    let (status, made) = control(&test, "POST", "faults", order).await;
    assert_eq!(status, 200, "{made}");
    let id = test.create(&request("elsewhere")).await;
    assert_eq!(test.describe(&id).await.unwrap().zone_id, "cn-hangzhou-i");
    let (_, listed) = control(&test, "GET", "faults", Value::Null).await;
    let fault = &listed["faults"][0];
    assert_eq!(
        (&fault["id"], &fault["hits"], &fault["left"]),
        (&made["id"], &json!(1), &json!(4))
    );
    assert_eq!(
        (&fault["kind"], &fault["active"]),
        (&json!("no-stock"), &json!(true))
    );
    let path = format!("faults/{}", made["id"].as_str().unwrap());
    assert_eq!(control(&test, "DELETE", &path, Value::Null).await.0, 200);
    assert_eq!(control(&test, "DELETE", &path, Value::Null).await.0, 400);
    let id = test.create(&request("here")).await;
    assert_eq!(test.describe(&id).await.unwrap().zone_id, "cn-hangzhou-h");
}

#[tokio::test]
async fn bad_orders_are_refused_and_change_nothing() {
    let test = start().await;
    for body in [
        json!({"kind": "coffee"}),
        json!({"kind": "latency"}),
        json!({"kind": "latency", "delayMs": 0}),
        json!({"kind": "no-stock", "zone": "mars"}),
        json!({"kind": "down", "times": 0}),
        json!([]),
    ] {
        let (status, answer) = control(&test, "POST", "faults", body.clone()).await;
        assert_eq!(
            (status, &answer["Code"]),
            (400, &json!("InvalidParameter")),
            "{body} gave {answer}"
        );
    }
    let (_, listed) = control(&test, "GET", "faults", Value::Null).await;
    assert_eq!(listed["faults"], json!([]));
    assert_eq!(control(&test, "GET", "coffee", Value::Null).await.0, 404);
    assert_eq!(control(&test, "PATCH", "faults", Value::Null).await.0, 404);
}

#[tokio::test]
async fn file_systems_are_made_used_and_removed() {
    let test = start().await;
    let (status, made) = control(
        &test,
        "POST",
        "file-systems",
        json!({"description": "models"}),
    )
    .await;
    assert_eq!(status, 200, "{made}");
    let id = made["id"].as_str().unwrap().to_owned();
    let server = made["mountTargets"][0].as_str().unwrap();
    assert!(
        server.starts_with(&id) && server.ends_with(".cn-hangzhou.nas.aliyuncs.com"),
        "{server}"
    );
    let directory = test.cloud.nas_directory(server).unwrap();
    std::fs::write(directory.join("file"), "x").unwrap();
    let (_, second) = control(
        &test,
        "POST",
        &format!("file-systems/{id}/mount-targets"),
        Value::Null,
    )
    .await;
    let second = second["mountTarget"].as_str().unwrap();
    assert_eq!(test.cloud.nas_directory(second), Some(directory.clone()));
    let (_, listed) = control(&test, "GET", "file-systems", Value::Null).await;
    assert_eq!(listed["fileSystems"][0]["description"], json!("models"));
    assert_eq!(
        control(&test, "DELETE", &format!("file-systems/{id}"), Value::Null)
            .await
            .0,
        200
    );
    assert!(!directory.exists());
    assert_eq!(test.cloud.nas_directory(second), None);
}

#[tokio::test]
async fn a_public_address_can_be_made_first_and_given_to_a_group() {
    let test = start().await;
    let (_, eip) = control(&test, "POST", "eips", json!({"bandwidth": 10})).await;
    let id = eip["id"].as_str().unwrap().to_owned();
    let mut public = request("public");
    public.eip_instance_id = Some(id.clone());
    let group = test.create(&public).await;
    assert_eq!(
        test.describe(&group).await.unwrap().internet_ip.as_deref(),
        eip["address"].as_str()
    );
    let error = test.client.call(&public).await.unwrap_err();
    assert_eq!(error.code(), "IncorrectStatus");
    assert_eq!(
        control(&test, "DELETE", &format!("eips/{id}"), Value::Null)
            .await
            .0,
        400
    );
    let delete = cloud_api::model::manage::DeleteContainerGroupRequest {
        container_group_id: group.clone(),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    test.until_gone(&group).await;
    assert_eq!(
        control(&test, "DELETE", &format!("eips/{id}"), Value::Null)
            .await
            .0,
        200
    );
}

#[tokio::test]
async fn the_ledger_tells_what_everything_has_cost_and_what_goes_on_costing() {
    let test = start().await;
    let (status, empty) = control(&test, "GET", "ledger", Value::Null).await;
    assert_eq!(
        (status, &empty["total"], &empty["entries"]),
        (200, &json!(0), &json!([]))
    );
    let ended = test.create(&request("ended")).await;
    let id = test.create(&request("running")).await;
    for id in [&ended, &id] {
        test.until(id, cloud_api::model::GroupStatus::Running).await;
    }
    let delete = cloud_api::model::manage::DeleteContainerGroupRequest {
        container_group_id: ended.clone(),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    test.until_gone(&ended).await;
    let (_, page) = control(&test, "GET", "ledger", Value::Null).await;
    assert_eq!((&page["groups"], &page["running"]), (&json!(2), &json!(1)));
    assert_eq!(page["perSecond"], 122_520);
    let entries = page["entries"].as_array().unwrap();
    let of = |id: &str| entries.iter().find(|entry| entry["groupId"] == id).unwrap();
    assert!(of(&ended)["until"].is_string() && of(&id)["until"].is_null());
    let amount = |entry: &Value| entry["amount"].as_u64().unwrap();
    let sum: u64 = entries.iter().map(amount).sum();
    assert_eq!(page["total"], sum);
    for entry in entries {
        let seconds = entry["seconds"].as_u64().unwrap();
        assert_eq!(amount(entry), 122_520 * seconds);
    }
    let (status, _) = control(&test, "DELETE", "ledger", Value::Null).await;
    assert_eq!(status, 404);
}
