//! Stamps the last moment of a burst: an event on each pod when it has answered its first request, so that one can see
//! later how long after the load rose a new pod began to help.

use std::{collections::HashSet, net::SocketAddrV4, sync::Arc};

use k8s_openapi::{
    api::{core::v1::ObjectReference, discovery::v1::EndpointSlice, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
};
use kube::{Api, Client, api::PostParams, runtime::reflector::Store};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{FirstServed, status};

/// The reason of the event on a pod that has answered its first request; its `eventTime` is that moment.
pub const FIRST_REQUEST_REASON: &str = "FirstRequestServed";
/// Pods remembered as announced. When that many are, all are forgotten, and some may be announced again.
const REMEMBERED_PODS: usize = 16 * 1024;

/// Writes the events.
pub(crate) struct Announcer {
    pub(crate) client: Client,
    pub(crate) slices: Store<EndpointSlice>,
}

impl Announcer {
    pub(crate) async fn run(
        self,
        mut served: mpsc::Receiver<FirstServed>,
        shutdown: CancellationToken,
    ) {
        let mut announced = HashSet::new();
        while let Some(Some(first)) = shutdown.run_until_cancelled(served.recv()).await {
            let Some(pod) = pod_of(&self.slices.state(), first.address) else {
                continue;
            };
            // An endpoint that was unready for a while counts as new to its balancer, but its pod is not.
            if announced.len() >= REMEMBERED_PODS {
                announced.clear();
            }
            if announced.insert(pod.uid.clone()) {
                self.announce(pod, &first).await;
            }
        }
    }

    async fn announce(&self, pod: ObjectReference, first: &FirstServed) {
        let Some(event) = event(&pod, first) else {
            return;
        };
        let events: Api<Event> = Api::namespaced(
            self.client.clone(),
            pod.namespace.as_deref().unwrap_or_default(),
        );
        // Not tried again: the moment is of interest, not of importance.
        if let Err(error) = events.create(&PostParams::default(), &event).await {
            tracing::debug!(pod = ?pod.name, %error, "first request cannot be announced");
        }
    }
}

/// The pod behind an endpoint's address.
fn pod_of(slices: &[Arc<EndpointSlice>], address: SocketAddrV4) -> Option<ObjectReference> {
    let ip = address.ip().to_string();
    let mut endpoints = slices.iter().flat_map(|slice| &slice.endpoints);
    let endpoint = endpoints
        .find(|endpoint| endpoint.addresses.contains(&ip) && endpoint.target_ref.is_some())?;
    endpoint
        .target_ref
        .clone()
        .filter(|target| target.kind.as_deref() == Some("Pod"))
}

fn event(pod: &ObjectReference, first: &FirstServed) -> Option<Event> {
    let name = format!("{}.{:x}", pod.name.as_ref()?, first.at.as_nanosecond());
    let mut regarding = pod.clone();
    regarding.api_version.get_or_insert_with(|| "v1".to_owned());
    Some(Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: pod.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(first.at)),
        regarding: Some(regarding),
        reason: Some(FIRST_REQUEST_REASON.to_owned()),
        note: Some(format!("answered its first request, for {}", first.port)),
        action: Some("Serve".to_owned()),
        type_: Some("Normal".to_owned()),
        reporting_controller: Some(status::COMPONENT.to_owned()),
        reporting_instance: Some(status::COMPONENT.to_owned()),
        ..Event::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_address_leads_to_its_pod_and_to_nothing_else() {
        let slice = json!({
            "metadata": {"name": "shop-1"}, "addressType": "IPv4",
            "endpoints": [
                {"addresses": ["10.30.1.1"], "targetRef": {"kind": "Pod", "namespace": "default", "name": "web-1"}},
                {"addresses": ["10.10.0.1"]},
            ],
        });
        let slices = [Arc::new(serde_json::from_value(slice).unwrap())];
        let first = |ip: &str| FirstServed {
            address: format!("{ip}:80").parse().unwrap(),
            at: "2026-01-02T03:04:05.678901Z".parse().unwrap(),
            port: "default/shop:80".to_owned(),
        };
        let pod = pod_of(&slices, first("10.30.1.1").address).unwrap();
        let event = event(&pod, &first("10.30.1.1")).unwrap();
        assert_eq!(event.metadata.namespace.as_deref(), Some("default"));
        assert_eq!(
            event.event_time.unwrap().0.to_string(),
            "2026-01-02T03:04:05.678901Z"
        );
        assert!(pod_of(&slices, first("10.10.0.1").address).is_none());
        assert!(pod_of(&slices, first("10.30.1.2").address).is_none());
    }
}
