//! `springtide up`: serves a cluster until Ctrl-C.

use std::process::ExitCode;

use crate::cli::{CallLimitsChoice, UpArguments};
use crate::cluster::{Cluster, ClusterConfig};
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
    } = arguments;
    host::check()?;
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

/// Ctrl-C or SIGTERM.
pub(crate) async fn wait_for_signal() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        result = tokio::signal::ctrl_c() => result?,
    }
    Ok(())
}
