//! Roles and who has them (`rbac.authorization.k8s.io`).

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

use crate::check::names::{invalid, path_segment, subdomain};
use crate::check::{selector, show};
use crate::print::{NAME, age, column, name, wide};
use crate::rules::{Column, KindRules, NameRule};
use crate::tree::{child, child_mut, fill_zero, index, is_empty, list, list_mut, same, text};

const GROUP: &str = "rbac.authorization.k8s.io";

/// The rules of Roles and ClusterRoles.
pub struct RoleRules {
    /// Whether it counts in one namespace only.
    pub namespaced: bool,
}

/// The rules of RoleBindings and ClusterRoleBindings.
pub struct BindingRules {
    /// Whether it counts in one namespace only.
    pub namespaced: bool,
}

/// The rules of Roles.
pub const ROLE: RoleRules = RoleRules { namespaced: true };
/// The rules of ClusterRoles.
pub const CLUSTER_ROLE: RoleRules = RoleRules { namespaced: false };
/// The rules of RoleBindings.
pub const BINDING: BindingRules = BindingRules { namespaced: true };
/// The rules of ClusterRoleBindings.
pub const CLUSTER_BINDING: BindingRules = BindingRules { namespaced: false };

impl KindRules for RoleRules {
    fn prepare_for_create(&self, object: &mut Value) {
        // Upstream's storage does not tell an empty list from none.
        if is_empty(&object["rules"]) {
            object["rules"] = Value::Null;
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        for (position, rule) in list(object, "rules").iter().enumerate() {
            errors.extend(self.check_rule(rule, &index("rules", position)));
        }
        let selectors = list(&object["aggregationRule"], "clusterRoleSelectors");
        for (position, one) in selectors.iter().enumerate() {
            let path = index("aggregationRule.clusterRoleSelectors", position);
            errors.extend(selector::check(one, &path));
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }
}

impl RoleRules {
    fn check_rule(&self, rule: &Value, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let mut required = |key: &str, words: &str| {
            if is_empty(&rule[key]) {
                errors.push(FieldError::required(child(path, key), words));
            }
        };
        required("verbs", "verbs must contain at least one value");
        if is_empty(&rule["nonResourceURLs"]) {
            required(
                "apiGroups",
                "resource rules must supply at least one api group",
            );
            required(
                "resources",
                "resource rules must supply at least one resource",
            );
            return errors;
        }
        let mut refuse = |words: &str| {
            let path = child(path, "nonResourceURLs");
            errors.push(FieldError::invalid(
                path,
                rule["nonResourceURLs"].clone(),
                words,
            ));
        };
        if self.namespaced {
            refuse("namespaced rules cannot apply to non-resource URLs");
        }
        let resources = ["apiGroups", "resources", "resourceNames"];
        if resources.iter().any(|key| !is_empty(&rule[*key])) {
            refuse("rules cannot apply to both regular resources and non-resource URLs");
        }
        errors
    }
}

impl KindRules for BindingRules {
    fn default(&self, _version: &str, object: &mut Value) {
        if let Some(reference) = child_mut(object, "roleRef") {
            fill_zero(reference, "apiGroup", GROUP);
        }
        for subject in list_mut(object, "subjects") {
            if matches!(text(subject, "kind"), "User" | "Group") {
                fill_zero(subject, "apiGroup", GROUP);
            }
        }
    }

    fn validate_create(&self, object: &Value) -> Vec<FieldError> {
        let mut errors = self.check_reference(&object["roleRef"]);
        for (position, subject) in list(object, "subjects").iter().enumerate() {
            errors.extend(self.check_subject(subject, &index("subjects", position)));
        }
        errors
    }

    fn validate_update(&self, new: &Value, old: &Value) -> Vec<FieldError> {
        let mut errors = self.validate_create(new);
        let reference = &new["roleRef"];
        if !same(reference, &old["roleRef"]) {
            let shown = show::structure(&[
                ("APIGroup", show::text(reference, "apiGroup")),
                ("Kind", show::text(reference, "kind")),
                ("Name", show::text(reference, "name")),
            ]);
            let error = FieldError::invalid("roleRef", reference.clone(), "cannot change roleRef");
            errors.push(error.showing(shown));
        }
        errors
    }

    fn name_rule(&self) -> NameRule {
        NameRule::PathSegment
    }

    fn allows_create_on_update(&self) -> bool {
        true
    }

    fn columns(&self) -> &'static [Column] {
        const COLUMNS: &[Column] = &[
            NAME,
            column("Role"),
            column("Age"),
            wide("Users"),
            wide("Groups"),
            wide("ServiceAccounts"),
        ];
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let reference = &object["roleRef"];
        let subjects = |kind: &str| {
            let all: Vec<String> = list(object, "subjects")
                .iter()
                .filter(|one| text(one, "kind") == kind)
                .map(|one| match kind {
                    "ServiceAccount" => {
                        format!("{}/{}", text(one, "namespace"), text(one, "name"))
                    }
                    _ => text(one, "name").to_string(),
                })
                .collect();
            Value::from(all.join(", "))
        };
        vec![
            name(object),
            format!("{}/{}", text(reference, "kind"), text(reference, "name")).into(),
            age(object, now),
            subjects("User"),
            subjects("Group"),
            subjects("ServiceAccount"),
        ]
    }
}

impl BindingRules {
    fn check_reference(&self, reference: &Value) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let group = text(reference, "apiGroup");
        if group != GROUP && !(group.is_empty() && reference.is_null()) {
            errors.push(FieldError::not_supported(
                "roleRef.apiGroup",
                group,
                &[GROUP],
            ));
        }
        let kinds: &[&str] = if self.namespaced {
            &["Role", "ClusterRole"]
        } else {
            &["ClusterRole"]
        };
        let kind = text(reference, "kind");
        if !kinds.contains(&kind) {
            errors.push(FieldError::not_supported("roleRef.kind", kind, kinds));
        }
        match text(reference, "name") {
            "" => errors.push(FieldError::required("roleRef.name", "")),
            own => errors.extend(invalid("roleRef.name", own, path_segment(own))),
        }
        errors
    }

    fn check_subject(&self, subject: &Value, path: &str) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let own = text(subject, "name");
        let group = text(subject, "apiGroup");
        if own.is_empty() {
            errors.push(FieldError::required(child(path, "name"), ""));
        }
        let group_path = child(path, "apiGroup");
        match text(subject, "kind") {
            "ServiceAccount" => {
                if !own.is_empty() {
                    errors.extend(invalid(&child(path, "name"), own, subdomain(own)));
                }
                if !group.is_empty() {
                    errors.push(FieldError::not_supported(group_path, group, &[""]));
                }
                if !self.namespaced && text(subject, "namespace").is_empty() {
                    errors.push(FieldError::required(child(path, "namespace"), ""));
                }
            }
            "User" | "Group" => {
                if group != GROUP {
                    errors.push(FieldError::not_supported(group_path, group, &[GROUP]));
                }
            }
            other => errors.push(FieldError::not_supported(
                child(path, "kind"),
                other,
                &["ServiceAccount", "User", "Group"],
            )),
        }
        errors
    }
}
