//! The forecast controller against a real API server, with a history in a ConfigMap and one in a real Prometheus
//! (Debian package `prometheus`, which brings `promtool`).

use std::fmt::Write as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use elastic_controllers::{ElasticForecastConfig, install_definitions, run_elastic_forecast};
use elastic_core::ElasticForecast;
use elastic_core::forecast::{ElasticForecastStatus, series};
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use local_apiserver::testing::TestServer;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const DEADLINE: Duration = Duration::from_secs(60);
const STEP_SECONDS: i64 = 3600;

struct Scene {
    _server: TestServer,
    client: Client,
    forecasts: Api<ElasticForecast>,
    shutdown: CancellationToken,
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

impl Scene {
    async fn start() -> Self {
        let server = TestServer::start().await;
        let client = server.client();
        install_definitions(&client).await.unwrap();
        let shutdown = CancellationToken::new();
        let config = ElasticForecastConfig::default();
        tokio::spawn(run_elastic_forecast(
            client.clone(),
            config,
            shutdown.clone(),
        ));
        Self {
            forecasts: Api::default_namespaced(client.clone()),
            client,
            shutdown,
            _server: server,
        }
    }

    async fn create(&self, spec: Value) {
        let forecast: ElasticForecast = serde_json::from_value(json!({
            "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticForecast",
            "metadata": {"name": "web"}, "spec": spec,
        }))
        .unwrap();
        self.forecasts
            .create(&PostParams::default(), &forecast)
            .await
            .unwrap();
    }

    async fn change(&self, spec: Value) {
        let patch = Patch::Merge(json!({"spec": spec}));
        self.forecasts
            .patch("web", &PatchParams::default(), &patch)
            .await
            .unwrap();
    }

