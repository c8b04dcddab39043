//! The demo's report: `report.json` for machines, `report.html` as one file with the curves drawn.

use std::path::Path;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tool_load::{LoadReport, SecondSample};

use crate::demo::chart::{Chart, Series, escape};
use crate::demo::judge::Promise;
use crate::demo::record::{Moment, Sample};

/// Everything a demo found out.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub users: u32,
    /// When the load began, RFC 3339.
    pub started: String,
    /// True when container groups existed only on paper.
    pub simulated: bool,
    pub promises: Vec<Promise>,
    pub load: LoadReport,
    pub samples: Vec<Sample>,
    pub moments: Vec<Moment>,
    pub ledger: LedgerSummary,
    /// Seconds by step of the last burst, where they could be told.
    pub timeline: serde_json::Value,
}

/// What was billed.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerSummary {
    pub currency: String,
    /// 10⁻⁹ of the currency.
    pub total_units: String,
    pub groups: usize,
    pub group_seconds: u64,
}

impl Report {
    /// True when every promise was kept.
    pub fn all_kept(&self) -> bool {
        self.promises.iter().all(|promise| promise.kept)
    }

    /// Writes both files.
    pub fn write(&self, folder: &Path) -> anyhow::Result<()> {
        std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
        let json = serde_json::to_vec_pretty(self).context("write the report as JSON")?;
        for (name, content) in [
            ("report.json", json),
            ("report.html", self.html().into_bytes()),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    fn html(&self) -> String {
        let rows: String = self
            .promises
            .iter()
            .map(|promise| {
                let (class, mark) = if promise.kept {
                    ("kept", "✓")
                } else {
                    ("broken", "✗")
                };
                format!(
                    "<tr class=\"{class}\"><td>{mark}</td><td>{}</td><td>{}</td></tr>",
                    escape(&promise.name),
                    escape(&promise.detail)
                )
            })
            .collect();
        let verdict = if self.all_kept() {
            "Every promise was kept."
        } else {
            "A promise was broken."
        };
        let simulated = if self.simulated {
            "<p class=\"broken\">Container groups were simulated.</p>"
        } else {
            ""
        };
        let load = &self.load;
        format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\"><title>Springtide: the burst</title><style>{STYLE}</style>\
             <h1>The burst, {} users at the top</h1><p>{verdict} {} requests in {:.0} s, {:.3} % succeeded; response time p50 {:.0} ms, p95 {:.0} ms, p99 {:.0} ms. \
             {} container groups, {} group-seconds, {} {}.</p>{simulated}<table>{rows}</table>{}<p class=\"note\">Response time counts from the moment a user meant to send. Owned cost is an assumption: a monthly subscription of 298 {} for 2 vCPU and 4 GiB. Load began {}.</p></html>",
            self.users,
            load.requests,
            load.duration_seconds,
            load.success_rate * 100.0,
            load.response_time.p50,
            load.response_time.p95,
            load.response_time.p99,
            self.ledger.groups,
            self.ledger.group_seconds,
            money(&self.ledger.total_units),
            escape(&self.ledger.currency),
            self.charts(),
            escape(&self.ledger.currency),
            escape(&self.started)
        )
    }

    fn charts(&self) -> String {
        let seconds: Vec<f64> = self
            .load
            .series
            .iter()
            .map(|one| one.second as f64)
            .collect();
        let load =
            |pick: fn(&SecondSample) -> f64| self.load.series.iter().map(pick).collect::<Vec<_>>();
        let cluster_seconds: Vec<f64> = self.samples.iter().map(|one| one.second).collect();
        let cluster = |pick: fn(&Sample) -> f64| self.samples.iter().map(pick).collect::<Vec<_>>();
        let line = |name, color, values| Series {
            name,
            color,
            values,
        };
        let charts = [
            Chart {
                title: "Users",
                unit: "concurrent",
                seconds: &seconds,
                stacked: false,
                series: vec![line("users", BLUE, load(|one| f64::from(one.users)))],
            },
            Chart {
                title: "Requests",
                unit: "per second",
                seconds: &seconds,
                stacked: false,
                series: vec![
                    line("requests/s", BLUE, load(|one| one.requests as f64)),
                    line("failed/s", RED, load(|one| one.failures as f64)),
                ],
            },
            Chart {
                title: "Success rate",
                unit: "%",
                seconds: &seconds,
                stacked: false,
                series: vec![line("success", GREEN, load(success_percent))],
            },
            Chart {
                title: "Response time",
                unit: "ms",
                seconds: &seconds,
                stacked: false,
                series: vec![
                    line("p50", GREEN, load(|one| one.response_time.p50)),
                    line("p95", ORANGE, load(|one| one.response_time.p95)),
                    line("p99", RED, load(|one| one.response_time.p99)),
                ],
            },
            Chart {
                title: "Replicas",
                unit: "pods",
                seconds: &cluster_seconds,
                stacked: true,
                series: vec![
                    line("owned", GREEN, cluster(|one| f64::from(one.owned))),
                    line(
                        "serverless",
                        ORANGE,
                        cluster(|one| f64::from(one.serverless)),
                    ),
                ],
            },
            Chart {
                title: "Cost",
                unit: "CNY per hour",
                seconds: &cluster_seconds,
                stacked: true,
                series: vec![
                    line("owned", GREEN, cluster(|one| one.owned_cost_per_hour)),
                    line(
                        "serverless",
                        ORANGE,
                        cluster(|one| one.serverless_cost_per_hour),
                    ),
                ],
            },
        ];
        charts.iter().map(Chart::svg).collect()
    }
}

fn success_percent(second: &SecondSample) -> f64 {
    match second.requests {
        0 => f64::NAN,
        requests => 100.0 * (requests - second.failures) as f64 / requests as f64,
    }
}

/// 10⁻⁹ units as a decimal number with four places, rounded down.
pub fn money(units: &str) -> String {
    let units: u128 = units.parse().unwrap_or(0);
    format!(
        "{}.{:04}",
        units / 1_000_000_000,
        units % 1_000_000_000 / 100_000
    )
}

const BLUE: &str = "#2563eb";
const GREEN: &str = "#15803d";
const ORANGE: &str = "#ea7317";
const RED: &str = "#c81e1e";
const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:900px;margin:2rem auto;padding:0 1rem;color:#1c2530}\
 svg{width:100%;height:auto;margin:.6rem 0;background:#fafbfc;border:1px solid #e3e7ec;border-radius:6px}\
 .title{font:600 14px system-ui,sans-serif}.unit,.tick{font:11px system-ui,sans-serif;fill:#5b6673}.grid{stroke:#e3e7ec}\
 table{border-collapse:collapse;margin:1rem 0}td{padding:.25rem .7rem;border-bottom:1px solid #e3e7ec}\
 .kept td:first-child{color:#15803d}.broken,.broken td{color:#c81e1e}.note{color:#5b6673}";

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> Report {
        Report {
            users: 10,
            started: "2026-01-01T00:00:00Z".to_string(),
            simulated: false,
            promises: vec![Promise {
                name: "a < b".to_string(),
                kept: false,
                detail: "x".to_string(),
            }],
            load: LoadReport {
                series: vec![
                    SecondSample::default(),
                    SecondSample {
                        second: 1,
                        users: 5,
                        requests: 4,
                        ..SecondSample::default()
                    },
                ],
                ..LoadReport::default()
            },
            samples: vec![
                Sample::default(),
                Sample {
                    second: 1.0,
                    owned: 2,
                    ..Sample::default()
                },
            ],
            moments: Vec::new(),
            ledger: LedgerSummary {
                currency: "CNY".to_string(),
                total_units: "1234567890".to_string(),
                ..LedgerSummary::default()
            },
            timeline: serde_json::Value::Null,
        }
    }

    #[test]
    fn the_page_is_one_file_with_six_charts_and_says_what_broke() {
        let html = report().html();
        assert_eq!(html.matches("<svg").count(), 6);
        assert!(
            html.contains("A promise was broken.") && html.contains("a &lt; b"),
            "{html}"
        );
        assert!(
            !html.contains("<script") && !html.contains("http://") && !html.contains("https://")
        );
        assert!(html.contains("1.2345 CNY"), "{html}");
    }

    #[test]
    fn both_files_are_written_and_the_json_reads_back() {
        let folder = tempfile::tempdir().unwrap();
        report().write(folder.path()).unwrap();
        let text = std::fs::read_to_string(folder.path().join("report.json")).unwrap();
        let back: Report = serde_json::from_str(&text).unwrap();
        assert_eq!(back.samples.len(), 2);
        assert!(folder.path().join("report.html").exists());
    }
}
