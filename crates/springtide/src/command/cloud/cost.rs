//! `springtide cloud cost`: what the local cloud has charged so far, by its ledger, and what an hour costs as things are now.

use std::collections::BTreeMap;

use anyhow::Context;
use cloud_api::money::Amount;
use elastic_core::names::tags;
use http::Method;
use local_cloud::{LedgerEntry, LedgerPage};
use serde::Serialize;
use serde_json::Value;

use super::arguments::CostBy;
use super::control::Control;
use crate::cli::Output;
use crate::printer;

const SECONDS_PER_HOUR: u64 = 3_600;
/// Stands for groups without the tag that rows are made by, and for lines that were left out.
const OTHERS: &str = "-";

/// One row: a group, or all groups of a namespace or a zone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    name: String,
    /// Groups, also ended ones.
    groups: u64,
    /// Those that cost money at this moment.
    running: u64,
    seconds: u64,
    #[serde(serialize_with = "as_text")]
    per_hour: Amount,
    #[serde(serialize_with = "as_text")]
    amount: Amount,
}

/// Exact decimals: as numbers they would be rounded by whoever reads them.
fn as_text<S: serde::Serializer>(amount: &Amount, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(amount)
}

impl Row {
    fn add(&mut self, entry: &LedgerEntry) {
        self.groups += 1;
        self.seconds += entry.seconds;
        self.amount += entry.amount;
        if entry.until.is_none() {
            self.running += 1;
            self.per_hour += entry.per_second.times(SECONDS_PER_HOUR);
        }
    }
}

/// What `-o json` prints.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    currency: &'static str,
    #[serde(flatten)]
    total: Row,
    /// By what the rows are.
    by: &'static str,
    rows: Vec<Row>,
}

pub async fn run(control: &Control, by: CostBy, output: Output) -> anyhow::Result<()> {
    let answer = control.call(Method::GET, "ledger", &Value::Null).await?;
    let page: LedgerPage = serde_json::from_value(answer).context("read the ledger")?;
    let report = report(&page, by);
    match output {
        Output::Json => printer::data(serde_json::to_string_pretty(&report)?),
        Output::Text => printer::data(table(&report)),
    }
    if page.omitted > 0 {
        printer::note(format!(
            "the {} oldest groups are in the total and the row {OTHERS:?} only",
            page.omitted
        ));
    }
    Ok(())
}

fn report(page: &LedgerPage, by: CostBy) -> Report {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for entry in &page.entries {
        let name = match by {
            CostBy::Group => entry.group_id.clone(),
            CostBy::Namespace => tag(entry, tags::NAMESPACE),
            CostBy::Zone => entry.zone.clone(),
        };
        rows.entry(name).or_default().add(entry);
    }
    if page.omitted > 0 {
        let listed = page.entries.iter();
        let seconds: u64 = listed.clone().map(|entry| entry.seconds).sum();
        let amount: Amount = listed.map(|entry| entry.amount).sum();
        let row = rows.entry(OTHERS.to_string()).or_default();
        row.groups += page.omitted;
        row.seconds += page.seconds.saturating_sub(seconds);
        row.amount += Amount(page.total.0.saturating_sub(amount.0));
    }
    let rows = rows.into_iter().map(|(name, row)| Row { name, ..row });
    Report {
        currency: "CNY",
        total: Row {
            name: "total".to_string(),
            groups: page.groups,
            running: page.running,
            seconds: page.seconds,
            per_hour: page.per_second.times(SECONDS_PER_HOUR),
            amount: page.total,
        },
        by: by.name(),
        rows: rows.collect(),
    }
}

fn tag(entry: &LedgerEntry, key: &str) -> String {
    let found = entry.tags.iter().find(|tag| tag.key == key);
    found.map_or_else(|| OTHERS.to_string(), |tag| tag.value.clone())
}

