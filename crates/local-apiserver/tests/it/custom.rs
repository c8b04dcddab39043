//! Custom resources from definition to deletion.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use kube::runtime::wait::{await_condition, conditions};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};

fn definition() -> CustomResourceDefinition {
    serde_json::from_value(json!({
        "metadata": {"name": "widgets.example.com"},
        "spec": {"group": "example.com", "scope": "Namespaced",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": true, "storage": true,
                "subresources": {"status": {}, "scale": {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "properties": {"replicas": {"type": "integer", "default": 2, "maximum": 9}}},
                    "status": {"type": "object", "properties": {"replicas": {"type": "integer"}}}}}}}]}
    }))
    .unwrap()
}

async fn widgets(server: &TestServer) -> Api<DynamicObject> {
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client());
    definitions
        .create(&PostParams::default(), &definition())
        .await
        .unwrap();
    let established = await_condition(
        definitions,
        "widgets.example.com",
        conditions::is_crd_established(),
    );
    tokio::time::timeout(std::time::Duration::from_secs(5), established)
        .await
        .unwrap()
        .unwrap();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("example.com", "v1", "Widget"));
    Api::namespaced_with(server.client(), "default", &resource)
}

fn widget(spec: Value) -> DynamicObject {
    serde_json::from_value(json!({"apiVersion": "example.com/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": spec})).unwrap()
}

#[tokio::test]
async fn a_custom_resource_is_defaulted_scaled_validated_and_watched() {
    let server = TestServer::start().await;
    let widgets = widgets(&server).await;
    let made = widgets
        .create(&PostParams::default(), &widget(json!({"unknown": 1})))
        .await
        .unwrap();
    assert_eq!(made.data["spec"], json!({"replicas": 2}));
    let scale = widgets
        .patch_scale(
            "w",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": 5}})),
        )
        .await
        .unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    let refused = widgets
        .patch(
            "w",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": 99}})),
        )
        .await;
    assert!(matches!(refused, Err(kube::Error::Api(status)) if status.code == 422));
    let status = Patch::Merge(json!({"status": {"replicas": 5}}));
    let after = widgets
        .patch_status("w", &PatchParams::default(), &status)
        .await
        .unwrap();
    assert_eq!(
        (after.data["status"].clone(), after.metadata.generation),
        (json!({"replicas": 5}), Some(2))
    );
}

#[tokio::test]
async fn deleting_a_definition_deletes_its_objects() {
    let server = TestServer::start().await;
    let widgets = widgets(&server).await;
    widgets
        .create(&PostParams::default(), &widget(json!({})))
        .await
        .unwrap();
    let mut events = widgets
        .watch(&Default::default(), "0")
        .await
        .unwrap()
        .boxed();
    let definitions: Api<CustomResourceDefinition> = Api::all(server.client());
    definitions
        .delete("widgets.example.com", &DeleteParams::default())
        .await
        .unwrap();
    let gone = await_condition(
        definitions,
        "widgets.example.com",
        |one: Option<&CustomResourceDefinition>| one.is_none(),
    );
    tokio::time::timeout(std::time::Duration::from_secs(5), gone)
        .await
        .unwrap()
        .unwrap();
    let mut seen = Vec::new();
    while seen.len() < 2 {
        seen.push(events.try_next().await.unwrap().unwrap());
    }
    assert!(matches!(seen[1], kube::api::WatchEvent::Deleted(_)));
    assert!(widgets.list(&ListParams::default()).await.is_err());
}

#[tokio::test]
async fn a_scale_without_a_selector_path_shows_no_selector() {
    let server = TestServer::start().await;
    let widgets = widgets(&server).await;
    widgets
        .create(&PostParams::default(), &widget(json!({})))
        .await
        .unwrap();
    let scale = widgets.get_scale("w").await.unwrap();
    assert_eq!(scale.status.and_then(|status| status.selector), None);
}
