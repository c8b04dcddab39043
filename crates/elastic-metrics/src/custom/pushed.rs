//! Answers out of what was pushed, and the taking of it.

use std::collections::{BTreeMap, BTreeSet};

use http::StatusCode;
use hyper::body::Incoming;
use jiff::Timestamp;
use serde_json::Value;

use super::access::Attributes;
use super::answer::{Answered, MetricsApi, internal, no_metric_of, refused};
use super::path::{CustomRequest, ExternalRequest};
use super::shapes::{ObjectValue, SeriesValue};
use crate::adapter::{GroupResource, KindRow, Kinds};
use crate::pushed::{
    Found, NAMESPACE_LABEL, PUSHED, PUSHED_RESOURCE, PUSHED_VERSION, Questioned, Sender, accept,
    place_of,
};
use crate::serve::Asked;
use crate::status::{failure, not_found};

/// The scrape job of a series, never a Job of the cluster.
const JOB_LABEL: &str = "job";

fn attributes(namespace: Option<&str>) -> Attributes {
    Attributes {
        verb: "create",
        group: PUSHED,
        version: PUSHED_VERSION,
        namespace: namespace.unwrap_or_default().to_owned(),
        resource: PUSHED_RESOURCE.to_owned(),
        subresource: String::new(),
        name: String::new(),
    }
}

impl MetricsApi {
    /// Takes what is pushed, when the sender may push it, and tells who waits for it.
    pub(super) async fn take_push(&self, asked: Asked<'_>, body: Incoming) -> Answered {
        let Some(namespace) = place_of(asked.path) else {
            let message = "metrics can only be read here";
            return failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message);
        };
        if !self.takes_pushes {
            return not_found("the server could not find the requested resource");
        }
        let wanted = attributes(namespace);
        let permitted = self
            .access
            .check_with_token(asked.peer, asked.headers, wanted);
        let permitted = permitted.await;
        if let Err(denied) = permitted {
            return refused(denied);
        }
        let sender = self.relay.as_ref().map(|relay| relay.sender(asked.headers));
        if sender == Some(Sender::Itself) {
            return (StatusCode::NO_CONTENT, Value::Null);
        }
        let place = (namespace, self.replica_labels.as_slice());
        let (answered, taken, packed) =
            accept(self.pushed.board(), place, asked.headers, body).await;
        if !taken.changed.is_empty() {
            self.pushed.tell(taken.changed);
        }
        if let (Some(relay), Some(Sender::Outside), Some(packed)) = (&self.relay, sender, packed) {
            relay.pass_on(asked.path, &packed).await;
        }
        answered
    }

    /// Values of objects; none when nobody pushes the metric for them.
    pub(super) fn pushed_values(
        &self,
        request: &CustomRequest,
        kind: &KindRow,
        names: Option<&[String]>,
    ) -> Result<Option<Vec<ObjectValue>>, Answered> {
        let label = kind.singular();
        let asked = Questioned {
            metric: &request.metric,
            label: if request.resource.is_namespace() {
                NAMESPACE_LABEL
            } else {
                &label
            },
            namespace: request.namespace.as_deref(),
            selector: &request.series,
        };
        let now_ms = Timestamp::now().as_millisecond();
        let Some(mut found) = self.pushed.board().of_objects(&asked, now_ms) else {
            return Ok(None);
        };
        let Some(name) = &request.name else {
            return among(found, names.unwrap_or_default()).map(Some);
        };
        let found = found
            .remove(name)
            .ok_or_else(|| no_metric_of(request, name))?;
        let (millis, at) = found.map_err(|why| internal(&why))?;
        let name = name.clone();
        Ok(Some(vec![ObjectValue { name, millis, at }]))
    }

    /// Series of an external metric; none when nobody pushes it.
    pub(super) fn pushed_series(
        &self,
        request: &ExternalRequest,
    ) -> Result<Option<Vec<SeriesValue>>, Answered> {
        let now_ms = Timestamp::now().as_millisecond();
        let board = self.pushed.board();
        let found = board.external(&request.metric, &request.namespace, &request.series, now_ms);
        found.transpose().map_err(|why| internal(&why))
    }

    /// What is pushed now, for the list of the custom metrics API.
    pub(super) fn pushed_resources(&self) -> BTreeSet<(GroupResource, String, bool)> {
        let listed = self
            .pushed
            .board()
            .listed(Timestamp::now().as_millisecond());
        resources(&listed, &self.source.kinds())
    }

    pub(super) fn pushed_names(&self) -> impl Iterator<Item = String> {
        let listed = self
            .pushed
            .board()
            .listed(Timestamp::now().as_millisecond());
        listed.into_keys()
    }
}

/// Those that were asked for. One without a usable value has none, unless that is so of all.
fn among(found: BTreeMap<String, Found>, names: &[String]) -> Result<Vec<ObjectValue>, Answered> {
    let (mut values, mut trouble) = (Vec::new(), None);
    for (name, found) in found {
        if names.binary_search(&name).is_err() {
            continue;
        }
        match found {
            Ok((millis, at)) => values.push(ObjectValue { name, millis, at }),
            Err(why) => trouble = Some(why),
        }
    }
    match trouble {
        Some(why) if values.is_empty() => Err(internal(&why)),
        _ => Ok(values),
    }
}

/// Objects are those that labels name: a kind's name in the singular.
fn resources(
    listed: &BTreeMap<String, BTreeSet<String>>,
    kinds: &Kinds,
) -> BTreeSet<(GroupResource, String, bool)> {
    let mut found = BTreeSet::new();
    for (metric, labels) in listed {
        let has_namespace = labels.contains(NAMESPACE_LABEL);
        for kind in kinds.rows() {
            let singular = kind.singular();
            let is_named = labels.contains(&singular) && singular != JOB_LABEL;
            if is_named && (has_namespace || !kind.namespaced) {
                found.insert((kind.resource(), metric.clone(), kind.namespaced));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::adapter::samples;

    #[test]
    fn objects_are_what_labels_name() {
        let labels = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let listed = BTreeMap::from([
            ("depth".to_owned(), labels(&["job", "queue"])),
            ("rps".to_owned(), labels(&["job", "namespace", "pod"])),
        ]);
        let found = resources(&listed, &samples());
        let names: Vec<String> = found
            .iter()
            .map(|(resource, metric, _)| format!("{resource}/{metric}"))
            .collect();
        assert_eq!(names, ["namespaces/rps", "pods/rps"]);
    }

    #[test]
    fn one_pod_without_a_value_is_missing_and_all_of_them_are_an_error() {
        let names = ["a".to_owned(), "b".to_owned()];
        let stale = || Err("too old".to_owned());
        let good = Ok((1_000, Timestamp::UNIX_EPOCH));
        let found = BTreeMap::from([
            ("a".to_owned(), good),
            ("b".to_owned(), stale()),
            ("c".to_owned(), stale()),
        ]);
        let values = among(found, &names).unwrap();
        assert_eq!(
            values
                .iter()
                .map(|value| value.name.as_str())
                .collect::<Vec<_>>(),
            ["a"]
        );
        let found = BTreeMap::from([("a".to_owned(), stale()), ("b".to_owned(), stale())]);
        let (code, status) = among(found, &names).unwrap_err();
        assert_eq!(code, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(status["message"].as_str().unwrap().contains("too old"));
    }
}
