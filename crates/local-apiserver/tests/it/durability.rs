//! An acknowledged write survives `kill -9`.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube::api::PostParams;
use local_apiserver::{ApiServer, ApiServerConfig, StartError};
use serde_json::json;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Command, Stdio};

const DIRECTORY: &str = "DURABILITY_DIRECTORY";
/// Acknowledged writes before the writer is killed.
const ENOUGH: usize = 40;

/// The process that is killed: writes for ever and says what was acknowledged. Does nothing as an ordinary test.
#[tokio::test]
async fn writer() {
    let Some(directory) = std::env::var_os(DIRECTORY) else {
        return;
    };
    let server = ApiServer::start(ApiServerConfig::new(PathBuf::from(directory)))
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    for number in 0..100_000 {
        let map =
            serde_json::from_value(json!({"metadata": {"name": format!("w{number}")}})).unwrap();
        maps.create(&PostParams::default(), &map).await.unwrap();
        println!("acknowledged w{number}");
    }
}

#[tokio::test]
async fn what_was_acknowledged_before_a_kill_is_there_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "durability::writer",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(DIRECTORY, directory.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = Vec::new();
    for line in lines {
        let line = line.unwrap();
        if let Some((_, name)) = line.split_once("acknowledged ") {
            acknowledged.push(name.to_string());
        }
        if acknowledged.len() >= ENOUGH {
            child.kill().unwrap();
            break;
        }
    }
    child.wait().unwrap();
    assert_eq!(acknowledged.len(), ENOUGH);
    let server = ApiServer::start(ApiServerConfig::new(directory.path()))
        .await
        .unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    for name in &acknowledged {
        assert!(
            maps.get_opt(name).await.unwrap().is_some(),
            "{name} was acknowledged and is lost"
        );
    }
    let second = ApiServer::start(ApiServerConfig::new(directory.path())).await;
    assert!(
        matches!(second, Err(StartError::Store(_))),
        "two servers opened one directory"
    );
    server.shutdown().await;
}
