//! Installing, upgrading and removing, on a cluster and in the cloud.

use std::process::Command;
use std::time::Duration;

use elastic_core::CronHorizontalPodAutoscaler;
use elastic_install::apply::{self, Outcome};
use elastic_install::manifests::{self, Options};
use elastic_install::status;
use elastic_install::uninstall::{Abandon, UninstallError, UninstallOptions, uninstall};
use k8s_openapi::api::admissionregistration::v1::MutatingWebhookConfiguration;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{ConfigMap, Node, Secret};
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::core::GroupVersionKind;
use kube::{Client, ResourceExt};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::support::{CLUSTER, KEY, NODE, Scene, eventually};

fn options() -> Options {
    let mut options = Options::default();
    let given = [
        ("ECI_REGION", "cn-hangzhou"),
        ("ECI_VSWITCH", "vsw-local-h"),
    ];
    let given = given.map(|(name, value)| (name.to_owned(), value.to_owned()));
    options.environment.extend(given);
    options
}

async fn install(client: &Client, options: &Options, dry_run: bool) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    for object in manifests::objects(options) {
        outcomes.push(apply::apply(client, &object, dry_run).await.unwrap());
    }
    outcomes
}

fn removal(abandon: Abandon) -> UninstallOptions {
    UninstallOptions {
        cluster_id: CLUSTER.to_owned(),
        abandon,
        patience: Duration::from_secs(40),
    }
}

async fn names<K>(api: Api<K>) -> Vec<String>
where
    K: kube::Resource + Clone + std::fmt::Debug + serde::de::DeserializeOwned,
{
    let list = api.list(&ListParams::default()).await.unwrap();
    let mut names: Vec<String> = list.iter().map(ResourceExt::name_any).collect();
    names.retain(|name| {
        [
            "virtual-kubelet",
            "ack-virtual-node",
            "vk-webhook",
            "eci-profile",
            "elasticworkload",
        ]
        .iter()
        .any(|ours| name.contains(ours))
    });
    names
}