    async fn until(&self, what: &str, suits: impl Fn(&ElasticForecast) -> bool) -> ElasticForecast {
        let deadline = tokio::time::Instant::now() + DEADLINE;
        loop {
            let forecast = self.forecasts.get("web").await.unwrap();
            if suits(&forecast) {
                return forecast;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "{what}: last {:#?}",
                forecast.status
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn status(forecast: &ElasticForecast) -> ElasticForecastStatus {
    forecast.status.clone().unwrap_or_default()
}

/// `status reason` of a condition.
fn condition(forecast: &ElasticForecast, kind: &str) -> String {
    let all = status(forecast).conditions;
    let found = all.iter().find(|one| one.type_ == kind);
    found
        .map(|one| format!("{} {}", one.status, one.reason))
        .unwrap_or_default()
}

fn answers(forecast: &ElasticForecast) -> bool {
    status(forecast).observed_generation == forecast.metadata.generation
}

/// High from eight to twenty.
fn load(second: i64) -> i64 {
    if (8..20).contains(&(second / 3600 % 24)) {
        1000
    } else {
        100
    }
}

/// Days of a load, up to the hour that runs.
fn history(days: i64) -> Vec<(i64, i64)> {
    let end = Timestamp::now().as_second() / STEP_SECONDS * STEP_SECONDS;
    let start = end - days * 86_400;
    (start..=end)
        .step_by(3600)
        .map(|second| (second, load(second)))
        .collect()
}

fn csv(points: &[(i64, i64)]) -> String {
    let mut text = "timestamp,value\n".to_owned();
    for (second, value) in points {
        writeln!(text, "{second},{value}").unwrap();
    }
    text
}

async fn put_history(scene: &Scene, text: String) {
    put_map(scene, "demand", json!({"history.csv": text})).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_in_a_config_map_is_observed_first_and_served_when_asked() {
    let scene = Scene::start().await;
    put_history(&scene, csv(&history(10))).await;
    let source: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    }))
    .unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(scene.client.clone());
    deployments
        .create(&PostParams::default(), &source)
        .await
        .unwrap();
    let spec = json!({
        "source": {"configMap": {"name": "demand"}}, "stepSeconds": STEP_SECONDS, "capacityPerReplica": 10,
        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "refreshSeconds": 5,
    });
    scene.create(spec).await;
    let observed = scene
        .until("observed", |one| condition(one, "Ready") == "True Made")
        .await;
    let seen = status(&observed);
    assert_eq!(seen.period, "Day");
    assert_eq!(condition(&observed, "Serving"), "False Observing");
    // Night is 100, day is 1000; an hour ahead it is one of the two.
    let wanted = seen.forecast_replicas.unwrap();
    assert!([10, 100].contains(&wanted), "{seen:#?}");
    assert_eq!(
        (seen.current_replicas, seen.would_be_replicas),
        (Some(2), Some(wanted))
    );
    assert_eq!(seen.error.unwrap().wape, "0.0%");
    assert!(series(&observed, Timestamp::now()).is_empty());
    scene.change(json!({"mode": "Serve"})).await;
    let served = scene
        .until("served", |one| {
            answers(one) && condition(one, "Serving") == "True Serving"
        })
        .await;
    let metrics = series(&served, Timestamp::now());
    let replicas = metrics
        .iter()
        .find(|one| one.metric == "forecast_replicas")
        .unwrap();
    assert_eq!(
        replicas.value.parse::<i32>().unwrap(),
        status(&served).forecast_replicas.unwrap()
    );
    assert_eq!(replicas.labels["forecast"], "web");
    // Nothing but the status is ever written.
    assert_eq!(
        deployments.get("web").await.unwrap().spec.unwrap().replicas,
        Some(2)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_stands_in_the_condition_and_in_an_event() {
    let scene = Scene::start().await;
    put_history(
        &scene,
        "timestamp,value\n2014-07-01 00:00:00,few\n".to_owned(),
    )
    .await;
    let spec = json!({"source": {"configMap": {"name": "demand"}}, "capacityPerReplica": "1k", "refreshSeconds": 5});
    scene.create(spec).await;
    let message = |one: &ElasticForecast| {
        let all = status(one).conditions;
        all.into_iter()
            .find(|one| one.type_ == "Ready")
            .map(|one| one.message)
            .unwrap_or_default()
    };
    let failed = scene
        .until("a bad file", |one| {
            condition(one, "Ready") == "False SourceFailed"
        })
        .await;
    assert_eq!(
        message(&failed),
        "ConfigMap demand, key history.csv: line 2 is no `timestamp,value`: `few` is no number"
    );
    scene
        .change(json!({"source": {"configMap": {"name": "none"}}}))
        .await;
    let missing = "ConfigMap none cannot be read: configmaps \"none\" not found";
    scene
        .until("no such map", |one| message(one) == missing)
        .await;
    let unreachable = json!({"source": {"configMap": null, "prometheus": {"address": "http://127.0.0.1:1", "query": "x"}}});
    scene.change(unreachable).await;
    let failed = scene
        .until("no server", |one| {
            message(one).starts_with("cannot ask http://127.0.0.1:1")
        })
        .await;
    assert_eq!(status(&failed).forecast_replicas, None);
    scene.change(json!({"stepSeconds": 7000})).await;
    scene
        .until("invalid", |one| condition(one, "Ready") == "False Invalid")
        .await;
    let events: Api<Event> = Api::default_namespaced(scene.client.clone());
    let deadline = tokio::time::Instant::now() + DEADLINE;
    loop {
        let all = events.list(&ListParams::default()).await.unwrap();
        let has = |reason: &str| {
            all.iter().any(|one| {
                one.reason.as_deref() == Some(reason) && one.type_.as_deref() == Some("Warning")
            })
        };
        if has("SourceFailed") && has("Invalid") {
            break;
        }
        let names: Vec<_> = all.iter().map(ResourceExt::name_any).collect();
        assert!(tokio::time::Instant::now() < deadline, "events: {names:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A real Prometheus over blocks that hold a load.
struct Prometheus {
    process: Child,
    address: String,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    async fn start(points: &[(i64, i64)]) -> Self {
        Self::start_with(points, "http", &[]).await
    }

    /// Served by TLS and for one user alone; who vouches for it comes back as PEM.
    async fn start_guarded(points: &[(i64, i64)]) -> (Self, String) {
        let authority_key = rcgen::KeyPair::generate().unwrap();
        let mut authority = rcgen::CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let pem = authority.self_signed(&authority_key).unwrap().pem();
        let issuer = rcgen::Issuer::new(authority, authority_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let server = rcgen::CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = server.signed_by(&key, &issuer).unwrap().pem();
        // The password is `tide`.
        let user = "$2b$04$qn59WEuzM7i4NW7yMzptZuQZdG7ZkWdI/I2PVEXFYHi8cOoIBMz3q";
        let web = json!({
            "tls_server_config": {"cert_file": "server.pem", "key_file": "server.key"},
            "basic_auth_users": {"spring": user}
        });
        let files = [
            ("server.pem", certificate),
            ("server.key", key.serialize_pem()),
            ("web.yml", web.to_string()),
        ];
        (Self::start_with(points, "https", &files).await, pem)
    }

    async fn start_with(points: &[(i64, i64)], scheme: &str, files: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut text = "# TYPE demand gauge\n".to_owned();
        for (second, value) in points {
            for shop in ["a", "b"] {
                writeln!(text, "demand{{shop=\"{shop}\"}} {} {second}", value / 2).unwrap();
            }
        }
        text.push_str("# EOF\n");
        let (metrics, data) = (folder.path().join("demand.txt"), folder.path().join("data"));
        std::fs::write(&metrics, text).unwrap();
        std::fs::write(folder.path().join("prometheus.yml"), "global: {}\n").unwrap();
        let made = Command::new("promtool")
            .args(["tsdb", "create-blocks-from", "openmetrics"])
            .args([&metrics, &data])
            .stdout(Stdio::null())
            .status()
            .expect("promtool of the Debian package prometheus");
        assert!(made.success());
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let web = folder.path().join("web.yml");
        let web = web
            .exists()
            .then(|| format!("--web.config.file={}", web.display()));
        // A port of its own, given back just before it is taken.
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new("prometheus")
            .arg(format!(
                "--config.file={}",
                folder.path().join("prometheus.yml").display()
            ))
            .arg(format!("--storage.tsdb.path={}", data.display()))
            .arg("--storage.tsdb.retention.time=60d")
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(web)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus of the Debian package prometheus");
        Self {
            process,
            address: format!("{scheme}://127.0.0.1:{port}"),
            _folder: folder,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_real_prometheus_is_asked_and_two_series_are_refused() {
    let prometheus = Prometheus::start(&history(6)).await;
    let scene = Scene::start().await;
    let source =
        |query: &str| json!({"prometheus": {"address": prometheus.address, "query": query}});
    let spec = json!({
        "source": source("sum(demand)"), "stepSeconds": STEP_SECONDS, "capacityPerReplica": 10, "historyDays": 5,
        "mode": "Serve", "refreshSeconds": 5,
    });
    scene.create(spec).await;
    let made = scene
        .until("a forecast", |one| {
            condition(one, "Serving") == "True Serving"
        })
        .await;
    let seen = status(&made);
    assert_eq!(seen.period, "Day");
    assert!(
        [10, 100].contains(&seen.forecast_replicas.unwrap()),
        "{seen:#?}"
    );
    assert!(seen.history.unwrap().slots >= 5 * 24, "{made:#?}");
    scene.change(json!({"source": source("demand")})).await;
    let message = |one: &ElasticForecast| {
        let all = status(one).conditions;
        all.into_iter()
            .find(|one| one.type_ == "Ready")
            .map(|one| one.message)
            .unwrap_or_default()
    };
    let refused = scene
        .until("a refusal", |one| message(one).contains("2 series"))
        .await;
    // What was said last stays until it is too old.
    assert_eq!(status(&refused).period, "Day");
    scene.change(json!({"source": source("sum(")})).await;
    scene
        .until("Prometheus' own words", |one| {
            message(one).contains("refused the query")
        })
        .await;
}

async fn put_secret(scene: &Scene, name: &str, data: Value) {
    let secret = serde_json::from_value(json!({"metadata": {"name": name}, "stringData": data}));
    let secrets: Api<Secret> = Api::default_namespaced(scene.client.clone());
    secrets
        .create(&PostParams::default(), &secret.unwrap())
        .await
        .unwrap();
}

async fn put_map(scene: &Scene, name: &str, data: Value) {
    let map = serde_json::from_value(json!({"metadata": {"name": name}, "data": data}));
    let maps: Api<ConfigMap> = Api::default_namespaced(scene.client.clone());
    maps.create(&PostParams::default(), &map.unwrap())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guarded_prometheus_is_asked_with_the_credentials_that_are_named() {
    let (prometheus, authority) = Prometheus::start_guarded(&history(6)).await;
    let scene = Scene::start().await;
    // spring:tide
    put_secret(
        &scene,
        "prometheus",
        json!({"header": "Basic c3ByaW5nOnRpZGU="}),
    )
    .await;
    put_map(&scene, "authority", json!({"ca.crt": authority})).await;
    let plain = json!({"prometheus": {"address": prometheus.address, "query": "sum(demand)"}});
    let spec = json!({
        "source": plain, "stepSeconds": STEP_SECONDS, "capacityPerReplica": 10, "historyDays": 5, "refreshSeconds": 5,
    });
    scene.create(spec).await;
    let message = |one: &ElasticForecast| {
        let all = status(one).conditions;
        let ready = all.into_iter().find(|one| one.type_ == "Ready");
        ready.map(|one| one.message).unwrap_or_default()
    };
    scene
        .until("nobody vouches for it", |one| {
            message(one).starts_with("cannot ask https://")
        })
        .await;
    let vouched =
        json!({"prometheus": {"authorityConfigMap": {"name": "authority", "key": "ca.crt"}}});
    scene.change(json!({"source": vouched})).await;
    scene
        .until("nobody is let in", |one| message(one).contains("401"))
        .await;
    let named =
        json!({"prometheus": {"authorizationSecret": {"name": "prometheus", "key": "header"}}});
    scene.change(json!({"source": named})).await;
    scene
        .until("a forecast", |one| condition(one, "Ready") == "True Made")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_start_of_a_replica_is_measured_by_the_pods_of_the_target() {
    let scene = Scene::start().await;
    put_history(&scene, csv(&history(10))).await;
    let source: Deployment = serde_json::from_value(json!({
        "metadata": {"name": "web"},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": {
            "metadata": {"labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}},
    }))
    .unwrap();
    let deployments: Api<Deployment> = Api::default_namespaced(scene.client.clone());
    deployments
        .create(&PostParams::default(), &source)
        .await
        .unwrap();
    let pods: Api<Pod> = Api::default_namespaced(scene.client.clone());
    let pod: Pod = serde_json::from_value(json!({
        "metadata": {"name": "web-1", "labels": {"app": "web"}}, "spec": {"containers": [{"name": "c", "image": "i"}]},
    }))
    .unwrap();
    let created = pods.create(&PostParams::default(), &pod).await.unwrap();
    let created = created.metadata.creation_timestamp.unwrap().0;
    let ready = Timestamp::from_second(created.as_second() + 75).unwrap();
    let ready = json!({"status": {"phase": "Running", "conditions": [
        {"type": "Ready", "status": "True", "lastTransitionTime": ready.to_string()}]}});
    pods.patch_status("web-1", &PatchParams::default(), &Patch::Merge(ready))
        .await
        .unwrap();
    let spec = json!({
        "source": {"configMap": {"name": "demand"}}, "stepSeconds": STEP_SECONDS, "capacityPerReplica": 10,
        "target": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"}, "refreshSeconds": 5,
        "timeZone": "Asia/Shanghai",
    });
    scene.create(spec).await;
    let made = scene
        .until("a forecast", |one| condition(one, "Ready") == "True Made")
        .await;
    let seen = status(&made);
    assert_eq!(
        (seen.startup_seconds, seen.startup_source.as_str()),
        (Some(75), "Measured"),
        "{seen:#?}"
    );
    scene.change(json!({"startupSeconds": 30})).await;
    let said = scene
        .until("what is said counts", |one| {
            status(one).startup_seconds == Some(30)
        })
        .await;
    assert_eq!(status(&said).startup_source, "Spec");
}
