//! What real containers make: files on a share, an image of themselves.

use super::world::{World, group, script, until_log};
use crate::support::eventually;
use cloud_api::model::GroupStatus;
use cloud_api::model::commit::*;
use cloud_api::model::create::*;
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn two_groups_meet_on_a_share_and_a_read_only_one_stays_so() {
    let world = World::new().await;
    let test = world.start().await;
    let share = test.cloud.create_file_system("meeting").unwrap();
    let with_share = |name: &str, text: &str, read_only: bool| {
        let mut request = group(name, script("main", text));
        request.volume = vec![VolumeSpec {
            name: "share".to_owned(),
            volume_type: "NFSVolume".to_owned(),
            nfs_volume: Some(NfsVolumeSpec {
                server: share.mount_targets[0].clone(),
                path: "/".to_owned(),
                read_only: Some(read_only),
            }),
            ..Default::default()
        }];
        request.container[0].volume_mount = vec![VolumeMount {
            name: "share".to_owned(),
            mount_path: "/share".to_owned(),
            ..Default::default()
        }];
        request
    };
    let writer = with_share("writer", "echo hello > /share/greeting; sleep 1000", false);
    let writer = test.create(&writer).await;
    let reader = "until [ -e /share/greeting ]; do sleep 0.1; done; cat /share/greeting; touch /share/x || echo refused; sleep 1000";
    let reader = test.create(&with_share("reader", reader, true)).await;
    until_log(&test, &reader, "main", "hello").await;
    until_log(&test, &reader, "main", "refused").await;
    assert_eq!(
        std::fs::read(share.directory.join("greeting")).unwrap(),
        b"hello\n"
    );
    let error = test.cloud.remove_file_system(&share.id).await.unwrap_err();
    assert!(
        error.to_string().contains(&writer) || error.to_string().contains(&reader),
        "{error}"
    );
    let mut unknown = with_share("unknown", "true", false);
    unknown.volume[0].nfs_volume.as_mut().unwrap().server = "nowhere".to_owned();
    let error = test.client.call(&unknown).await.unwrap_err();
    assert!(
        error.to_string().contains("Volume.1.NFSVolume.Server"),
        "{error}"
    );
    assert!(test.cloud.delete_all(Duration::from_secs(30)).await);
    assert!(
        share.directory.join("greeting").exists(),
        "files outlive their groups"
    );
    world.finish(test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_image_is_made_of_what_a_container_wrote_and_others_start_from_it() {
    let world = World::new().await;
    let test = world.start().await;
    let writer = script(
        "main",
        "echo kept > /tmp/file; rm /bin/vi; echo ready; sleep 1000",
    );
    let id = test.create(&group("writer", writer)).await;
    until_log(&test, &id, "main", "ready").await;
    let commit = CommitContainerRequest {
        container_group_id: id,
        container_name: "main".to_owned(),
        image: Some(CommitImage {
            repository: "test/made".to_owned(),
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
    eventually("the commit has succeeded", || async {
        let answer = test.client.call(&describe).await.unwrap();
        let task = answer.commit_tasks.into_iter().next().unwrap();
        assert_ne!(task.task_status, "Failed", "{task:?}");
        if task.task_status == "Succeeded" {
            Ok(())
        } else {
            Err(format!("{task:?}"))
        }
    })
    .await;
    let mut again = script(
        "main",
        "cat /tmp/file; ls /bin/vi || echo gone; ls /proc/1 > /dev/null && sleep 1000",
    );
    again.image = "test/made:1".to_owned();
    let id = test.create(&group("again", again)).await;
    test.until(&id, GroupStatus::Running).await;
    until_log(&test, &id, "main", "kept").await;
    until_log(&test, &id, "main", "gone").await;
    world.finish(test).await;
}
