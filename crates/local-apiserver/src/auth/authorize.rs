//! RBAC over the stored roles and bindings.

use super::{ANONYMOUS, AUTHENTICATED, MASTERS, User};
use crate::core::Core;
use crate::status::{ApiError, ApiResult, qualified};
use serde_json::Value;

/// What somebody wants to do with a resource.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// `get`
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// `pods`
    pub resource: &'a str,
    /// `log`, empty without one.
    pub subresource: &'a str,
    /// Namespace, empty for all or none.
    pub namespace: &'a str,
    /// Object, empty for collections.
    pub name: &'a str,
}

impl Wanted<'_> {
    fn full_resource(&self) -> String {
        if self.subresource.is_empty() {
            self.resource.to_string()
        } else {
            format!("{}/{}", self.resource, self.subresource)
        }
    }
}

/// Paths everybody who is somebody may read, and (the second list) anybody at all.
const DISCOVERY: &[&str] = &[
    "/api",
    "/api/*",
    "/apis",
    "/apis/*",
    "/openapi",
    "/openapi/*",
    "/version",
    "/version/",
    "/healthz",
    "/livez",
    "/readyz",
    "/.well-known/openid-configuration",
    "/openid/v1/jwks",
];
const PUBLIC: &[&str] = &["/healthz", "/livez", "/readyz", "/version", "/version/"];

/// Reviews everybody who is somebody may ask for.
const SELF_REVIEWS: &[(&str, &str)] = &[
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
];

/// Allows or explains why not.
pub fn check(core: &Core, user: &User, wanted: &Wanted<'_>) -> ApiResult<()> {
    if allowed(core, user, wanted) {
        return Ok(());
    }
    let place = if wanted.namespace.is_empty() {
        "at the cluster scope".to_string()
    } else {
        format!("in the namespace {:?}", wanted.namespace)
    };
    let why = format!(
        "User {:?} cannot {} resource {:?} in API group {:?} {place}",
        user.name,
        wanted.verb,
        wanted.full_resource(),
        wanted.group
    );
    Err(ApiError::forbidden(
        wanted.group,
        wanted.resource,
        wanted.name,
        &why,
    ))
}

/// Whether a rule allows it.
pub fn allowed(core: &Core, user: &User, wanted: &Wanted<'_>) -> bool {
    if user.in_group(MASTERS) {
        return true;
    }
    if user.in_group(AUTHENTICATED)
        && wanted.verb == "create"
        && SELF_REVIEWS.contains(&(wanted.group, wanted.resource))
    {
        return true;
    }
    let mut found = false;
    visit(core, user, wanted.namespace, |rule| {
        found = found || rule_allows(rule, wanted);
    });
    found
}

/// Whether a path that is no resource may be used.
pub fn path_allowed(core: &Core, user: &User, verb: &str, path: &str) -> bool {
    if user.in_group(MASTERS) {
        return true;
    }
    let matches = |pattern: &str| match pattern.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix),
        None => pattern == path,
    };
    let list = if user.name != ANONYMOUS && user.in_group(AUTHENTICATED) {
        DISCOVERY
    } else {
        PUBLIC
    };
    if matches!(verb, "get" | "head") && list.iter().any(|pattern| matches(pattern)) {
        return true;
    }
    let mut found = false;
    visit(core, user, "", |rule| {
        let verbs = strings(&rule["verbs"]);
        let paths = strings(&rule["nonResourceURLs"]);
        found = found
            || (verbs.iter().any(|one| *one == "*" || *one == verb)
                && paths.iter().any(|one| matches(one)));
    });
    found
}

/// 403 for a path.
pub fn check_path(core: &Core, user: &User, verb: &str, path: &str) -> ApiResult<()> {
    if path_allowed(core, user, verb, path) {
        return Ok(());
    }
    Err(ApiError::new(
        http::StatusCode::FORBIDDEN,
        "Forbidden",
        format!(
            "forbidden: User {:?} cannot {verb} path {path:?}",
            user.name
        ),
        Some(serde_json::json!({})),
    ))
}

fn strings(list: &Value) -> Vec<&str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect()
}

fn rule_allows(rule: &Value, wanted: &Wanted<'_>) -> bool {
    let resource = wanted.full_resource();
    let any_sub = format!("*/{}", wanted.subresource);
    let resources = strings(&rule["resources"]);
    let names = strings(&rule["resourceNames"]);
    strings(&rule["verbs"])
        .iter()
        .any(|one| *one == "*" || *one == wanted.verb)
        && strings(&rule["apiGroups"])
            .iter()
            .any(|one| *one == "*" || *one == wanted.group)
        && resources.iter().any(|one| {
            *one == "*" || *one == resource || (!wanted.subresource.is_empty() && *one == any_sub)
        })
        && (names.is_empty() || names.contains(&wanted.name))
}

/// Calls `see` with every rule that holds for the user in a namespace (or cluster-wide).
pub fn visit(core: &Core, user: &User, namespace: &str, mut see: impl FnMut(&Value)) {
    let rbac = |plural: &str| qualified(plural, "rbac.authorization.k8s.io");
    for (_, binding) in core.store.list(&rbac("clusterrolebindings"), "").objects {
        if applies(&binding.tree, user, "") {
            role_rules(core, &binding.tree["roleRef"], "", &mut see);
        }
    }
    if namespace.is_empty() {
        return;
    }
    for (_, binding) in core
        .store
        .list(&rbac("rolebindings"), &format!("{namespace}/"))
        .objects
    {
        if applies(&binding.tree, user, namespace) {
            role_rules(core, &binding.tree["roleRef"], namespace, &mut see);
        }
    }
}

fn role_rules(core: &Core, reference: &Value, namespace: &str, see: &mut impl FnMut(&Value)) {
    let name = reference["name"].as_str().unwrap_or_default();
    let role = if reference["kind"] == "ClusterRole" {
        core.store
            .get("clusterroles.rbac.authorization.k8s.io", name)
    } else {
        core.store.get(
            "roles.rbac.authorization.k8s.io",
            &format!("{namespace}/{name}"),
        )
    };
    for rule in role
        .iter()
        .flat_map(|role| role.tree["rules"].as_array().into_iter().flatten())
    {
        see(rule);
    }
}

fn applies(binding: &Value, user: &User, namespace: &str) -> bool {
    binding["subjects"]
        .as_array()
        .into_iter()
        .flatten()
        .any(|subject| {
            let name = subject["name"].as_str().unwrap_or_default();
            match subject["kind"].as_str().unwrap_or_default() {
                "User" => user.name == name,
                "Group" => user.in_group(name),
                "ServiceAccount" => {
                    let given = subject["namespace"].as_str().unwrap_or(namespace);
                    user.name == format!("system:serviceaccount:{given}:{name}")
                }
                _ => false,
            }
        })
}
