//! What the log service remembers: projects, logstores with their index, and logs as they are seen by queries.

use super::search::Words;
use cloud_api::log::{Log, LogGroup};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The field with a log's topic.
pub(super) const TOPIC: &str = "__topic__";
/// The field with a log's source.
pub(super) const SOURCE: &str = "__source__";
/// The field with a log's time.
pub(super) const TIME: &str = "__time__";
/// What names of fields that are tags begin with.
pub(super) const TAG: &str = "__tag__:";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct ProjectRecord {
    pub(super) description: String,
    /// Unix seconds.
    pub(super) created_at: i64,
    pub(super) changed_at: i64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct LogstoreRecord {
    /// Tells a logstore from an earlier one of its name.
    pub(super) id: u64,
    /// Days.
    pub(super) ttl: u32,
    /// Everything that was said when it was made, to be said again.
    pub(super) settings: Map<String, Value>,
    pub(super) created_at: i64,
    pub(super) changed_at: i64,
    pub(super) index: Option<IndexRecord>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct IndexRecord {
    /// As it was given.
    pub(super) body: Value,
    pub(super) changed_at: i64,
}

/// The type of an indexed field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FieldType {
    Text,
    Long,
    Double,
}

/// Members of an index that are known; those of fields are looked at apart.
const INDEX_MEMBERS: [&str; 9] = [
    "line",
    "keys",
    "ttl",
    "max_text_len",
    "log_reduce",
    "log_reduce_white_list",
    "log_reduce_black_list",
    "storage",
    "index_mode",
];

impl IndexRecord {
    /// Checks an index as it was given; the error names the member.
    pub(super) fn check(body: &Value) -> Result<(), String> {
        let members = body.as_object().ok_or("the index must be an object")?;
        let is_known = |name: &str| INDEX_MEMBERS.contains(&name) || name.ends_with("odifyTime");
        if let Some(unknown) = members.keys().find(|name| !is_known(name)) {
            return Err(format!("{unknown} is not a member of an index"));
        }
        if members.get("line").is_none() && members.get("keys").is_none() {
            return Err("line or keys must be given".to_owned());
        }
        check_tokens("line", members.get("line"))?;
        let Some(keys) = members.get("keys").filter(|keys| !keys.is_null()) else {
            return Ok(());
        };
        let keys = keys.as_object().ok_or("keys must be an object")?;
        for (name, field) in keys {
            let kind = field.get("type").and_then(Value::as_str).unwrap_or("text");
            if !["text", "long", "double", "json"].contains(&kind) {
                return Err(format!(
                    "keys.{name}.type must be text, long, double or json, not {kind:?}"
                ));
            }
            check_tokens(&format!("keys.{name}"), Some(field))?;
        }
        Ok(())
    }

    /// Columns in SQL: name (the alias, when there is one), key and type of each field.
    pub(super) fn columns(&self) -> Vec<(String, String, FieldType)> {
        let keys = self.body.get("keys").and_then(Value::as_object);
        keys.into_iter()
            .flatten()
            .map(|(key, field)| {
                let text = |name: &str| field.get(name).and_then(Value::as_str);
                let alias = text("alias").filter(|alias| !alias.is_empty());
                let kind = match text("type") {
                    Some("long") => FieldType::Long,
                    Some("double") => FieldType::Double,
                    _ => FieldType::Text,
                };
                (alias.unwrap_or(key).to_owned(), key.clone(), kind)
            })
            .collect()
    }

    /// How the whole line is split into words.
    pub(super) fn words(&self) -> Words {
        let Some(line) = self.body.get("line").filter(|line| line.is_object()) else {
            return Words::default();
        };
        let tokens = line.get("token").and_then(Value::as_array);
        let delimiters: String = tokens
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let case_sensitive = line.get("caseSensitive").and_then(Value::as_bool);
        Words {
            delimiters: match delimiters.is_empty() {
                true => Words::default().delimiters,
                false => delimiters,
            },
            case_sensitive: case_sensitive.unwrap_or_default(),
        }
    }
}

fn check_tokens(place: &str, member: Option<&Value>) -> Result<(), String> {
    let Some(member) = member.filter(|member| !member.is_null()) else {
        return Ok(());
    };
    if !member.is_object() {
        return Err(format!("{place} must be an object"));
    }
    let tokens = member.get("token").filter(|tokens| !tokens.is_null());
    let is_list = |tokens: &Value| {
        let list = tokens.as_array();
        list.is_some_and(|list| list.iter().all(Value::is_string))
    };
    match tokens {
        Some(tokens) if !is_list(tokens) => Err(format!("{place}.token must be a list of texts")),
        _ => Ok(()),
    }
}

/// The fields of one log, for searching.
pub(super) trait Fields {
    fn field(&self, key: &str) -> Option<&str>;
    fn any_value(&self, test: &mut dyn FnMut(&str) -> bool) -> bool;
}

/// One log with what its group says of it.
#[derive(Clone, Copy)]
pub(super) struct LogView<'a> {
    pub(super) log: &'a Log,
    pub(super) group: &'a LogGroup,
}

impl LogView<'_> {
    /// All fields but the time, in the order in which they are shown.
    pub(super) fn for_each(&self, visit: &mut dyn FnMut(&str, &str)) {
        visit(SOURCE, &self.group.source);
        visit(TOPIC, &self.group.topic);
        for (key, value) in &self.group.tags {
            visit(&format!("{TAG}{key}"), value);
        }
        for (key, value) in &self.log.contents {
            visit(key, value);
        }
    }
}

impl Fields for LogView<'_> {
    fn field(&self, key: &str) -> Option<&str> {
        let find = |pairs: &'_ [(String, String)], key: &str| {
            pairs.iter().position(|(name, _)| name == key)
        };
        match key {
            TOPIC => Some(&self.group.topic),
            SOURCE => Some(&self.group.source),
            _ => match key.strip_prefix(TAG) {
                Some(tag) => find(&self.group.tags, tag).map(|at| self.group.tags[at].1.as_str()),
                None => {
                    let at = find(&self.log.contents, key)?;
                    Some(self.log.contents[at].1.as_str())
                }
            },
        }
    }

    fn any_value(&self, test: &mut dyn FnMut(&str) -> bool) -> bool {
        let tags = self.group.tags.iter().map(|(_, value)| value.as_str());
        let contents = self.log.contents.iter().map(|(_, value)| value.as_str());
        let own = [self.group.topic.as_str(), self.group.source.as_str()];
        contents.chain(tags).chain(own).any(test)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_index_is_checked_with_the_member_named() {
        let good = json!({"line": {"token": [",", " "], "caseSensitive": true}, "keys": {"a": {"type": "long", "alias": "b"}}, "ttl": 7});
        assert_eq!(IndexRecord::check(&good), Ok(()));
        let record = IndexRecord {
            body: good,
            changed_at: 0,
        };
        assert_eq!(
            record.columns(),
            [("b".to_owned(), "a".to_owned(), FieldType::Long)]
        );
        assert_eq!(record.words().delimiters, ", ");
        for (body, told) in [
            (json!([]), "must be an object"),
            (json!({}), "line or keys"),
            (json!({"line": {}, "lines": 1}), "lines is not"),
            (json!({"keys": {"a": {"type": "int"}}}), "keys.a.type"),
            (json!({"line": {"token": "x"}}), "line.token"),
        ] {
            let error = IndexRecord::check(&body).unwrap_err();
            assert!(error.contains(told), "{error}");
        }
    }
}
