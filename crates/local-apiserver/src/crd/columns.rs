//! Printer columns of custom resources: JSON paths into cells.

use jiff::Timestamp;
use serde_json::{Value, json};

/// `columnDefinitions`.
pub fn headings(columns: &[Value]) -> Value {
    let mut out = vec![
        json!({"name": "Name", "type": "string", "format": "name", "description": "", "priority": 0}),
    ];
    if columns.is_empty() {
        out.push(
            json!({"name": "Age", "type": "date", "format": "", "description": "", "priority": 0}),
        );
    }
    for column in columns {
        out.push(json!({
            "name": column["name"], "type": column["type"],
            "format": column["format"].as_str().unwrap_or_default(),
            "description": "",
            "priority": column["priority"].as_i64().unwrap_or(0),
        }));
    }
    Value::Array(out)
}

/// One row's cells.
pub fn cells(columns: &[Value], object: &Value, now: Timestamp) -> Vec<Value> {
    let mut out = vec![object["metadata"]["name"].clone()];
    if columns.is_empty() {
        out.push(cell(
            "date",
            &[object["metadata"]["creationTimestamp"].clone()],
            now,
        ));
    }
    for column in columns {
        let path = column["jsonPath"].as_str().unwrap_or_default();
        let kind = column["type"].as_str().unwrap_or("string");
        out.push(cell(kind, &super::jsonpath::find(object, path), now));
    }
    out
}

fn cell(kind: &str, found: &[Value], now: Timestamp) -> Value {
    let Some(first) = found.first().filter(|value| !value.is_null()) else {
        return Value::Null;
    };
    match kind {
        "integer" => match first {
            Value::Number(number) => number
                .as_i64()
                .or_else(|| number.as_f64().map(|value| value as i64))
                .map_or(Value::Null, Value::from),
            _ => Value::Null,
        },
        "number" => first.as_f64().map_or(Value::Null, |value| {
            if value.fract() == 0.0 {
                json!(value as i64)
            } else {
                json!(value)
            }
        }),
        "boolean" => first.as_bool().map_or(Value::Null, Value::from),
        "date" => first
            .as_str()
            .and_then(|text| text.parse::<Timestamp>().ok())
            .map_or_else(|| "<invalid>".into(), |then| age(now, then).into()),
        _ => go_text(first).into(),
    }
}

/// A value as Go's JSONPath printer writes it.
fn go_text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

/// `5d3h` as upstream's `HumanDuration`.
pub fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.as_second() - then.as_second();
    if seconds < -1 {
        return "<invalid>".into();
    }
    if seconds < 0 {
        return "0s".into();
    }
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    if seconds < 120 {
        return format!("{seconds}s");
    }
    let pair = |large: i64, small: i64, names: (&str, &str)| {
        if small == 0 {
            format!("{large}{}", names.0)
        } else {
            format!("{large}{}{small}{}", names.0, names.1)
        }
    };
    if minutes < 10 {
        return pair(minutes, seconds % 60, ("m", "s"));
    }
    if minutes < 180 {
        return format!("{minutes}m");
    }
    if hours < 8 {
        return pair(hours, minutes % 60, ("h", "m"));
    }
    if hours < 48 {
        return format!("{hours}h");
    }
    if days < 8 {
        return pair(days, hours % 24, ("d", "h"));
    }
    if days < 365 * 2 {
        return format!("{days}d");
    }
    if days < 365 * 8 {
        return pair(days / 365, days % 365, ("y", "d"));
    }
    format!("{}y", days / 365)
}
