//! A question about 1,000 pods to `custom.metrics.k8s.io`: what it takes besides Prometheus' own time.
//!
//! The API server, the aggregated API and a real Prometheus (Debian package) that scrapes a page of 1,000 pods. The asker is
//! the autoscaler's account, so rights are checked as they are in a cluster. Between the aggregated API and Prometheus stands
//! a relay that takes the time from a query's first byte to the last byte of its answer: what is printed is each question's
//! whole time less Prometheus' own time for this very question. What the relay itself costs counts as ours.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use async_trait::async_trait;
use elastic_controllers::install_definitions;
use elastic_metrics::{
    AdapterConfig, CustomMetricsConfig, FrontProxy, MetricsTls, PrometheusOptions,
    run_custom_metrics,
};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::PostParams;
use kube::{Api, Client};
use local_apiserver::{ApiServerConfig, Dialer};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use super::{IN_FLIGHT, NAMESPACE, TIMEOUT, World};
use crate::demo::bench::{Measured, millis};
use crate::demo::bench_virtual_node::{cpu_seconds, measured};

const PODS: usize = 1_000;
/// Questions whose medians count.
const QUESTIONS: usize = 25;
const RULE: &str = r#"
rules:
  - seriesQuery: 'http_requests_total{namespace!="",pod!=""}'
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
    name: {matches: "^(.*)_total$", as: "${1}_per_second"}
    metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)'
"#;
/// What its limit is about.
const LIMIT_MS: f64 = 20.0;
/// Who asks in a cluster.
const AUTOSCALER: &str = "system:serviceaccount:kube-system:horizontal-pod-autoscaler";
const GROUPS: [&str; 3] = [
    "system:serviceaccounts",
    "system:serviceaccounts:kube-system",
    "system:authenticated",
];
/// Bytes that are carried at once.
const CHUNK: usize = 64 * 1024;
/// How a query begins; lists of series go to another path.
const QUERY_LINE: &[u8] = b"POST /api/v1/query ";
/// The metrics server's address as the cluster knows it; Endpoints take no loopback addresses.
const CONTROL: Ipv4Addr = Ipv4Addr::new(10, 10, 0, 1);

/// The cluster's network, in which every address leads here.
struct ToLoopback;

#[async_trait]
impl Dialer for ToLoopback {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect((Ipv4Addr::LOCALHOST, address.port())).await
    }
}

/// For worlds in which the API server asks other servers.
pub(super) fn to_loopback(config: &mut ApiServerConfig) {
    config.dialer = Arc::new(ToLoopback);
}

/// Measures once.
pub(super) async fn measure() -> anyhow::Result<Vec<Measured>> {
    let world = World::start_with(to_loopback).await?;
    install_definitions(&world.client).await?;
    let (exporter, target) = exporter().await?;
    let prometheus = Prometheus::start(target).await?;
    world.create_pods().await?;
    let rules = AdapterConfig::parse(RULE)?;
    let (relay, port, spent) = relay_to(prometheus.port).await?;
    let url = format!("http://127.0.0.1:{port}");
    let apis = world.serve_metrics(|config| {
        config.rules = Some(rules);
        config.prometheus = Some(PrometheusOptions {
            url,
            ..PrometheusOptions::default()
        });
    });
    let apis = apis.await?;
    world.allow_autoscaler().await?;
    let client = world.api.client_as(AUTOSCALER, &GROUPS);
    until_answered(&client).await?;
    let (mut whole, mut theirs, mut ours) = (Vec::new(), Vec::new(), Vec::new());
    let before = cpu_seconds(std::process::id())?;
    for _ in 0..QUESTIONS {
        // What was asked before this question is no part of it.
        spent.take();
        let began = Instant::now();
        let found = ask(&client).await?;
        let took = millis(began.elapsed());
        if found != PODS {
            bail!("{found} of {PODS} pods have values");
        }
        let own = spent.take();
        whole.push(took);
        theirs.push(own);
        ours.push(took - own);
    }
    let processor = (cpu_seconds(std::process::id())? - before) * 1_000.0 / QUESTIONS as f64;
    relay.abort();
    drop(prometheus);
    exporter.abort();
    world.stop(apis).await?;
    Ok(vec![
        measured(
            "metrics of 1,000 pods, besides Prometheus' own time",
            "ms",
            LIMIT_MS,
            median(ours),
        ),
        measured(
            "metrics of 1,000 pods, as asked",
            "ms",
            LIMIT_MS + median(theirs),
            median(whole),
        ),
        measured(
            "metrics of 1,000 pods, our processor time of a question",
            "ms",
            LIMIT_MS,
            processor,
        ),
    ])
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all[all.len() / 2]
}

fn path() -> String {
    format!(
        "/apis/custom.metrics.k8s.io/v1beta2/namespaces/{NAMESPACE}/pods/*/http_requests_per_second?labelSelector=app%3Dweb"
    )
}

