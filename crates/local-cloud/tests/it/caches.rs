//! Image caches, data caches and virtual nodes through the front door.

use crate::support::{TestCloud, client, eventually, open, paper, quick, request, start_with};
use cloud_api::model::GroupStatus;
use cloud_api::model::data_cache::*;
use cloud_api::model::describe::Tag;
use cloud_api::model::image_cache::*;
use cloud_api::model::region::ListUsageRequest;
use cloud_api::model::tags::*;
use cloud_api::model::virtual_node::*;
use local_cloud::backend::StartDelay;
use std::time::Duration;

async fn quick_stages() -> TestCloud {
    start_with(
        |config| config.stage = Duration::from_millis(50),
        StartDelay::default(),
    )
    .await
}

async fn made(test: &TestCloud, image: &str) -> String {
    let create = CreateImageCacheRequest {
        image_cache_name: "cache".to_owned(),
        image: vec![image.to_owned()],
        retention_days: Some(7),
        ..Default::default()
    };
    let id = test.client.call(&create).await.unwrap().image_cache_id;
    assert!(id.starts_with("imc-"), "{id}");
    eventually("the cache is Ready", || async {
        let describe = DescribeImageCachesRequest {
            image_cache_id: Some(id.clone()),
            ..Default::default()
        };
        let cache = test
            .client
            .call(&describe)
            .await
            .unwrap()
            .image_caches
            .remove(0);
        if cache.status == "Ready" {
            Ok(())
        } else {
            Err(format!("{cache:?}"))
        }
    })
    .await;
    id
}

#[tokio::test]
async fn a_group_starts_from_the_cache_that_fits_and_says_so() {
    let test = quick_stages().await;
    let id = made(&test, "busybox:latest").await;
    let mut group = request("quick");
    group.auto_match_image_cache = Some(true);
    let group = test.create(&group).await;
    let group = test.until(&group, GroupStatus::Running).await;
    let hit = group
        .events
        .iter()
        .find(|event| event.reason == "SuccessfulHitImageCache")
        .unwrap();
    assert!(hit.message.contains(&id), "{}", hit.message);
    let describe = DescribeImageCachesRequest {
        match_image: vec!["busybox".to_owned(), "other".to_owned()],
        ..Default::default()
    };
    let cache = test
        .client
        .call(&describe)
        .await
        .unwrap()
        .image_caches
        .remove(0);
    assert!(cache.last_matched_time.is_some() && cache.expire_date_time.is_some());
    assert_eq!(cache.progress, "100%");
    let mut explicit = request("explicit");
    explicit.image_snapshot_id = Some(cache.snapshot_id);
    test.create(&explicit).await;
}

