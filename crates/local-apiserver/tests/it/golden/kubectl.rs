//! What a real kubectl sent, command by command: each of its requests has to get the status it got from the real control
//! plane. Bodies are in the other areas; here nodes and controllers are missing, so what only they make is not found.

use super::exchange::text_of;
use super::replay::{Outcome, Replay};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// One command and what it sent.
struct Command {
    number: u64,
    text: String,
    requests: Vec<Value>,
}

/// Commands of all files, in the order in which they were typed.
fn commands(folder: &Path) -> Vec<Command> {
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    let order = |path: &PathBuf| {
        let text = text_of(path);
        let head: Value = serde_json::from_str(text.lines().next().unwrap()).unwrap();
        head["scenario"]["order"].as_u64().unwrap_or(0)
    };
    files.sort_by_key(order);
    let mut commands = Vec::new();
    for file in files {
        for line in text_of(&file).lines().skip(1) {
            let mut line: Value = serde_json::from_str(line).unwrap();
            commands.push(Command {
                number: commands.len() as u64 + 1,
                text: line["command"].as_str().unwrap_or_default().to_string(),
                requests: line["requests"]
                    .as_array_mut()
                    .map(std::mem::take)
                    .unwrap_or_default(),
            });
        }
    }
    commands
}

/// Without the fingerprint of the recorded server's document, which is not ours.
fn without_hash(path: &str) -> String {
    let Some((path, query)) = path.split_once('?') else {
        return path.to_string();
    };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|part| !part.starts_with("hash="))
        .collect();
    format!("{path}?{}", kept.join("&"))
}

pub async fn replay(folder: &Path) -> Vec<Outcome> {
    let replay = Replay::start().await;
    replay.make_nodes().await;
    let mut outcomes = Vec::new();
    for command in commands(folder) {
        let mut difference = None;
        for request in &command.requests {
            let text = |key: &str| request[key].as_str().unwrap_or_default();
            let headers: Vec<(String, String)> = ["Accept", "Content-Type"]
                .into_iter()
                .filter(|key| !text(key).is_empty())
                .map(|key| (key.to_string(), text(key).to_string()))
                .collect();
            let (method, path) = (text("method"), without_hash(text("path")));
            let answer = replay
                .send(method, &path, &headers, &request["body"], None)
                .await;
            let (status, expected) = (u64::from(answer.status().as_u16()), &request["status"]);
            // A 304 answered a header with the client's cached fingerprint, which the recording leaves out.
            let same = Some(status) == expected.as_u64() || (status == 200 && *expected == 304);
            if !same && difference.is_none() {
                difference = Some(format!("{method} {path}: {status} instead of {expected}"));
            }
        }
        // Commands that ask nothing of the server say nothing about it.
        if !command.requests.is_empty() {
            outcomes.push(Outcome {
                number: command.number,
                title: command.text,
                difference,
            });
        }
    }
    outcomes
}

#[test]
fn only_the_fingerprint_leaves_the_path() {
    assert_eq!(
        without_hash("/openapi/v3/api?hash=AB&timeout=32s"),
        "/openapi/v3/api?timeout=32s"
    );
    assert_eq!(without_hash("/version"), "/version");
}
