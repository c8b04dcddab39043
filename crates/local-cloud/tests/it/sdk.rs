//! The vendor's own SDKs, two for Python and one for Node.js, unmodified, take a group through its whole life.
//!
//! Each is installed into a temporary directory from its registry; a missing `python3`, `node` or `npm` or an
//! unreachable registry fails the test, because then nothing was proved.

use crate::support::{KEY, REGION, SECRET, start};
use std::path::Path;
use std::process::Output;
use tokio::process::Command;

const SCRIPT: &str = include_str!("sdk.py");
const NODE_SCRIPT: &str = include_str!("sdk.js");

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
async fn the_vendor_s_python_sdks_work_unchanged() {
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

#[tokio::test(flavor = "multi_thread")]
async fn the_vendor_s_node_sdk_works_unchanged() {
    let test = start().await;
    let directory = tempfile::tempdir().unwrap();
    let folder = directory.path().to_str().unwrap();
    let mut install = vec!["install", "--silent", "--no-audit", "--no-fund"];
    install.extend(["--prefix", folder, "@alicloud/eci20180808@2.0.3"]);
    run(Path::new("npm"), &install).await;
    let script = directory.path().join("sdk.js");
    std::fs::write(&script, NODE_SCRIPT).unwrap();
    let port = test.cloud.address().port().to_string();
    let arguments = [script.to_str().unwrap(), &port, KEY, SECRET, REGION];
    let output = run(Path::new("node"), &arguments).await;
    let output = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.contains("Node SDK: ok"), "{output}");
    assert_eq!(test.cloud.ledger().await.unwrap().entries.len(), 1);
}
