//! Reads the recorded exchanges.

use std::io::Read;
use std::path::PathBuf;

use serde_json::Value;

/// One request and what the real API server answered.
pub struct Exchange {
    pub number: u64,
    pub note: String,
    pub method: String,
    pub path: String,
    pub content_type: String,
    pub request: Value,
    pub status: u64,
    pub warnings: Vec<String>,
    pub response: Value,
}

/// The exchanges of one scenario, `kinds/v1-pods`.
pub fn exchanges(scenario: &str) -> Vec<Exchange> {
    let path = folder().join(format!("{scenario}.jsonl.gz"));
    let file = std::fs::File::open(&path)
        .unwrap_or_else(|error| panic!("open {}: {error}", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap_or_else(|error| panic!("decompress {}: {error}", path.display()));
    text.lines()
        .skip(1)
        .map(|line| exchange(&serde_json::from_str(line).unwrap()))
        .collect()
}

/// Every scenario of an area in the order of names, `kinds/…`.
pub fn scenarios(area: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder().join(area))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| {
            name.strip_suffix(".jsonl.gz")
                .map(|name| format!("{area}/{name}"))
        })
        .collect();
    names.sort();
    names
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn exchange(line: &Value) -> Exchange {
    let text = |pointer: &str| {
        line.pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_string()
    };
    Exchange {
        number: line["n"].as_u64().unwrap(),
        note: text("/note"),
        method: text("/request/method"),
        path: text("/request/path"),
        content_type: text("/request/headers/Content-Type"),
        request: line["request"]["body"].clone(),
        status: line["response"]["status"].as_u64().unwrap(),
        warnings: warnings(&line["response"]["headers"]["Warning"]),
        response: line["response"]["body"].clone(),
    }
}

/// `299 - "text"` without its frame.
fn warnings(header: &Value) -> Vec<String> {
    header
        .as_array()
        .map(|list| {
            list.iter()
                .filter_map(Value::as_str)
                .map(|text| {
                    text.trim_start_matches("299 - \"")
                        .trim_end_matches('"')
                        .replace("\\\"", "\"")
                        .replace("\\\\", "\\")
                })
                .collect()
        })
        .unwrap_or_default()
}
