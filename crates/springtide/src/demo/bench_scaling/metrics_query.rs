//! A question about 1,000 pods to `custom.metrics.k8s.io`: what it takes besides Prometheus' own time.
//!
//! The API server, the aggregated API and a real Prometheus (Debian package) that scrapes a page of 1,000 pods. The same
//! query is put to Prometheus directly, in turns with the question; what is printed is the median of the one less the
//! median of the other, and both beside it.

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
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
use kube::Api;
use kube::api::PostParams;
use local_apiserver::{ApiServerConfig, Dialer};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::{IN_FLIGHT, NAMESPACE, TIMEOUT, World};
use crate::demo::bench::{Measured, millis};
use crate::demo::bench_virtual_node::measured;

const PODS: usize = 1_000;
/// Pairs of questions whose medians count.
const QUESTIONS: usize = 25;
const RULE: &str = r#"
rules:
  - seriesQuery: 'http_requests_total{namespace!="",pod!=""}'
    resources: {overrides: {namespace: {resource: namespace}, pod: {resource: pod}}}
    name: {matches: "^(.*)_total$", as: "${1}_per_second"}
    metricsQuery: 'sum(rate(<<.Series>>{<<.LabelMatchers>>}[1m])) by (<<.GroupBy>>)'
"#;
/// What the rule makes of the question.
const QUERY: &str = r#"sum(rate(http_requests_total{namespace="default",pod!=""}[1m])) by (pod)"#;
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
    let url = format!("http://127.0.0.1:{}", prometheus.port);
    let apis = world.serve_metrics(|config| {
        config.rules = Some(rules);
        config.prometheus = Some(PrometheusOptions {
            url,
            ..PrometheusOptions::default()
        });
    });
    let apis = apis.await?;
    world.until_answered().await?;
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..QUESTIONS {
        let began = Instant::now();
        let found = world.ask().await?;
        ours.push(millis(began.elapsed()));
        if found != PODS {
            bail!("{found} of {PODS} pods have values");
        }
        theirs.push(prometheus.ask().await?);
    }
    drop(prometheus);
    exporter.abort();
    world.stop(apis).await?;
    let (ours, theirs) = (median(ours), median(theirs));
    Ok(vec![
        measured(
            "metrics of 1,000 pods, besides Prometheus' own time",
            "ms",
            20.0,
            ours - theirs,
        ),
        measured("metrics of 1,000 pods, as asked", "ms", 20.0 + theirs, ours),
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

    /// How many pods have a value.
    async fn ask(&self) -> anyhow::Result<usize> {
        let request = http::Request::get(path()).body(Vec::new())?;
        let answer: Value = self.api.client().request(request).await?;
        Ok(answer["items"].as_array().map_or(0, Vec::len))
    }

    /// Rates need two scrapes, and a new series is listed some seconds later.
    async fn until_answered(&self) -> anyhow::Result<()> {
        let until = Instant::now() + TIMEOUT;
        loop {
            let found = self.ask().await;
            if matches!(found, Ok(PODS)) {
                return Ok(());
            }
            if Instant::now() > until {
                bail!("metrics of {PODS} pods: {found:?} after {TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
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

    /// Milliseconds that Prometheus takes for the query of the rule.
    async fn ask(&self) -> anyhow::Result<f64> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).await?;
        stream.set_nodelay(true)?;
        let query: String = QUERY.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let body = format!("query={query}&timeout=10s");
        let request = format!(
            "POST /api/v1/query HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let began = Instant::now();
        stream.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        let took = millis(began.elapsed());
        let answer = String::from_utf8_lossy(&answer);
        if answer.matches("\"pod\"").count() != PODS {
            bail!(
                "Prometheus answered {}",
                answer.get(..200).unwrap_or(&answer)
            );
        }
        Ok(took)
    }
}
