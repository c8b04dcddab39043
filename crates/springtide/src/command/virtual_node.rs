//! `springtide virtual-node run`: one replica of the elastic parts, inside or outside the cluster it serves.

use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, bail};
use elastic_controllers::WebhookAddress;
use elastic_install::built_in;
use elastic_install::connection::connect;
use elastic_install::names::{NAMESPACE, WEBHOOK};
use elastic_install::operator::{self, ElectionTiming, OperatorConfig, WebhookServing};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::{VirtualNodeArguments, VirtualNodeCommand, VirtualNodeRunArguments};
use crate::command::{config_from, environment, wait_for_signal};
use crate::printer;

/// Port of the Service in front of the webhook.
const WEBHOOK_PORT: u16 = 443;

pub async fn run(arguments: VirtualNodeArguments) -> anyhow::Result<ExitCode> {
    let VirtualNodeCommand::Run(arguments) = arguments.command;
    let (cluster, in_cluster) = match &arguments.kubeconfig {
        Some(kubeconfig) => (config_from(kubeconfig).await?, false),
        None => (own_account()?, true),
    };
    let client = connect(cluster)?;
    // A cluster that does not answer yet is waited for; there the mark is never found.
    if !in_cluster && built_in::is_marked(&client).await.unwrap_or(false) {
        bail!("{}", built_in::REFUSAL);
    }
    let config = config(arguments, in_cluster).await?;
    let mode = if in_cluster { "in-cluster" } else { "managed" };
    printer::note(format!(
        "replica {} runs in {mode} mode; SIGTERM or Ctrl-C stops it and leaves container groups running",
        config.identity
    ));
    let shutdown = CancellationToken::new();
    let running = operator::run(client, config, shutdown.clone());
    tokio::pin!(running);
    tokio::select! {
        () = &mut running => {}
        signal = wait_for_signal() => {
            shutdown.cancel();
            running.await;
            signal?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// The account that Kubernetes gives every pod.
fn own_account() -> anyhow::Result<kube::Config> {
    kube::Config::incluster()
        .context("this is no pod of a cluster; name the cluster with --kubeconfig")
}

async fn config(
    arguments: VirtualNodeRunArguments,
    in_cluster: bool,
) -> anyhow::Result<OperatorConfig> {
    let election = ElectionTiming {
        lease: arguments.lease_duration,
        renew: arguments.renew_deadline,
        retry: arguments.retry_period,
    };
    if !(election.retry < election.renew && election.renew < election.lease) {
        bail!(
            "--retry-period must be shorter than --renew-deadline, and that shorter than --lease-duration"
        );
    }
    let address = match (arguments.webhook_url, in_cluster) {
        (Some(url), _) => {
            if !url.starts_with("https://") {
                bail!("--webhook-url is {url:?}; the API server calls webhooks by https:// only");
            }
            Some(WebhookAddress::Url(url))
        }
        (None, true) => Some(WebhookAddress::Service {
            namespace: NAMESPACE.to_string(),
            name: WEBHOOK.to_string(),
            port: WEBHOOK_PORT,
        }),
        (None, false) => None,
    };
    let webhook = match address {
        None => None,
        Some(address) => Some(WebhookServing {
            listener: shared_listener(arguments.webhook_listen, "--webhook-listen")?,
            address,
        }),
    };
    // The API server finds it through a Service only.
    let metrics = match in_cluster {
        true => Some(shared_listener(
            arguments.metrics_listen,
            "--metrics-listen",
        )?),
        false => None,
    };
    let health = TcpListener::bind(arguments.health_listen)
        .await
        .with_context(|| format!("listen on --health-listen {}", arguments.health_listen))?;
    Ok(OperatorConfig {
        identity: arguments.identity.unwrap_or_else(own_name),
        environment: environment(),
        node_address: arguments.node_address,
        kubelet_bind: arguments.kubelet_bind.unwrap_or(arguments.node_address),
        kubelet_port: arguments.kubelet_port,
        webhook,
        metrics,
        health: Some(health),
        election,
        timing: elastic_node::Timing::default(),
        metadata_endpoint: arguments.metadata_endpoint,
    })
}

/// A socket that outlives the server on it, so that certificates change without a refused connection.
fn shared_listener(address: SocketAddr, flag: &str) -> anyhow::Result<std::net::TcpListener> {
    let listen = || format!("listen on {flag} {address}");
    let listener = std::net::TcpListener::bind(address).with_context(listen)?;
    listener.set_nonblocking(true).with_context(listen)?;
    Ok(listener)
}

fn own_name() -> String {
    let host = nix::unistd::gethostname().ok();
    let host = host.and_then(|host| host.into_string().ok());
    format!(
        "{}_{}",
        host.unwrap_or_else(|| "springtide".to_string()),
        std::process::id()
    )
}
