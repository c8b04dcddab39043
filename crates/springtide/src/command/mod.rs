//! One module a subcommand.

mod addon;
pub(crate) mod cloud;
mod cloud_of_cluster;
mod cron;
mod down;
mod exporter;
mod forecast;
mod image;
mod load;
mod ram_user;
mod status;
mod timeline;
mod up;
mod virtual_node;

use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;

pub(crate) use status::load_balancers;
pub(crate) use timeline::burst;
pub(crate) use up::wait_for_signal;

use crate::cli::{Arguments, Command};
use crate::demo;

/// Runs what the arguments ask for.
pub async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let command = arguments.command;
    match command {
        Command::Up(arguments) => up::run(arguments).await,
        Command::Down(arguments) => down::run(arguments).await,
        Command::Status(arguments) => status::run(arguments).await,
        Command::Image(arguments) => image::run(arguments).await,
        Command::Load(arguments) => load::run(arguments).await,
        Command::Demo(arguments) => demo::run(arguments).await,
        Command::Timeline(arguments) => timeline::run(arguments).await,
        Command::Cron(arguments) => cron::run(arguments).await,
        Command::Cloud(arguments) => cloud::run(arguments).await,
        Command::Exporter(arguments) => exporter::run(arguments).await,
        Command::Forecast(arguments) => forecast::run(arguments),
        Command::VirtualNode(arguments) => virtual_node::run(arguments).await,
        Command::Addon(arguments) => addon::run(arguments).await,
        Command::RamUser(arguments) => ram_user::run(arguments).await,
        Command::BenchBurst { repeat } => demo::bench::run(repeat).await,
        Command::BenchScaling { repeat, part } => demo::bench_scaling::run(repeat, part).await,
        Command::BenchVirtualNode { repeat, kubeconfig } => match kubeconfig {
            Some(kubeconfig) => demo::bench_scale::run(&kubeconfig, repeat).await,
            None => demo::bench_virtual_node::run(repeat).await,
        },
        Command::ManPages { folder } => {
            clap_mangen::generate_to(Arguments::command(), &folder)
                .with_context(|| format!("write man pages into {}", folder.display()))?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "springtide", &mut std::io::stdout());
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// The client of the local cluster in `data_dir`, or an error that says how to start one.
pub(crate) async fn client(data_dir: &crate::data_dir::DataDir) -> anyhow::Result<kube::Client> {
    if !data_dir.is_locked() {
        anyhow::bail!(
            "no cluster is served from {}; start one with `springtide up --data-dir {}`",
            data_dir.root().display(),
            data_dir.root().display()
        );
    }
    client_from(&data_dir.kubeconfig()).await
}

/// The client of any cluster by its kubeconfig.
pub(crate) async fn client_from(kubeconfig: &std::path::Path) -> anyhow::Result<kube::Client> {
    let config = config_from(kubeconfig).await?;
    kube::Client::try_from(config)
        .with_context(|| format!("use kubeconfig {}", kubeconfig.display()))
}

pub(crate) async fn config_from(kubeconfig: &std::path::Path) -> anyhow::Result<kube::Config> {
    let read = || format!("use kubeconfig {}", kubeconfig.display());
    let config = kube::config::Kubeconfig::read_from(kubeconfig).with_context(read)?;
    let config = kube::Config::from_custom_kubeconfig(config, &Default::default()).await;
    config.with_context(read)
}

/// The environment; variables that are no text cannot be ours.
pub(crate) fn environment() -> std::collections::BTreeMap<String, String> {
    let texts = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    texts.collect()
}
