//! The vendor's own Python SDKs, unmodified, create, describe and delete a group.
//!
//! Makes a virtual environment in a temporary directory and installs from PyPI; a missing `python3` or an
//! unreachable PyPI fails the test, because then nothing was proved.

use crate::support::{KEY, REGION, SECRET, start};
use std::path::Path;
use std::process::Output;
use tokio::process::Command;

const SCRIPT: &str = include_str!("sdk.py");

async fn run(program: &Path, arguments: &[&str]) -> Output {
    let output = Command::new(program).args(arguments).output().await;
    let output = output.unwrap_or_else(|error| panic!("{}: {error}", program.display()));
    assert!(
        output.status.success(),
        "{} {arguments:?}\n{}\n{}",
        program.display(),
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

#[tokio::test(flavor = "multi_thread")]
async fn the_vendor_s_sdks_work_unchanged() {
    let test = start().await;
    let directory = tempfile::tempdir().unwrap();
    let environment = directory.path().join("venv");
    run(
        Path::new("python3"),
        &["-m", "venv", environment.to_str().unwrap()],
    )
    .await;
    let python = environment.join("bin/python");
    let packages = [
        "alibabacloud_eci20180808==2.1.0",
        "aliyun-python-sdk-eci==1.3.3",
    ];
    let mut install = vec![
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
    ];
    // The old SDK's core still imports pkg_resources.
    install.extend(["setuptools<81", packages[0], packages[1]]);
    run(&python, &install).await;
    let script = directory.path().join("sdk.py");
    std::fs::write(&script, SCRIPT).unwrap();
    let port = test.cloud.address().port().to_string();
    let output = run(
        &python,
        &[script.to_str().unwrap(), &port, KEY, SECRET, REGION],
    )
    .await;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("new SDK, signature v3: ok"), "{output}");
    assert!(output.contains("new SDK, signature v1: ok"), "{output}");
    assert!(output.contains("old SDK: ok"), "{output}");
    assert_eq!(test.cloud.ledger().await.unwrap().entries.len(), 3);
}
