//! How long it takes from a crossed threshold to the first answer of an overflow pod, with real containers.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use tokio_util::sync::CancellationToken;
use tool_load::{LoadPlan, Stage, Target};

use crate::cluster::Cluster;
use crate::command::burst;
use crate::demo::manifests::{self, NAMESPACE, SHOP, SOURCE_MAX};
use crate::demo::run::wait_until_served;

const USERS: u32 = 400;
const TIMEOUT: Duration = Duration::from_secs(60);
const POLL_PERIOD: Duration = Duration::from_millis(20);
/// `requests.cpu` × `averageUtilization` of the example, in cores: what one pod has to exceed.
const TARGET_CORES: f64 = 0.1 * 0.7;

/// What was measured.
pub struct Overflow {
    /// From usage above the target, as the metrics API shows it, to the first answer with an overflow pod's name.
    pub crossed_to_served: Duration,
    /// Of that, everything but the cloud's container start and the pod's readiness.
    pub own_code: Duration,
}

/// Deploys the shop with its source at its maximum, puts a sudden load on it and watches.
pub async fn measure(cluster: &Cluster) -> anyhow::Result<Overflow> {
    let client = cluster.client();
    manifests::apply(&client).await?;
    set_replicas(&client, SOURCE_MAX).await?;
    let url = wait_until_served(&client).await?;
    let target = Target::parse(&url)?;
    let shutdown = CancellationToken::new();
    let plan = LoadPlan {
        target: target.clone(),
        stages: vec![Stage {
            duration: TIMEOUT,
            users: USERS,
        }],
        think_time: Duration::from_secs(1),
        request_timeout: Duration::from_secs(10),
        count_header: None,
        seed: 1,
    };
    let run = tool_load::run(plan, shutdown.clone()).await?;
    let result = watch(&client, &target).await;
    shutdown.cancel();
    run.report().await.context("the load tester failed")?;
    let (crossed, served) = result?;
    // Own code: from the scale call to the request at the cloud, and from readiness to the first answer.
    let moments = burst(&client, NAMESPACE, SHOP).await?;
    let first = moments.pods.iter().min_by_key(|pod| pod.ready);
    let between = |from: Option<jiff::Timestamp>, to: Option<jiff::Timestamp>| match (from, to) {
        (Some(from), Some(to)) => Duration::try_from(to.duration_since(from)).unwrap_or_default(),
        _ => Duration::ZERO,
    };
    let container_and_readiness = between(
        first.and_then(|pod| pod.accepted),
        first.and_then(|pod| pod.ready),
    );
    let crossed_to_served = served.duration_since(crossed);
    // The autoscaler's own period is not code that runs; it is subtracted up to the moment the scale was seen.
    let decision = between(
        Some(
            jiff::Timestamp::now()
                - jiff::SignedDuration::try_from(crossed.elapsed()).unwrap_or_default(),
        ),
        moments.scaled,
    );
    Ok(Overflow {
        crossed_to_served,
        own_code: crossed_to_served
            .saturating_sub(container_and_readiness)
            .saturating_sub(decision),
    })
}

async fn set_replicas(client: &Client, replicas: u32) -> anyhow::Result<()> {
    let autoscalers: kube::Api<k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler> =
        kube::Api::namespaced(client.clone(), NAMESPACE);
    let patch = kube::api::Patch::Merge(serde_json::json!({"spec": {"minReplicas": replicas}}));
    autoscalers
        .patch(SHOP, &Default::default(), &patch)
        .await
        .context("raise the autoscaler's minimum")?;
    let deployments: kube::Api<k8s_openapi::api::apps::v1::Deployment> =
        kube::Api::namespaced(client.clone(), NAMESPACE);
    let until = Instant::now() + TIMEOUT;
    loop {
        let status = deployments.get(SHOP).await?.status.unwrap_or_default();
        if status.ready_replicas.unwrap_or(0) >= i32::try_from(replicas).unwrap_or(i32::MAX) {
            return Ok(());
        }
        if Instant::now() > until {
            bail!("the source did not reach {replicas} ready replicas; last seen {status:?}");
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
}

/// When usage crossed the target and when an overflow pod first answered.
async fn watch(client: &Client, target: &Target) -> anyhow::Result<(Instant, Instant)> {
    let until = Instant::now() + TIMEOUT;
    let mut crossed = None;
    while Instant::now() < until {
        if crossed.is_none() && average_cores(client).await? > TARGET_CORES {
            crossed = Some(Instant::now());
        }
        if let Some(at) = crossed
            && served_by(target)
                .await
                .is_some_and(|pod| pod.contains("-unit-"))
        {
            return Ok((at, Instant::now()));
        }
        tokio::time::sleep(POLL_PERIOD).await;
    }
    bail!(
        "no overflow pod answered within {} s (threshold crossed: {})",
        TIMEOUT.as_secs(),
        crossed.is_some()
    )
}

/// Mean CPU usage of the shop's pods in cores, from `metrics.k8s.io`.
async fn average_cores(client: &Client) -> anyhow::Result<f64> {
    let path = format!("/apis/metrics.k8s.io/v1beta1/namespaces/{NAMESPACE}/pods");
    let request = http::Request::get(path).body(Vec::new())?;
    let list: serde_json::Value = client.request(request).await.context("read pod metrics")?;
    let usages: Vec<f64> = list["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|pod| nanocores(pod["containers"][0]["usage"]["cpu"].as_str()?))
        .collect();
    Ok(usages.iter().sum::<f64>() / usages.len().max(1) as f64)
}

/// `12345678n`, `120m` or `1` in cores.
fn nanocores(text: &str) -> Option<f64> {
    let (number, divisor) = match text.as_bytes().last()? {
        b'n' => (&text[..text.len() - 1], 1e9),
        b'u' => (&text[..text.len() - 1], 1e6),
        b'm' => (&text[..text.len() - 1], 1e3),
        _ => (text, 1.0),
    };
    Some(number.parse::<f64>().ok()? / divisor)
}

/// Which pod answers a request right now.
async fn served_by(target: &Target) -> Option<String> {
    let stream = tokio::net::TcpStream::connect((target.host.as_str(), target.port))
        .await
        .ok()?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(stream))
            .await
            .ok()?;
    let driver = tokio::spawn(connection);
    let request = http::Request::get(&target.path)
        .header("host", target.authority())
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .ok()?;
    let response = sender.send_request(request).await.ok();
    driver.abort();
    let response = response?;
    Some(
        response
            .headers()
            .get("x-served-by")?
            .to_str()
            .ok()?
            .to_string(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_is_read_in_every_suffix() {
        assert_eq!(nanocores("250m"), Some(0.25));
        assert_eq!(nanocores("500000000n"), Some(0.5));
        assert_eq!(nanocores("2"), Some(2.0));
        assert_eq!(nanocores("x"), None);
    }
}
