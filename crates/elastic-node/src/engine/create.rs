//! Creating a group: fetch what the pod refers to, translate, try sizes and zones in order.
//!
//! Every try carries the same client token, the pod's UID, so that a repetition after a lost answer finds the first group
//! instead of making a second.

use std::time::{Duration, Instant};

use cloud_api::EciError;
use cloud_api::catalog::Size;
use cloud_api::model::create::CreateContainerGroupRequest;
use elastic_core::events::EventKind;
use elastic_core::names::ECI_FAIL_STRATEGY;
use elastic_core::pod_sizing::WantedSpec;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::state::{GroupFacts, GroupRecord};
use super::{Shared, write};
use crate::config::{Architecture, VSwitch};
use crate::status::pod_key;
use crate::translate::{self, Identity, TranslateError};
use crate::zones;

/// Why a try at creation ended without a group.
enum Failure {
    /// It can never work as the pod is written.
    Refused(String),
    /// Not now.
    Later {
        reason: &'static str,
        message: String,
    },
    /// Too many calls; not the pod's problem, so nobody is told.
    Throttled,
}

pub(super) async fn create(shared: &Shared, uid: &str) {
    let Some((pod, node)) = shared
        .state()
        .pods
        .get(uid)
        .map(|record| (record.pod.clone(), record.node))
    else {
        return;
    };
    match try_create(shared, &pod, node, uid).await {
        Ok((id, facts)) => accepted(shared, &pod, uid, &id, facts),
        Err(failure) => failed(shared, &pod, uid, failure).await,
    }
}

fn accepted(shared: &Shared, pod: &Pod, uid: &str, id: &str, facts: GroupFacts) {
    shared.limit.succeeded();
    let at = Instant::now();
    let message = format!("created container group {id} in zone {}", facts.zone);
    {
        let mut state = shared.state();
        let notes = state.notes(uid);
        notes.memory.accepted_at = Some(at);
        notes.memory.absent_since = None;
        notes.moments.accepted = Some(Timestamp::now());
        notes.failures = 0;
        let known_since = state.groups.get(id).map_or(at, |known| known.known_since);
        let entry = state.groups.get(id).and_then(|known| known.entry.clone());
        let record = GroupRecord {
            uid: uid.to_owned(),
            known_since,
            deleted_at: None,
            entry,
            facts,
        };
        state.put_group(id, record);
        state.refresh_status(uid);
    }
    shared.poke.notify_one();
    tracing::debug!(pod = pod_key(pod), group = id, "container group created");
    shared
        .events
        .tell(pod, EventKind::Normal, "ProviderCreateSuccess", &message);
}

async fn try_create(
    shared: &Shared,
    pod: &Pod,
    node: usize,
    uid: &str,
) -> Result<(String, GroupFacts), Failure> {
    let node = &shared.nodes[node];
    let refused = |error: TranslateError| {
        if error.may_pass() {
            Failure::Later {
                reason: "FailedToResolve",
                message: error.to_string(),
            }
        } else {
            Failure::Refused(error.to_string())
        }
    };
    let effective = shared.effective();
    translate::refuse(pod).map_err(|refusal| refused(refusal.into()))?;
    let references = shared.references.of(pod).await.map_err(|error| {
        let cause = std::error::Error::source(&error)
            .map(ToString::to_string)
            .unwrap_or_default();
        Failure::Later {
            reason: "FailedToResolve",
            message: format!("{error}: {cause}"),
        }
    })?;
    let identity = Identity {
        cluster: &shared.cluster_id,
        node: &node.name,
        node_ip: &node.address,
    };
    let mut request = translate::container_group(pod, identity, &effective.settings, &references)
        .map_err(refused)?;
    if node.spec.architecture == Architecture::Arm64 {
        request.cpu_architecture = Some("ARM64".to_owned());
    }
    let sizes = translate::sizes(pod).map_err(refused)?;
    let places = zones::order(
        pod,
        &node.spec.zone,
        &effective.v_switches,
        &shared.state().resting.clone(),
        Instant::now(),
    );
    if places.is_empty() {
        return Err(Failure::Refused(
            "no vSwitch lies in the zone the pod asks for; correct its zone or vSwitch".into(),
        ));
    }
    shared.state().notes(uid).moments.requested = Some(Timestamp::now());
    let mut last = None;
    for size in &sizes {
        translate::with_size(&mut request, size);
        for place in &places {
            match ask(shared, &mut request, place).await {
                Ok((id, request_id)) => return Ok((id, facts(shared, size, place, request_id))),
                Err(error) if error.is_out_of_stock() || error.is_address_exhausted() => {
                    rest(shared, place, &error);
                    last = Some(error);
                }
                Err(error) if error.is_throttling() => {
                    shared.limit.throttled(Instant::now());
                    return Err(Failure::Throttled);
                }
                // Its outcome may be unknown, so nothing else may be tried but the same again.
                Err(error) => {
                    return Err(Failure::Later {
                        reason: "ProviderInvokeFailed",
                        message: describe(&error),
                    });
                }
            }
        }
    }
    Err(Failure::Later {
        reason: if last.as_ref().is_some_and(EciError::is_address_exhausted) {
            "IpNotEnough"
        } else {
            "NoStock"
        },
        message: format!(
            "none of {} zones or vSwitches could take the pod, last: {}",
            places.len(),
            last.as_ref().map(describe).unwrap_or_default()
        ),
    })
}

