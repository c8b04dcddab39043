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
    let (command, repeat) = match what {
        Bench::Burst { repeat } => ("bench-burst", repeat),
        Bench::VirtualNode { repeat } => ("bench-virtual-node", repeat),
    };
    let repeat = repeat.to_string();
    let program = ["run", "--release", "--package", "springtide", "--"];
    run::cargo(&[&program[..], &[command, "--repeat", &repeat]].concat())
}
