//! The shim: one single-threaded process that owns a sandbox and outlives the program that started it.
//!
//! It holds the sandbox's namespaces, starts and reaps its containers, writes their logs and exit records, and answers
//! on a Unix socket. It ends when the sandbox is removed, when it is told to terminate, or when its directory vanishes.

mod exec;
mod lifecycle;
pub(crate) mod log_writer;
mod output;
mod passwd;
mod process;
mod rootfs;
mod server;
mod setup;
mod spawn;
mod state;
mod step;

use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;

use nix::libc;
use nix::unistd::{ForkResult, dup2_stdout, fork, setsid};

pub(crate) use process::DEFAULT_PATH;

use crate::layout::SandboxDirectory;

/// The shim's arguments; the cluster is only there for people who look at the process list, and for the leak check.
pub(crate) const SANDBOX_ARGUMENT: &str = "--sandbox";
pub(crate) const CLUSTER_ARGUMENT: &str = "--cluster";
/// What the starting program reads when all is well.
pub(crate) const READY: &str = "ready\n";

/// Runs the shim with the arguments that follow [`crate::RuntimeConfig::shim_command`]; returns the exit code.
///
/// Call it before any thread or async runtime exists.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let Some(directory) = sandbox_argument(arguments) else {
        report("the shim is started by the runtime, with a sandbox directory");
        return 2;
    };
    close_inherited_files();
    // SAFETY: no other thread exists yet; the parent only ends.
    match unsafe { fork() } {
        Ok(ForkResult::Parent { .. }) => return 0,
        Ok(ForkResult::Child) => {}
        Err(error) => {
            report(&format!("leave the foreground: {error}"));
            return 1;
        }
    }
    // Fails only for a process group leader, which a fresh child is not.
    let _ = setsid();
    let directory = SandboxDirectory(directory);
    match setup::prepare(&directory) {
        Ok(prepared) => server::run(prepared, announce_ready),
        Err(error) => {
            report(&error.to_string());
            1
        }
    }
}

fn sandbox_argument(arguments: impl IntoIterator<Item = OsString>) -> Option<PathBuf> {
    let mut arguments = arguments.into_iter();
    while let Some(argument) = arguments.next() {
        if argument == SANDBOX_ARGUMENT {
            return arguments.next().map(PathBuf::from);
        }
    }
    None
}

/// Tells the starting program why it failed; standard output is a pipe to it.
fn report(reason: &str) {
    // Without a listener there is nobody to tell.
    let _ = std::io::stdout().write_all(reason.as_bytes());
    let _ = std::io::stdout().flush();
}

fn announce_ready() -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(READY.as_bytes())?;
    stdout.flush()?;
    let nowhere = OpenOptions::new().write(true).open("/dev/null")?;
    dup2_stdout(&nowhere)?;
    Ok(())
}

/// Whatever the starting program had open and forgot to mark is none of our business.
fn close_inherited_files() {
    // SAFETY: nothing in this process has opened a file yet that it will use again.
    unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) };
}