/// Everything of ours that a cluster can have.
async fn left(client: &Client) -> Vec<String> {
    let system = "kube-system";
    let mut all = names::<Node>(Api::all(client.clone())).await;
    all.extend(names::<MutatingWebhookConfiguration>(Api::all(client.clone())).await);
    all.extend(names::<ClusterRole>(Api::all(client.clone())).await);
    all.extend(names::<ClusterRoleBinding>(Api::all(client.clone())).await);
    all.extend(names::<Role>(Api::all(client.clone())).await);
    all.extend(names::<Deployment>(Api::namespaced(client.clone(), system)).await);
    all.extend(names::<ConfigMap>(Api::namespaced(client.clone(), system)).await);
    all.extend(names::<Secret>(Api::namespaced(client.clone(), system)).await);
    all.extend(names::<Lease>(Api::all(client.clone())).await);
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installing_twice_changes_nothing_and_users_keep_their_profile() {
    let scene = Scene::start().await;
    let planned = install(&scene.client, &options(), true).await;
    assert!(planned.iter().all(|outcome| *outcome == Outcome::Created));
    assert_eq!(
        left(&scene.client).await,
        Vec::<String>::new(),
        "a dry run writes nothing"
    );
    let first = install(&scene.client, &options(), false).await;
    assert!(
        first.iter().all(|outcome| *outcome == Outcome::Created),
        "{first:?}"
    );
    let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), "kube-system");
    let edit = Patch::Merge(json!({"data": {"vSwitchIds": "vsw-mine"}}));
    maps.patch("eci-profile", &PatchParams::default(), &edit)
        .await
        .unwrap();
    let second = install(&scene.client, &options(), false).await;
    assert!(
        second
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Unchanged | Outcome::Kept)),
        "{second:?}"
    );
    let profile = maps.get("eci-profile").await.unwrap();
    assert_eq!(profile.data.unwrap()["vSwitchIds"], "vsw-mine");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_takes_over_what_people_edited_in_the_deployment() {
    let scene = Scene::start().await;
    install(&scene.client, &options(), false).await;
    let deployments: Api<Deployment> = Api::namespaced(scene.client.clone(), "kube-system");
    let edit = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "controller", "env": [{"name": "ECI_SECURITY_GROUP", "value": "sg-edited"}]}
    ]}}}});
    deployments
        .patch(
            "ack-virtual-node-controller",
            &PatchParams::default(),
            &Patch::Strategic(edit),
        )
        .await
        .unwrap();
    let mut next = status::installed(&scene.client).await.unwrap().unwrap();
    assert_eq!(next.environment["ECI_SECURITY_GROUP"], "sg-edited");
    assert_eq!(next.environment["ECI_VSWITCH"], "vsw-local-h");
    next.image = "registry.example/springtide:next".to_owned();
    let outcomes = install(&scene.client, &next, false).await;
    let configured = outcomes
        .iter()
        .filter(|outcome| **outcome == Outcome::Configured);
    assert_eq!(configured.count(), 1, "only the Deployment: {outcomes:?}");
    let after = status::installed(&scene.client).await.unwrap().unwrap();
    assert_eq!(after, next);
    let found = status::status(&scene.client).await.unwrap();
    assert_eq!(found.version.as_deref(), Some(env!("CARGO_PKG_VERSION")));
    assert_eq!(found.missing, Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn moving_into_the_cluster_replaces_the_webhooks_url_by_the_service() {
    let scene = Scene::start().await;
    elastic_controllers::register_admission(
        &scene.client,
        &elastic_controllers::WebhookAddress::Url("https://10.0.0.5:9443".to_owned()),
        "PEM",
        &elastic_core::eci_profile::EciProfile::default(),
    )
    .await
    .unwrap();
    install(&scene.client, &options(), false).await;
    let hooks: Api<MutatingWebhookConfiguration> = Api::all(scene.client.clone());
    let webhooks = hooks.get("vk-webhook").await.unwrap().webhooks.unwrap();
    for webhook in webhooks {
        assert_eq!(webhook.client_config.url, None);
        assert_eq!(webhook.client_config.service.unwrap().name, "vk-webhook");
    }
}

/// The controller's own account, with the rights that were installed and no others.
fn controller(scene: &Scene) -> Client {
    scene.server.server.client_as(
        "system:serviceaccount:kube-system:virtual-kubelet",
        &[
            "system:serviceaccounts",
            "system:serviceaccounts:kube-system",
            "system:authenticated",
        ],
    )
}

async fn pod_with_references(scene: &Scene) {
    let maps: Api<ConfigMap> = Api::default_namespaced(scene.client.clone());
    let map = json!({"metadata": {"name": "settings"}, "data": {"color": "blue"}});
    maps.create(
        &PostParams::default(),
        &serde_json::from_value(map).unwrap(),
    )
    .await
    .unwrap();
    let pod = json!({
        "metadata": {"name": "careful"},
        "spec": {
            "nodeName": NODE, "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "web", "image": "shop:1", "envFrom": [{"configMapRef": {"name": "settings"}}],
                "volumeMounts": [{"name": "s", "mountPath": "/s"}]
            }],
            "volumes": [{"name": "s", "configMap": {"name": "settings"}}]
        }
    });
    scene
        .pods()
        .create(
            &PostParams::default(),
            &serde_json::from_value(pod).unwrap(),
        )
        .await
        .unwrap();
    scene.runs("careful").await;
}

