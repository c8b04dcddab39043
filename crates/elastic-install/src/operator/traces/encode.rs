//! Spans as the protocol's JSON: ids in hexadecimal, 64-bit numbers as strings.

use serde_json::{Value as Json, json};

use super::{Kind, Span, Value};

/// The body of one request.
pub(super) fn request(resource: &[(String, String)], spans: &[Span]) -> Json {
    let resource = resource.iter();
    let resource = resource.map(|(key, value)| attribute(key, &Value::Text(value.clone())));
    json!({"resourceSpans": [{
        "resource": {"attributes": resource.collect::<Vec<_>>()},
        "scopeSpans": [{
            "scope": {"name": "springtide", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans.iter().map(span).collect::<Vec<_>>()
        }]
    }]})
}

fn span(span: &Span) -> Json {
    let attributes = span.attributes.iter();
    let attributes = attributes.map(|(key, value)| attribute(key, value));
    let mut json = json!({
        "traceId": format!("{:032x}", span.trace),
        "spanId": format!("{:016x}", span.id),
        "name": span.name,
        "kind": match span.kind { Kind::Internal => 1, Kind::Client => 3 },
        "startTimeUnixNano": nanoseconds(span.from),
        // Clocks of two sides may put an end before its start; nothing reads such a span.
        "endTimeUnixNano": nanoseconds(span.to.max(span.from)),
        "attributes": attributes.collect::<Vec<_>>(),
        "status": {}
    });
    if let Some(parent) = span.parent {
        json["parentSpanId"] = format!("{parent:016x}").into();
    }
    if let Some(error) = &span.error {
        json["status"] = json!({"code": 2, "message": error});
    }
    json
}

fn attribute(key: &str, value: &Value) -> Json {
    let value = match value {
        Value::Text(text) => json!({"stringValue": text}),
        Value::Number(number) => json!({"intValue": number.to_string()}),
    };
    json!({"key": key, "value": value})
}

fn nanoseconds(time: jiff::Timestamp) -> String {
    time.as_nanosecond().max(0).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_the_protocol_has_it() {
        let time = |text: &str| text.parse::<jiff::Timestamp>().unwrap();
        let spans = [Span {
            trace: 0xab,
            id: 7,
            parent: Some(0xfedc_ba98_7654_3210),
            name: "pull".into(),
            kind: Kind::Client,
            from: time("2026-01-01T00:00:01.5Z"),
            to: time("2026-01-01T00:00:01Z"),
            error: Some("no".into()),
            attributes: vec![("a", Value::Text("x".into())), ("n", Value::Number(404))],
        }];
        let body = request(&[("service.name".into(), "s".into())], &spans);
        let all = &body["resourceSpans"][0];
        assert_eq!(
            all["resource"]["attributes"],
            json!([{"key": "service.name", "value": {"stringValue": "s"}}])
        );
        assert_eq!(
            all["scopeSpans"][0]["spans"][0],
            json!({
                "traceId": "000000000000000000000000000000ab", "spanId": "0000000000000007",
                "parentSpanId": "fedcba9876543210", "name": "pull", "kind": 3,
                "startTimeUnixNano": "1767225601500000000", "endTimeUnixNano": "1767225601500000000",
                "attributes": [
                    {"key": "a", "value": {"stringValue": "x"}}, {"key": "n", "value": {"intValue": "404"}}
                ],
                "status": {"code": 2, "message": "no"}
            })
        );
    }
}
