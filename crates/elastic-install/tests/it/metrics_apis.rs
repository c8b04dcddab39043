//! The custom and external metrics APIs of the add-on, with the rights that were installed and no others.

use elastic_controllers::WebhookAddress;
use elastic_install::apply;
use elastic_install::manifests::{self, Options};
use elastic_install::uninstall::{Abandon, UninstallOptions, uninstall};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::GroupVersionKind;
use kube::discovery::ApiResource;
use serde_json::{Value, json};

use crate::prometheus::Prometheus;
use crate::support::{CLUSTER, DEADLINE, Replica, Scene, eventually};

fn metrics(scene: &Scene) -> Api<DynamicObject> {
    let kind = GroupVersionKind::gvk("autoscaling.alibabacloud.com", "v1beta1", "ElasticMetric");
    let resource = ApiResource::from_gvk_with_plural(&kind, "elasticmetrics");
    Api::namespaced_with(scene.client.clone(), "default", &resource)
}

async fn apply_map(scene: &Scene, name: &str, data: Value) {
    let maps: Api<ConfigMap> = Api::namespaced(scene.client.clone(), "kube-system");
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data});
    let parameters = PatchParams::apply("a-user").force();
    maps.patch(name, &parameters, &Patch::Apply(map))
        .await
        .unwrap();
}

async fn api_service(scene: &Scene, name: &str) -> Option<APIService> {
    let services: Api<APIService> = Api::all(scene.client.clone());
    services.get_opt(name).await.unwrap()
}

/// The add-on with these rules and variables, its one replica under its own account.
async fn installed(scene: &Scene, rules: &str, variables: &[(&str, &str)]) -> Replica {
    apply_map(scene, "elastic-metrics", json!({"config.yaml": rules})).await;
    for object in manifests::objects(&Options::default()) {
        apply::apply(&scene.client, &object, false).await.unwrap();
    }
    let own = scene.server.server.client_as(
        "system:serviceaccount:kube-system:virtual-kubelet",
        &[
            "system:serviceaccounts",
            "system:serviceaccounts:kube-system",
            "system:authenticated",
        ],
    );
    let mut port = 0;
    let replica = scene.replica_as(own, "only", |config| {
        let variables = variables.iter();
        let variables = variables.map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        config.environment.extend(variables);
        config.webhook.as_mut().unwrap().address = WebhookAddress::Service {
            namespace: "kube-system".into(),
            name: "vk-webhook".into(),
            port: 443,
        };
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        port = listener.local_addr().unwrap().port();
        config.metrics = Some(listener);
    });
    let replica = replica.await;
    lead_to(scene, port).await;
    replica
}

/// What the controllers of a whole cluster do: the Service's endpoints are the replica's pod.
async fn lead_to(scene: &Scene, port: u16) {
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": "elastic-metrics-1", "labels": {"kubernetes.io/service-name": "elastic-metrics"}},
        "endpoints": [{"addresses": ["10.10.0.1"], "conditions": {"ready": true}}],
        "ports": [{"name": "metrics", "port": port, "protocol": "TCP"}]
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "elastic-metrics"},
        "subsets": [{"addresses": [{"ip": "10.10.0.1"}], "ports": [{"name": "metrics", "port": port, "protocol": "TCP"}]}]
    });
    let parameters = PatchParams::apply("endpoints-controller").force();
    let slices: Api<EndpointSlice> = Api::namespaced(scene.client.clone(), "kube-system");
    slices
        .patch("elastic-metrics-1", &parameters, &Patch::Apply(slice))
        .await
        .unwrap();
    let all: Api<Endpoints> = Api::namespaced(scene.client.clone(), "kube-system");
    all.patch("elastic-metrics", &parameters, &Patch::Apply(endpoints))
        .await
        .unwrap();
}

