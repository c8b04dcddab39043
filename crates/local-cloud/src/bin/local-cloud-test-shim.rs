//! The shim process for this crate's own tests; the product's binary brings its own.

fn main() -> std::process::ExitCode {
    local_runtime::shim::main(std::env::args_os().skip(1)).into()
}
