//! The part of JSONPath that printer columns use: fields, indexes, wildcards, slices of one filter form.

use serde_json::Value;

enum Step {
    Field(String),
    Index(i64),
    Wildcard,
    Filter { path: Vec<String>, equals: Value },
}

/// What `.spec.x[0].y` (or `.status.conditions[?(@.type=="Ready")].status`) finds.
pub fn find(object: &Value, path: &str) -> Vec<Value> {
    let Some(steps) = parse(path) else {
        return Vec::new();
    };
    let mut found: Vec<&Value> = vec![object];
    for step in &steps {
        let mut next = Vec::new();
        for value in found {
            match step {
                Step::Field(name) => next.extend(value.get(name)),
                Step::Index(index) => next.extend(indexed(value, *index)),
                Step::Wildcard => match value {
                    Value::Array(list) => next.extend(list),
                    Value::Object(map) => next.extend(map.values()),
                    _ => {}
                },
                Step::Filter { path, equals } => {
                    let list = value.as_array().into_iter().flatten();
                    next.extend(list.filter(|one| {
                        let at = path.iter().try_fold(*one, |at, name| at.get(name));
                        at == Some(equals)
                    }));
                }
            }
        }
        found = next;
    }
    found.into_iter().cloned().collect()
}

fn indexed(value: &Value, index: i64) -> Option<&Value> {
    let list = value.as_array()?;
    let length = i64::try_from(list.len()).ok()?;
    let at = if index < 0 { length + index } else { index };
    list.get(usize::try_from(at).ok()?)
}

fn parse(path: &str) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut rest = path.trim();
    rest = rest.strip_prefix('$').unwrap_or(rest);
    while !rest.is_empty() {
        if let Some(inside) = rest.strip_prefix('[') {
            let end = closing(inside)?;
            steps.push(bracket(&inside[..end])?);
            rest = &inside[end + 1..];
        } else {
            let body = rest.strip_prefix('.').unwrap_or(rest);
            let mut name = String::new();
            let mut used = 0;
            let mut letters = body.char_indices();
            while let Some((at, letter)) = letters.next() {
                if letter == '\\' {
                    let (next_at, next) = letters.next()?;
                    name.push(next);
                    used = next_at + next.len_utf8();
                } else if letter == '.' || letter == '[' {
                    break;
                } else {
                    name.push(letter);
                    used = at + letter.len_utf8();
                }
            }
            if name.is_empty() {
                return None;
            }
            steps.push(if name == "*" {
                Step::Wildcard
            } else {
                Step::Field(name)
            });
            rest = &body[used..];
        }
    }
    Some(steps)
}

/// Where the bracket closes, quotes respected.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, letter) in text.char_indices() {
        match (quote, letter) {
            (None, '\'' | '"') => quote = Some(letter),
            (Some(open), _) if open == letter => quote = None,
            (None, ']') => return Some(at),
            _ => {}
        }
    }
    None
}

fn bracket(text: &str) -> Option<Step> {
    let text = text.trim();
    if text == "*" {
        return Some(Step::Wildcard);
    }
    if let Some(filter) = text
        .strip_prefix("?(")
        .and_then(|inside| inside.strip_suffix(')'))
    {
        let (left, right) = filter.split_once("==")?;
        let path = left
            .trim()
            .strip_prefix('@')?
            .split('.')
            .filter(|part| !part.is_empty());
        let right = right.trim();
        let equals = match right
            .strip_prefix('\'')
            .and_then(|inner| inner.strip_suffix('\''))
        {
            Some(quoted) => Value::from(quoted),
            None => serde_json::from_str(right).ok()?,
        };
        return Some(Step::Filter {
            path: path.map(str::to_string).collect(),
            equals,
        });
    }
    let quoted = ['\'', '"']
        .into_iter()
        .find_map(|quote| text.strip_prefix(quote)?.strip_suffix(quote));
    match quoted {
        Some(name) => Some(Step::Field(name.to_string())),
        None => text.parse().ok().map(Step::Index),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn fields_indexes_wildcards_and_filters_are_found() {
        let object = json!({"spec": {"a": [{"b": 1}, {"b": 2}], "x.y": "z"},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]}});
        for (path, wanted) in [
            (".spec.a[0].b", vec![json!(1)]),
            (".spec.a[-1].b", vec![json!(2)]),
            (".spec.a[*].b", vec![json!(1), json!(2)]),
            (".spec.x\\.y", vec![json!("z")]),
            (".spec['x.y']", vec![json!("z")]),
            (
                ".status.conditions[?(@.type==\"Ready\")].status",
                vec![json!("True")],
            ),
            (".nope", vec![]),
        ] {
            assert_eq!(find(&object, path), wanted, "{path}");
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in ".{0,30}") {
            let _ = find(&json!({"a": [1]}), &path);
        }
    }
}
