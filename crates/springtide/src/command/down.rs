//! `springtide down`: stops the serving process, then removes whatever a killed one left.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::cli::DownArguments;
use crate::cluster;
use crate::data_dir::DataDir;
use crate::host;
use crate::printer::Step;
use crate::status::ClusterStatus;

/// A serving process has this long to stop its containers.
const STOP_TIMEOUT: Duration = Duration::from_secs(60);
const POLL_PERIOD: Duration = Duration::from_millis(50);

pub async fn run(arguments: DownArguments) -> anyhow::Result<ExitCode> {
    let DownArguments { cluster, purge } = arguments;
    host::check()?;
    let data_dir = DataDir::new(&cluster.data_dir);
    if !data_dir.root().exists() {
        bail!(
            "there is no data directory {}; name the cluster's with --data-dir",
            data_dir.root().display()
        );
    }
    let step = Step::start("stopping the cluster");
    if let Some(status) = ClusterStatus::read(&data_dir)? {
        let pid = i32::try_from(status.pid).context("the status file holds no process id")?;
        kill(Pid::from_raw(pid), Signal::SIGTERM)
            .with_context(|| format!("ask process {pid} to stop"))?;
        let until = Instant::now() + STOP_TIMEOUT;
        while data_dir.is_locked() {
            if Instant::now() > until {
                bail!(
                    "process {pid} did not stop within {} s; end it with kill -9 {pid} and run this command again",
                    STOP_TIMEOUT.as_secs()
                );
            }
            tokio::time::sleep(POLL_PERIOD).await;
        }
    }
    let _lock = data_dir.open()?;
    cluster::remove_leftovers(&data_dir).await?;
    let left = cluster::leftovers(&data_dir).await;
    if !left.is_empty() {
        bail!(
            "could not remove everything, still there: {}",
            left.join(", ")
        );
    }
    if purge {
        std::fs::remove_dir_all(data_dir.root())
            .with_context(|| format!("remove {}", data_dir.root().display()))?;
    }
    step.done(if purge {
        "nothing is left, data removed"
    } else {
        "nothing is left running"
    });
    Ok(ExitCode::SUCCESS)
}
