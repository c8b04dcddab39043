//! Service account tokens in running groups, by a clock that the test turns.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use cloud_api::model::describe::{ContainerGroup, DescribeContainerGroupsRequest};
use elastic_node::{TokenLife, TokenPolicy};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use local_cloud::Fault;
use serde_json::{Value, json};

use crate::support::{Scene, eventually};

const NOTE: &str = "autoscaling.alibabacloud.com/token-life";
/// The shortest that the API gives.
const SHORT: TokenPolicy = TokenPolicy {
    least_life: Duration::ZERO,
    renew_in_place: true,
};

/// Runs ahead of the real one.
#[derive(Clone, Default)]
struct Ahead(Arc<AtomicI64>);

impl Ahead {
    fn by(&self, seconds: i64) {
        self.0.fetch_add(seconds, Ordering::SeqCst);
    }
}

async fn start(policy: TokenPolicy) -> (Scene, Ahead) {
    let mut scene = Scene::without_nodes().await;
    let ahead = Ahead::default();
    run(&mut scene, policy, &ahead);
    let accounts: Api<ServiceAccount> = Api::default_namespaced(scene.client.clone());
    let account = serde_json::from_value(json!({"metadata": {"name": "worker"}})).unwrap();
    let parameters = PostParams::default();
    accounts.create(&parameters, &account).await.unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(scene.client.clone());
    let map = json!({"metadata": {"name": "settings"}, "data": {"color": "blue"}});
    let map = serde_json::from_value(map).unwrap();
    maps.create(&parameters, &map).await.unwrap();
    (scene, ahead)
}

fn run(scene: &mut Scene, policy: TokenPolicy, ahead: &Ahead) {
    let ahead = ahead.0.clone();
    scene.start_nodes_with(Vec::new(), |config| {
        config.tokens = policy;
        config.clock = Arc::new(move || {
            Timestamp::now() + SignedDuration::from_secs(ahead.load(Ordering::SeqCst))
        });
    });
}

fn with_token(pod: &mut Value) {
    pod["spec"]["serviceAccountName"] = json!("worker");
    pod["spec"]["automountServiceAccountToken"] = json!(false);
    pod["spec"]["volumes"] = json!([{"name": "api", "projected": {"sources": [
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
        {"configMap": {"name": "settings"}}
    ]}}]);
}

async fn group(scene: &Scene) -> ContainerGroup {
    let request = DescribeContainerGroupsRequest {
        with_event: Some(true),
        ..DescribeContainerGroupsRequest::default()
    };
    let all = scene.eci.all_container_groups(request).await;
    all.unwrap().pop().unwrap()
}

fn file(group: &ContainerGroup, path: &str) -> String {
    let mut files = group.volumes[0]
        .config_file_volume_config_file_to_paths
        .iter();
    let file = files.find(|file| file.path == path).unwrap();
    String::from_utf8(STANDARD.decode(&file.content).unwrap()).unwrap()
}

fn life(pod: &Value) -> Option<TokenLife> {
    pod["metadata"]["annotations"][NOTE].as_str()?.parse().ok()
}

fn claims(token: &str) -> Value {
    let claims = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(claims).unwrap()).unwrap()
}

/// A pod with a token, its group as it came to run, and the life of that token.
async fn running(scene: &Scene) -> (ContainerGroup, TokenLife) {
    scene.create_pod("web-1", with_token).await;
    scene.runs("web-1").await;
    let look = async || scene.pod("web-1").await;
    let pod = eventually("noted", look, |pod| life(pod).is_some()).await;
    (group(scene).await, life(&pod).unwrap())
}

