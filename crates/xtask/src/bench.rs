//! Measurements. Each builds the release program once and lets it measure itself against the limits of the issue
//! that asked for it, several times, printing medians.

use clap::Subcommand;

use crate::run;

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
    },
}

/// Builds and runs the measurement.
pub fn run(what: &Bench) -> anyhow::Result<()> {
    let (command, repeat, part) = match what {
        Bench::Burst { repeat } => ("bench-burst", repeat, None),
        Bench::Scaling { repeat, part } => ("bench-scaling", repeat, Some(part)),
        Bench::VirtualNode { repeat } => ("bench-virtual-node", repeat, None),
    };
    let repeat = repeat.to_string();
    let program = ["run", "--release", "--package", "springtide", "--"];
    let mut arguments = [&program[..], &[command, "--repeat", &repeat]].concat();
    if let Some(part) = part {
        arguments.extend(["--part", part]);
    }
    run::cargo(&arguments)
}
