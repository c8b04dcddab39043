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
    pub status: u64,
    pub response_headers: Value,
    pub response: Value,
}

impl Scenario {
    pub fn read(path: &Path) -> Self {
        let mut text = String::new();
        let file = std::fs::File::open(path).unwrap();
        GzDecoder::new(file).read_to_string(&mut text).unwrap();
        let mut lines = text
            .lines()
            .map(|line| serde_json::from_str::<Value>(line).unwrap());
        let head = lines.next().unwrap()["scenario"].take();
        let string = |value: &Value| value.as_str().unwrap_or_default().to_string();
        Self {
            area: string(&head["area"]),
            name: string(&head["name"]),
            namespace: string(&head["namespace"]),
            exchanges: lines
                .map(|line| Exchange::from(&line, &string(&head["area"])))
                .collect(),
        }
    }
}

impl Exchange {
    fn from(line: &Value, area: &str) -> Self {
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
            status: line["response"]["status"].as_u64().unwrap(),
            response_headers: line["response"]["headers"].clone(),
            response: line["response"]["body"].clone(),
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
