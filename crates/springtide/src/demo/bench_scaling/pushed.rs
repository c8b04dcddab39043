//! The fast path when the metric is pushed: from the message that is sent to the written scale, over the push API, the
//! external metrics API and the API server between them.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use elastic_controllers::{
    FastAutoscalerConfig, install_definitions, run_fast_horizontal_pod_autoscaler,
};
use elastic_metrics::{PushedMetrics, write_request};
use jiff::Timestamp;

use super::{NAMESPACE, TIMEOUT, World};
use crate::demo::bench::Measured;
use crate::demo::bench_virtual_node::measured;

impl World {
    pub(super) async fn fast_path_pushed(self) -> anyhow::Result<Vec<Measured>> {
        install_definitions(&self.client).await?;
        let pushed = PushedMetrics::default();
        let apis = self.serve_metrics(|config| config.pushed = pushed.clone());
        let apis = apis.await?;
        self.until_pushed(60).await?;
        self.create_fast("pushed").await?;
        let config = FastAutoscalerConfig {
            pushes: Some(pushed.pushes()),
            ..FastAutoscalerConfig::default()
        };
        let (client, stop) = (self.api.client(), self.shutdown.clone());
        let running = run_fast_horizontal_pod_autoscaler(client, config, stop);
        let running = tokio::spawn(async move {
            let (_, ended) = tokio::join!(running, apis);
            if let Err(error) = ended {
                tracing::error!(%error, "the metrics APIs broke off");
            }
        });
        let median = self.cross(async |value| self.push(value).await).await?;
        self.stop(running).await?;
        let name = "metric crosses its target to /scale written, pushed";
        Ok(vec![measured(name, "ms", 300.0, median)])
    }

    async fn push(&self, value: u32) -> anyhow::Result<()> {
        let labels = BTreeMap::from([("queue".to_owned(), "orders".to_owned())]);
        let body = write_request(&[("queue", &labels, f64::from(value))], Timestamp::now());
        let path = format!(
            "/apis/pushed.autoscaling.alibabacloud.com/v1/namespaces/{NAMESPACE}/pushedmetrics"
        );
        let request = http::Request::post(path)
            .header("content-type", "application/x-protobuf")
            .header("content-encoding", "snappy")
            .body(body)?;
        let answer = self.api.client().request_text(request).await;
        answer.context("push a metric")?;
        Ok(())
    }

    /// The API is there some moments after the server is.
    async fn until_pushed(&self, value: u32) -> anyhow::Result<()> {
        let until = Instant::now() + TIMEOUT;
        while let Err(error) = self.push(value).await {
            if Instant::now() > until {
                bail!("nothing can be pushed within {TIMEOUT:?}: {error:#}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }
}