/// A schedule raises an autoscaler's minimum and its workload; afterwards nothing of it is left.
async fn schedules_scale(client: &Client) {
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "tide", "namespace": "default"},
        "spec": {
            "replicas": 1, "selector": {"matchLabels": {"app": "tide"}},
            "template": {
                "metadata": {"labels": {"app": "tide"}},
                "spec": {"containers": [{"name": "web", "image": "shop:1"}]}
            }
        }
    });
    let autoscaler = json!({
        "apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler",
        "metadata": {"name": "tide", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "tide"}, "maxReplicas": 3,
            "metrics": [{"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 50}}}]
        }
    });
    let schedule = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "CronHorizontalPodAutoscaler",
        "metadata": {"name": "tide", "namespace": "default"},
        "spec": {
            "scaleTargetRef": {"apiVersion": "autoscaling/v2", "kind": "HorizontalPodAutoscaler", "name": "tide"},
            "jobs": [{"name": "up", "schedule": "* * * * * *", "targetSize": 4}]
        }
    });
    let all = [&deployment, &autoscaler, &schedule];
    for object in all {
        apply::apply(client, object, false).await.unwrap();
    }
    let found: Api<CronHorizontalPodAutoscaler> = Api::default_namespaced(client.clone());
    let look = async || {
        let status = found.get("tide").await.unwrap().status.unwrap_or_default();
        status
            .conditions
            .first()
            .map(|one| format!("{:?} {}", one.state, one.message))
    };
    let succeeded = |told: &Option<String>| {
        told.as_ref()
            .is_some_and(|told| told.starts_with("Succeed"))
    };
    eventually("scaled by schedule", look, succeeded).await;
    let at_once = DeleteParams::default();
    found.delete("tide", &at_once).await.unwrap();
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::default_namespaced(client.clone());
    autoscalers.delete("tide", &at_once).await.unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(client.clone());
    deployments.delete("tide", &at_once).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn installed_rights_suffice_and_removal_leaves_nothing_anywhere() {
    let scene = Scene::start().await;
    install(&scene.client, &options(), false).await;
    let own = controller(&scene);
    let replica = scene
        .replica_as(own, "only", |config| {
            let address = elastic_controllers::WebhookAddress::Service {
                namespace: "kube-system".into(),
                name: "vk-webhook".into(),
                port: 443,
            };
            config.webhook.as_mut().unwrap().address = address;
        })
        .await;
    scene
        .nodes_become(&[NODE, "virtual-kubelet-cn-hangzhou-i"])
        .await;
    let hooks: Api<MutatingWebhookConfiguration> = Api::all(scene.client.clone());
    let bundled = async || {
        let hook = hooks.get("vk-webhook").await.unwrap();
        let webhooks = hook.webhooks.unwrap();
        webhooks
            .iter()
            .all(|webhook| webhook.client_config.ca_bundle.is_some())
    };
    eventually("authority put in", bundled, |done| *done).await;
    assert!(
        install(&scene.client, &options(), false)
            .await
            .iter()
            .all(|outcome| matches!(outcome, Outcome::Unchanged | Outcome::Kept)),
        "installing again leaves the authority alone"
    );
    pod_with_references(&scene).await;
    for name in ["web-1", "web-2"] {
        scene.create_pod(name, NODE).await;
        scene.runs(name).await;
    }
    assert_eq!(scene.groups().await.len(), 3);
    schedules_scale(&scene.client).await;
    let mut lines = Vec::new();
    uninstall(
        &scene.client,
        Some(&scene.eci),
        &removal(Abandon::default()),
        &mut |line| lines.push(line),
    )
    .await
    .unwrap();
    replica.ended().await;
    assert!(scene.groups().await.is_empty());
    assert_eq!(
        left(&scene.client).await,
        Vec::<String>::new(),
        "{lines:#?}"
    );
    assert!(
        lines.iter().any(|line| line.contains("no container group")),
        "{lines:#?}"
    );
    let pods = scene.pods().list(&ListParams::default()).await.unwrap();
    assert!(pods.items.is_empty());
}

