//! `managedFields` and server-side apply against the recordings.

use jiff::Timestamp;
use local_schema::managed_fields::{self, Actor, ApplyError, ApplyOptions};
use local_schema::{TypeRef, custom_type, type_of};
use serde_json::{Value, json};

use crate::golden;

/// Parameters of a recorded request.
struct Request<'a> {
    object_path: String,
    subresource: &'a str,
    manager: String,
    force: bool,
}

fn request(exchange: &Value) -> Request<'_> {
    let path = exchange["request"]["path"].as_str().unwrap();
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let mut segments: Vec<&str> = path.split('/').collect();
    let subresource = match segments.last() {
        Some(&("status" | "scale")) => segments.pop().unwrap(),
        _ => "",
    };
    if exchange["request"]["method"] == "POST" {
        segments.push(
            exchange["response"]["body"]["metadata"]["name"]
                .as_str()
                .unwrap_or_default(),
        );
    }
    let parameter = |name: &str| {
        query
            .split('&')
            .find_map(|one| one.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value.to_string())
    };
    Request {
        object_path: segments.join("/"),
        subresource,
        manager: parameter("fieldManager").unwrap_or_else(|| "golden-client".to_string()),
        force: parameter("force").is_some_and(|value| value != "false"),
    }
}

/// Entries without what differs between runs; the controllers' own are left out.
fn entries(object: &Value) -> Vec<Value> {
    let list = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    let mut list: Vec<Value> = list
        .into_iter()
        .filter(|entry| entry["manager"] != "kube-controller-manager")
        .collect();
    for entry in &mut list {
        if entry.get("time").is_some() {
            entry["time"] = json!("set");
        }
    }
    list.sort_by_key(|entry| {
        format!(
            "{}{}{}",
            entry["operation"], entry["manager"], entry["subresource"]
        )
    });
    list
}

struct Replay {
    kind: TypeRef,
    equal: usize,
    wrong: Vec<String>,
}

impl Replay {
    fn judge(&mut self, number: &Value, actual: &Value, wanted: &Value) {
        if entries(actual) == entries(wanted) {
            self.equal += 1;
        } else {
            self.wrong.push(format!(
                "{number}: {}\n  instead of {}",
                json!(entries(actual)),
                json!(entries(wanted))
            ));
        }
    }

    fn apply(&mut self, exchange: &Value, live: Option<&Value>, request: &Request<'_>) {
        let number = &exchange["n"];
        let response = &exchange["response"]["body"];
        let status = exchange["response"]["status"].as_u64().unwrap();
        let config = &exchange["request"]["body"];
        if config.get("text").is_some()
            || !(status < 300 || status == 409 || status == 500)
            || golden::message(exchange).contains("cannot be fulfilled")
        {
            return;
        }
        let version = config["apiVersion"].as_str().unwrap_or_default();
        let actor = Actor {
            manager: &request.manager,
            api_version: version,
            subresource: request.subresource,
            now: Timestamp::UNIX_EPOCH,
        };
        let ignored: &[&[&str]] = match request.subresource {
            "status" => &[&["spec"]],
            _ => &[&["status"]],
        };
        let result = if request.subresource == "scale" {
            let mut object = live.cloned().unwrap();
            object["spec"]["replicas"] = config["spec"]["replicas"].clone();
            let done = managed_fields::apply_scale(
                live.unwrap(),
                &mut object,
                &["spec", "replicas"],
                &actor,
                request.force,
            );
            done.map(|()| object)
        } else {
            let options = ApplyOptions {
                force: request.force,
                ignored,
            };
            managed_fields::apply(&self.kind, live, config, &actor, options)
                .map(|applied| applied.object)
        };
        match (status, result) {
            (200 | 201, Ok(applied)) => self.judge(number, &applied, response),
            (409, Err(ApplyError::Conflicts { message, conflicts })) => {
                let causes: Vec<Value> = conflicts
                    .iter()
                    .map(|one| json!({"reason": "FieldManagerConflict", "message": one.message, "field": one.field}))
                    .collect();
                if message == golden::message(exchange)
                    && json!(causes) == response["details"]["causes"]
                {
                    self.equal += 1;
                } else {
                    self.wrong.push(format!(
                        "{number}: {message}\n  instead of {}",
                        golden::message(exchange)
                    ));
                }
            }
            (500, Err(ApplyError::Typed(message))) if message == golden::message(exchange) => {
                self.equal += 1
            }
            (status, result) => self.wrong.push(format!(
                "{number}: {result:?}\n  instead of {status} {}",
                golden::message(exchange)
            )),
        }
    }

