//! Devices write to the local log service, the exporter pulls a number, a real Prometheus (Debian package) scrapes it.

use std::process::Command;

use serde_json::Value;

use crate::cluster::{TestCluster, refusal, run, springtide, wait_for};
use crate::devices::{
    EXAMPLE, PLACE, create_logstore, exporter, free_address, logs, prometheus, replay,
};

fn query(cluster: &TestCluster, query: &str) -> Value {
    let mut arguments = vec!["query"];
    arguments.extend(PLACE);
    arguments.extend([query, "--last", "10m"]);
    let text = logs(cluster, &arguments);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn a_number_of_the_log_service_reaches_a_real_prometheus() {
    let mut cluster = TestCluster::start(&["--workers", "0", "--simulated"]);
    create_logstore(&cluster);
    let (_exporter, address) = exporter(&cluster);
    let listen = free_address();
    let server = format!("http://{listen}");
    let _prometheus = prometheus(&cluster, &address, &listen);
    let replaying = replay(&cluster, "10m", "400");
    wait_for("prometheus has the number", 120, || {
        let expression = "active_devices{service=\"nginx\",namespace=\"default\"} > 100";
        let mut command = Command::new("promtool");
        command.args(["query", "instant", &server, expression]);
        let answer = run(&mut command, None)?;
        if answer.contains("=> ") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    drop(replaying);
    let counted = query(
        &cluster,
        "event: heartbeat | select count(distinct device_id) as n, count(1) as beats",
    );
    let number = |name: &str| counted[0][name].as_str().unwrap().parse::<u32>().unwrap();
    assert!(
        number("n") > 100 && number("beats") >= number("n"),
        "{counted}"
    );

    // Nobody writes any more: the window empties, and the number is nought, not what it was.
    wait_for("the number falls to nought", 120, || {
        let mut command = Command::new("promtool");
        command.args(["query", "instant", &server, "active_devices == 0"]);
        let answer = run(&mut command, None)?;
        if answer.contains("=> 0") {
            Ok(())
        } else {
            Err(answer)
        }
    });
    cluster.down();
}

#[test]
fn mistakes_are_told_with_their_field() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("exporter.yaml");
    let path = file.to_str().unwrap();
    let told = |text: &str| {
        std::fs::write(&file, text).unwrap();
        refusal(&["exporter", "sls", "--config", path, "--check"])
    };
    let one = "queries:\n- name: a\n  project: p\n  logstore: l\n  query: '* | select 1'\n";
    let message = told(&format!("{one}  interval: 1ms\n"));
    assert!(message.contains("queries[0].interval"), "{message}");
    let message = told(&format!("{one}  values: n\n"));
    assert!(message.contains("values"), "{message}");
    std::fs::write(&file, one).unwrap();
    let message = refusal(&["exporter", "sls", "--config", path]);
    assert!(message.contains("--region"), "{message}");
    let example = format!("{EXAMPLE}/exporter.yaml");
    let output = springtide(&["exporter", "sls", "--config", &example, "--check"]);
    assert!(output.status.success(), "{output:?}");
}
