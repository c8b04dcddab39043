//! The workspace's own commands: `cargo xtask ci | test | tidy | generate | image | deb | upstream | bench`.
//!
//! It orchestrates tools that exist (cargo, apt-get); it holds no product code.

mod bench;
mod deb;
mod image;
mod links;
mod packages;
mod program;
mod run;
mod tidy;
mod upstream;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The workspace's own commands")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything that must be green before main moves: format, lints, tidy, tests.
    Ci,
    /// Run all tests; says which Debian packages they need and installs missing ones (as root on Debian).
    Test {
        /// Only tests whose name contains this.
        filter: Option<String>,
    },
    /// Check sizes of files and functions against the list that may only shrink, that no document links to nowhere, and that all are listed.
    Tidy,
    /// Write generated files anew: the Helm chart. Tests fail while they are old.
    Generate,
    /// Build the container image as an OCI archive, without Docker.
    Image(image::Image),
    /// Build the Debian package.
    Deb(deb::Deb),
    /// Build the upstream control plane that tests and measurements run against; does nothing when it is there.
    Upstream(upstream::Upstream),
    /// Measure, as ratios and medians, with numbers anyone can repeat.
    Bench {
        /// What to measure.
        #[command(subcommand)]
        what: bench::Bench,
    },
}

fn main() -> ExitCode {
    match execute(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn execute(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Ci => {
            run::cargo(&["fmt", "--all", "--check"])?;
            run::cargo(&[
                "clippy",
                "--workspace",
                "--all-targets",
                "--",
                "-D",
                "warnings",
            ])?;
            tidy()?;
            test(None)
        }
        Command::Test { filter } => test(filter.as_deref()),
        Command::Tidy => tidy(),
        Command::Generate => generate(),
        Command::Image(image) => image::build(&image),
        Command::Deb(deb) => deb::build(&deb),
        Command::Upstream(upstream) => upstream::run(&upstream),
        Command::Bench { what } => bench::run(&what),
    }
}

fn tidy() -> anyhow::Result<()> {
    tidy::check()?;
    links::check()
}

/// `cargo test` rather than a further runner: what the README names is all that is needed.
fn test(filter: Option<&str>) -> anyhow::Result<()> {
    packages::provide()?;
    upstream::provide()?;
    // Test binaries drive the built program, so build it once before they race for it.
    run::cargo(&["build", "--workspace", "--bins"])?;
    // All failures of a run are worth knowing, not only those of the first crate.
    let mut arguments = vec!["test", "--workspace", "--no-fail-fast"];
    arguments.extend(filter);
    run::cargo(&arguments)
}

/// The program itself knows its manifests; it writes the chart.
fn generate() -> anyhow::Result<()> {
    run::cargo(&[
        "run",
        "--quiet",
        "--package",
        "springtide",
        "--",
        "addon",
        "manifests",
        "ack-virtual-node",
        "--chart-dir",
        "deploy/charts/ack-virtual-node",
    ])
}
