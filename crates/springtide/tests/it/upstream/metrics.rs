//! The metrics APIs behind upstream's aggregator, asked by upstream's own autoscaler.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elastic_metrics::{
    CustomMetricsConfig, FrontProxy, MetricsTls, run_custom_metrics, write_request,
};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tool_upstream::{ControlPlane, Options};

use crate::cluster::{run, wait_for};

const PUSH: &str = "/apis/pushed.autoscaling.alibabacloud.com/v1/namespaces/default/pushedmetrics";
const EXTERNAL: &str = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/queue_depth";

/// A control plane, and the metrics APIs in this process.
struct Behind {
    plane: ControlPlane,
    threads: Runtime,
    client: Client,
    stop: CancellationToken,
}

impl Drop for Behind {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An address of this machine that is not of its loopback, which Endpoints may not be.
fn own_address() -> IpAddr {
    let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
    // Nothing is sent: only a route is looked for.
    let routed = socket.connect("192.0.2.1:9");
    routed.expect("this test needs a network interface with a route besides loopback");
    let address = socket.local_addr().unwrap().ip();
    assert!(!address.is_loopback(), "{address}");
    address
}

impl Behind {
    fn start() -> Self {
        let plane = ControlPlane::start(&Options::default());
        let plane = plane.unwrap_or_else(|error| panic!("{error:#}"));
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let client = threads.block_on(async {
            let file = Kubeconfig::read_from(plane.kubeconfig()).unwrap();
            let usual = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &usual).await.unwrap();
            let client = Client::try_from(config).unwrap();
            elastic_controllers::install_definitions(&client)
                .await
                .unwrap();
            client
        });
        let behind = Self {
            plane,
            threads,
            client,
            stop: CancellationToken::new(),
        };
        behind.serve();
        behind
    }

