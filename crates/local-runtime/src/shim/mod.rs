//! The shim: one single-threaded process that owns a sandbox and outlives the program that started it.

use std::ffi::OsString;

/// Runs the shim with the arguments that follow [`crate::RuntimeConfig::shim_command`]; returns the exit code.
///
/// Call it before any thread or async runtime exists.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let _ = arguments.into_iter().count();
    1
}
