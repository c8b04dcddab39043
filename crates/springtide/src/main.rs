//! The one program: arguments in, one `run` out.
//!
//! Two of its faces start before any thread exists and never see the command line's parser: the shim that owns a
//! sandbox's containers, and the sample shop inside one.

mod cli;
mod cluster;
mod command;
mod data_dir;
mod demo;
mod host;
mod printer;
mod sample;
mod status;

use std::process::ExitCode;

use clap::Parser;

/// A burst makes and drops a million small objects, and a few stay: this allocator puts those together at low addresses
/// and gives the rest back soon. `.cargo/config.toml` says how soon.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// First argument that turns this program into the container shim.
const SHIM: &str = "runtime-shim";
/// First argument that turns this program into the sample shop.
const SAMPLE_SHOP: &str = "sample-shop";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    match arguments.nth(1) {
        Some(first) if first == SHIM => {
            return ExitCode::from(local_runtime::shim::main(std::env::args_os().skip(2)));
        }
        Some(first) if first == SAMPLE_SHOP => return sample::shop::main(),
        _ => {}
    }
    let arguments = cli::Arguments::parse();
    printer::start_logs(&arguments.log, arguments.log_format);
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the program's threads: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(command::run(arguments)) {
        Ok(code) => code,
        Err(error) => {
            printer::error(&error);
            ExitCode::FAILURE
        }
    }
}
