//! `springtide forecast backtest` on the history that the documentation names: the table, the same numbers as data, and
//! what is said of a history that cannot be used.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cluster::{PROGRAM, refusal, springtide, text};

const DEMAND: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../../examples/active-devices/demand.csv"
);

fn backtest<'a>(csv: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let head = ["forecast", "backtest", csv];
    head.iter().chain(more).copied().collect()
}

const DAYS: [&str; 8] = [
    "--capacity-per-replica",
    "2k",
    "--startup-seconds",
    "900",
    "--period",
    "day",
    "--days",
    "3",
];

/// The columns of a line of the table: the autoscaler alone, and with the forecast.
fn row(table: &str, name: &str) -> (f64, f64) {
    let line = table.lines().find(|line| line.starts_with(name));
    let line = line.unwrap_or_else(|| panic!("{name} in {table}"));
    let numbers = line[name.len()..].split_whitespace();
    let mut numbers = numbers.filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn the_table_and_the_data_say_the_same() {
    let shown = springtide(&backtest(DEMAND, &DAYS));
    let table = text(&shown.stdout);
    assert!(shown.status.success(), "{}", text(&shown.stderr));
    let heading = "Learned from 4.0 days, compared 3.0 days; 0 slots without a value. One replica carries 2000.0, starts in 900 s.";
    assert!(table.starts_with(heading), "{table}");
    assert!(table.contains("\nPeriod: Day"), "{table}");
    assert!(table.contains("\nError (WAPE): forecast "), "{table}");
    assert!(
        table.contains("\nLoad below the 95 % quantile: "),
        "{table}"
    );

    let data = springtide(&backtest(DEMAND, &[&DAYS[..], &["-o", "json"]].concat()));
    let data: Value = serde_json::from_slice(&data.stdout).unwrap();
    assert_eq!(data["stepSeconds"], 1800);
    assert_eq!(data["capacityPerReplica"], 2000.0);
    assert_eq!(data["report"]["period"], "Day");
    for (name, field, precision) in [
        ("replica-hours", "replicaHours", 0.05),
        ("unmet demand", "unmetDemand", 0.05),
        ("under-provisioned minutes", "underProvisionedMinutes", 0.5),
        (
            "over-provisioned replica-minutes",
            "overProvisionedReplicaMinutes",
            0.5,
        ),
        ("changes of the replicas", "rescales", 0.0),
    ] {
        let (alone, with) = row(&table, name);
        for (shown, part) in [(alone, "reactive"), (with, "withForecast")] {
            let exact = data["report"][part][field].as_f64().unwrap();
            assert!(
                (shown - exact).abs() <= precision + 1e-9,
                "{name}, {part}: {shown} and {exact}"
            );
        }
    }
    // Replicas that take a quarter of an hour to start: knowing the morning is worth something.
    let (alone, with) = row(&table, "unmet demand");
    assert!(with < alone, "{table}");
}

#[test]
fn a_history_may_come_from_standard_input() {
    let mut child = Command::new(PROGRAM)
        .args(backtest("-", &["-o", "json", "--days", "2"]))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    // Two hours at noon are higher by half, each day for ten days.
    let mut history = String::from("timestamp,value\n");
    for hour in 0..240 {
        let (day, hour) = (1 + hour / 24, hour % 24);
        let value = if (12..14).contains(&hour) { 150 } else { 100 };
        history += &format!("2026-06-{day:02}T{hour:02}:00:00Z,{value}\n");
    }
    let mut input = child.stdin.take().unwrap();
    input.write_all(history.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success());
    let data: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(data["report"]["period"], "Day", "{data}");
    assert_eq!(data["report"]["wape"], 0.0, "the days are all alike");
    assert_eq!(
        data["capacityPerReplica"], 7.5,
        "a twentieth of the highest"
    );
}

#[test]
fn what_cannot_be_used_is_refused_with_its_place() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, content: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let missing = refusal(&backtest("/nowhere/history.csv", &[]));
    assert!(missing.contains("/nowhere/history.csv"), "{missing}");
    let wrong = file(
        "wrong.csv",
        "timestamp,value\n2026-06-01T00:00:00Z,1\n2026-06-01T01:00:00Z,many\n",
    );
    let wrong = refusal(&backtest(&wrong, &[]));
    assert!(
        wrong.contains("line 3") && wrong.contains("many"),
        "{wrong}"
    );
    let single = file("single.csv", "2026-06-01T00:00:00Z,1\n");
    let single = refusal(&backtest(&single, &[]));
    assert!(single.contains("a history needs more"), "{single}");
    let zone = refusal(&backtest(DEMAND, &["--time-zone", "Mars"]));
    assert!(
        zone.contains("--time-zone") && zone.contains("Mars"),
        "{zone}"
    );
    let capacity = refusal(&backtest(DEMAND, &["--capacity-per-replica", "0"]));
    assert!(
        capacity.contains("must be a quantity above 0"),
        "{capacity}"
    );
}
