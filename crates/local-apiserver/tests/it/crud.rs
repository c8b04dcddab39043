//! Objects through an ordinary `kube` client.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::api::{
    DeleteParams, ListParams, Patch, PatchParams, PostParams, WatchEvent, WatchParams,
};
use kube::{Api, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::json;

fn config_map(name: &str) -> ConfigMap {
    serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"a": "b"}}, "data": {"k": "v"}}),
    )
    .unwrap()
}

#[tokio::test]
async fn the_four_namespaces_are_there_at_start() {
    let server = TestServer::start().await;
    let namespaces: Api<Namespace> = Api::all(server.client());
    let names: Vec<String> = namespaces
        .list(&ListParams::default())
        .await
        .unwrap()
        .iter()
        .map(|one| one.name_any())
        .collect();
    assert_eq!(
        names,
        ["default", "kube-node-lease", "kube-public", "kube-system"]
    );
}

#[tokio::test]
async fn an_object_lives_through_create_patch_watch_and_delete() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let created = maps
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    assert!(created.uid().is_some());
    let version = created.resource_version().unwrap();
    let mut events = maps
        .watch(&WatchParams::default(), &version)
        .await
        .unwrap()
        .boxed();
    let patch = Patch::Merge(json!({"data": {"k": "w"}}));
    maps.patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let again = maps
        .patch("a", &PatchParams::default(), &patch)
        .await
        .unwrap();
    let Some(WatchEvent::Modified(seen)) = events.try_next().await.unwrap() else {
        panic!("no MODIFIED event");
    };
    assert_eq!(
        seen.resource_version(),
        again.resource_version(),
        "a patch without change moves nothing"
    );
    maps.delete("a", &DeleteParams::default()).await.unwrap();
    assert!(matches!(
        events.try_next().await.unwrap(),
        Some(WatchEvent::Deleted(_))
    ));
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_stale_replace_conflicts() {
    let server = TestServer::start().await;
    let maps: Api<ConfigMap> = Api::namespaced(server.client(), "default");
    let first = maps
        .create(&PostParams::default(), &config_map("a"))
        .await
        .unwrap();
    let mut second = first.clone();
    second
        .data
        .get_or_insert_default()
        .insert("n".into(), "1".into());
    maps.replace("a", &PostParams::default(), &second)
        .await
        .unwrap();
    match maps.replace("a", &PostParams::default(), &first).await {
        Err(kube::Error::Api(status)) => assert_eq!(status.reason, "Conflict"),
        other => panic!("{other:?}"),
    }
}
