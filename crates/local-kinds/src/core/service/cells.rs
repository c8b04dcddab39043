//! The row of a Service in a table.

use jiff::Timestamp;
use serde_json::Value;

use crate::check::selector::display_labels;
use crate::print::{NONE, age, name, or_none};
use crate::tree::{list, number, text};

/// One row.
pub fn cells(service: &Value, now: Timestamp) -> Vec<Value> {
    let spec = &service["spec"];
    vec![
        name(service),
        text(spec, "type").into(),
        or_none(text(spec, "clusterIP")),
        external(service).into(),
        ports(spec).into(),
        age(service, now),
        display_labels(&spec["selector"]).into(),
    ]
}

fn texts(parent: &Value, key: &str) -> Vec<String> {
    list(parent, key)
        .iter()
        .filter_map(Value::as_str)
        .map(str::to_string)
        .collect()
}

fn external(service: &Value) -> String {
    let spec = &service["spec"];
    let own = texts(spec, "externalIPs");
    match text(spec, "type") {
        "ExternalName" => text(spec, "externalName").to_string(),
        "LoadBalancer" => {
            let mut all: Vec<String> = list(&service["status"]["loadBalancer"], "ingress")
                .iter()
                .map(|one| match text(one, "ip") {
                    "" => text(one, "hostname").to_string(),
                    ip => ip.to_string(),
                })
                .collect();
            all.extend(own);
            if all.is_empty() {
                "<pending>".to_string()
            } else {
                all.join(",")
            }
        }
        _ if own.is_empty() => NONE.to_string(),
        _ => own.join(","),
    }
}

fn ports(spec: &Value) -> String {
    let all: Vec<String> = list(spec, "ports")
        .iter()
        .map(|one| {
            let protocol = text(one, "protocol");
            match number(one, "nodePort") {
                0 => format!("{}/{protocol}", number(one, "port")),
                node => format!("{}:{node}/{protocol}", number(one, "port")),
            }
        })
        .collect();
    if all.is_empty() {
        NONE.to_string()
    } else {
        all.join(",")
    }
}
