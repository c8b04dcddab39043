//! RAM: users with policies, as the vendor writes them. What no statement allows is not allowed, and what one denies
//! stays denied.
//!
//! Conditions are refused: none could be weighed here, and ignoring one would let more through than was meant.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most statements in one policy.
const MAX_STATEMENTS: usize = 100;
/// Most characters of one pattern.
const MAX_PATTERN: usize = 512;
/// Our only account.
pub(crate) const ACCOUNT: &str = "1000000000000001";

/// A policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Policy {
    /// `1`.
    pub version: String,
    /// What it says.
    pub statement: Vec<Statement>,
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", deny_unknown_fields)]
pub struct Statement {
    /// Whether it allows or denies.
    pub effect: Effect,
    /// Which actions: `eci:Describe*` and the like.
    pub action: OneOrMany,
    /// On which resources: `*`, or `acs:eci:*:*:containergroup/*`.
    pub resource: OneOrMany,
    /// Always unset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub condition: Option<Value>,
}

/// Whether a statement allows or denies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Effect {
    /// It allows.
    Allow,
    /// It denies, whatever else allows.
    Deny,
}

/// A text, or a list of texts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl OneOrMany {
    fn iter(&self) -> impl Iterator<Item = &str> {
        match self {
            Self::One(one) => std::slice::from_ref(one).iter(),
            Self::Many(many) => many.iter(),
        }
        .map(String::as_str)
    }
}

impl Policy {
    /// Checks what its form does not.
    pub(crate) fn check(&self) -> Result<(), String> {
        if self.version != "1" {
            return Err(format!("Version must be \"1\", not {:?}", self.version));
        }
        if self.statement.is_empty() || self.statement.len() > MAX_STATEMENTS {
            return Err(format!("Statement must have 1 to {MAX_STATEMENTS} items"));
        }
        for (number, statement) in self.statement.iter().enumerate() {
            if statement.condition.is_some() {
                return Err(format!(
                    "Statement[{number}].Condition is not weighed by this cloud; leave it out"
                ));
            }
            let mut patterns = statement.action.iter().chain(statement.resource.iter());
            if patterns.any(|pattern| pattern.is_empty() || pattern.len() > MAX_PATTERN) {
                return Err(format!(
                    "Statement[{number}] has a pattern that is empty or longer than {MAX_PATTERN}"
                ));
            }
        }
        Ok(())
    }
}

/// Whether these policies together allow an action on a resource.
pub(crate) fn allows(policies: &[Policy], action: &str, resource: &str) -> bool {
    let hits = |statement: &&Statement| {
        let action_fits = |pattern: &str| fits(&pattern.to_lowercase(), &action.to_lowercase());
        statement.action.iter().any(action_fits)
            && statement
                .resource
                .iter()
                .any(|pattern| fits(pattern, resource))
    };
    let statements = policies.iter().flat_map(|policy| &policy.statement);
    let effects: Vec<Effect> = statements.filter(hits).map(|one| one.effect).collect();
    effects.contains(&Effect::Allow) && !effects.contains(&Effect::Deny)
}

/// What an action is about, in the vendor's form.
pub(crate) fn resource(
    region: &str,
    action: &str,
    parameter: impl Fn(&str) -> Option<String>,
) -> String {
    let (kind, id) = if action.contains("ImageCache") {
        ("imagecache", "ImageCacheId")
    } else if action.contains("DataCache") {
        ("datacache", "DataCacheId")
    } else if action.contains("VirtualNode") {
        ("virtualnode", "VirtualNodeId")
    } else if action.contains("Container") || action.contains("InstanceOps") {
        ("containergroup", "ContainerGroupId")
    } else {
        return format!("acs:eci:{region}:{ACCOUNT}:*");
    };
    let id = parameter(id).unwrap_or_else(|| "*".to_owned());
    format!("acs:eci:{region}:{ACCOUNT}:{kind}/{id}")
}

/// The name of an action as policies have it.
pub(crate) fn qualified(action: &str) -> String {
    let product = if action == "DescribeVSwitches" {
        "vpc"
    } else {
        "eci"
    };
    format!("{product}:{action}")
}

/// Whether a text fits a pattern, in which `*` stands for any text and `?` for one character.
pub(crate) fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text): (Vec<char>, Vec<char>) =
        (pattern.chars().collect(), text.chars().collect());
    let (mut at, mut here) = (0, 0);
    // Where to go on when what follows the newest star does not fit after all.
    let mut again: Option<(usize, usize)> = None;
    while here < text.len() {
        match pattern.get(at) {
            Some('*') => {
                again = Some((at, here));
                at += 1;
            }
            Some(letter) if *letter == '?' || *letter == text[here] => {
                at += 1;
                here += 1;
            }
            _ => match again {
                Some((star, from)) => {
                    again = Some((star, from + 1));
                    at = star + 1;
                    here = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|letter| *letter == '*')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn policy(text: &str) -> Policy {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn what_is_denied_stays_denied_and_what_nobody_allows_is_not_allowed() {
        let policies = [
            policy(
                r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"eci:*","Resource":"*"}]}"#,
            ),
            policy(
                r#"{"Version":"1","Statement":[{"Effect":"Deny","Action":["eci:Delete*"],"Resource":["*"]}]}"#,
            ),
        ];
        assert!(allows(
            &policies,
            "eci:CreateContainerGroup",
            "acs:eci:r:1:containergroup/*"
        ));
        assert!(!allows(
            &policies,
            "eci:DeleteContainerGroup",
            "acs:eci:r:1:containergroup/a"
        ));
        assert!(!allows(&policies, "vpc:DescribeVSwitches", "acs:eci:r:1:*"));
        assert!(!allows(&[], "eci:ListUsage", "x"));
    }

    #[test]
    fn resources_are_told_apart_by_kind_and_id() {
        let text = r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"acs:eci:*:*:containergroup/eci-a"}]}"#;
        let policies = [policy(text)];
        let about =
            |action: &str, id: &str| resource("cn-hangzhou", action, |_| Some(id.to_owned()));
        let allowed = |action: &str, id: &str| allows(&policies, action, &about(action, id));
        assert!(allowed("DeleteContainerGroup", "eci-a"));
        assert!(!allowed("DeleteContainerGroup", "eci-b"));
        assert!(!allowed("DeleteImageCache", "eci-a"));
    }

    #[test]
    fn policies_that_say_more_than_we_weigh_are_refused() {
        let with = r#"{"Version":"1","Statement":[{"Effect":"Allow","Action":"*","Resource":"*","Condition":{}}]}"#;
        assert!(
            policy(with)
                .check()
                .unwrap_err()
                .contains("Statement[0].Condition")
        );
        assert!(policy(r#"{"Version":"2","Statement":[]}"#).check().is_err());
        assert!(serde_json::from_str::<Policy>(r#"{"Version":"1","Statement":[],"X":1}"#).is_err());
    }

    proptest! {
        #[test]
        fn a_text_fits_itself_and_any_star_in_place_of_a_part(before in "[a-z:]{0,8}", middle in "[a-z:]{0,8}", after in "[a-z:]{0,8}") {
            let text = format!("{before}{middle}{after}");
            prop_assert!(fits(&text, &text));
            let starred = format!("{before}*{after}");
            prop_assert!(fits(&starred, &text));
            let longer = format!("{text}#");
            prop_assert!(!fits(&text, &longer));
        }
    }
}
