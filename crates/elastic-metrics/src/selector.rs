//! Label selectors as clients write them in a query string: parsing, matching, and the object form for answers.
//!
//! Numeric comparisons (`a>1`) are refused: neither metrics nor objects are picked by them here.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

/// Longest text that is looked at; HPA selectors are far shorter.
const MAX_LENGTH: usize = 16 * 1024;

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Equals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Requirement {
    pub(crate) key: String,
    pub(crate) operator: Operator,
    pub(crate) values: Vec<String>,
}

impl Requirement {
    fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        let value = labels.get(&self.key);
        let listed = || value.is_some_and(|value| self.values.contains(value));
        match self.operator {
            Operator::Equals | Operator::In => listed(),
            Operator::NotEquals | Operator::NotIn => !listed(),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
        }
    }
}

/// All conditions; every one must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Selector(pub(crate) Vec<Requirement>);

impl Selector {
    /// `a=b,c!=d,e in (f,g),h notin (i),j,!k`; empty text selects everything.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_LENGTH {
            return Err(format!(
                "a label selector is longer than {MAX_LENGTH} bytes"
            ));
        }
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let parts = split_outside_parentheses(text).into_iter();
        Ok(Self(parts.map(requirement).collect::<Result<_, _>>()?))
    }

    pub(crate) fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| requirement.matches(labels))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As the object `LabelSelector`; null when it selects everything.
    pub(crate) fn object(&self) -> Value {
        if self.is_empty() {
            return Value::Null;
        }
        let (mut labels, mut expressions) = (Map::new(), Vec::new());
        for one in &self.0 {
            let operator = match (one.operator, one.values.as_slice()) {
                (Operator::Equals, [value]) => {
                    labels.insert(one.key.clone(), json!(value));
                    continue;
                }
                (Operator::Equals | Operator::In, _) => "In",
                (Operator::NotEquals | Operator::NotIn, _) => "NotIn",
                (Operator::Exists, _) => "Exists",
                (Operator::DoesNotExist, _) => "DoesNotExist",
            };
            let mut expression = json!({"key": one.key, "operator": operator});
            if !one.values.is_empty() {
                expression["values"] = json!(one.values);
            }
            expressions.push(expression);
        }
        let mut object = Map::new();
        if !labels.is_empty() {
            object.insert("matchLabels".to_owned(), labels.into());
        }
        if !expressions.is_empty() {
            object.insert("matchExpressions".to_owned(), expressions.into());
        }
        object.into()
    }
}

