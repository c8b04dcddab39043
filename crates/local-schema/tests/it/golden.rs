//! Reads the recordings, which `local-apiserver` keeps for its own replay (`tests/golden/<area>/<scenario>.jsonl.gz`).

use std::io::Read;
use std::path::Path;

use serde_json::Value;

/// All lines of a scenario; index = exchange number, 0 is the header.
pub fn scenario(name: &str) -> Vec<Value> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../local-apiserver/tests/golden");
    let areas = std::fs::read_dir(&folder)
        .unwrap()
        .map(|area| area.unwrap().path());
    let path = areas
        .map(|area| area.join(format!("{name}.jsonl.gz")))
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("no recording {name} in {}", folder.display()));
    let file =
        std::fs::File::open(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let mut text = String::new();
    flate2::read::GzDecoder::new(file)
        .read_to_string(&mut text)
        .unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// The request body as bytes: JSON bodies are printed, `{"text": …}` is taken as it is.
pub fn body(exchange: &Value) -> Vec<u8> {
    let body = &exchange["request"]["body"];
    match body.get("text").and_then(Value::as_str) {
        Some(text) => text.as_bytes().to_vec(),
        None => body.to_string().into_bytes(),
    }
}

pub fn content_type(exchange: &Value) -> &str {
    exchange["request"]["headers"]["Content-Type"]
        .as_str()
        .unwrap_or_default()
}

/// The message of a recorded refusal.
pub fn message(exchange: &Value) -> &str {
    exchange["response"]["body"]["message"]
        .as_str()
        .unwrap_or_default()
}
