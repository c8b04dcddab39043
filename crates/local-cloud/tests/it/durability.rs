//! What was acknowledged is there after the process was killed.

use crate::support::{client, describe, eventually, open, paper, quick, request};
use cloud_api::model::GroupStatus;
use local_cloud::backend::StartDelay;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

const DIRECTORY: &str = "SPRINGTIDE_TEST_CLOUD_DIRECTORY";

/// Not a test: the process that gets killed. It prints its endpoint and serves for ever.
#[tokio::test]
async fn serve_until_killed() {
    let Ok(directory) = std::env::var(DIRECTORY) else {
        return;
    };
    let cloud = open(quick(Path::new(&directory)), paper(StartDelay::default())).await;
    println!("\nendpoint {}", cloud.endpoint());
    std::future::pending::<()>().await;
}

struct Server {
    child: Child,
    endpoint: String,
}

impl Server {
    fn start(directory: &Path) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["durability::serve_until_killed", "--exact", "--nocapture"])
            .env(DIRECTORY, directory)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let endpoint = lines
            .map_while(Result::ok)
            .find_map(|line| line.strip_prefix("endpoint ").map(str::to_owned));
        Self {
            child,
            endpoint: endpoint.expect("server said no endpoint"),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGKILL; the process may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test]
async fn an_acknowledged_create_survives_kill_9_with_its_token_and_its_bill() {
    let directory = tempfile::tempdir().unwrap();
    let path: PathBuf = directory.path().to_owned();
    let mut acknowledged = Vec::new();
    for round in 0..3 {
        let server = Server::start(&path);
        let client = client(&server.endpoint);
        for (token, id) in &acknowledged {
            let mut request = request("kept");
            request.client_token = Some(String::clone(token));
            assert_eq!(
                &client.call(&request).await.unwrap().container_group_id,
                id,
                "same token, same group"
            );
        }
        for number in 0..5 {
            let mut request = request("kept");
            let token = format!("token-{round}-{number}");
            request.client_token = Some(token.clone());
            acknowledged.push((
                token,
                client.call(&request).await.unwrap().container_group_id,
            ));
        }
        drop(server);
    }
    let cloud = open(quick(&path), paper(StartDelay::default())).await;
    let mut ids: Vec<String> = acknowledged.into_iter().map(|(_, id)| id).collect();
    ids.sort_unstable();
    assert_eq!(cloud.group_ids(), ids);
    let client = client(&cloud.endpoint());
    for id in &ids {
        eventually("taken up again", || async {
            let group = describe(&client, id).await.unwrap();
            if group.status == GroupStatus::Running {
                Ok(())
            } else {
                Err(format!("{group:?}"))
            }
        })
        .await;
    }
    let ledger = cloud.ledger().await.unwrap();
    assert_eq!(ledger.entries.len(), ids.len());
    assert!(cloud.delete_all(std::time::Duration::from_secs(10)).await);
    cloud.shutdown().await;
    let cloud = open(quick(&path), paper(StartDelay::default())).await;
    assert!(cloud.group_ids().is_empty());
    let closed = cloud.ledger().await.unwrap();
    assert_eq!(closed.entries.len(), ids.len());
    assert!(closed.entries.iter().all(|entry| entry.until.is_some()));
}

#[tokio::test]
async fn addresses_and_stock_are_held_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = open(quick(directory.path()), paper(StartDelay::default())).await;
    let first = client(&cloud.endpoint())
        .call(&request("first"))
        .await
        .unwrap()
        .container_group_id;
    cloud.shutdown().await;
    let cloud = open(quick(directory.path()), paper(StartDelay::default())).await;
    let client = client(&cloud.endpoint());
    let second = client
        .call(&request("second"))
        .await
        .unwrap()
        .container_group_id;
    let address =
        |group: Option<cloud_api::model::ContainerGroup>| group.unwrap().intranet_ip.unwrap();
    assert_ne!(
        address(describe(&client, &first).await),
        address(describe(&client, &second).await)
    );
}
