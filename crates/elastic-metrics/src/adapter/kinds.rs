//! Which kinds a cluster has, and their names in the plural, in the singular and as a kind.

/// A resource as metrics name it: `pods`, `deployments.apps`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct GroupResource {
    pub(crate) group: String,
    /// The plural.
    pub(crate) resource: String,
}

impl GroupResource {
    pub(crate) fn new(group: &str, resource: &str) -> Self {
        Self {
            group: group.to_owned(),
            resource: resource.to_owned(),
        }
    }

    /// `resource` or `resource.group`.
    pub(crate) fn parse(text: &str) -> Self {
        let (resource, group) = text.split_once('.').unwrap_or((text, ""));
        Self::new(group, resource)
    }

    pub(crate) fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.resource == "namespaces"
    }
}

impl std::fmt::Display for GroupResource {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str(&self.resource)?;
        match self.group.as_str() {
            "" => Ok(()),
            group => write!(out, ".{group}"),
        }
    }
}

/// One kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KindRow {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
    pub(crate) plural: String,
    pub(crate) namespaced: bool,
}

impl KindRow {
    pub(crate) fn resource(&self) -> GroupResource {
        GroupResource::new(&self.group, &self.plural)
    }

    /// What Kubernetes itself derives unless told otherwise.
    pub(crate) fn singular(&self) -> String {
        self.kind.to_lowercase()
    }

    pub(crate) fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }
}

/// All kinds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kinds(Vec<KindRow>);

impl Kinds {
    /// The core group comes first: a name without a group means it before any other.
    pub(crate) fn new(mut rows: Vec<KindRow>) -> Self {
        rows.sort_by(|left, right| (&left.group, &left.plural).cmp(&(&right.group, &right.plural)));
        Self(rows)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = &KindRow> {
        self.0.iter()
    }

    /// By plural or singular name; an empty group means any.
    pub(crate) fn named(&self, group: &str, name: &str) -> Option<&KindRow> {
        let fits = |row: &&KindRow| {
            (group.is_empty() || row.group == group)
                && (row.plural == name || row.singular() == name)
        };
        self.0.iter().find(fits)
    }

    /// Exactly this resource.
    pub(crate) fn of(&self, resource: &GroupResource) -> Option<&KindRow> {
        self.0
            .iter()
            .find(|row| row.group == resource.group && row.plural == resource.resource)
    }

    /// By group and kind.
    pub(crate) fn of_kind(&self, group: &str, kind: &str) -> Option<&KindRow> {
        self.0
            .iter()
            .find(|row| row.group == group && row.kind == kind)
    }
}

#[cfg(test)]
pub(crate) fn samples() -> Kinds {
    let row = |group: &str, version: &str, kind: &str, plural: &str, namespaced| KindRow {
        group: group.to_owned(),
        version: version.to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
        namespaced,
    };
    Kinds::new(vec![
        row("apps", "v1", "Deployment", "deployments", true),
        row("networking.k8s.io", "v1", "Ingress", "ingresses", true),
        row("", "v1", "Pod", "pods", true),
        row("", "v1", "Service", "services", true),
        row("", "v1", "Namespace", "namespaces", false),
        row("", "v1", "Node", "nodes", false),
        row("metrics.k8s.io", "v1beta1", "PodMetrics", "pods", true),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_found_by_each_of_their_names() {
        let kinds = samples();
        assert_eq!(
            kinds.named("", "pod").unwrap().resource(),
            GroupResource::parse("pods")
        );
        assert_eq!(
            kinds
                .named("apps", "deployment")
                .unwrap()
                .resource()
                .to_string(),
            "deployments.apps"
        );
        assert_eq!(
            kinds.named("", "ingresses").unwrap().api_version(),
            "networking.k8s.io/v1"
        );
        assert!(kinds.named("batch", "pod").is_none());
        assert_eq!(kinds.of_kind("", "Service").unwrap().api_version(), "v1");
        let parsed = GroupResource::parse("ingresses.networking.k8s.io");
        assert_eq!(parsed, GroupResource::new("networking.k8s.io", "ingresses"));
        assert!(
            kinds.of(&parsed).is_some() && kinds.of(&GroupResource::parse("ingresses")).is_none()
        );
    }
}