impl std::fmt::Display for Selector {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, one) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let (key, values) = (&one.key, one.values.join(","));
            match one.operator {
                Operator::Equals => write!(out, "{comma}{key}={values}")?,
                Operator::NotEquals => write!(out, "{comma}{key}!={values}")?,
                Operator::In => write!(out, "{comma}{key} in ({values})")?,
                Operator::NotIn => write!(out, "{comma}{key} notin ({values})")?,
                Operator::Exists => write!(out, "{comma}{key}")?,
                Operator::DoesNotExist => write!(out, "{comma}!{key}")?,
            }
        }
        Ok(())
    }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    let part = part.trim();
    let wrong = || format!("label selector {part:?} is not understood");
    let set = |values: &str| -> Result<Vec<String>, String> {
        let inner = values.trim().strip_prefix('(');
        let inner = inner.and_then(|text| text.strip_suffix(')'));
        let values = inner.ok_or_else(wrong)?.split(',');
        Ok(values.map(|value| value.trim().to_owned()).collect())
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    let (key, operator, values) = if let Some((key, values)) = part.split_once(" notin ") {
        (key, Operator::NotIn, set(values)?)
    } else if let Some((key, values)) = part.split_once(" in ") {
        (key, Operator::In, set(values)?)
    } else if let Some((key, value)) = part.split_once("!=") {
        (key, Operator::NotEquals, one(value))
    } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
        (key, Operator::Equals, one(value))
    } else if let Some(key) = part.strip_prefix('!') {
        (key, Operator::DoesNotExist, Vec::new())
    } else {
        (part, Operator::Exists, Vec::new())
    };
    let key = key.trim();
    let plain = |text: &str| !text.contains([' ', '(', ')', '=', '!', '<', '>', ',']);
    if key.is_empty() || !plain(key) || !values.iter().all(|value| plain(value)) {
        return Err(wrong());
    }
    let key = key.to_owned();
    Ok(Requirement {
        key,
        operator,
        values,
    })
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let (mut depth, mut start) = (0usize, 0);
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            b',' if depth == 0 => {
                parts.push(&text[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[start..]);
    parts
}

/// The value of a parameter of a query string, decoded.
pub(crate) fn parameter(query: &str, name: &str) -> Option<String> {
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let mut found = pairs.filter(|(key, _)| *key == name);
    found.next().map(|(_, value)| decode(value, true))
}

/// Percent decoding; a plus means a space in query strings only.
pub(crate) fn decode(text: &str, plus_is_space: bool) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .get(..2)
            .filter(|pair| pair.iter().all(u8::is_ascii_hexdigit));
        let hex = hex.and_then(|pair| std::str::from_utf8(pair).ok());
        let byte = hex.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        rest = after;
        bytes.push(match (first, byte) {
            (b'%', Some(byte)) => {
                rest = &after[2..];
                byte
            }
            (b'+', _) if plus_is_space => b' ',
            (byte, _) => *byte,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let pairs = pairs.iter();
        pairs
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn every_form_is_understood() {
        let web = labels(&[("app", "web"), ("tier", "front")]);
        let cases = [
            ("", true),
            ("app=web", true),
            ("app==web,tier!=back", true),
            ("app in (db, web)", true),
            ("app notin (web)", false),
            ("other notin (x),other!=y", true),
            ("tier", true),
            ("!tier", false),
            ("app=db", false),
            ("app=", false),
        ];
        for (text, wanted) in cases {
            assert_eq!(
                Selector::parse(text).unwrap().matches(&web),
                wanted,
                "{text}"
            );
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_part() {
        for text in ["a b", "a in b", "=x", "a>1", "a,,b", "a=b=c", "a in (x"] {
            let error = Selector::parse(text).unwrap_err();
            assert!(error.contains("is not understood"), "{text}: {error}");
        }
        assert!(Selector::parse(&"a,".repeat(MAX_LENGTH)).is_err());
    }

    #[test]
    fn the_object_form_holds_the_same_conditions() {
        let selector = Selector::parse("a=b,c in (d,e),!f").unwrap();
        let expected = json!({
            "matchLabels": {"a": "b"},
            "matchExpressions": [
                {"key": "c", "operator": "In", "values": ["d", "e"]},
                {"key": "f", "operator": "DoesNotExist"}
            ]
        });
        assert_eq!(selector.object(), expected);
        assert_eq!(Selector::default().object(), Value::Null);
    }

    #[test]
    fn parameters_are_decoded() {
        assert_eq!(
            parameter("x=1&labelSelector=a%3Db%2Cc+in+%28d%29", "labelSelector").unwrap(),
            "a=b,c in (d)"
        );
        assert_eq!(parameter("", "labelSelector"), None);
        assert_eq!(decode("a+%2A%zz", false), "a+*%zz");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = Selector::parse(&text);
            let _ = decode(&text, true);
        }

        #[test]
        fn what_is_written_is_read_again(parts in proptest::collection::vec(("[a-z][a-z0-9/._-]{0,8}", 0usize..6, proptest::collection::vec("[a-z0-9._-]{1,6}", 1..4)), 0..5)) {
            let requirements = parts.into_iter().map(|(key, which, mut values)| {
                let operator = [Operator::Equals, Operator::NotEquals, Operator::In, Operator::NotIn, Operator::Exists, Operator::DoesNotExist][which];
                match which { 0 | 1 => values.truncate(1), 4 | 5 => values.clear(), _ => {} }
                Requirement { key, operator, values }
            });
            let selector = Selector(requirements.collect());
            prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector);
        }
    }
}