    /// Serves on an address that the API server reaches, behind a Service as the add-on has it.
    fn serve(&self) {
        let address = own_address();
        let listener = self
            .threads
            .block_on(TcpListener::bind((address, 0)))
            .unwrap();
        let port = listener.local_addr().unwrap().port();
        self.apply(&[
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "elastic-metrics", "namespace": "kube-system"},
                "spec": {"ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]}}),
            json!({"apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": "elastic-metrics", "namespace": "kube-system"},
                "subsets": [{"addresses": [{"ip": address}], "ports": [{"name": "https", "port": port, "protocol": "TCP"}]}]}),
        ]);
        let name = "elastic-metrics.kube-system.svc".to_owned();
        let own = rcgen::generate_simple_self_signed(vec![name]).unwrap();
        let tls = MetricsTls {
            certificate_pem: own.cert.pem(),
            key_pem: own.signing_key.serialize_pem(),
            authority_pem: own.cert.pem(),
            client_authority_pem: None,
        };
        let (client, stop) = (self.client.clone(), self.stop.clone());
        self.threads.spawn(async move {
            let front_proxy = FrontProxy::find(&client).await.unwrap();
            let front_proxy = front_proxy.expect("the API server publishes its front proxy");
            let config = CustomMetricsConfig::new(None, tls, front_proxy);
            run_custom_metrics(client, config, listener, stop)
                .await
                .unwrap();
        });
    }

    /// The autoscaler's own role, which later versions than this have: it may read external metrics.
    fn allow_autoscaler(&self) {
        let account = json!({"kind": "ServiceAccount", "name": "horizontal-pod-autoscaler", "namespace": "kube-system"});
        self.apply(&[
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "external-metrics"},
                "rules": [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}]}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "external-metrics"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "external-metrics"}, "subjects": [account]}),
        ]);
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        run(&mut self.plane.kubectl(arguments), None)
    }

    fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let applied = run(&mut self.plane.kubectl(&["apply", "-f", "-"]), Some(&list));
        applied.unwrap_or_else(|error| panic!("apply: {error}\n{list}"));
    }

    fn get(&self, arguments: &[&str]) -> Result<Value, String> {
        let text = self.try_kubectl(&[&["get", "-o", "json"], arguments].concat())?;
        serde_json::from_str(&text).map_err(|error| error.to_string())
    }

    /// Pushes both metrics again and again, through the API server.
    fn push(&self, value: &Arc<Mutex<f64>>) {
        let (client, value) = (self.client.clone(), value.clone());
        let stop = self.stop.clone();
        self.threads.spawn(async move {
            let (queue, service) = (
                BTreeMap::new(),
                BTreeMap::from([("service".to_owned(), "api".to_owned())]),
            );
            while !stop.is_cancelled() {
                let value = *value.lock().unwrap();
                let series = [("queue_depth", &queue, value), ("rps", &service, value)];
                let body = write_request(&series, jiff::Timestamp::now());
                let request = http::Request::post(PUSH)
                    .header("content-type", "application/x-protobuf")
                    .header("content-encoding", "snappy");
                // Until the API is there, nobody takes it.
                let _ = client.request_text(request.body(body).unwrap()).await;
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        });
    }

    /// A Deployment, and an autoscaler that wants ten of a metric for each replica.
    fn create_autoscaled(&self, name: &str, metric: &Value) {
        self.apply(&[
            json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "namespace": "default"},
                "spec": {"replicas": 2, "selector": {"matchLabels": {"app": name}}, "template": {
                    "metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "main", "image": "shop:1"}]}}}}),
            json!({"apiVersion": "autoscaling/v2beta2", "kind": "HorizontalPodAutoscaler", "metadata": {"name": name, "namespace": "default"},
                "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                    "minReplicas": 1, "maxReplicas": 9, "metrics": [metric],
                    "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}}),
        ]);
    }

    fn until_replicas(&self, name: &str, wanted: i32) -> Value {
        wait_for(&format!("{wanted} replicas of {name}"), 120, || {
            let found = self.get(&["deployment", name])?;
            if found["spec"]["replicas"] == wanted {
                return Ok(found["metadata"]["generation"].clone());
            }
            Err(self.told_by_the_autoscaler(name)?)
        })
    }

    /// Its status and its events.
    fn told_by_the_autoscaler(&self, name: &str) -> Result<String, String> {
        let autoscaler = self.get(&["horizontalpodautoscalers.v2beta2.autoscaling", name])?;
        let events = self.try_kubectl(&[
            "get",
            "events",
            "--field-selector",
            "involvedObject.kind=HorizontalPodAutoscaler",
        ])?;
        Ok(format!("{:#}\n{events}", autoscaler["status"]))
    }

    /// The message of the condition that says whether the metric can be read.
    fn until_active(&self, name: &str, wanted: &str) -> String {
        wait_for(&format!("ScalingActive of {name} is {wanted}"), 120, || {
            let autoscaler = self.get(&["horizontalpodautoscalers.v2beta2.autoscaling", name])?;
            let conditions = autoscaler["status"]["conditions"].as_array();
            let mut conditions = conditions.into_iter().flatten();
            let found =
                conditions.find(|one| one["type"] == "ScalingActive" && one["status"] == wanted);
            let Some(found) = found else {
                return Err(self.told_by_the_autoscaler(name)?);
            };
            Ok(found["message"].as_str().unwrap_or_default().to_owned())
        })
    }
}

#[test]
fn an_upstream_autoscaler_follows_our_metrics_and_keeps_its_size_when_they_are_no_numbers() {
    let behind = Behind::start();
    let value = Arc::new(Mutex::new(40.0));
    behind.push(&value);
    wait_for("the aggregator hands questions on", 120, || {
        let answer = behind.try_kubectl(&["get", "--raw", EXTERNAL])?;
        if answer.contains("\"value\":\"40\"") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    for version in ["v1beta1", "v1beta2"] {
        let list = format!("/apis/custom.metrics.k8s.io/{version}");
        let list = behind.try_kubectl(&["get", "--raw", &list]).unwrap();
        assert!(list.contains("\"services/rps\""), "{list}");
    }
    let refused = behind.try_kubectl(&["get", "--raw", EXTERNAL, "--as", "mallory"]);
    assert!(refused.is_err_and(|why| why.contains("mallory")));
    behind.allow_autoscaler();
    let target = json!({"type": "AverageValue", "averageValue": "10"});
    let external = json!({"type": "External", "external": {"metric": {"name": "queue_depth"}, "target": target}});
    let object = json!({"type": "Object", "object": {"metric": {"name": "rps"}, "target": target,
        "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "api"}}});
    behind.create_autoscaled("queue", &external);
    behind.create_autoscaled("api", &object);
    let generations = ["queue", "api"].map(|name| behind.until_replicas(name, 4));
    *value.lock().unwrap() = f64::NAN;
    for name in ["queue", "api"] {
        let message = behind.until_active(name, "False");
        assert!(message.contains("not a number"), "{name}: {message}");
    }
    let kept = ["queue", "api"].map(|name| behind.until_replicas(name, 4));
    assert_eq!(kept, generations, "somebody wrote a size in between");
    *value.lock().unwrap() = 20.0;
    for name in ["queue", "api"] {
        behind.until_replicas(name, 2);
    }
}