    fn write(&mut self, exchange: &Value, live: Option<&Value>, request: &Request<'_>) {
        let response = &exchange["response"]["body"];
        if response["kind"] == "Status" || response["kind"] == "Scale" {
            return;
        }
        let mut new = response.clone();
        match exchange["request"]["body"]["metadata"].get("managedFields") {
            Some(entries) => new["metadata"]["managedFields"] = entries.clone(),
            None => {
                new["metadata"]
                    .as_object_mut()
                    .unwrap()
                    .remove("managedFields");
            }
        }
        if let Some(operation) = exchange["request"]["body"]
            .as_array()
            .and_then(|list| list.first())
        {
            new["metadata"]["managedFields"] = operation["value"].clone();
        }
        let version = response["apiVersion"].as_str().unwrap();
        let actor = Actor {
            manager: &request.manager,
            api_version: version,
            subresource: request.subresource,
            now: Timestamp::UNIX_EPOCH,
        };
        managed_fields::update(&self.kind, live, &mut new, &actor, &[]);
        self.judge(&exchange["n"], &new, response);
    }
}

fn replay(scenario: &str, kind: impl Fn(&[Value]) -> TypeRef) -> usize {
    let exchanges = golden::scenario(scenario);
    let mut replay = Replay {
        kind: kind(&exchanges),
        equal: 0,
        wrong: Vec::new(),
    };
    let mut states: std::collections::HashMap<String, Value> = std::collections::HashMap::new();
    for exchange in &exchanges[1..] {
        let request = request(exchange);
        if request.object_path.contains("customresourcedefinitions") {
            continue;
        }
        let live = states.get(&request.object_path).cloned();
        match exchange["request"]["method"].as_str().unwrap() {
            "PATCH" if golden::content_type(exchange).starts_with("application/apply") => {
                replay.apply(exchange, live.as_ref(), &request)
            }
            "PATCH" | "PUT" | "POST" => replay.write(exchange, live.as_ref(), &request),
            _ => {}
        }
        let response = &exchange["response"]["body"];
        if response["kind"] != "Status"
            && response["kind"] != "Scale"
            && !exchange["request"]["path"]
                .as_str()
                .unwrap()
                .contains("dryRun")
        {
            states.insert(request.object_path, response.clone());
        }
    }
    assert!(
        replay.wrong.is_empty(),
        "{scenario}: {} equal, not equal:\n{}",
        replay.equal,
        replay.wrong.join("\n")
    );
    replay.equal
}

#[test]
fn recorded_applies_to_a_config_map_come_out_equal() {
    let kind = |_: &[Value]| type_of("", "v1", "ConfigMap").unwrap();
    assert!(replay("apply-basics", kind) >= 30);
    assert!(replay("apply-migration", kind) >= 8);
}

#[test]
fn recorded_applies_to_a_deployment_come_out_equal() {
    assert!(
        replay("apply-deployment", |_| type_of("apps", "v1", "Deployment")
            .unwrap())
            >= 20
    );
}

#[test]
fn recorded_applies_to_a_custom_resource_come_out_equal() {
    let kind = |exchanges: &[Value]| {
        custom_type(
            &exchanges[1]["request"]["body"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
        )
    };
    assert!(replay("apply-custom-resource", kind) >= 20);
}