async fn ask(
    shared: &Shared,
    request: &mut CreateContainerGroupRequest,
    place: &VSwitch,
) -> Result<(String, String), EciError> {
    request.v_switch_id = Some(place.id.clone());
    request.zone_id = Some(place.zone.clone()).filter(|zone| !zone.is_empty());
    let answer = shared.cloud.call(request).await?;
    Ok((answer.container_group_id, answer.request_id))
}

fn rest(shared: &Shared, place: &VSwitch, error: &EciError) {
    tracing::info!(
        v_switch = place.id,
        zone = place.zone,
        code = error.code(),
        "vSwitch is tried last for a while"
    );
    let until = Instant::now() + shared.timing.zone_rest;
    shared.state().resting.insert(place.id.clone(), until);
}

fn facts(shared: &Shared, size: &WantedSpec, place: &VSwitch, request_id: String) -> GroupFacts {
    let size = match size {
        WantedSpec::Size(size) => Size::from_decimals(translate::vcpu(size), translate::gib(size))
            .and_then(|wish| shared.catalog.round_up(wish))
            .map(|size| (size.vcpu(), size.memory_gib())),
        WantedSpec::InstanceType(_) => None,
    };
    GroupFacts {
        zone: place.zone.clone(),
        size,
        request_id,
    }
}

fn describe(error: &EciError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

async fn failed(shared: &Shared, pod: &Pod, uid: &str, failure: Failure) {
    let fail_fast = pod
        .annotations()
        .get(ECI_FAIL_STRATEGY)
        .is_some_and(|strategy| strategy == "fail-fast");
    let (reason, message, for_good) = match failure {
        Failure::Throttled => {
            shared.state().notes(uid).memory.retry_at =
                Some(Instant::now() + shared.timing.retry_first);
            return;
        }
        Failure::Refused(message) => ("ProviderCreateFailed", message, true),
        Failure::Later { reason, message } => (reason, message, fail_fast),
    };
    let news = {
        let mut state = shared.state();
        let notes = state.notes(uid);
        notes.failures = notes.failures.saturating_add(1);
        notes.memory.refused = for_good;
        notes.memory.retry_at = Some(Instant::now() + backoff(shared, notes.failures));
        let news = notes.last_problem != message;
        notes.last_problem.clone_from(&message);
        news
    };
    tracing::warn!(
        pod = pod_key(pod),
        reason,
        message,
        for_good,
        "container group could not be created"
    );
    if news {
        shared.events.tell(
            pod,
            EventKind::Warning,
            if for_good {
                "ProviderCreateFailed"
            } else {
                reason
            },
            &message,
        );
        write::failure(shared, pod, uid, reason, &message).await;
    }
}

fn backoff(shared: &Shared, failures: u32) -> Duration {
    let doubled = shared
        .timing
        .retry_first
        .saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(shared.timing.retry_most)
}
