//! What a path and its query ask for.

use crate::adapter::GroupResource;
use crate::pushed::{PUSHED, PUSHED_VERSION};
use crate::selector::{Selector, decode, parameter};

pub(crate) const CUSTOM: &str = "custom.metrics.k8s.io";
pub(crate) const EXTERNAL: &str = "external.metrics.k8s.io";

/// Versions of the custom metrics API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CustomVersion {
    V1Beta1,
    V1Beta2,
}

impl CustomVersion {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::V1Beta1 => "v1beta1",
            Self::V1Beta2 => "v1beta2",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::V1Beta1, Self::V1Beta2]
            .into_iter()
            .find(|version| version.name() == text)
    }
}

/// A question about a metric of objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CustomRequest {
    pub(crate) version: CustomVersion,
    /// None for objects outside of namespaces, and for namespaces themselves.
    pub(crate) namespace: Option<String>,
    pub(crate) resource: GroupResource,
    /// None for all objects that the selector picks.
    pub(crate) name: Option<String>,
    pub(crate) metric: String,
    pub(crate) objects: Selector,
    pub(crate) series: Selector,
}

/// A question about an external metric.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ExternalRequest {
    pub(crate) namespace: String,
    pub(crate) metric: String,
    pub(crate) series: Selector,
}

/// Any question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Question {
    Groups,
    Group(&'static str),
    CustomResources(CustomVersion),
    ExternalResources,
    PushedResources,
    Custom(Box<CustomRequest>),
    External(ExternalRequest),
}

/// A question that is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PathError {
    NotFound,
    BadRequest(String),
}

pub(crate) fn question(path: &str, query: &str) -> Result<Question, PathError> {
    let parts: Vec<String> = path
        .trim_matches('/')
        .split('/')
        .map(|part| decode(part, false))
        .collect();
    let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    match parts.as_slice() {
        ["apis"] => Ok(Question::Groups),
        ["apis", CUSTOM] => Ok(Question::Group(CUSTOM)),
        ["apis", EXTERNAL] => Ok(Question::Group(EXTERNAL)),
        ["apis", PUSHED] => Ok(Question::Group(PUSHED)),
        ["apis", PUSHED, PUSHED_VERSION] => Ok(Question::PushedResources),
        ["apis", CUSTOM, version, rest @ ..] => {
            let version = CustomVersion::parse(version).ok_or(PathError::NotFound)?;
            match rest {
                [] => Ok(Question::CustomResources(version)),
                rest => custom(version, rest, query),
            }
        }
        ["apis", EXTERNAL, "v1beta1"] => Ok(Question::ExternalResources),
        ["apis", EXTERNAL, "v1beta1", "namespaces", namespace, metric]
            if !namespace.is_empty() && !metric.is_empty() =>
        {
            Ok(Question::External(ExternalRequest {
                namespace: (*namespace).to_owned(),
                metric: (*metric).to_owned(),
                series: selector(query, "labelSelector")?,
            }))
        }
        _ => Err(PathError::NotFound),
    }
}

fn custom(version: CustomVersion, rest: &[&str], query: &str) -> Result<Question, PathError> {
    let (namespace, resource, name, metric) = match rest {
        ["namespaces", namespace, "metrics", metric] | ["namespaces", namespace, metric] => {
            (None, "namespaces", *namespace, *metric)
        }
        ["namespaces", namespace, resource, name, metric] => {
            (Some(*namespace), *resource, *name, *metric)
        }
        [resource, name, metric] => (None, *resource, *name, *metric),
        _ => return Err(PathError::NotFound),
    };
    let given = [namespace.unwrap_or("x"), resource, name, metric];
    if given.iter().any(|part| part.is_empty()) {
        return Err(PathError::NotFound);
    }
    Ok(Question::Custom(Box::new(CustomRequest {
        version,
        namespace: namespace.map(str::to_owned),
        resource: GroupResource::parse(resource),
        name: (name != "*").then(|| name.to_owned()),
        metric: metric.to_owned(),
        objects: selector(query, "labelSelector")?,
        series: selector(query, "metricLabelSelector")?,
    })))
}

fn selector(query: &str, name: &str) -> Result<Selector, PathError> {
    let text = parameter(query, name).unwrap_or_default();
    Selector::parse(&text).map_err(|reason| PathError::BadRequest(format!("{name}: {reason}")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn custom_of(path: &str, query: &str) -> CustomRequest {
        match question(path, query) {
            Ok(Question::Custom(request)) => *request,
            other => panic!("{path}: {other:?}"),
        }
    }

    /// The first three are requests that a real autoscaler was recorded sending.
    #[test]
    fn requests_of_autoscalers_are_understood() {
        let hits = custom_of(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/services/svc/hits",
            "",
        );
        assert_eq!(
            (
                hits.namespace.as_deref(),
                hits.name.as_deref(),
                hits.metric.as_str()
            ),
            (Some("shop"), Some("svc"), "hits")
        );
        let pods = custom_of(
            "/apis/custom.metrics.k8s.io/v1beta2/namespaces/shop/pods/%2A/rps",
            "labelSelector=app%3Dt",
        );
        assert_eq!(
            (pods.name, pods.objects.to_string().as_str()),
            (None, "app=t")
        );
        let external = question(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue",
            "",
        );
        assert!(
            matches!(external, Ok(Question::External(ExternalRequest { metric, .. })) if metric == "queue")
        );
        let grouped = custom_of(
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces/shop/elasticworkloads.autoscaling.alibabacloud.com/web/x",
            "metricLabelSelector=code%3D200",
        );
        assert_eq!(
            grouped.resource,
            GroupResource::new("autoscaling.alibabacloud.com", "elasticworkloads")
        );
        assert_eq!(grouped.series.to_string(), "code=200");
    }

    #[test]
    fn metrics_of_namespaces_and_of_cluster_objects_have_no_namespace() {
        for path in ["namespaces/shop/metrics/x", "namespaces/shop/x"] {
            let request = custom_of(&format!("/apis/custom.metrics.k8s.io/v1beta1/{path}"), "");
            assert!(request.namespace.is_none() && request.resource.is_namespace());
            assert_eq!(request.name.as_deref(), Some("shop"));
        }
        let node = custom_of("/apis/custom.metrics.k8s.io/v1beta1/nodes/*/load", "");
        assert_eq!((node.namespace, node.name), (None, None));
    }

    #[test]
    fn what_is_not_served_is_not_found_and_bad_selectors_are_bad_requests() {
        let unknown = [
            "/apis/custom.metrics.k8s.io/v1",
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/x",
            "/apis/custom.metrics.k8s.io/v1beta1/pods",
            "/apis/custom.metrics.k8s.io/v1beta1/namespaces//pods/x/y",
            "/api",
        ];
        for path in unknown {
            assert_eq!(question(path, ""), Err(PathError::NotFound), "{path}");
        }
        let bad = question(
            "/apis/external.metrics.k8s.io/v1beta1/namespaces/shop/queue",
            "labelSelector=a+b",
        );
        assert!(
            matches!(bad, Err(PathError::BadRequest(reason)) if reason.contains("labelSelector"))
        );
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/|apis|custom.metrics.k8s.io|external.metrics.k8s.io|v1beta1|namespaces|metrics|%2A|[a-z*%]{0,5}){0,14}", query in "\\PC{0,40}") {
            let _ = question(&path, &query);
        }
    }
}
