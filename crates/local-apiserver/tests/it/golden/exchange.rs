//! The recorded files.

use flate2::read::GzDecoder;
use serde_json::Value;
use std::io::Read;
use std::path::Path;

/// One recorded file.
pub struct Scenario {
    pub area: String,
    pub name: String,
    pub namespace: String,
    pub exchanges: Vec<Exchange>,
}

/// One request and its recorded answer.
#[derive(Clone)]
pub struct Exchange {
    pub area: String,
    pub number: u64,
    pub note: String,
    pub setup: bool,
    pub unstable: String,
    pub poll: bool,
    /// `client` or `server`, empty when it is no watch.
    pub stream: String,
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub user: Option<String>,
    pub body: Value,
    /// Keys of the request as they first appear, because complaints about fields follow their order.
    keys: Vec<String>,
    pub status: u64,
    pub response_headers: Value,
    pub response: Value,
}

/// A compressed file, whole.
pub fn text_of(path: &Path) -> String {
    let mut text = String::new();
    let file = std::fs::File::open(path).unwrap();
    GzDecoder::new(file).read_to_string(&mut text).unwrap();
    text
}

impl Scenario {
    pub fn read(path: &Path) -> Self {
        let text = text_of(path);
        let mut lines = text
            .lines()
            .map(|line| (line, serde_json::from_str::<Value>(line).unwrap()));
        let head = lines.next().unwrap().1["scenario"].take();
        let string = |value: &Value| value.as_str().unwrap_or_default().to_string();
        Self {
            area: string(&head["area"]),
            name: string(&head["name"]),
            namespace: string(&head["namespace"]),
            exchanges: lines
                .map(|(text, line)| Exchange::from(text, &line, &string(&head["area"])))
                .collect(),
        }
    }
}

impl Exchange {
    fn from(text: &str, line: &Value, area: &str) -> Self {
        let string = |value: &Value| value.as_str().unwrap_or_default().to_string();
        let request = &line["request"];
        let headers = request["headers"].as_object().unwrap();
        Self {
            area: area.to_string(),
            number: line["n"].as_u64().unwrap(),
            note: string(&line["note"]),
            setup: line["setup"] == true,
            unstable: string(&line["unstable"]),
            poll: line["poll"].is_object(),
            stream: string(&line["stream"]["closed_by"]),
            method: string(&request["method"]),
            path: string(&request["path"]),
            headers: headers
                .iter()
                .map(|(name, value)| (name.clone(), string(value)))
                .collect(),
            user: request.get("user").map(string),
            body: request["body"].clone(),
            keys: keys(text),
            status: line["response"]["status"].as_u64().unwrap(),
            response_headers: line["response"]["headers"].clone(),
            response: line["response"]["body"].clone(),
        }
    }

    /// A JSON body as text with its keys in the recorded order; other bodies as they are.
    pub fn in_order(&self, body: Value) -> Value {
        let is_bytes = body.get("base64").is_some();
        match body {
            Value::Object(_) | Value::Array(_) if !is_bytes => {
                let mut text = String::new();
                self.write(&body, &mut text);
                serde_json::json!({ "text": text })
            }
            other => other,
        }
    }

    fn write(&self, value: &Value, text: &mut String) {
        match value {
            Value::Object(map) => {
                let rank = |name: &String| self.keys.iter().position(|key| key == name);
                let mut fields: Vec<_> = map.iter().collect();
                fields.sort_by_key(|(name, _)| rank(name).unwrap_or(usize::MAX));
                for (index, (name, inner)) in fields.into_iter().enumerate() {
                    text.push(if index == 0 { '{' } else { ',' });
                    text.push_str(&Value::from(name.as_str()).to_string());
                    text.push(':');
                    self.write(inner, text);
                }
                text.push_str(if map.is_empty() { "{}" } else { "}" });
            }
            Value::Array(list) => {
                text.push('[');
                for (index, inner) in list.iter().enumerate() {
                    if index > 0 {
                        text.push(',');
                    }
                    self.write(inner, text);
                }
                text.push(']');
            }
            other => text.push_str(&other.to_string()),
        }
    }

    pub fn is_write(&self) -> bool {
        self.method != "GET"
    }

    /// Seconds after which the server ends this watch.
    pub fn watch_seconds(&self) -> Option<u64> {
        let query = self.path.split_once('?')?.1;
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix("timeoutSeconds=")?.parse().ok())
    }
}

/// The keys of the request part of a recorded line, in the order of their first appearance.
fn keys(line: &str) -> Vec<String> {
    let start = line.find("\"request\"").unwrap_or_default();
    let end = line.find("\"response\"").unwrap_or(line.len());
    let parts: Vec<&str> = line[start..end.max(start)].split('"').collect();
    let mut keys: Vec<String> = Vec::new();
    for pair in parts.windows(2) {
        let is_key = pair[1].trim_start().starts_with(':');
        if is_key && !keys.iter().any(|key| key == pair[0]) {
            keys.push(pair[0].to_string());
        }
    }
    keys
}
