//! The shim as its own program, for this crate's tests; the product re-executes itself instead.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(local_runtime::shim::main(std::env::args_os().skip(1)))
}
