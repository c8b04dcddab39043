//! The workspace's shape, checked.

#![allow(clippy::unwrap_used)] // a failed step of a test should panic where it stands

mod arrows;
mod deb;
mod image;
mod licences;
mod monitoring;

use std::process::Command;
use std::sync::Mutex;

/// Held while a program is built and copied: the next build puts another file in its place.
static BUILDING: Mutex<()> = Mutex::new(());

/// Runs a program to its good end; gives its standard output.
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .unwrap_or_else(|error| panic!("{program} cannot be started: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{program} {arguments:?}: {text}{errors}"
    );
    text
}