impl World {
    async fn create_pods(&self) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), NAMESPACE);
        let create = async |index: usize| {
            let pod = serde_json::from_value(json!({
                "metadata": {"name": format!("web-{index}"), "labels": {"app": "web"}},
                "spec": {"containers": [{"name": "main", "image": "bench:1"}]},
            }))?;
            pods.create(&PostParams::default(), &pod)
                .await
                .context("create a pod")?;
            anyhow::Ok(())
        };
        stream::iter(0..PODS)
            .map(create)
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await
    }

    /// As upstream allows it from the start.
    async fn allow_autoscaler(&self) -> anyhow::Result<()> {
        let role = serde_json::from_value(json!({
            "metadata": {"name": "autoscaler-reads-metrics"},
            "rules": [{"apiGroups": ["custom.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}],
        }))?;
        let binding = serde_json::from_value(json!({
            "metadata": {"name": "autoscaler-reads-metrics"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "autoscaler-reads-metrics"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": AUTOSCALER}],
        }))?;
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        roles.create(&PostParams::default(), &role).await?;
        let bindings: Api<ClusterRoleBinding> = Api::all(self.client.clone());
        bindings.create(&PostParams::default(), &binding).await?;
        Ok(())
    }

    /// The metrics APIs as the program serves them.
    pub(super) async fn serve_metrics(
        &self,
        change: impl FnOnce(&mut CustomMetricsConfig),
    ) -> anyhow::Result<JoinHandle<()>> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = SocketAddr::new(CONTROL.into(), listener.local_addr()?.port());
        let name = "elastic-metrics.kube-system.svc".to_owned();
        let issued = self.api.issue_serving_certificate(&[name], &[address.ip()]);
        let (certificate_pem, key_pem) =
            issued.context("issue the metrics server's certificate")?;
        let authority_pem = self.api.credentials().ca_pem;
        let tls = MetricsTls {
            certificate_pem,
            key_pem,
            authority_pem: authority_pem.clone(),
            client_authority_pem: None,
        };
        let front_proxy = FrontProxy::new(authority_pem, vec!["front-proxy-client".to_owned()]);
        let mut config = CustomMetricsConfig::new(Some(address), tls, front_proxy);
        change(&mut config);
        let serving =
            run_custom_metrics(self.api.client(), config, listener, self.shutdown.clone());
        Ok(tokio::spawn(async move {
            if let Err(error) = serving.await {
                tracing::error!(%error, "the metrics APIs ended");
            }
        }))
    }
}

/// How many pods have a value.
async fn ask(client: &Client) -> anyhow::Result<usize> {
    let request = http::Request::get(path()).body(Vec::new())?;
    // What the asker makes of the answer is its own affair.
    let answer = client.request_text(request).await?;
    Ok(answer.matches("\"describedObject\"").count())
}

/// Rates need two scrapes, and a new series is listed some seconds later.
async fn until_answered(client: &Client) -> anyhow::Result<()> {
    let until = Instant::now() + TIMEOUT;
    loop {
        let found = ask(client).await;
        if matches!(found, Ok(PODS)) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("metrics of {PODS} pods: {found:?} after {TIMEOUT:?}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Milliseconds that Prometheus took for queries since somebody looked.
#[derive(Clone, Default)]
struct Spent(Arc<Mutex<f64>>);

impl Spent {
    fn lock(&self) -> std::sync::MutexGuard<'_, f64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> f64 {
        std::mem::take(&mut *self.lock())
    }
}

/// A relay to Prometheus on a port of its own, and what Prometheus spends behind it.
async fn relay_to(prometheus: u16) -> anyhow::Result<(JoinHandle<()>, u16, Spent)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let spent = Spent::default();
    let shared = spent.clone();
    let task = tokio::spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(pass_on(stream, prometheus, shared.clone()));
        }
    });
    Ok((task, port, spent))
}

/// Carries bytes both ways. A query's time ends with the last bytes of its answer, whatever comes in between.
async fn pass_on(mut near: TcpStream, prometheus: u16, spent: Spent) -> std::io::Result<()> {
    let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, prometheus)).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (mut asked, mut answered) = (vec![0; CHUNK], vec![0; CHUNK]);
    let mut query: Option<(Instant, f64)> = None;
    loop {
        tokio::select! {
            length = near.read(&mut asked) => {
                let bytes = &asked[..length?];
                if bytes.is_empty() {
                    return Ok(());
                }
                if bytes.starts_with(b"POST ") {
                    let is_query = bytes.starts_with(QUERY_LINE);
                    query = is_query.then(|| (Instant::now(), *spent.lock()));
                }
                far.write_all(bytes).await?;
            }
            length = far.read(&mut answered) => {
                let bytes = &answered[..length?];
                if bytes.is_empty() {
                    return Ok(());
                }
                if let Some((began, before)) = query {
                    *spent.lock() = before + millis(began.elapsed());
                }
                near.write_all(bytes).await?;
            }
        }
    }
}

/// A page of counters, one for each pod, and where it is.
async fn exporter() -> anyhow::Result<(JoinHandle<()>, u16)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let started = Instant::now();
    let task = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let seconds = started.elapsed().as_secs();
            let line = |index| {
                format!(
                    "http_requests_total{{namespace=\"{NAMESPACE}\",pod=\"web-{index}\"}} {}\n",
                    seconds * (index + 1)
                )
            };
            let page: String = (0..PODS as u64).map(line).collect();
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                page.len()
            );
            // Who scrapes sends one short request, and goes when it has the page.
            let mut request = [0; 4096];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all((head + &page).as_bytes()).await;
        }
    });
    Ok((task, port))
}

/// A real one; gone when dropped.
struct Prometheus {
    process: Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Prometheus {
    async fn start(target: u16) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("create a temporary directory")?;
        let file = folder.path().join("prometheus.yml");
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{"job_name": "pods", "honor_labels": true,
                "static_configs": [{"targets": [format!("127.0.0.1:{target}")]}]}],
        });
        // JSON is YAML.
        std::fs::write(&file, configuration.to_string())?;
        // Prometheus says no port that it would choose itself; one that was free a moment ago is free still.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await?
            .local_addr()?
            .port();
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("series").display()
            ))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("start prometheus; install the Debian package prometheus")?;
        Ok(Prometheus {
            process,
            port,
            _folder: folder,
        })
    }
}
