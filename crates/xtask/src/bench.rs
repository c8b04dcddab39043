//! Measurements. Each builds the release program once and lets it measure itself against the limits of the issue
//! that asked for it, several times, printing medians.

use clap::Subcommand;
use tool_upstream::{ControlPlane, Options};

use crate::{run, upstream};

/// What can be measured.
#[derive(Subcommand)]
pub enum Bench {
    /// The burst: start-up, overflow latency, 1,000 simulated overflow pods, idle memory.
    Burst {
        /// Repetitions whose medians are printed.
        #[arg(long, default_value_t = 5)]
        repeat: u32,
    },
    /// From a signal to replicas: the fast path, an ElasticWorkload of 5,000 replicas, 1,000 autoscalers.
    Scaling {
        /// Repetitions whose medians are printed.
        #[arg(long, default_value_t = 3)]
        repeat: u32,
        /// One part only; `springtide bench-scaling --help` lists them.
        #[arg(long, default_value = "all")]
        part: String,
    },
    /// The virtual node alone, against our API server and the simulated backend: 1,000 pods at once, latency at 200 pods
    /// a second, memory and CPU with 5,000 pods.
    VirtualNode {
        /// Repetitions whose medians are printed.
        #[arg(long, default_value_t = 5)]
        repeat: u32,
        /// A Deployment scaled from 0 to 500 on an upstream control plane instead, and on our own beside it.
        #[arg(long)]
        upstream: bool,
    },
}

/// Builds and runs the measurement.
pub fn run(what: &Bench) -> anyhow::Result<()> {
    let (command, repeat, part) = match what {
        Bench::VirtualNode {
            repeat,
            upstream: true,
        } => return on_upstream(*repeat),
        Bench::Burst { repeat } => ("bench-burst", repeat, None),
        Bench::Scaling { repeat, part } => ("bench-scaling", repeat, Some(part)),
        Bench::VirtualNode { repeat, .. } => ("bench-virtual-node", repeat, None),
    };
    let repeat = repeat.to_string();
    let program = ["run", "--release", "--package", "springtide", "--"];
    let mut arguments = [&program[..], &[command, "--repeat", &repeat]].concat();
    if let Some(part) = part {
        arguments.extend(["--part", part]);
    }
    run::cargo(&arguments)
}

/// The limits of upstream's own controllers and scheduler are lifted: what comes after them is measured.
fn on_upstream(repeat: u32) -> anyhow::Result<()> {
    upstream::provide()?;
    // Built before the control plane runs, which would be measured while the machine is busy otherwise.
    run::cargo(&["build", "--release", "--package", "springtide"])?;
    let plane = ControlPlane::start(&Options {
        raised_limits: true,
        ..Options::default()
    })?;
    let (kubeconfig, repeat) = (plane.kubeconfig().display().to_string(), repeat.to_string());
    let program = ["run", "--release", "--package", "springtide", "--"];
    let bench = [
        "bench-virtual-node",
        "--repeat",
        &repeat,
        "--kubeconfig",
        &kubeconfig,
    ];
    run::cargo(&[&program[..], &bench].concat())
}
