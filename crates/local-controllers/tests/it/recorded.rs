//! Replays what a real control plane was asked and did, and compares what controllers are responsible for.

use std::io::Read as _;
use std::time::Duration;

use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::kubelet::running;
use super::world::World;

/// A state that the recording shows must come within this time.
const PATIENCE: Duration = Duration::from_secs(8);
/// The same where the recorded controller itself waits, for a new try of a failed pod.
const BACKOFF_PATIENCE: Duration = Duration::from_secs(20);
/// Letters of hashes and generated suffixes.
const SAFE_LETTERS: &str = "bcdfghjklmnpqrstvwxz2456789";
/// Half a minute of grace is not waited for, its text is checked by the unit tests; and whether an owner is still
/// there while its dependents go is a matter of speed.
/// And the recorder once read a set's status between a change and the controller's look at it.
const SKIPPED: [(&str, u64); 3] = [
    ("delete/namespace-deletion", 12),
    ("delete/owner-gc", 11),
    ("controllers/statefulset", 9),
];

/// The exchanges of one recording.
pub fn exchanges(name: &str) -> Vec<Value> {
    let packed = include_bytes!("../data/recorded.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    let mut all: Value = serde_json::from_str(&text).unwrap();
    all[name].take().as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deployment_rolling() {
    replay("controllers/deployment-rolling", 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_slices() {
    replay("controllers/endpoints-slices", 14).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stateful_sets() {
    replay("controllers/statefulset", 16).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs() {
    replay("controllers/jobs", 26).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owner_gc() {
    replay("delete/owner-gc", 19).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespace_deletion() {
    replay("delete/namespace-deletion", 11).await;
}

/// Sends every request; a read must come to show what was recorded. The floor only rises.
async fn replay(name: &str, floor: usize) {
    let world = World::with_nodes().await;
    let mut exchanges = exchanges(name);
    if let Some(namespace) = exchanges.remove(0)["scenario"]["namespace"].as_str() {
        world.namespace(namespace).await;
        world
            .until(
                &format!("/api/v1/namespaces/{namespace}/serviceaccounts/default"),
                "account",
                |found| found["kind"] == "ServiceAccount",
            )
            .await;
    }
    let (mut agreeing, mut compared, mut uids) = (0, 0, Map::new());
    for exchange in &exchanges {
        let number = exchange["n"].as_u64().unwrap();
        prepare(&world, name, number).await;
        let is_read = exchange["request"]["method"] == "GET";
        if SKIPPED.contains(&(name, number))
            || exchange["request"]["path"]
                .as_str()
                .unwrap()
                .ends_with("/pods?labelSelector=app%3Dd")
        {
            continue;
        }
        let patience = match (is_read, name) {
            (false, _) => Duration::ZERO,
            (true, "controllers/jobs") => BACKOFF_PATIENCE,
            (true, _) => PATIENCE,
        };
        let deadline = Instant::now() + patience;
        let wanted = reduced(&exchange["response"]["body"]);
        compared += usize::from(is_read);
        loop {
            let (status, body) = send(&world, &exchange["request"], &uids).await;
            pair_uids(&exchange["response"]["body"], &body, &mut uids);
            let ours = reduced(&body);
            if !is_read || (exchange["response"]["status"] == status && ours == wanted) {
                agreeing += usize::from(is_read);
                break;
            }
            if Instant::now() > deadline {
                println!(
                    "{name} {number} ({}):\n  recorded {wanted}\n  ours     {status} {ours}",
                    exchange["note"]
                );
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    println!("{name}: {agreeing} of {compared} reads agree");
    assert!(
        agreeing >= floor,
        "{agreeing} reads agree, the floor is {floor}"
    );
}

/// What the recorder did besides the requests in the file.
async fn prepare(world: &World, name: &str, number: u64) {
    match (name, number) {
        // The change before was seen, but its pod had not come back yet.
        ("controllers/statefulset", 10) => {
            let revisions =
                "/apis/apps/v1/namespaces/g-controllers-statefulset/controllerrevisions";
            world
                .until(revisions, "two revisions", |found| {
                    found["items"].as_array().map(Vec::len) == Some(2)
                })
                .await;
        }
        // Nobody else ends a pod that is left alone.
        ("controllers/jobs", 26) => {
            let pods = "/api/v1/namespaces/g-controllers-jobs/pods";
            let found = world
                .until(
                    &format!("{pods}?labelSelector=job-name%3Ddead"),
                    "its pod",
                    |found| found["items"][0]["metadata"]["deletionTimestamp"].is_string(),
                )
                .await;
            let pod = found["items"][0]["metadata"]["name"].as_str().unwrap();
            let now = json!({"gracePeriodSeconds": 0});
            world.act("DELETE", &format!("{pods}/{pod}"), now).await;
        }
        ("controllers/endpoints-slices", number) => prepare_endpoints(world, number).await,
        _ => {}
    }
}

async fn prepare_endpoints(world: &World, number: u64) {
    let pods = "/api/v1/namespaces/g-controllers-endpoints-slices/pods";
    let ready = |pod: &'static str, ip: &'static str, is_ready: bool| async move {
        let mut status = running(ip);
        status["status"]["conditions"][0]["status"] =
            if is_ready { "True" } else { "False" }.into();
        world
            .act("PATCH", &format!("{pods}/{pod}/status"), status)
            .await;
    };
    match number {
        4 => {
            for (pod, node, port) in [
                ("p1", "node-a", 8080),
                ("p2", "node-b", 8080),
                ("p3", "node-a", 8080),
                ("p4", "node-a", 8888),
            ] {
                let spec = json!({"nodeName": node, "containers": [{"name": "c", "image": "i",
                    "ports": [{"name": "http", "containerPort": port}]}]});
                let body = json!({"metadata": {"name": pod, "labels": {"app": "w", "manual": "1"}}, "spec": spec});
                world.act("POST", pods, body).await;
            }
            ready("p1", "10.1.9.1", true).await;
            ready("p2", "10.1.9.2", true).await;
            ready("p3", "10.1.9.3", false).await;
            ready("p4", "10.1.9.4", true).await;
        }
        6 => ready("p3", "10.1.9.3", true).await,
        11 => drop(
            world
                .act(
                    "DELETE",
                    &format!("{pods}/p2"),
                    json!({"gracePeriodSeconds": 0}),
                )
                .await,
        ),
        12 => ready("p4", "10.1.9.4", false).await,
        _ => {}
    }
}

async fn send(world: &World, request: &Value, uids: &Map<String, Value>) -> (u16, Value) {
    let method = request["method"].as_str().unwrap();
    let kind = request["type"].as_str().unwrap_or("application/json");
    let mut body = request["body"].clone();
    replace_uids(&mut body, uids);
    match world
        .send(method, request["path"].as_str().unwrap(), kind, &body)
        .await
    {
        Ok(answer) => (if method == "POST" { 201 } else { 200 }, answer),
        Err(kube::Error::Api(status)) => (
            status.code,
            json!({"kind": "Status", "message": status.message}),
        ),
        Err(error) => (0, json!({"error": error.to_string()})),
    }
}

/// Remembers which of our UIDs stands for which recorded one.
fn pair_uids(recorded: &Value, ours: &Value, uids: &mut Map<String, Value>) {
    if recorded["kind"] == ours["kind"]
        && recorded["metadata"]["name"] == ours["metadata"]["name"]
        && let (Some(theirs), Some(own)) = (
            recorded["metadata"]["uid"].as_str(),
            ours["metadata"]["uid"].as_str(),
        )
    {
        uids.insert(theirs.to_owned(), own.into());
    }
}

fn replace_uids(value: &mut Value, uids: &Map<String, Value>) {
    match value {
        Value::String(text) => {
            if let Some(own) = uids.get(text) {
                *value = own.clone();
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| replace_uids(item, uids)),
        Value::Object(fields) => fields
            .values_mut()
            .for_each(|field| replace_uids(field, uids)),
        _ => {}
    }
}

/// What of an object its controllers are responsible for, with generated names masked.
fn reduced(object: &Value) -> Value {
    if let Some(items) = object["items"].as_array() {
        let mut items: Vec<Value> = items
            .iter()
            .map(|item| reduced_one(item, &list_kind(object)))
            .collect();
        items.sort_by_key(Value::to_string);
        return json!(items);
    }
    reduced_one(object, object["kind"].as_str().unwrap_or_default())
}

fn list_kind(list: &Value) -> String {
    list["kind"]
        .as_str()
        .unwrap_or_default()
        .trim_end_matches("List")
        .to_owned()
}

fn reduced_one(object: &Value, kind: &str) -> Value {
    let meta = &object["metadata"];
    let owners: Vec<Value> = meta["ownerReferences"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|owner| {
            json!([
                owner["kind"],
                owner["name"],
                owner["controller"],
                owner["blockOwnerDeletion"]
            ])
        })
        .collect();
    let mut annotations = meta["annotations"].clone();
    if let Some(annotations) = annotations.as_object_mut() {
        annotations.remove("endpoints.kubernetes.io/last-change-trigger-time");
    }
    let mut kept = match kind {
        "Pod" => json!([
            meta["name"],
            meta["labels"],
            annotations,
            meta["finalizers"],
            owners,
            meta["deletionTimestamp"].is_string(),
            object["spec"]["hostname"],
            object["spec"]["subdomain"],
            environments(object)
        ]),
        "Deployment" => json!([annotations, object["status"], meta["finalizers"]]),
        "ConfigMap" => json!([annotations]),
        "ReplicaSet" => json!([
            annotations,
            meta["labels"],
            owners,
            object["spec"]["replicas"],
            object["status"]
        ]),
        _ => reduced_otherwise(object, kind, &owners),
    };
    mask(&mut kept);
    kept
}

/// The kinds of which the annotations are not compared.
fn reduced_otherwise(object: &Value, kind: &str, owners: &[Value]) -> Value {
    let meta = &object["metadata"];
    match kind {
        "EndpointSlice" => json!([
            meta["labels"],
            owners,
            object["addressType"],
            object["endpoints"],
            object["ports"]
        ]),
        "Endpoints" => json!([meta["labels"], object["subsets"]]),
        "Event" => json!([
            object["type"],
            object["reason"],
            object["message"],
            object["count"],
            object["source"]
        ]),
        "Namespace" => json!([object["spec"], object["status"]]),
        "StatefulSet" => json!([object["status"]]),
        "ControllerRevision" => json!([
            meta["name"],
            meta["labels"],
            owners,
            object["data"],
            object["revision"]
        ]),
        "PersistentVolumeClaim" => json!([meta["name"], meta["labels"], owners, object["spec"]]),
        "Job" => json!([job_status(&object["status"])]),
        "Status" => json!([object["message"]]),
        _ => json!([
            meta["name"],
            meta["finalizers"],
            owners,
            meta["deletionTimestamp"].is_string()
        ]),
    }
}

/// The recorded controller looks at its pods once a second and does not know yet that they are ready.
fn job_status(status: &Value) -> Value {
    let mut status = status.clone();
    if status["active"].is_number() {
        status["ready"] = Value::Null;
    }
    status
}

fn environments(pod: &Value) -> Vec<&Value> {
    let containers = pod["spec"]["containers"].as_array();
    let variables = containers.into_iter().flatten();
    variables.map(|container| &container["env"]).collect()
}

/// Masks times, UIDs and generated names; puts lists into an order of their own.
fn mask(value: &mut Value) {
    match value {
        Value::String(text) => *text = masked(text),
        Value::Array(items) => {
            items.iter_mut().for_each(mask);
            items.sort_by_key(Value::to_string);
        }
        Value::Object(fields) => {
            fields.retain(|key, field| !key.ends_with("Time") && key != "uid" && !field.is_null());
            fields.values_mut().for_each(mask);
        }
        _ => {}
    }
}

fn masked(text: &str) -> String {
    let is_uid = text.len() == 36 && text.split('-').map(str::len).eq([8, 4, 4, 4, 12]);
    if is_uid {
        return "uid".to_owned();
    }
    let is_hash = |word: &str| {
        // Hashes of templates, and the suffixes of names made from a prefix.
        matches!(word.len(), 5 | 8..=10) && word.chars().all(|letter| SAFE_LETTERS.contains(letter))
    };
    let words = text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric());
    words
        .map(|word| {
            let bare = word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric());
            if is_hash(bare) {
                word.replacen(bare, "#", 1)
            } else {
                word.to_owned()
            }
        })
        .collect()
}
