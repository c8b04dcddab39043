//! `springtide up`: serves a cluster until Ctrl-C.

use std::process::ExitCode;

use anyhow::Context;
use elastic_metrics::{AdapterConfig, PrometheusOptions, Verb};

use crate::cli::{CallLimitsChoice, MetricsArguments, PrometheusVerb, UpArguments};
use crate::cluster::{Cluster, ClusterConfig, MetricsSources};
use crate::data_dir::DataDir;
use crate::host;
use crate::printer::{self, Step};

pub async fn run(arguments: UpArguments) -> anyhow::Result<ExitCode> {
    let UpArguments {
        cluster,
        size,
        listen,
        cloud_call_limits,
        without_addon,
        metrics,
    } = arguments;
    host::check()?;
    let metrics = metrics_sources(metrics)?;
    let data_dir = DataDir::new(&cluster.data_dir);
    let step = Step::start("starting the cluster");
    // On paper there is nothing that calls could overload, and scale tests are what it is for.
    let usual = if size.simulated {
        CallLimitsChoice::None
    } else {
        CallLimitsChoice::Documented
    };
    let mut config = ClusterConfig::new(data_dir.clone(), size, listen);
    config.cloud_call_limits = cloud_call_limits.unwrap_or(usual);
    config.elastic_parts = !without_addon;
    config.metrics = metrics;
    let cluster = Cluster::start(config).await?;
    let status = cluster.status().clone();
    step.done(format!("API {}", status.api.url));
    if status.cloud.simulated {
        printer::note("the cloud is SIMULATED: container groups exist only on paper");
    }
    printer::note(format!(
        "\n    export KUBECONFIG={}\n",
        status.kubeconfig.display()
    ));
    printer::note("serving; Ctrl-C stops it");
    wait_for_signal().await?;
    let step = Step::start("stopping");
    cluster.stop().await?;
    step.done("objects, images and ledger stay in the data directory");
    Ok(ExitCode::SUCCESS)
}

/// What the flags say about metrics; a wrong file stops before anything is started.
fn metrics_sources(arguments: MetricsArguments) -> anyhow::Result<MetricsSources> {
    let replica_labels = arguments.pushed_replica_label;
    let Some(url) = arguments.prometheus_url else {
        return Ok(MetricsSources {
            replica_labels,
            ..MetricsSources::default()
        });
    };
    let headers = arguments.prometheus_header.iter().map(|header| {
        let (name, value) = header
            .split_once('=')
            .with_context(|| format!("--prometheus-header {header:?} is not name=value"))?;
        Ok((name.trim().to_string(), value.trim().to_string()))
    });
    let headers = headers.collect::<anyhow::Result<Vec<_>>>()?;
    let rules = match &arguments.metrics_config {
        None => None,
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("read --metrics-config {}", path.display()))?;
            let rules = AdapterConfig::parse(&text)
                .with_context(|| format!("use --metrics-config {}", path.display()))?;
            Some(rules)
        }
    };
    Ok(MetricsSources {
        prometheus: Some(PrometheusOptions {
            url,
            verb: match arguments.prometheus_verb {
                PrometheusVerb::Get => Verb::Get,
                PrometheusVerb::Post => Verb::Post,
            },
            headers,
            token_file: arguments.prometheus_token_file,
            authority_file: arguments.prometheus_ca_file,
        }),
        rules,
        relist: arguments.metrics_relist_interval,
        replica_labels,
        ..MetricsSources::default()
    })
}

/// Ctrl-C or SIGTERM.
pub(crate) async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}
