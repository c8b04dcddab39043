//! What a kubelet server tells about itself: `/metrics` and `/configz`.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::{Mutex, PoisonError};

use http::StatusCode;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use crate::access::{ALLOWED_TTL, REFUSED_TTL};

/// Answered requests by kind and status; both come from short fixed lists.
#[derive(Default)]
pub(crate) struct Counts(Mutex<BTreeMap<(&'static str, u16), u64>>);

impl Counts {
    pub(crate) fn add(&self, kind: &'static str, status: StatusCode) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((kind, status.as_u16())).or_default() += 1;
    }

    /// Prometheus text.
    pub(crate) fn text(&self, node: &str, pods: &[Pod], sessions: usize) -> String {
        let running = pods.iter().filter(|pod| phase(pod) == "Running").count();
        let containers: usize = pods.iter().map(running_containers).sum();
        let mut text = format!(
            "# HELP kubelet_node_name The name of this node.\n# TYPE kubelet_node_name gauge\nkubelet_node_name{{node=\"{node}\"}} 1\n\
             # HELP kubelet_running_pods Pods that run on this node.\n# TYPE kubelet_running_pods gauge\nkubelet_running_pods {running}\n\
             # HELP kubelet_running_containers Containers by state.\n# TYPE kubelet_running_containers gauge\nkubelet_running_containers{{container_state=\"running\"}} {containers}\n\
             # HELP kubelet_open_sessions Commands and port-forwards that are carried now.\n# TYPE kubelet_open_sessions gauge\nkubelet_open_sessions {sessions}\n\
             # HELP kubelet_http_requests_total Answered requests.\n# TYPE kubelet_http_requests_total counter\n"
        );
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for ((kind, status), count) in counts.iter() {
            // Writing into a String cannot fail.
            let _ = writeln!(
                text,
                "kubelet_http_requests_total{{path=\"{kind}\",code=\"{status}\"}} {count}"
            );
        }
        text
    }
}

fn phase(pod: &Pod) -> &str {
    let status = pod.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref());
    phase.unwrap_or_default()
}

fn running_containers(pod: &Pod) -> usize {
    let status = pod.status.iter();
    let containers = status.flat_map(|status| status.container_statuses.iter().flatten());
    let running = |state: &k8s_openapi::api::core::v1::ContainerState| state.running.is_some();
    containers
        .filter(|container| container.state.as_ref().is_some_and(running))
        .count()
}

/// The parts of a kubelet's configuration that are true here.
pub(crate) fn configuration() -> Value {
    let seconds = |time: std::time::Duration| format!("{}s", time.as_secs());
    json!({"kubeletconfig": {
        "kind": "KubeletConfiguration", "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "authentication": {
            "anonymous": {"enabled": false}, "webhook": {"enabled": true, "cacheTTL": "2m0s"},
        },
        "authorization": {"mode": "Webhook", "webhook": {
            "cacheAuthorizedTTL": seconds(ALLOWED_TTL), "cacheUnauthorizedTTL": seconds(REFUSED_TTL),
        }},
        "enableDebuggingHandlers": true, "streamingConnectionIdleTimeout": "4h0m0s",
    }})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_pods_and_answers_are_counted() {
        let counts = Counts::default();
        counts.add("pods", StatusCode::OK);
        counts.add("pods", StatusCode::OK);
        counts.add("refused", StatusCode::UNAUTHORIZED);
        let status = json!({"phase": "Running", "containerStatuses": [
            {"name": "a", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
            {"name": "b", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": {"waiting": {}}},
        ]});
        let pod: Pod = serde_json::from_value(json!({"metadata": {}, "status": status})).unwrap();
        let text = counts.text("n", &[pod, Pod::default()], 3);
        for line in [
            "kubelet_running_pods 1",
            "kubelet_running_containers{container_state=\"running\"} 1",
            "kubelet_open_sessions 3",
            "kubelet_http_requests_total{path=\"pods\",code=\"200\"} 2",
            "kubelet_http_requests_total{path=\"refused\",code=\"401\"} 1",
        ] {
            assert!(text.lines().any(|one| one == line), "{line} in\n{text}");
        }
    }
}
