//! The request path: which resource, object and subresource, or which fixed page.

/// What a path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// `/api`
    CoreVersions,
    /// `/apis`
    Groups,
    /// `/apis/{group}`
    Group(String),
    /// `/api/v1`, `/apis/{group}/{version}`
    GroupVersion(String, String),
    /// A resource, object or subresource.
    Resource(ResourcePath),
    /// Anything else.
    Other(String),
}

/// A path below a group version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResourcePath {
    /// API group.
    pub group: String,
    /// API version.
    pub version: String,
    /// Namespace, empty without one.
    pub namespace: String,
    /// `pods`
    pub plural: String,
    /// Object name, empty without one.
    pub name: String,
    /// `status`, empty without one.
    pub subresource: String,
    /// What follows the subresource, for proxies.
    pub rest: String,
    /// True for the deprecated `/watch/` prefix.
    pub watch: bool,
}

/// Takes a path apart.
pub fn parse(path: &str) -> Route {
    let trimmed = path.trim_end_matches('/');
    let parts: Vec<String> = trimmed
        .split('/')
        .skip(1)
        .map(|part| {
            percent_encoding::percent_decode_str(part)
                .decode_utf8_lossy()
                .into_owned()
        })
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["api"] => Route::CoreVersions,
        ["apis"] => Route::Groups,
        ["apis", group] => Route::Group(group.to_string()),
        ["api", version] => Route::GroupVersion(String::new(), version.to_string()),
        ["apis", group, version] => Route::GroupVersion(group.to_string(), version.to_string()),
        ["api", version, rest @ ..] => resource("", version, rest),
        ["apis", group, version, rest @ ..] => resource(group, version, rest),
        _ => Route::Other(path.to_string()),
    }
}

fn resource(group: &str, version: &str, mut rest: &[&str]) -> Route {
    let mut found = ResourcePath {
        group: group.to_string(),
        version: version.to_string(),
        ..ResourcePath::default()
    };
    if rest.len() > 1 && rest[0] == "watch" {
        found.watch = true;
        rest = &rest[1..];
    }
    // `namespaces/x` and its own subresources are about the namespace; everything else below it is inside it.
    if let ["namespaces", namespace, inner, ..] = rest
        && !(matches!(*inner, "status" | "finalize") && rest.len() == 3)
    {
        found.namespace = namespace.to_string();
        rest = &rest[2..];
    }
    match rest {
        [] => {}
        [plural] => found.plural = plural.to_string(),
        [plural, name] => {
            found.plural = plural.to_string();
            found.name = name.to_string();
        }
        [plural, name, subresource, tail @ ..] => {
            found.plural = plural.to_string();
            found.name = name.to_string();
            found.subresource = subresource.to_string();
            found.rest = tail.join("/");
        }
    }
    Route::Resource(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(path: &str) -> ResourcePath {
        match parse(path) {
            Route::Resource(found) => found,
            other => panic!("{path} is {other:?}"),
        }
    }

    #[test]
    fn namespaces_are_places_and_objects() {
        let inside = of("/api/v1/namespaces/a/pods/b/log");
        assert_eq!(
            (
                inside.namespace.as_str(),
                inside.plural.as_str(),
                inside.name.as_str(),
                inside.subresource.as_str()
            ),
            ("a", "pods", "b", "log")
        );
        let itself = of("/api/v1/namespaces/a");
        assert_eq!(
            (itself.plural.as_str(), itself.name.as_str()),
            ("namespaces", "a")
        );
        let status = of("/api/v1/namespaces/a/status");
        assert_eq!(
            (status.plural.as_str(), status.subresource.as_str()),
            ("namespaces", "status")
        );
        let group = of("/apis/apps/v1/deployments");
        assert_eq!(
            (group.group.as_str(), group.plural.as_str()),
            ("apps", "deployments")
        );
    }

    #[test]
    fn proxies_keep_what_follows() {
        let proxy = of("/api/v1/nodes/n/proxy/metrics/resource");
        assert_eq!(
            (proxy.subresource.as_str(), proxy.rest.as_str()),
            ("proxy", "metrics/resource")
        );
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/[a-z%0-9.]{0,8}){0,9}") {
            let _ = parse(&path);
        }
    }
}
