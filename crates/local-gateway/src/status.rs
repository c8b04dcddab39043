//! Tells users what came of their load balancers: the address in the service's status, the numbers of ports that had to
//! give way in an annotation, and an event with the remedy when something is wrong.
//!
//! It compares what the services say with what they should say, whenever either changes; a failed write is tried again.

use std::{
    collections::{BTreeMap, HashMap},
    net::Ipv4Addr,
    sync::Arc,
    time::Duration,
};

use k8s_openapi::api::core::v1::Service as ApiService;
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams},
    runtime::{
        events::{Event, EventType, Recorder, Reporter},
        reflector::Store,
    },
};
use local_network::ServiceKey;
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, watch},
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    balancer::{Outcome, PortOutcome, wanted},
    tables,
};

/// The wait before a failed write is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
pub(crate) const COMPONENT: &str = "springtide-gateway";

/// Writes statuses, annotations and events.
pub(crate) struct StatusWriter {
    pub(crate) client: Client,
    pub(crate) services: Store<ApiService>,
    /// Woken with every change of a service.
    pub(crate) changed: Arc<Notify>,
    pub(crate) outcomes: watch::Receiver<BTreeMap<ServiceKey, Outcome>>,
}

/// What to write on one service.
#[derive(Debug, Default, PartialEq)]
struct Corrections {
    status: Option<Value>,
    annotations: Option<Value>,
}

impl StatusWriter {
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        let reporter = Reporter {
            controller: COMPONENT.to_owned(),
            instance: None,
        };
        let recorder = Recorder::new(self.client.clone(), reporter);
        let mut told = HashMap::new();
        loop {
            let outcomes = self.outcomes.borrow_and_update().clone();
            let complete = self.write_all(&outcomes, &recorder, &mut told).await;
            tokio::select! {
                () = self.changed.notified() => {}
                changed = self.outcomes.changed() => if changed.is_err() { return },
                () = sleep(RETRY_PAUSE), if !complete => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    async fn write_all(
        &self,
        outcomes: &BTreeMap<ServiceKey, Outcome>,
        recorder: &Recorder,
        told: &mut HashMap<ServiceKey, Outcome>,
    ) -> bool {
        told.retain(|key, _| outcomes.contains_key(key));
        let mut complete = true;
        for service in self.services.state() {
            let Some(key) = tables::key_of(&service) else {
                continue;
            };
            let outcome = outcomes.get(&key);
            if let Err(error) = self.write(&key, corrections(&service, outcome)).await {
                complete = false;
                tracing::warn!(service = %key, %error, "service status cannot be written");
            }
            if let Some(outcome) = outcome.filter(|outcome| told.get(&key) != Some(outcome)) {
                match tell(recorder, &service, outcome, told.get(&key)).await {
                    Ok(()) => drop(told.insert(key, outcome.clone())),
                    Err(error) => {
                        complete = false;
                        tracing::warn!(service = %key, %error, "event cannot be written");
                    }
                }
            }
        }
        complete
    }

    async fn write(&self, key: &ServiceKey, corrections: Corrections) -> Result<(), kube::Error> {
        let api: Api<ApiService> = Api::namespaced(self.client.clone(), &key.namespace);
        let parameters = PatchParams::default();
        if let Some(annotations) = corrections.annotations {
            let patch = Patch::Merge(json!({"metadata": {"annotations": annotations}}));
            unless_gone(api.patch(&key.name, &parameters, &patch).await)?;
        }
        if let Some(status) = corrections.status {
            let patch = Patch::Merge(json!({"status": status}));
            unless_gone(api.patch_status(&key.name, &parameters, &patch).await)?;
        }
        Ok(())
    }
}

fn unless_gone<T>(result: Result<T, kube::Error>) -> Result<(), kube::Error> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        other => other.map(drop),
    }
}

/// What is wrong in the service's own words. Services that are not (or no longer) ours lose what we wrote.
fn corrections(service: &ApiService, outcome: Option<&Outcome>) -> Corrections {
    if service.metadata.deletion_timestamp.is_some() {
        return Corrections::default();
    }
    let ip = outcome.and_then(|outcome| outcome.ip);
    let failed: Vec<&PortOutcome> = outcome
        .into_iter()
        .flat_map(|outcome| &outcome.ports)
        .filter(|port| port.error.is_some())
        .collect();
    let recorded = wanted::recorded_address(service);
    let status = if recorded != ip || (ip.is_some() && recorded_errors(service) != failed.len()) {
        Some(json!({"loadBalancer": {"ingress": ip.map(|ip| vec![ingress(ip, &failed)])}}))
    } else {
        None
    };
    let annotation = outcome.and_then(wanted::substitutes_annotation);
    let annotations = (wanted::recorded_annotation(service) != annotation.as_deref())
        .then(|| json!({(wanted::SUBSTITUTE_PORTS_ANNOTATION): annotation}));
    Corrections {
        status,
        annotations,
    }
}

fn ingress(ip: Ipv4Addr, failed: &[&PortOutcome]) -> Value {
    let mut ingress = json!({"ip": ip.to_string(), "ipMode": "VIP"});
    if !failed.is_empty() {
        let port = |port: &&PortOutcome| json!({"port": port.port, "protocol": wanted::name(port.protocol), "error": "ListenFailed"});
        ingress["ports"] = failed.iter().map(port).collect();
    }
    ingress
}

