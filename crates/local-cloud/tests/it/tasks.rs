//! Commits, operations, deleting several groups, and updates that concern some containers only.

use crate::support::{eventually, request, start, start_with};
use cloud_api::model::GroupStatus;
use cloud_api::model::commit::*;
use cloud_api::model::manage::*;
use cloud_api::model::operations::*;
use local_cloud::backend::StartDelay;
use std::time::Duration;

#[tokio::test]
async fn a_commit_is_a_task_that_ends() {
    let test = start_with(
        |config| config.stage = Duration::from_millis(50),
        StartDelay::default(),
    )
    .await;
    let id = test.create(&request("web")).await;
    test.until(&id, GroupStatus::Running).await;
    let commit = CommitContainerRequest {
        container_group_id: id.clone(),
        container_name: "main".to_owned(),
        image: Some(CommitImage {
            repository: "r.example.com/a".to_owned(),
            tag: "1".to_owned(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let task = test.client.call(&commit).await.unwrap().task_id;
    let describe = DescribeCommitContainerTaskRequest {
        task_id: vec![task],
        ..Default::default()
    };
    let done = eventually("the commit has ended", || async {
        let answer = test.client.call(&describe).await.unwrap();
        assert_eq!(answer.max_results, "10");
        let task = answer.commit_tasks.into_iter().next().unwrap();
        if task.task_status == "Running" {
            Err(format!("{task:?}"))
        } else {
            Ok(task)
        }
    })
    .await;
    assert_eq!(
        (done.task_status.as_str(), done.commit_phase_infos.len()),
        ("Succeeded", 3)
    );
    let lost = CommitContainerRequest {
        container_name: "none".to_owned(),
        ..commit
    };
    assert_eq!(
        test.client.call(&lost).await.unwrap_err().code(),
        "InvalidParameter"
    );
}

#[tokio::test]
async fn operations_are_recorded_and_closed() {
    let test = start().await;
    let id = test.create(&request("web")).await;
    test.until(&id, GroupStatus::Running).await;
    let ask = |kind: &str, value: &str| CreateInstanceOpsTaskRequest {
        container_group_id: id.clone(),
        ops_type: kind.to_owned(),
        ops_value: value.to_owned(),
        ..Default::default()
    };
    test.client
        .call(&ask(
            "tcpdump",
            r#"{"Enable":true,"Protocol":"tcp","Duration":60}"#,
        ))
        .await
        .unwrap();
    test.client
        .call(&ask("tcpdump", r#"{"Enable":true}"#))
        .await
        .unwrap();
    let describe = DescribeInstanceOpsRecordsRequest {
        container_group_id: id.clone(),
        ops_type: "tcpdump".to_owned(),
        ..Default::default()
    };
    let records = test.client.call(&describe).await.unwrap().records;
    let mut status: Vec<&str> = records
        .iter()
        .map(|record| record.ops_status.as_str())
        .collect();
    status.sort_unstable();
    assert_eq!(status, ["Closed", "Ready"]);
    for (kind, value) in [("tcpdump", "yes"), ("coredump", "on"), ("strace", "enable")] {
        let error = test.client.call(&ask(kind, value)).await.unwrap_err();
        assert_eq!(error.code(), "InvalidParameter", "{kind} {value}");
    }
}

#[tokio::test]
async fn several_groups_are_deleted_together_or_not_at_all() {
    let test = start().await;
    let ids = [
        test.create(&request("one")).await,
        test.create(&request("two")).await,
    ];
    let mut delete = DeleteContainerGroupsRequest {
        container_group_ids: ids.to_vec(),
        ..Default::default()
    };
    delete.container_group_ids.push("eci-none".to_owned());
    assert!(test.client.call(&delete).await.unwrap_err().is_not_found());
    assert_eq!(test.cloud.group_ids().len(), 2);
    delete.container_group_ids.pop();
    test.client.call(&delete).await.unwrap();
    for id in &ids {
        test.until_gone(id).await;
    }
}

#[tokio::test]
async fn an_update_of_one_container_leaves_the_other_running() {
    let test = start().await;
    let mut two = request("two");
    let mut side = two.container[0].clone();
    side.name = "side".to_owned();
    two.container.push(side);
    let id = test.create(&two).await;
    test.until(&id, GroupStatus::Running).await;
    two.container[1].image = "busybox:2".to_owned();
    let update = |container: Vec<_>, tags: Vec<_>| UpdateContainerGroupRequest {
        container_group_id: id.clone(),
        update_type: Some("IncrementalUpdate".to_owned()),
        container,
        tag: tags,
        ..Default::default()
    };
    test.client
        .call(&update(two.container.clone(), Vec::new()))
        .await
        .unwrap();
    let restarts = || async {
        let group = test.until(&id, GroupStatus::Running).await;
        group
            .containers
            .iter()
            .map(|one| one.restart_count)
            .collect::<Vec<_>>()
    };
    eventually("the side container runs anew", || async {
        let restarts = restarts().await;
        if restarts == [0, 1] {
            Ok(())
        } else {
            Err(format!("{restarts:?}"))
        }
    })
    .await;
    let tag = cloud_api::model::Tag {
        key: "a".to_owned(),
        value: "b".to_owned(),
    };
    test.client
        .call(&update(Vec::new(), vec![tag]))
        .await
        .unwrap();
    assert_eq!(restarts().await, [0, 1], "tags alone start nothing anew");
}

#[tokio::test]
async fn what_cannot_be_resized_is_said() {
    let test = start().await;
    let id = test.create(&request("web")).await;
    let volume = ResizeContainerGroupVolumeRequest {
        container_group_id: id.clone(),
        volume_name: "none".to_owned(),
        new_size: Some(40),
        ..Default::default()
    };
    assert_eq!(
        test.client.call(&volume).await.unwrap_err().code(),
        "InvalidParameter"
    );
    let storage = ResizeContainerGroupEphemeralStorageRequest {
        container_group_id: id,
        new_size: Some(40),
        ..Default::default()
    };
    assert_eq!(
        test.client.call(&storage).await.unwrap_err().code(),
        "UnsupportedParameter"
    );
}
