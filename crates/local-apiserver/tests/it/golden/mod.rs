//! Exchanges recorded from a real control plane, replayed: the same requests, the answers compared after masking.
//!
//! `GOLDEN=<part of a scenario's name>` replays only those and prints the first difference of each unequal exchange;
//! `GOLDEN_WRITE_FLOOR=1` raises the committed floor to what was reached.

mod exchange;
mod kubectl;
mod mask;
mod replay;

use exchange::Scenario;
use replay::Outcome;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Scenarios about kinds that are not served; they do not count.
const NOT_SERVED: &[&str] = &[
    "admission-policies",
    "admissionregistration-k8s-io-v1-validatingadmissionpolicybindings",
    "flowcontrol-apiserver-k8s-io-v1-prioritylevelconfigurations",
    "networking-k8s-io-v1-ipaddresses",
    "networking-k8s-io-v1-servicecidrs",
    "resource-k8s-io-v1-deviceclasses",
    "storage-k8s-io-v1-csinodes",
    "storage-k8s-io-v1-csistoragecapacities",
    "storage-k8s-io-v1-volumeattachments",
    "storage-k8s-io-v1-volumeattributesclasses",
    // CEL validation rules are a later part.
    "cel",
];

/// Commands instead of exchanges; see [`kubectl`].
const KUBECTL: &str = "kubectl";

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

fn scenarios() -> Vec<Scenario> {
    let mut files: Vec<PathBuf> = Vec::new();
    for area in std::fs::read_dir(folder()).unwrap() {
        let area = area.unwrap().path();
        if area.is_dir() && !area.ends_with(KUBECTL) {
            files.extend(
                std::fs::read_dir(area)
                    .unwrap()
                    .map(|file| file.unwrap().path()),
            );
        }
    }
    files.sort();
    let scenarios = files.iter().map(|file| Scenario::read(file));
    scenarios
        .filter(|one| !NOT_SERVED.contains(&one.name.as_str()))
        .collect()
}

#[derive(Default)]
struct Score {
    equal: usize,
    concerned: usize,
}

impl Score {
    fn add(&mut self, area: &str, name: &str, outcomes: &[Outcome], in_detail: bool) {
        let unequal = outcomes.iter().filter(|one| one.difference.is_some());
        let equal = outcomes.len() - unequal.clone().count();
        self.equal += equal;
        self.concerned += outcomes.len();
        println!("{equal:>4}/{:<4} {area}/{name}", outcomes.len());
        for outcome in unequal.filter(|_| in_detail) {
            let difference = outcome.difference.as_deref().unwrap_or_default();
            println!("  #{} {}\n    {difference}", outcome.number, outcome.title);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recorded_exchanges_are_answered_as_upstream_answered_them() {
    let wanted = std::env::var("GOLDEN").unwrap_or_default();
    let mut areas: BTreeMap<String, Score> = BTreeMap::new();
    for scenario in scenarios() {
        if wanted.is_empty() || scenario.name.contains(&wanted) || scenario.area == wanted {
            let outcomes = replay::replay(&scenario).await;
            let score = areas.entry(scenario.area.clone()).or_default();
            score.add(
                &scenario.area,
                &scenario.name,
                &outcomes,
                !wanted.is_empty(),
            );
        }
    }
    if wanted.is_empty() || wanted == KUBECTL {
        let outcomes = kubectl::replay(&folder().join(KUBECTL)).await;
        let score = areas.entry(KUBECTL.to_string()).or_default();
        score.add(KUBECTL, "commands", &outcomes, !wanted.is_empty());
    }
    let (equal, concerned) = areas.values().fold((0, 0), |sum, one| {
        (sum.0 + one.equal, sum.1 + one.concerned)
    });
    for (area, score) in &areas {
        println!(
            "{area:<12} {:>5} of {:<5} equal ({:.1} %)",
            score.equal,
            score.concerned,
            percent(score)
        );
    }
    println!(
        "{:<12} {equal:>5} of {concerned:<5} equal ({:.1} %)",
        "all",
        percent(&Score { equal, concerned })
    );
    if wanted.is_empty() {
        check_floor(&areas);
    }
}

fn percent(score: &Score) -> f64 {
    100.0 * score.equal as f64 / score.concerned.max(1) as f64
}

fn check_floor(areas: &BTreeMap<String, Score>) {
    let path = folder().join("floor.json");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|_| "{}".into());
    let mut floor: BTreeMap<String, usize> = serde_json::from_str(&text).unwrap();
    let mut fallen = Vec::new();
    for (area, score) in areas {
        let least = floor.entry(area.clone()).or_default();
        if score.equal < *least {
            fallen.push(format!(
                "{area}: {} equal, the floor is {least}",
                score.equal
            ));
        }
        // Some answers depend on how fast a controller was; the floor leaves them room.
        *least = (score.equal - score.equal / 50).max(*least);
    }
    if std::env::var_os("GOLDEN_WRITE_FLOOR").is_some() {
        let text = serde_json::to_string_pretty(&floor).unwrap();
        std::fs::write(&path, text + "\n").unwrap();
    }
    assert!(
        fallen.is_empty(),
        "fewer exchanges are equal than before: {fallen:?}"
    );
}
