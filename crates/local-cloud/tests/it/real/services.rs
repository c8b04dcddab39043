//! Service addresses from groups, by real connections.

use super::world::{World, group, script};
use crate::support::TestCloud;
use cloud_api::model::create::CreateContainerGroupRequest;
use cloud_api::model::manage::ExecContainerCommandRequest;
use cloud_api::model::{GroupStatus, Tag};
use std::net::Ipv4Addr;
use tokio::io::AsyncWriteExt;

fn sleeper(name: &str, tags: Vec<Tag>) -> CreateContainerGroupRequest {
    let main = script(
        "web",
        "trap 'exit 0' TERM; while :; do sleep 1 & wait; done",
    );
    CreateContainerGroupRequest {
        tag: tags,
        ..group(name, main)
    }
}

async fn fetch(test: &TestCloud, id: &str, address: Ipv4Addr) -> String {
    let command = format!("nc -w 20 {address} 8080 </dev/null 2>&1 || echo failed");
    let request = ExecContainerCommandRequest {
        container_group_id: id.to_owned(),
        container_name: "web".to_owned(),
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), command],
        sync: Some(true),
        ..Default::default()
    };
    let answer = test.client.call(&request).await.unwrap();
    answer.sync_response.unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_reaches_services_unless_its_tag_says_no() {
    let world = World::new().await;
    let test = world.start().await;
    let sockets = world.network().await.sockets();
    let service = Ipv4Addr::new(10, 96, 3, 3);
    let listener = sockets.tcp_listen((service, 8080).into()).await.unwrap();
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.write_all(b"served").await;
        }
    });
    let off = Tag {
        key: "springtide/service-addresses".to_owned(),
        value: "false".to_owned(),
    };
    let with = test.create(&sleeper("with", Vec::new())).await;
    let without = test.create(&sleeper("without", vec![off])).await;
    for id in [&with, &without] {
        test.until(id, GroupStatus::Running).await;
    }
    assert_eq!(fetch(&test, &with, service).await, "served");
    let refused = fetch(&test, &without, service).await;
    assert!(
        refused.contains("failed") && !refused.contains("served"),
        "{refused}"
    );
    server.abort();
    world.finish(test).await;
}