/// The source of a workload that was deleted while nobody could give it its replicas back.
fn former_source() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "former", "namespace": "default",
            "labels": {"autoscaling.alibabacloud.com/elastic-source": "true"},
            "annotations": {"autoscaling.alibabacloud.com/elastic-source-of": "{\"name\":\"former\",\"uid\":\"gone\",\"replicas\":9,\"asked\":4}"}
        },
        "spec": {
            "replicas": 4, "selector": {"matchLabels": {"app": "former"}},
            "template": {"metadata": {"labels": {"app": "former"}}, "spec": {"containers": [{"name": "a", "image": "a:1"}]}}
        }
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn groups_of_a_dead_controller_are_deleted_and_unnamed_leftovers_are_refused() {
    let scene = Scene::start().await;
    install(&scene.client, &options(), false).await;
    let replica = scene.replica("only", |_| ()).await;
    scene
        .nodes_become(&[NODE, "virtual-kubelet-cn-hangzhou-i"])
        .await;
    scene.create_pod("web-1", NODE).await;
    scene.runs("web-1").await;
    replica.kill();
    let workload = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload",
        "metadata": {"name": "shop", "namespace": "default"},
        "spec": {
            "sourceTarget": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "min": 1, "max": 2},
            "elasticUnit": [{"name": "burst", "max": 10}]
        }
    });
    apply::apply(&scene.client, &workload, false).await.unwrap();
    let mut silent = |_| ();
    let refused = uninstall(
        &scene.client,
        Some(&scene.eci),
        &removal(Abandon::default()),
        &mut silent,
    )
    .await;
    match refused {
        Err(UninstallError::Objects(names)) => assert_eq!(names, "ElasticWorkload default/shop"),
        other => panic!("{other:?}"),
    }
    let no_cloud = uninstall(
        &scene.client,
        None,
        &removal(Abandon::default()),
        &mut silent,
    )
    .await;
    assert!(
        matches!(no_cloud, Err(UninstallError::NoCloud)),
        "{no_cloud:?}"
    );
    assert_eq!(scene.groups().await.len(), 1, "refusals change nothing");
    apply::apply(&scene.client, &former_source(), false)
        .await
        .unwrap();
    let keep = Abandon {
        elastic_workloads: true,
        ..Abandon::default()
    };
    uninstall(&scene.client, Some(&scene.eci), &removal(keep), &mut silent)
        .await
        .unwrap();
    assert!(scene.groups().await.is_empty());
    assert_eq!(left(&scene.client).await, Vec::<String>::new());
    let kept = apply::apply(&scene.client, &workload, false).await.unwrap();
    assert_eq!(
        kept,
        Outcome::Unchanged,
        "the workload and its definition stay"
    );
    let deployments: Api<Deployment> = Api::default_namespaced(scene.client.clone());
    let former = deployments.get("former").await.unwrap();
    assert_eq!(former.spec.unwrap().replicas, Some(9));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_printed_manifests_install_the_same_with_kubectl() {
    let scene = Scene::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("https://{}", listener.local_addr().unwrap());
    scene.server.server.serve(listener);
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("addon.yaml");
    let careful = manifests::stream(&options(), false).unwrap();
    for foreign in [
        "workloadspreads.apps.kruise.io",
        "resourcepolicies.scheduling.alibabacloud.com",
    ] {
        assert!(careful.lines().next().unwrap().contains(foreign));
        assert!(!careful.contains(&format!("name: {foreign}")));
    }
    assert!(careful.contains("name: elasticworkloads.autoscaling.alibabacloud.com"));
    let text = manifests::stream(&options(), true).unwrap();
    std::fs::write(&file, text).unwrap();
    let authority = folder.path().join("ca.pem");
    let credentials = scene.server.server.credentials();
    std::fs::write(&authority, &credentials.ca_pem).unwrap();
    let apply = || {
        let output = Command::new("kubectl")
            .args(["--server", &url, "--token", &credentials.admin_token])
            .arg("--certificate-authority")
            .arg(&authority)
            .args(["apply", "-f"])
            .arg(&file)
            .env("HOME", folder.path())
            .output()
            .expect("kubectl is on the PATH (Debian: kubernetes-client)");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        text
    };
    let first = tokio::task::block_in_place(apply);
    let wanted = manifests::objects(&options()).len();
    assert_eq!(
        first
            .lines()
            .filter(|line| line.ends_with(" created"))
            .count(),
        wanted,
        "{first}"
    );
    let second = tokio::task::block_in_place(apply);
    // kubectl replaces a budget's selector as a whole each time, and calls that configured.
    let same = second
        .lines()
        .filter(|line| line.ends_with(" unchanged") || line.starts_with("poddisruptionbudget"));
    assert_eq!(same.count(), wanted, "{second}");
    let found = status::status(&scene.client).await.unwrap();
    assert_eq!(found.missing, Vec::<String>::new());
}