async fn renewed(scene: &Scene, before: TokenLife) -> TokenLife {
    let newer = |pod: &Value| life(pod).is_some_and(|life| life != before);
    let pod = eventually("renewed", async || scene.pod("web-1").await, newer).await;
    life(&pod).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_renewed_before_it_ends_and_nothing_is_started_anew() {
    let (scene, ahead) = start(SHORT).await;
    let (before, first) = running(&scene).await;
    let seconds = first.end.duration_since(first.begin).as_secs();
    assert_eq!(seconds, 600, "as long as the pod asks for");
    let token = file(&before, "token");
    let claimed = claims(&token);
    let granted = claimed["exp"].as_i64().unwrap() - claimed["iat"].as_i64().unwrap();
    assert_eq!(granted, 600);
    ahead.by(490);
    let second = renewed(&scene, first).await;
    assert!(second.begin.duration_since(first.begin).as_secs() >= 490);
    let runs = |group: &ContainerGroup| group.status == cloud_api::GroupStatus::Running;
    let after = eventually("the group runs", async || group(&scene).await, runs).await;
    assert_eq!(after.container_group_id, before.container_group_id);
    assert_ne!(file(&after, "token"), token);
    let pod = &claims(&file(&after, "token"))["kubernetes.io"]["pod"];
    assert_eq!(pod["name"], "web-1");
    let run = |group: &ContainerGroup| {
        let container = &group.containers[0];
        let since = container.current_state.as_ref();
        (
            container.restart_count,
            since.and_then(|state| state.start_time.clone()),
        )
    };
    assert_eq!(run(&after), run(&before));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_else_is_in_a_pod_s_files_comes_along() {
    let (scene, ahead) = start(SHORT).await;
    running(&scene).await;
    let maps: Api<ConfigMap> = Api::default_namespaced(scene.client.clone());
    let green = Patch::Merge(json!({"data": {"color": "green"}}));
    let parameters = PatchParams::default();
    maps.patch("settings", &parameters, &green).await.unwrap();
    // One object is fetched once for pods that ask at the same moment, so the first renewal may be too soon for it.
    let look = async || {
        ahead.by(490);
        file(&group(&scene).await, "color")
    };
    eventually("changed", look, |color| color == "green").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn before_its_time_a_token_stays_and_another_process_goes_by_what_is_noted() {
    let (mut scene, ahead) = start(SHORT).await;
    let (before, first) = running(&scene).await;
    scene.stop_nodes().await;
    ahead.by(360);
    run(&mut scene, SHORT, &ahead);
    scene.create_pod("other", |_| {}).await;
    scene.runs("other").await;
    scene
        .pods
        .delete("other", &Default::default())
        .await
        .unwrap();
    let look = async || scene.pod("other").await;
    eventually("other is gone", look, Value::is_null).await;
    assert_eq!(life(&scene.pod("web-1").await), Some(first));
    assert_eq!(file(&group(&scene).await, "token"), file(&before, "token"));
    ahead.by(130);
    renewed(&scene, first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewal_that_fails_is_told_and_tried_again() {
    let (scene, ahead) = start(SHORT).await;
    let (_, first) = running(&scene).await;
    let code = "InternalError".to_owned();
    scene.cloud.arrange_fault(
        "UpdateContainerGroup",
        Fault::Refuse {
            code,
            http_status: 400,
        },
        1,
    );
    ahead.by(490);
    let told = |events: &Vec<(String, String)>| {
        events
            .iter()
            .any(|(reason, _)| reason == "TokenRenewalFailed")
    };
    eventually("told", async || scene.events().await, told).await;
    assert_eq!(life(&scene.pod("web-1").await), Some(first));
    ahead.by(60);
    renewed(&scene, first).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_not_to_be_changed_gets_a_token_for_a_year_and_a_warning() {
    let (scene, ahead) = start(SHORT).await;
    scene
        .create_pod("job-1", |pod| {
            with_token(pod);
            pod["spec"]["restartPolicy"] = json!("Never");
        })
        .await;
    scene.runs("job-1").await;
    let look = async || scene.pod("job-1").await;
    let pod = eventually("noted", look, |pod| life(pod).is_some()).await;
    let granted = life(&pod).unwrap();
    let days = granted.end.duration_since(granted.begin).as_hours() / 24;
    assert_eq!(days, 365);
    let token = file(&group(&scene).await, "token");
    ahead.by(293 * 86_400);
    let told = |events: &Vec<(String, String)>| {
        events.iter().any(|(reason, message)| {
            reason == "TokenExpiresSoon"
                && message.contains(&format!("{:.0}", granted.end))
                && message.contains("restart policy Never")
        })
    };
    eventually("warned", async || scene.events().await, told).await;
    assert_eq!(file(&group(&scene).await, "token"), token);
}