/// With the rights of its account.
async fn the_leader_tells_on_the_object(scene: &Scene) {
    let metric = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticMetric", "metadata": {"name": "sessions"},
        "spec": {
            "target": {"apiVersion": "v1", "kind": "Service", "name": "web"},
            "scrape": {"service": "kubernetes", "metric": "x", "path": "/none"}, "intervalSeconds": 1
        }
    });
    metrics(scene)
        .create(
            &Default::default(),
            &serde_json::from_value(metric).unwrap(),
        )
        .await
        .unwrap();
    let status = async || metrics(scene).get("sessions").await.unwrap().data["status"].clone();
    let failed = |status: &Value| status["conditions"][0]["reason"] == "ScrapeFailed";
    let status = eventually("endpoints are read", status, failed).await;
    let message = status["conditions"][0]["message"].as_str().unwrap();
    assert!(
        !message.contains("could not be listed"),
        "the account may list endpoints: {message}"
    );
    metrics(scene)
        .delete("sessions", &DeleteParams::default())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_are_registered_when_asked_for_and_go_with_the_add_on() {
    let scene = Scene::start().await;
    let bad = "rules: [{seriesQuery: x, metricsQuery: '<<.Oops>>'}]";
    let replica = installed(&scene, bad, &[("METRICS_APIS", "custom")]).await;
    let custom = "v1beta2.custom.metrics.k8s.io";
    let made = eventually(
        "registered",
        async || api_service(&scene, custom).await,
        Option::is_some,
    )
    .await;
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), "kube-system");
    let kept = secrets
        .get("vk-webhook-certificate")
        .await
        .unwrap()
        .data
        .unwrap();
    let spec = made.unwrap().spec.unwrap();
    assert_eq!(spec.ca_bundle.unwrap().0, kept["ca.crt"].0);
    assert_eq!(
        spec.service.unwrap().name.as_deref(),
        Some("elastic-metrics")
    );
    assert!(
        api_service(&scene, "v1beta1.external.metrics.k8s.io")
            .await
            .is_none(),
        "nobody asked for it"
    );
    let told = async || scene.events().await;
    eventually("the bad rules are told", told, |events: &Vec<String>| {
        events
            .iter()
            .any(|event| event.contains("rules[0].metricsQuery"))
    })
    .await;
    the_leader_tells_on_the_object(&scene).await;
    let removal = UninstallOptions {
        cluster_id: CLUSTER.to_owned(),
        abandon: Abandon::default(),
        patience: DEADLINE,
    };
    uninstall(&scene.client, Some(&scene.eci), &removal, &mut |_| ())
        .await
        .unwrap();
    replica.ended().await;
    assert!(api_service(&scene, custom).await.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_api_of_another_server_is_left_alone() {
    let scene = Scene::start().await;
    let services: Api<APIService> = Api::all(scene.client.clone());
    let other = json!({
        "metadata": {"name": "v1beta1.external.metrics.k8s.io"},
        "spec": {
            "group": "external.metrics.k8s.io", "version": "v1beta1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": "keda", "name": "keda-metrics-apiserver", "port": 443}
        }
    });
    services
        .create(&Default::default(), &serde_json::from_value(other).unwrap())
        .await
        .unwrap();
    let before = api_service(&scene, "v1beta1.external.metrics.k8s.io")
        .await
        .unwrap()
        .spec;
    let replica = scene.replica("only", |config| {
        config
            .environment
            .insert("METRICS_APIS".to_owned(), "custom,external".to_owned());
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        config.metrics = Some(listener);
    });
    let replica = replica.await;
    scene.leads("only").await;
    // The certificate is there before anything is registered, and the leader has had its time.
    let secrets: Api<Secret> = Api::namespaced(scene.client.clone(), "kube-system");
    let kept = async || secrets.get_opt("vk-webhook-certificate").await.unwrap();
    eventually("certificate", kept, Option::is_some).await;
    replica.stop().await;
    let after = api_service(&scene, "v1beta1.external.metrics.k8s.io")
        .await
        .unwrap()
        .spec;
    assert_eq!(before, after);
    assert!(
        api_service(&scene, "v1beta1.custom.metrics.k8s.io")
            .await
            .is_none(),
        "all that was asked for, or nothing"
    );
}

/// Every value is the query's own, so that nothing has to be scraped first.
const RESOURCE_RULES: &str = r#"
resourceRules:
  cpu: &both
    containerQuery: 'label_replace(label_replace(vector(0.25), "pod", "web-1", "", ""), "container", "web", "", "")'
    nodeQuery: 'label_replace(vector(2), "node", "worker-1", "", "")'
    resources: {overrides: {namespace: {resource: namespace}, node: {resource: node}, pod: {resource: pod}}}
    containerLabel: container
  memory: *both
"#;

async fn get(scene: &Scene, path: &str) -> Value {
    let request = http::Request::get(path).body(Vec::new()).unwrap();
    match scene.client.request::<Value>(request).await {
        Ok(answer) => answer,
        Err(error) => json!({"error": error.to_string()}),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_a_real_prometheus_are_read_through_the_installed_add_on() {
    let prometheus = Prometheus::start().await;
    let scene = Scene::start().await;
    let pods: Api<Pod> = Api::namespaced(scene.client.clone(), "default");
    let pod = json!({"metadata": {"name": "web-1"}, "spec": {"containers": [{"name": "web", "image": "web:1"}]}});
    pods.create(&Default::default(), &serde_json::from_value(pod).unwrap())
        .await
        .unwrap();
    let variables = [
        ("METRICS_APIS", "custom,resource"),
        ("PROMETHEUS_URL", prometheus.url.as_str()),
    ];
    let replica = installed(&scene, RESOURCE_RULES, &variables).await;
    let metric = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticMetric", "metadata": {"name": "sessions"},
        "spec": {
            "target": {"apiVersion": "v1", "kind": "Service", "name": "web"},
            "query": "vector(2721)", "intervalSeconds": 1
        }
    });
    eventually(
        "the kind is served",
        async || {
            let metric = serde_json::from_value(metric.clone()).unwrap();
            metrics(&scene)
                .create(&Default::default(), &metric)
                .await
                .map(drop)
                .map_err(|error| error.to_string())
        },
        Result::is_ok,
    )
    .await
    .unwrap();
    let sessions = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/services/web/sessions";
    let read = async |path: &str| get(&scene, path).await;
    let value = |answer: &Value| answer["items"][0]["value"] == "2721";
    eventually(
        "an ElasticMetric is read",
        async || read(sessions).await,
        value,
    )
    .await;
    let pod = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/web-1";
    let usage = |answer: &Value| answer["containers"][0]["usage"]["cpu"] == "250000000n";
    eventually("a pod's usage is read", async || read(pod).await, usage).await;
    let node = "/apis/metrics.k8s.io/v1beta1/nodes/worker-1";
    let usage = |answer: &Value| answer["usage"]["cpu"] == "2000000000n";
    eventually("a node's usage is read", async || read(node).await, usage).await;
    replica.stop().await;
}