fn table(report: &Report) -> String {
    let head = report.by.to_uppercase();
    let header = [&head, "GROUPS", "RUNNING", "SECONDS", "CNY/HOUR", "CNY"];
    let mut rows = vec![header.map(str::to_string)];
    let cells = |row: &Row| {
        [
            row.name.clone(),
            row.groups.to_string(),
            row.running.to_string(),
            row.seconds.to_string(),
            row.per_hour.to_string(),
            row.amount.to_string(),
        ]
    };
    rows.extend(report.rows.iter().map(cells));
    rows.push(cells(&report.total));
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max();
    let widths: Vec<usize> = (0..header.len())
        .map(|column| width(column).unwrap_or_default())
        .collect();
    let lines = rows.iter().map(|row| {
        let numbers = row.iter().zip(&widths).skip(1);
        let numbers: String = numbers
            .map(|(cell, width)| format!("  {cell:>width$}"))
            .collect();
        format!("{:<width$}{numbers}", row[0], width = widths[0])
    });
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entry(id: &str, namespace: Option<&str>, seconds: u64, until: Option<&str>) -> LedgerEntry {
        let tags: Vec<Value> = namespace
            .iter()
            .map(|namespace| json!({"Key": tags::NAMESPACE, "Value": namespace}))
            .collect();
        serde_json::from_value(json!({
            "groupId": id, "name": "n", "tags": tags, "zone": "cn-hangzhou-h",
            "size": {"vcpu_milli": 2_000, "memory_mib": 4_096}, "perSecond": 122_520, "simulated": true,
            "from": "2026-01-01T00:00:00Z", "until": until, "seconds": seconds, "amount": 122_520 * seconds,
        }))
        .unwrap()
    }

    fn page(entries: Vec<LedgerEntry>) -> LedgerPage {
        LedgerPage {
            total: entries.iter().map(|entry| entry.amount).sum(),
            per_second: Amount(122_520),
            groups: entries.len() as u64,
            running: 1,
            seconds: entries.iter().map(|entry| entry.seconds).sum(),
            omitted: 0,
            entries,
        }
    }

    #[test]
    fn rows_are_made_by_group_and_by_namespace_and_add_up() {
        let ended = Some("2026-01-01T01:00:00Z");
        let page = page(vec![
            entry("eci-a", Some("shop"), 3_600, ended),
            entry("eci-b", Some("shop"), 100, None),
            entry("eci-c", None, 7, ended),
        ]);
        let by_group = report(&page, CostBy::Group);
        assert_eq!(by_group.rows.len(), 3);
        let by_namespace = report(&page, CostBy::Namespace);
        let names = by_namespace.rows.iter().map(|row| row.name.as_str());
        assert_eq!(names.collect::<Vec<_>>(), ["-", "shop"]);
        let shop = &by_namespace.rows[1];
        assert_eq!((shop.groups, shop.running, shop.seconds), (2, 1, 3_700));
        assert_eq!(shop.per_hour.to_string(), "0.441072000");
        for report in [&by_group, &by_namespace] {
            let sum: Amount = report.rows.iter().map(|row| row.amount).sum();
            assert_eq!(sum, report.total.amount);
        }
        let written = serde_json::to_value(&by_namespace).unwrap();
        assert_eq!(written["amount"], "0.454181640");
        assert_eq!(written["rows"][1]["perHour"], "0.441072000");
        let text = table(&by_namespace);
        let lines: Vec<&str> = text.lines().collect();
        assert!(
            lines[0].starts_with("NAMESPACE") && lines[0].ends_with("CNY"),
            "{text}"
        );
        assert!(
            lines[3].starts_with("total") && lines[3].ends_with("0.454181640"),
            "{text}"
        );
    }

    #[test]
    fn what_is_left_out_of_the_list_is_still_in_a_row() {
        let mut page = page(vec![entry("eci-b", Some("shop"), 100, None)]);
        page.omitted = 5;
        page.groups = 6;
        page.seconds += 1_000;
        page.total += Amount(122_520 * 1_000);
        let report = report(&page, CostBy::Zone);
        let others = &report.rows[0];
        assert_eq!(
            (others.name.as_str(), others.groups, others.seconds),
            (OTHERS, 5, 1_000)
        );
        let sum: Amount = report.rows.iter().map(|row| row.amount).sum();
        assert_eq!(sum, report.total.amount);
    }
}