/// What the access service was asked, one line a call.
async fn access_service(listener: TcpListener, calls: tokio::sync::mpsc::UnboundedSender<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let calls = calls.clone();
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            loop {
                let read = stream.read(&mut buffer).await.unwrap_or(0);
                if read == 0 {
                    return;
                }
                let request = String::from_utf8_lossy(&buffer[..read]).into_owned();
                let header = |name: &str| {
                    let line = request
                        .lines()
                        .find(|line| line.to_lowercase().starts_with(name));
                    line.and_then(|line| line.split_once(": "))
                        .unwrap_or_default()
                        .1
                        .to_owned()
                };
                let action = header("x-acs-action");
                let _ = calls.send(format!("{action} {}", header("x-acs-version")));
                let (status, body) = match action.as_str() {
                    "CreatePolicy" => (
                        "409 Conflict",
                        json!({"Code": "EntityAlreadyExists.Policy", "Message": "there", "RequestId": "R"}),
                    ),
                    _ => ("200 OK", json!({"RequestId": "R"})),
                };
                let body = body.to_string();
                let answer = format!(
                    "HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

#[tokio::test]
async fn granting_makes_the_policys_next_version_and_attaches_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (sender, mut calls) = tokio::sync::mpsc::unbounded_channel();
    let service = tokio::spawn(access_service(listener, sender));
    let key = cloud_api::Credentials::new(KEY.0, KEY.1);
    let config = cloud_api::EciConfig::new(endpoint, "cn-hangzhou", key);
    let client = cloud_api::EciClient::new(config, cloud_api::ClientSources::system()).unwrap();
    elastic_install::ram::grant(&client, "springtide")
        .await
        .unwrap();
    let mut seen = Vec::new();
    while let Ok(call) = calls.try_recv() {
        seen.push(call);
    }
    assert_eq!(
        seen,
        [
            "CreatePolicy 2015-05-01",
            "CreatePolicyVersion 2015-05-01",
            "AttachPolicyToUser 2015-05-01"
        ]
    );
    service.abort();
}

#[test]
fn the_policy_allows_no_more_than_named_actions() {
    let policy = elastic_install::ram::policy();
    let actions: Vec<&str> = policy["Statement"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|statement| statement["Action"].as_array().unwrap())
        .map(|action: &Value| action.as_str().unwrap())
        .collect();
    assert!(actions.contains(&"eci:CreateContainerGroup"));
    assert!(
        actions.iter().all(|action| !action.contains('*')),
        "{actions:?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kind_of_another_product_is_neither_overwritten_nor_removed() {
    let scene = Scene::start().await;
    let definitions: Api<CustomResourceDefinition> = Api::all(scene.client.clone());
    let name = "uniteddeployments.apps.kruise.io";
    let mut theirs: CustomResourceDefinition = elastic_core::definitions::definitions()
        .into_iter()
        .find(|definition| definition.name_any() == name)
        .unwrap();
    theirs.metadata.labels = None;
    theirs.spec.names.short_names = Some(vec!["theirs".to_owned()]);
    definitions
        .create(&PostParams::default(), &theirs)
        .await
        .unwrap();
    install(&scene.client, &options(), false).await;
    elastic_controllers::install_definitions(&scene.client)
        .await
        .unwrap();
    let united = json!({"apiVersion": "apps.kruise.io/v1alpha1", "kind": "UnitedDeployment", "metadata": {"name": "theirs"},
        "spec": {"selector": {}, "template": {}, "topology": {}}});
    let kind = GroupVersionKind::gvk("apps.kruise.io", "v1alpha1", "UnitedDeployment");
    let objects: Api<DynamicObject> =
        Api::default_namespaced_with(scene.client.clone(), &ApiResource::from_gvk(&kind));
    let created = async || {
        let object = serde_json::from_value(united.clone()).unwrap();
        let made = objects.create(&PostParams::default(), &object).await;
        made.map(drop).map_err(|error| error.to_string())
    };
    eventually("served", created, Result::is_ok).await.unwrap();
    let abandoned = removal(Abandon {
        groups: true,
        ..Abandon::default()
    });
    uninstall(&scene.client, None, &abandoned, &mut drop)
        .await
        .unwrap();
    let kept = definitions.get(name).await.unwrap();
    assert_eq!(kept.spec.names.short_names, Some(vec!["theirs".to_owned()]));
    assert!(kept.metadata.labels.is_none());
    assert!(objects.get_opt("theirs").await.unwrap().is_some());
    let ours = "elasticworkloads.autoscaling.alibabacloud.com";
    let gone = async || definitions.get_opt(ours).await.unwrap().is_none();
    eventually("ours is gone", gone, |gone| *gone).await;
}
