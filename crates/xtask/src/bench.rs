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
}

/// Builds and runs the measurement.
pub fn run(what: &Bench) -> anyhow::Result<()> {
    match what {
        Bench::Burst { repeat } => {
            let repeat = repeat.to_string();
            run::cargo(&[
                "run",
                "--release",
                "--package",
                "springtide",
                "--",
                "bench-burst",
                "--repeat",
                &repeat,
            ])
        }
    }
}