fn recorded_errors(service: &ApiService) -> usize {
    let balancer = service
        .status
        .as_ref()
        .and_then(|status| status.load_balancer.as_ref());
    let ingress = balancer
        .and_then(|balancer| balancer.ingress.as_ref())
        .and_then(|ingress| ingress.first());
    let ports = ingress.and_then(|ingress| ingress.ports.as_ref());
    ports.map_or(0, |ports| {
        ports.iter().filter(|port| port.error.is_some()).count()
    })
}

/// Publishes what is new in an outcome.
async fn tell(
    recorder: &Recorder,
    service: &ApiService,
    outcome: &Outcome,
    before: Option<&Outcome>,
) -> Result<(), kube::Error> {
    let reference = service.object_ref(&());
    for event in events(outcome, before) {
        recorder.publish(&event, &reference).await?;
    }
    Ok(())
}

fn events(outcome: &Outcome, before: Option<&Outcome>) -> Vec<Event> {
    let Some(ip) = outcome.ip else {
        let note = "all 254 load balancer addresses of this cluster are in use: delete a Service of type LoadBalancer";
        return vec![event(EventType::Warning, "NoAddressLeft", note.to_owned())];
    };
    let fresh = outcome
        .ports
        .iter()
        .filter(|port| !before.is_some_and(|before| before.ports.contains(port)));
    let problem = |port: &PortOutcome| match (&port.error, port.instead) {
        (Some(error), _) => Some(event(
            EventType::Warning,
            "ListenFailed",
            format!(
                "port {} cannot be opened on {ip}: {error}; it is tried again with the next change",
                port.port
            ),
        )),
        (None, Some(instead)) => Some(event(
            EventType::Warning,
            "PortInUse",
            format!(
                "{ip}:{port} is taken by another program on this machine, so port {port} is served on {ip}:{instead}; \
                 stop that program (`ss -ltnp 'sport = :{port}'` shows it) to get {port} back",
                port = port.port
            ),
        )),
        (None, None) => None,
    };
    let mut events: Vec<_> = fresh.filter_map(problem).collect();
    if events.is_empty() && before.is_none_or(|before| before.ip != Some(ip)) {
        events.push(event(
            EventType::Normal,
            "EnsuredLoadBalancer",
            format!("serving on {ip}"),
        ));
    }
    events
}

fn event(type_: EventType, reason: &str, note: String) -> Event {
    Event {
        type_,
        reason: reason.to_owned(),
        note: Some(note),
        action: "Balance".to_owned(),
        secondary: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use local_network::Protocol;

    const IP: Ipv4Addr = Ipv4Addr::new(127, 83, 1, 2);

    fn service(object: Value) -> ApiService {
        serde_json::from_value(object).unwrap()
    }

    fn outcome(instead: Option<u16>, error: Option<&str>) -> Outcome {
        let error = error.map(str::to_owned);
        Outcome {
            ip: Some(IP),
            ports: vec![PortOutcome {
                port: 80,
                protocol: Protocol::Tcp,
                instead,
                error,
            }],
        }
    }

    #[test]
    fn a_service_that_says_the_right_thing_is_left_alone() {
        let right = service(
            json!({"status": {"loadBalancer": {"ingress": [{"ip": "127.83.1.2", "ipMode": "VIP"}]}}}),
        );
        assert_eq!(
            corrections(&right, Some(&outcome(None, None))),
            Corrections::default()
        );
        let strange =
            service(json!({"status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}));
        assert_eq!(
            corrections(&strange, None),
            Corrections::default(),
            "another provider's address"
        );
    }

    #[test]
    fn address_failures_and_substitutes_are_written_and_taken_back() {
        let corrected = corrections(&service(json!({})), Some(&outcome(Some(4711), None)));
        assert_eq!(
            corrected.status.unwrap()["loadBalancer"]["ingress"][0]["ip"],
            "127.83.1.2"
        );
        assert_eq!(
            corrected.annotations.unwrap(),
            json!({(wanted::SUBSTITUTE_PORTS_ANNOTATION): "80/TCP=4711"})
        );

        let failed = corrections(&service(json!({})), Some(&outcome(None, Some("no rights"))));
        assert_eq!(
            failed.status.unwrap()["loadBalancer"]["ingress"][0]["ports"][0]["error"],
            "ListenFailed"
        );

        let former = service(json!({
            "metadata": {"annotations": {(wanted::SUBSTITUTE_PORTS_ANNOTATION): "80/TCP=4711"}},
            "status": {"loadBalancer": {"ingress": [{"ip": "127.83.1.2"}]}},
        }));
        let taken_back = corrections(&former, None);
        assert_eq!(
            taken_back.status.unwrap(),
            json!({"loadBalancer": {"ingress": null}})
        );
        assert_eq!(
            taken_back.annotations.unwrap(),
            json!({(wanted::SUBSTITUTE_PORTS_ANNOTATION): null})
        );
    }

    #[test]
    fn problems_are_told_once_with_the_remedy() {
        let taken = outcome(Some(4711), None);
        let first = events(&taken, None);
        assert_eq!(first.len(), 1);
        let note = first[0].note.as_ref().unwrap();
        assert!(
            note.contains("127.83.1.2:80")
                && note.contains("127.83.1.2:4711")
                && note.contains("ss -ltnp"),
            "{note}"
        );
        assert!(events(&taken, Some(&taken)).is_empty());
        let fine = events(&outcome(None, None), None);
        assert_eq!(fine[0].reason, "EnsuredLoadBalancer");
        let full = Outcome {
            ip: None,
            ports: Vec::new(),
        };
        assert_eq!(events(&full, None)[0].reason, "NoAddressLeft");
    }
}
