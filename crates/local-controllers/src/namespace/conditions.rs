//! What is left in a namespace, as its conditions tell it.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::NamespaceCondition;

use crate::shared::objects::whole_seconds;

/// What one pass found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Remains {
    /// Why discovery failed.
    pub discovery_failure: Option<String>,
    /// Why contents could not be deleted.
    pub failures: Vec<String>,
    /// Objects left, by `resource.group`.
    pub objects: BTreeMap<String, usize>,
    /// Objects left, by finalizer.
    pub finalizers: BTreeMap<String, usize>,
}

impl Remains {
    /// Whether the namespace is empty, for sure.
    pub fn is_nothing(&self) -> bool {
        self.discovery_failure.is_none() && self.failures.is_empty() && self.objects.is_empty()
    }
}

/// The conditions after a pass.
pub fn conditions(
    previous: &[NamespaceCondition],
    remains: &Remains,
    now: Timestamp,
) -> Vec<NamespaceCondition> {
    let counted = |counts: &BTreeMap<String, usize>, verb: &str| {
        let parts: Vec<String> = counts
            .iter()
            .map(|(name, count)| format!("{name} {verb} {count} resource instances"))
            .collect();
        parts.join(", ")
    };
    let failure = (!remains.failures.is_empty()).then(|| {
        let count = remains.failures.len();
        let list = if count == 1 {
            remains.failures[0].clone()
        } else {
            format!("[{}]", remains.failures.join(", "))
        };
        format!("Failed to delete all resource types, {count} remaining: {list}")
    });
    let left = (!remains.objects.is_empty()).then(|| {
        format!(
            "Some resources are remaining: {}",
            counted(&remains.objects, "has")
        )
    });
    let held = (!remains.finalizers.is_empty()).then(|| {
        format!(
            "Some content in the namespace has finalizers remaining: {}",
            counted(&remains.finalizers, "in")
        )
    });
    let told = [
        (
            "NamespaceDeletionDiscoveryFailure",
            remains
                .discovery_failure
                .as_ref()
                .map(|error| format!("Discovery failed for some groups, {error}")),
            "DiscoveryFailed",
            (
                "ResourcesDiscovered",
                "All resources successfully discovered",
            ),
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            None,
            "GroupVersionParsingFailed",
            (
                "ParsedGroupVersions",
                "All legacy kube types successfully parsed",
            ),
        ),
        (
            "NamespaceDeletionContentFailure",
            failure,
            "ContentDeletionFailed",
            (
                "ContentDeleted",
                "All content successfully deleted, may be waiting on finalization",
            ),
        ),
        (
            "NamespaceContentRemaining",
            left,
            "SomeResourcesRemain",
            ("ContentRemoved", "All content successfully removed"),
        ),
        (
            "NamespaceFinalizersRemaining",
            held,
            "SomeFinalizersRemain",
            (
                "ContentHasNoFinalizers",
                "All content-preserving finalizers finished",
            ),
        ),
    ];
    told.into_iter()
        .map(|(kind, problem, bad_reason, (good_reason, good_message))| {
            let (status, reason, message) = match problem {
                Some(message) => ("True", bad_reason, message),
                None => ("False", good_reason, good_message.to_owned()),
            };
            let known = previous
                .iter()
                .find(|known| known.type_ == kind && known.status == status);
            NamespaceCondition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason: Some(reason.to_owned()),
                message: Some(message),
                last_transition_time: known
                    .and_then(|known| known.last_transition_time.clone())
                    .or_else(|| Some(whole_seconds(now))),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn messages(conditions: &[NamespaceCondition]) -> Vec<(&str, &str)> {
        let bad = conditions
            .iter()
            .filter(|condition| condition.status == "True");
        bad.map(|condition| {
            (
                condition.reason.as_deref().unwrap(),
                condition.message.as_deref().unwrap(),
            )
        })
        .collect()
    }

    #[test]
    fn an_empty_namespace_has_no_complaints() {
        let conditions = conditions(&[], &Remains::default(), at("2026-11-21T11:00:00Z"));
        assert_eq!(conditions.len(), 5);
        assert_eq!(messages(&conditions), []);
    }

    #[test]
    fn what_is_left_is_counted_in_upstreams_words() {
        let remains = Remains {
            objects: [("secrets.".to_owned(), 1)].into(),
            finalizers: [("x.example/hold".to_owned(), 1)].into(),
            failures: vec![
                "unexpected items still remain in namespace: n for gvr: /v1, Resource=pods"
                    .to_owned(),
            ],
            discovery_failure: None,
        };
        assert_eq!(
            messages(&conditions(&[], &remains, at("2026-11-21T11:00:00Z"))),
            [
                (
                    "ContentDeletionFailed",
                    "Failed to delete all resource types, 1 remaining: unexpected items still remain in namespace: n \
                     for gvr: /v1, Resource=pods"
                ),
                (
                    "SomeResourcesRemain",
                    "Some resources are remaining: secrets. has 1 resource instances"
                ),
                (
                    "SomeFinalizersRemain",
                    "Some content in the namespace has finalizers remaining: x.example/hold in 1 resource instances"
                ),
            ]
        );
    }

    #[test]
    fn a_condition_keeps_its_time_as_long_as_it_holds() {
        let first = conditions(&[], &Remains::default(), at("2026-11-21T11:00:00Z"));
        let again = conditions(&first, &Remains::default(), at("2026-11-21T11:05:00Z"));
        assert_eq!(first, again);
    }
}
