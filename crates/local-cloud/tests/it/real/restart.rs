//! The cloud's process goes and comes; its containers stay.

use super::world::{World, group, script, until_log};
use crate::support::{TestCloud, client};
use cloud_api::model::GroupStatus;

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_cloud_takes_its_groups_up_without_disturbing_them() {
    let world = World::new().await;
    let test = world.start().await;
    let looping = "echo run $$; trap 'echo bye; exit 0' TERM; while true; do sleep 0.1; done";
    let id = test.create(&group("kept", script("main", looping))).await;
    test.until(&id, GroupStatus::Running).await;
    let before = until_log(&test, &id, "main", "run").await;
    let started = test.describe(&id).await.unwrap().containers[0]
        .current_state
        .clone();
    test.cloud.shutdown().await;

    let test = world.start().await;
    let group = test.until(&id, GroupStatus::Running).await;
    assert_eq!(group.containers[0].restart_count, 0);
    assert_eq!(group.containers[0].current_state, started);
    assert_eq!(
        until_log(&test, &id, "main", "run").await,
        before,
        "it was not started anew"
    );
    world.finish(test).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn groups_that_no_record_knows_are_removed_at_the_start() {
    let world = World::new().await;
    let test = world.start().await;
    let id = test
        .create(&group("lost", script("main", "exec sleep 1000")))
        .await;
    test.until(&id, GroupStatus::Running).await;
    test.cloud.shutdown().await;

    let cloud = world.cloud("another-state").await;
    assert!(world.runtime().await.sandboxes().await.is_empty());
    assert!(world.network().await.attached().await.unwrap().is_empty());
    let client = client(&cloud.endpoint());
    world.finish(TestCloud::new(cloud, client)).await;
}