#[tokio::test]
async fn caches_that_are_not_ready_or_not_there_are_refused() {
    let test = start_with(
        |config| config.stage = Duration::from_secs(3_600),
        StartDelay::default(),
    )
    .await;
    let create = CreateImageCacheRequest {
        image_cache_name: "slow".to_owned(),
        image: vec!["busybox".to_owned()],
        ..Default::default()
    };
    let id = test.client.call(&create).await.unwrap().image_cache_id;
    let mut group = request("explicit");
    group.image_snapshot_id = Some(id.clone());
    let error = test.client.call(&group).await.unwrap_err();
    assert_eq!(error.code(), "ImageSnapshot.IncorrectStatus");
    group.image_snapshot_id = Some("imc-none".to_owned());
    let error = test.client.call(&group).await.unwrap_err();
    assert_eq!(error.code(), "ImageSnapshot.NotFound");
    let update = UpdateImageCacheRequest {
        image_cache_id: id.clone(),
        image_cache_name: Some("new".to_owned()),
        ..Default::default()
    };
    let error = test.client.call(&update).await.unwrap_err();
    assert_eq!(error.code(), "ImageCache.IncorrectStatus");
    let delete = DeleteImageCacheRequest {
        image_cache_id: id,
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    assert_eq!(
        test.client.call(&delete).await.unwrap_err().code(),
        "InvalidParameter.NotFound"
    );
}

#[tokio::test]
async fn a_group_that_finds_no_cache_leaves_one_for_the_next() {
    let test = quick_stages().await;
    let mut group = request("first");
    group.auto_match_image_cache = Some(true);
    test.create(&group).await;
    test.create(&group).await;
    let usage = test
        .client
        .call(&ListUsageRequest::default())
        .await
        .unwrap();
    assert_eq!(usage.attributes["UsedAutoImageCacheCount"], 1.0);
    eventually("a later group hits it", || async {
        let id = test.create(&group).await;
        let group = test.describe(&id).await.unwrap();
        let hit = group
            .events
            .iter()
            .any(|event| event.reason == "SuccessfulHitImageCache");
        if hit {
            Ok(())
        } else {
            Err(format!("{:?}", group.events))
        }
    })
    .await;
}

#[tokio::test]
async fn an_update_leads_through_updating_and_changes_what_is_held() {
    let test = quick_stages().await;
    let id = made(&test, "busybox:1").await;
    let update = UpdateImageCacheRequest {
        image_cache_id: id.clone(),
        image: vec!["busybox:2".to_owned()],
        ..Default::default()
    };
    test.client.call(&update).await.unwrap();
    eventually("it is Ready again", || async {
        let describe = DescribeImageCachesRequest {
            image: Some("busybox:2".to_owned()),
            ..Default::default()
        };
        let answer = test.client.call(&describe).await.unwrap();
        match answer.image_caches.first() {
            Some(cache) if cache.status == "Ready" => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    assert_eq!(
        test.client.call(&update).await.unwrap_err().code(),
        "NoNeedUpdate"
    );
}

#[tokio::test]
async fn data_caches_live_through_their_stages() {
    let test = quick_stages().await;
    let create = CreateDataCacheRequest {
        size: Some(20),
        path: Some("/model".to_owned()),
        data_source: Some(DataSource {
            source_type: "URL".to_owned(),
            options: [
                ("repoId".to_owned(), "a/b".to_owned()),
                ("k.x".to_owned(), "y".to_owned()),
            ]
            .into(),
        }),
        client_token: Some("once".to_owned()),
        ..Default::default()
    };
    let id = test.client.call(&create).await.unwrap().data_cache_id;
    assert_eq!(test.client.call(&create).await.unwrap().data_cache_id, id);
    let describe = DescribeDataCachesRequest {
        bucket: Some("default".to_owned()),
        ..Default::default()
    };
    let cache = eventually("it is Available", || async {
        let cache = test
            .client
            .call(&describe)
            .await
            .unwrap()
            .data_caches
            .remove(0);
        if cache.status == "Available" {
            Ok(cache)
        } else {
            Err(format!("{cache:?}"))
        }
    })
    .await;
    assert_eq!(cache.data_source.options, r#"{"k.x":"y","repoId":"a/b"}"#);
    let copy = CopyDataCacheRequest {
        data_cache_id: id,
        destination_region_id: "cn-hangzhou".to_owned(),
        path: Some("/copy".to_owned()),
        ..Default::default()
    };
    test.client.call(&copy).await.unwrap();
    let delete = DeleteDataCacheRequest {
        bucket: Some("default".to_owned()),
        path: Some("/copy".to_owned()),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    assert_eq!(test.client.call(&describe).await.unwrap().total_count, 1);
}

#[tokio::test]
async fn virtual_nodes_and_their_tags_come_and_go() {
    let test = quick_stages().await;
    let create = |name: &str| CreateVirtualNodeRequest {
        v_switch_id: "vsw-local-h".to_owned(),
        security_group_id: "sg-local".to_owned(),
        virtual_node_name: Some(name.to_owned()),
        enable_public_network: Some(true),
        tag: vec![Tag {
            key: "a".to_owned(),
            value: "1".to_owned(),
        }],
        ..Default::default()
    };
    let mut ids = Vec::new();
    for number in 0..3 {
        ids.push(
            test.client
                .call(&create(&format!("node-{number}")))
                .await
                .unwrap()
                .virtual_node_id,
        );
    }
    let page = DescribeVirtualNodesRequest {
        limit: Some(2),
        ..Default::default()
    };
    let first = test.client.call(&page).await.unwrap();
    assert_eq!((first.virtual_nodes.len(), first.total_count), (2, 3));
    let rest = DescribeVirtualNodesRequest {
        next_token: first.next_token,
        ..page
    };
    let rest = test.client.call(&rest).await.unwrap();
    assert_eq!((rest.virtual_nodes.len(), rest.next_token), (1, None));
    assert!(rest.virtual_nodes[0].internet_ip.is_some());
    let untag = UntagResourcesRequest {
        resource_type: VIRTUAL_NODE.to_owned(),
        resource_id: vec![ids[0].clone()],
        all: Some(true),
        ..Default::default()
    };
    test.client.call(&untag).await.unwrap();
    let list = ListTagResourcesRequest {
        resource_type: VIRTUAL_NODE.to_owned(),
        ..Default::default()
    };
    assert_eq!(
        test.client.call(&list).await.unwrap().tag_resources.len(),
        2
    );
    let delete = DeleteVirtualNodeRequest {
        virtual_node_id: ids[0].clone(),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    assert_eq!(
        test.client.call(&delete).await.unwrap_err().code(),
        "InvalidParameter.NotFound"
    );
}

#[tokio::test]
async fn everything_is_there_again_after_a_restart() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = open(quick(directory.path()), paper(StartDelay::default())).await;
    let before = client(&cloud.endpoint());
    let create = CreateImageCacheRequest {
        image_cache_name: "kept".to_owned(),
        image: vec!["a".to_owned()],
        ..Default::default()
    };
    let cache = before.call(&create).await.unwrap().image_cache_id;
    let node = CreateVirtualNodeRequest {
        v_switch_id: "vsw-local-h".to_owned(),
        security_group_id: "sg-local".to_owned(),
        ..Default::default()
    };
    before.call(&node).await.unwrap();
    let mut public = request("public");
    public.auto_create_eip = Some(true);
    before.call(&public).await.unwrap();
    let share = cloud.create_file_system("data").unwrap();
    cloud.shutdown().await;
    let cloud = open(quick(directory.path()), paper(StartDelay::default())).await;
    let after = client(&cloud.endpoint());
    let caches = after
        .call(&DescribeImageCachesRequest::default())
        .await
        .unwrap()
        .image_caches;
    assert_eq!(caches[0].image_cache_id, cache);
    let nodes = after
        .call(&DescribeVirtualNodesRequest::default())
        .await
        .unwrap()
        .virtual_nodes;
    let group = after.call(&public).await.unwrap().container_group_id;
    let group = crate::support::describe(&after, &group).await.unwrap();
    assert_ne!(
        group.intranet_ip, nodes[0].intranet_ip,
        "addresses of nodes are held again"
    );
    assert_eq!(
        group.internet_ip.as_deref(),
        Some("198.18.0.2"),
        "public addresses are held again"
    );
    assert_eq!(
        cloud.nas_directory(&share.mount_targets[0]),
        Some(share.directory)
    );
}
