//! Who may know whom. A new arrow needs a line here, and a reason that survives review.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

/// Allowed dependencies of each crate on others of this workspace (dev-dependencies are listed apart below).
const ARROWS: &[(&str, &[&str])] = &[
    ("cloud-api", &[]),
    ("elastic-core", &[]),
    ("elastic-autoscaler", &["elastic-core"]),
    (
        "elastic-controllers",
        &["elastic-autoscaler", "elastic-core"],
    ),
    (
        "elastic-install",
        &[
            "cloud-api",
            "elastic-controllers",
            "elastic-core",
            "elastic-metrics",
            "elastic-node",
            "kubelet-api",
        ],
    ),
    ("elastic-metrics", &["cloud-api", "elastic-core"]),
    (
        "elastic-node",
        &["cloud-api", "elastic-core", "kubelet-api"],
    ),
    (
        "fuzz-targets",
        &[
            "cloud-api",
            "elastic-core",
            "elastic-metrics",
            "kubelet-api",
            "local-schema",
        ],
    ),
    ("kubelet-api", &[]),
    ("local-apiserver", &["local-kinds", "local-schema"]),
    (
        "local-cloud",
        &["cloud-api", "local-network", "local-runtime"],
    ),
    ("local-controllers", &["elastic-autoscaler", "elastic-core"]),
    ("local-gateway", &["local-network"]),
    ("local-kinds", &["local-schema"]),
    ("local-network", &[]),
    (
        "local-node",
        &["kubelet-api", "local-network", "local-runtime"],
    ),
    ("local-runtime", &[]),
    ("local-schema", &[]),
    ("tool-load", &[]),
    ("tool-upstream", &[]),
    ("xtask", &["tool-upstream"]),
];

/// The program may know every crate but the workspace's own tool.
const PROGRAM: &str = "springtide";

fn workspace() -> BTreeMap<String, Vec<(String, bool)>> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--no-deps",
            "--format-version",
            "1",
            "--offline",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = metadata["packages"].as_array().unwrap();
    let names: BTreeSet<&str> = packages
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    let dependencies = |package: &serde_json::Value| {
        let all = package["dependencies"].as_array().unwrap();
        let ours = all
            .iter()
            .filter(|one| names.contains(one["name"].as_str().unwrap()));
        ours.map(|one| {
            (
                one["name"].as_str().unwrap().to_string(),
                one["kind"] == "dev",
            )
        })
        .collect()
    };
    packages
        .iter()
        .map(|one| (one["name"].as_str().unwrap().to_string(), dependencies(one)))
        .collect()
}

#[test]
fn crates_know_only_whom_the_design_allows() {
    let mut unexpected = Vec::new();
    for (name, dependencies) in workspace() {
        let allowed = ARROWS
            .iter()
            .find(|(crate_name, _)| *crate_name == name)
            .map(|(_, allowed)| *allowed);
        for (dependency, is_dev) in dependencies {
            let fine = is_dev
                || match allowed {
                    Some(allowed) => allowed.contains(&dependency.as_str()),
                    None => name == PROGRAM && dependency != "xtask",
                };
            if !fine {
                unexpected.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert!(
        unexpected.is_empty(),
        "arrows nobody allowed: {unexpected:?}"
    );
}

#[test]
fn every_crate_is_listed_and_every_listed_crate_exists() {
    let crates: BTreeSet<String> = workspace()
        .into_keys()
        .filter(|name| name != PROGRAM)
        .collect();
    let listed: BTreeSet<String> = ARROWS.iter().map(|(name, _)| (*name).to_string()).collect();
    assert_eq!(crates, listed);
}

#[test]
fn elastic_crates_never_know_local_ones() {
    for (name, dependencies) in workspace() {
        if name.starts_with("elastic-") || name == "cloud-api" {
            let local: Vec<_> = dependencies
                .iter()
                .filter(|(one, is_dev)| one.starts_with("local-") && !is_dev)
                .collect();
            assert!(local.is_empty(), "{name} knows {local:?}");
        }
    }
}
