//! From an answer of the log service to numbers with labels.

use std::collections::BTreeMap;

use cloud_api::log::model::{COMPLETE, Histogram, LogsAnswer, column};

use super::board::Failure;
use super::config::Query;

/// Most series of one query.
const MAX_SERIES: usize = 5_000;
/// What the service writes for a value that is not there.
const NULL: &str = "null";

/// A number and its labels.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// By name.
    pub labels: BTreeMap<String, String>,
    /// The number.
    pub value: f64,
}

/// One series a row. Rows without a number are left out; one that is no number makes the whole answer a failure.
pub fn from_rows(query: &Query, answer: &LogsAnswer) -> Result<Vec<Series>, Failure> {
    if !answer.is_complete() {
        return Err(Failure::new(
            "Incomplete",
            "the log service looked at a part of the logs only; ask for a shorter window",
        ));
    }
    if answer.data.len() > MAX_SERIES {
        let message = format!(
            "the answer has {} rows; at most {MAX_SERIES} can be series",
            answer.data.len()
        );
        return Err(Failure::new("TooManySeries", &message));
    }
    let mut all: BTreeMap<BTreeMap<String, String>, f64> = BTreeMap::new();
    for row in &answer.data {
        let name = value_column(query, row)?;
        let Some(text) = column(row, &name).filter(|text| !text.is_empty() && text != NULL) else {
            continue;
        };
        let value = text
            .trim()
            .parse::<f64>()
            .ok()
            .filter(|value| value.is_finite());
        let value = value.ok_or_else(|| {
            Failure::new(
                "NotANumber",
                &format!("column {name} holds {text:?}, which is no number"),
            )
        })?;
        let mut labels = query.labels.clone();
        for (label, from) in &query.label_columns {
            if !row.contains_key(from) {
                return Err(Failure::new(
                    "NoSuchColumn",
                    &format!("label {label} wants column {from}, which the answer has not"),
                ));
            }
            labels.insert(label.clone(), column(row, from).unwrap_or_default());
        }
        if all.insert(labels.clone(), value).is_some() {
            return Err(Failure::new(
                "DuplicateLabels",
                &format!("two rows have the same labels {labels:?}; group by them"),
            ));
        }
    }
    Ok(all
        .into_iter()
        .map(|(labels, value)| Series { labels, value })
        .collect())
}

/// The column named, or the only one that is no label.
fn value_column(
    query: &Query,
    row: &serde_json::Map<String, serde_json::Value>,
) -> Result<String, Failure> {
    if let Some(name) = &query.value {
        return match row.contains_key(name) {
            true => Ok(name.clone()),
            false => Err(Failure::new(
                "NoSuchColumn",
                &format!("the answer has no column {name}"),
            )),
        };
    }
    let is_label = |name: &&String| query.label_columns.values().any(|column| column == *name);
    // The service may add a row's time and source.
    let mut others = row
        .keys()
        .filter(|name| !is_label(name) && !name.starts_with("__"));
    match (others.next(), others.next()) {
        (Some(only), None) => Ok(only.clone()),
        _ => Err(Failure::new(
            "NoSuchColumn",
            "the answer has several columns; name the one with the number in value",
        )),
    }
}

/// One series: how many logs there were in the whole window.
pub fn from_histograms(query: &Query, histograms: &[Histogram]) -> Result<Vec<Series>, Failure> {
    if histograms.iter().any(|one| one.progress != COMPLETE) {
        return Err(Failure::new(
            "Incomplete",
            "the log service looked at a part of the logs only; ask for a shorter window",
        ));
    }
    let count: i64 = histograms.iter().map(|one| one.count).sum();
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts of logs stay far below 2^53"
    )]
    let value = count as f64;
    let labels = query.labels.clone();
    Ok(vec![Series { labels, value }])
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::config::ExporterFile;
    use super::*;

    fn query(more: serde_json::Value) -> Query {
        let mut query = json!({"name": "n", "project": "p", "logstore": "l", "query": "* | select 1", "labels": {"service": "nginx"}});
        query
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        let file = json!({"queries": [query]});
        let config = serde_json::from_value::<ExporterFile>(file)
            .unwrap()
            .check()
            .unwrap();
        config.queries[0].clone()
    }

    fn answer(rows: serde_json::Value) -> LogsAnswer {
        serde_json::from_value(json!({"meta": {"progress": "Complete"}, "data": rows})).unwrap()
    }

    #[test]
    fn rows_become_series_with_labels() {
        let query = query(json!({"labelColumns": {"room": "r"}}));
        let rows = json!([{"r": "a", "n": "2"}, {"r": "b", "n": "1.5", "__time__": "5"}, {"r": "c", "n": "null"}]);
        let series = from_rows(&query, &answer(rows)).unwrap();
        let shown: Vec<(&str, f64)> = series
            .iter()
            .map(|one| (one.labels["room"].as_str(), one.value))
            .collect();
        assert_eq!(shown, [("a", 2.0), ("b", 1.5)]);
        assert_eq!(series[0].labels["service"], "nginx");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_a_failure_with_a_reason() {
        let reason = |more: serde_json::Value, rows: serde_json::Value| {
            from_rows(&query(more), &answer(rows)).unwrap_err().reason
        };
        assert_eq!(
            reason(json!({}), json!([{"a": "1", "b": "2"}])),
            "NoSuchColumn"
        );
        assert_eq!(
            reason(json!({"value": "c"}), json!([{"a": "1"}])),
            "NoSuchColumn"
        );
        assert_eq!(
            reason(json!({"labelColumns": {"x": "c"}}), json!([{"a": "1"}])),
            "NoSuchColumn"
        );
        assert_eq!(reason(json!({}), json!([{"a": "many"}])), "NotANumber");
        assert_eq!(reason(json!({}), json!([{"a": "NaN"}])), "NotANumber");
        assert_eq!(
            reason(json!({}), json!([{"a": "1"}, {"a": "2"}])),
            "DuplicateLabels"
        );
        let mut partial = answer(json!([{"a": "1"}]));
        partial.meta.progress = "Incomplete".to_owned();
        assert_eq!(
            from_rows(&query(json!({})), &partial).unwrap_err().reason,
            "Incomplete"
        );
    }

    #[test]
    fn histograms_become_their_sum() {
        let part = |count| Histogram {
            from: 0,
            to: 1,
            count,
            progress: COMPLETE.to_owned(),
        };
        let query = query(json!({}));
        assert_eq!(
            from_histograms(&query, &[part(2), part(3)]).unwrap()[0].value,
            5.0
        );
        assert_eq!(from_histograms(&query, &[]).unwrap()[0].value, 0.0);
    }
}
