//! What becomes of an object on servers that are older than promised, for those who install there all the same: members
//! that such a server has never heard of are taken out, because it would refuse the object whole.

use serde_json::Value;

/// The first version whose definitions may have rules.
const RULES_MINOR: u32 = 25;
/// The first version that asks webhooks by conditions.
const CONDITIONS_MINOR: u32 = 27;
/// The first version with `policy/v1`.
const BUDGETS_MINOR: u32 = 21;

/// What an older server gets of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fit {
    /// All of it.
    Whole,
    /// All but what is said.
    Reduced(&'static str),
    /// Nothing, for the reason that is said.
    LeftOut(&'static str),
}

/// Makes an object fit for version `1.minor`.
pub fn fit(object: &mut Value, minor: u32) -> Fit {
    if minor < BUDGETS_MINOR && object["apiVersion"] == "policy/v1" {
        return Fit::LeftOut(
            "this server has no policy/v1: evictions may take all replicas of the controller at once",
        );
    }
    if minor < CONDITIONS_MINOR && remove(object, "matchConditions") {
        return Fit::Reduced(
            "this server knows no conditions of webhooks: it asks the controller about more pods than need be",
        );
    }
    if minor < RULES_MINOR && remove(object, "x-kubernetes-validations") {
        return Fit::Reduced(
            "this server checks no rules of definitions: objects of our kinds that break one are stored, and reported on themselves",
        );
    }
    Fit::Whole
}

/// Takes a member out wherever it is. Tells whether there was any.
fn remove(object: &mut Value, member: &str) -> bool {
    match object {
        Value::Object(members) => {
            let had = members.remove(member).is_some();
            members
                .values_mut()
                .fold(had, |had, inner| remove(inner, member) | had)
        }
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |had, item| remove(item, member) | had),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifests::{Options, objects};

    fn fitted(minor: u32) -> (String, Vec<Fit>) {
        let mut all = objects(&Options::default());
        let fits = all.iter_mut().map(|object| fit(object, minor)).collect();
        (json!(all).to_string(), fits)
    }

    #[test]
    fn without_rules_a_definition_keeps_everything_else() {
        let (text, fits) = fitted(24);
        assert!(fits.iter().any(|fit| *fit != Fit::Whole));
        assert!(!text.contains("x-kubernetes-validations"));
        assert!(text.contains("x-kubernetes-preserve-unknown-fields"));
    }

    #[test]
    fn each_version_loses_only_what_it_lacks() {
        let whole = json!(objects(&Options::default())).to_string();
        for minor in [27, 28, 34] {
            let (text, fits) = fitted(minor);
            assert!(fits.iter().all(|fit| *fit == Fit::Whole), "1.{minor}");
            assert_eq!(text, whole);
        }
        let (text, _) = fitted(26);
        assert!(!text.contains("matchConditions") && text.contains("x-kubernetes-validations"));
        let left_out = |minor| {
            let fits = fitted(minor).1.into_iter();
            fits.filter(|fit| matches!(fit, Fit::LeftOut(_))).count()
        };
        assert_eq!((left_out(20), left_out(21)), (1, 0));
    }
}
