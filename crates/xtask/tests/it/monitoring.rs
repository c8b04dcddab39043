//! Alert rules, tried by Prometheus' own tool, and the dashboard.

use std::collections::BTreeSet;

use crate::run;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../deploy/monitoring");

#[test]
fn the_alert_rules_are_valid_and_fire_when_they_should() {
    // Debian package prometheus.
    run(
        "promtool",
        &["check", "rules", &format!("{FOLDER}/alerts.yaml")],
    );
    run(
        "promtool",
        &["test", "rules", &format!("{FOLDER}/alerts_test.yaml")],
    );
}

/// Names of our metrics in a text, without what histograms append.
fn metrics(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    words
        .filter(|word| word.starts_with("springtide_"))
        .map(|word| word.trim_end_matches("_bucket").to_owned())
        .collect()
}

#[test]
fn dashboard_and_rules_show_only_metrics_that_exist() {
    let read = |path: &str| std::fs::read_to_string(path).unwrap();
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../elastic-install/src/operator/metrics.rs"
    );
    let there = metrics(&read(source));
    let dashboard = read(&format!("{FOLDER}/dashboard.json"));
    serde_json::from_str::<serde_json::Value>(&dashboard).unwrap();
    for text in [dashboard, read(&format!("{FOLDER}/alerts.yaml"))] {
        let wanted = metrics(&text);
        assert!(!wanted.is_empty());
        assert!(wanted.is_subset(&there), "{wanted:?} in {there:?}");
    }
}
