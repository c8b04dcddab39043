//! `cargo xtask upstream`: the upstream control plane that tests and measurements run against.

use tool_upstream::{ControlPlane, Options, build};

use crate::packages;

/// What to do with it.
#[derive(clap::Args)]
pub struct Upstream {
    /// Start one in a temporary folder, and end it when Enter is pressed.
    #[arg(long)]
    run: bool,
}

/// Builds what is missing of it, with the packages that takes.
pub fn provide() -> anyhow::Result<()> {
    packages::provide_for_upstream(build::are_built(&build::folder()))?;
    build::provide(|what| println!("{what}"))?;
    Ok(())
}

/// Provides it, and runs it if that is asked for.
pub fn run(arguments: &Upstream) -> anyhow::Result<()> {
    provide()?;
    if arguments.run {
        let plane = ControlPlane::start(&Options::default())?;
        println!("export KUBECONFIG={}", plane.kubeconfig().display());
        println!("Kubernetes {} runs; Enter ends it.", tool_upstream::VERSION);
        std::io::stdin().read_line(&mut String::new())?;
    }
    Ok(())
}
