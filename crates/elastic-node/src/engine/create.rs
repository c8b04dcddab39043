//! Creating a group: fetch what the pod refers to, translate, try sizes and zones in order.
//!
//! Every try carries the same client token, the pod's UID, so that a repetition after a lost answer finds the first group
//! instead of making a second.

use std::time::Duration;

use std::collections::BTreeMap;
use std::sync::Arc;

use cloud_api::EciError;
use cloud_api::model::create::CreateContainerGroupRequest;
use elastic_core::eci_annotations::{self, InstanceOptions};
use elastic_core::eci_profile::Effect;
use elastic_core::events::EventKind;
use elastic_core::pod_sizing::WantedSpec;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use tokio::time::Instant;

use super::kept::Kept;
use super::references::FetchError;
use super::state::GroupFacts;
use super::{Effective, Shared, facts, write};
use crate::config::{Architecture, VSwitch};
use crate::status::pod_key;
use crate::tokens::TokenLife;
use crate::translate::{self, Identity, TranslateError};
use crate::zones;

/// Why a try at creation ended without a group.
pub(super) enum Failure {
    /// It can never work as the pod is written.
    Refused(String),
    /// Not now.
    Later {
        reason: &'static str,
        message: String,
    },
    /// Too many calls, or the answer to an earlier try has to be found in the list; not the pod's problem, so nobody is told.
    Quiet,
}

impl Failure {
    pub(super) fn message(self) -> String {
        match self {
            Self::Refused(message) | Self::Later { message, .. } => message,
            Self::Quiet => "too many calls".to_owned(),
        }
    }
}

/// Everything a creation needs.
pub(super) struct Prepared {
    pub(super) request: CreateContainerGroupRequest,
    options: InstanceOptions,
    pub(super) token_life: Option<TokenLife>,
}

pub(super) async fn create(shared: &Shared, uid: &str) {
    let Some((pod, node)) = shared
        .state()
        .pods
        .get(uid)
        .map(|record| (record.pod(), record.node))
    else {
        return;
    };
    let effect = match effect(shared, &pod).await {
        Ok(effect) => effect,
        Err(error) => return failed(shared, &pod, uid, unresolved(&error)).await,
    };
    let pod = with_effect(&pod, &effect);
    shared.state().notes(uid).effect = Some(effect);
    match try_create(shared, &pod, node, uid).await {
        Ok((id, zone, facts)) => accepted(shared, &pod, uid, &id, &zone, facts),
        Err(failure) => failed(shared, &pod, uid, failure).await,
    }
}

/// What rules of the profile in force add to a pod.
pub(super) async fn effect(shared: &Shared, pod: &Pod) -> Result<Effect, FetchError> {
    let effective = shared.effective();
    let profile = &effective.profile;
    if profile.selectors.is_empty() {
        return Ok(Effect::default());
    }
    let namespace = if profile.asks_for_namespaces() {
        let name = pod.namespace().unwrap_or_else(|| "default".to_owned());
        shared.references.namespace_labels(&name).await?
    } else {
        BTreeMap::new()
    };
    Ok(profile.effect_for(pod.labels(), pod.annotations(), &namespace))
}

fn with_effect(pod: &Arc<Pod>, effect: &Effect) -> Arc<Pod> {
    if effect.is_empty() {
        return pod.clone();
    }
    let mut pod = Pod::clone(pod);
    pod.annotations_mut().extend(effect.annotations.clone());
    pod.labels_mut().extend(effect.labels.clone());
    Arc::new(pod)
}

fn unresolved(error: &FetchError) -> Failure {
    let cause = std::error::Error::source(error)
        .map(ToString::to_string)
        .unwrap_or_default();
    Failure::Later {
        reason: "FailedToResolve",
        message: format!("{error}: {cause}"),
    }
}

fn accepted(shared: &Shared, pod: &Pod, uid: &str, id: &str, zone: &str, facts: GroupFacts) {
    shared.limit.succeeded();
    let message = format!("created container group {id} in zone {zone}");
    shared
        .state()
        .group_accepted(uid, id, facts, Instant::now());
    shared.poke.notify_one();
    tracing::debug!(pod = pod_key(pod), group = id, "container group created");
    shared
        .events
        .tell(pod, EventKind::Normal, "ProviderCreateSuccess", &message);
}

/// The request as far as it does not differ from try to try.
pub(super) async fn prepare(
    shared: &Shared,
    effective: &Effective,
    pod: &Pod,
    node: usize,
) -> Result<Prepared, Failure> {
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
    translate::refuse(pod).map_err(|refusal| refused(refusal.into()))?;
    let options = translate::options_of(pod).map_err(refused)?;
    let references = shared.references.of(pod).await;
    let references = references.map_err(|error| unresolved(&error))?;
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
    Ok(Prepared {
        request,
        options,
        token_life: references.token_life,
    })
}

async fn try_create(
    shared: &Shared,
    pod: &Pod,
    node: usize,
    uid: &str,
) -> Result<(String, String, GroupFacts), Failure> {
    let effective = shared.effective();
    warn_of_unknown(shared, pod, uid);
    let Prepared {
        mut request,
        options,
        token_life,
    } = prepare(shared, &effective, pod, node).await?;
    let sizes = translate::sizes(pod).map_err(|error| Failure::Refused(error.to_string()))?;
    let places = zones::order(
        pod,
        &options,
        &shared.nodes[node].spec.zone,
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
    for (spot, size) in tries(&options, &sizes) {
        translate::with_size(&mut request, &facts::sold(&shared.catalog, size));
        if !spot {
            (
                request.spot_strategy,
                request.spot_price_limit,
                request.spot_duration,
            ) = (None, None, None);
        }
        for place in &places {
            match ask(shared, &mut request, place).await {
                Ok((id, request_id)) => {
                    let facts = GroupFacts {
                        annotations: Kept::new(facts::accepted(
                            pod,
                            &effective,
                            &request,
                            place,
                            &request_id,
                            token_life,
                        )),
                        owner: pod.namespace().zip(pod.metadata.name.clone()),
                        described: false,
                    };
                    return Ok((id, place.zone.clone(), facts));
                }
                Err(error) if error.is_out_of_stock() || error.is_address_exhausted() => {
                    rest(shared, place, &error);
                    last = Some(error);
                }
                // No place helps, but the pod may name another size.
                Err(error) if error.is_size_not_sold() => {
                    last = Some(error);
                    break;
                }
                Err(error) => return Err(hopeless(shared, &error)),
            }
        }
    }
    Err(nowhere(places.len(), last.as_ref()))
}

/// Sizes in their order; all of them again at list price when no spot stock is no reason to wait.
fn tries<'s>(
    options: &InstanceOptions,
    sizes: &'s [WantedSpec],
) -> impl Iterator<Item = (bool, &'s WantedSpec)> {
    let spot = options.spot.is_some();
    let fallback = options.spot.as_ref().is_some_and(|spot| spot.fallback);
    let first = sizes.iter().map(move |size| (spot, size));
    let second = sizes
        .iter()
        .filter(move |_| fallback)
        .map(|size| (false, size));
    first.chain(second)
}

/// After this answer no other place may be tried: its effect may be unknown.
fn hopeless(shared: &Shared, error: &EciError) -> Failure {
    if error.is_throttling() {
        shared.limit.throttled(Instant::now());
        return Failure::Quiet;
    }
    if error.is_token_conflict() {
        // An earlier try elsewhere had effect after all; the list will show its group.
        shared.poke.notify_one();
        return Failure::Quiet;
    }
    Failure::Later {
        reason: "ProviderInvokeFailed",
        message: describe(error),
    }
}

fn nowhere(places: usize, last: Option<&EciError>) -> Failure {
    if let Some(error) = last.filter(|error| error.is_size_not_sold()) {
        let remedy =
            "change the requests of its containers, or the annotation k8s.aliyun.com/eci-use-specs";
        return Failure::Refused(format!("{}; {remedy}", describe(error)));
    }
    let exhausted = last.is_some_and(EciError::is_address_exhausted);
    Failure::Later {
        reason: if exhausted { "IpNotEnough" } else { "NoStock" },
        message: format!(
            "none of {places} zones or vSwitches could take the pod, last: {}",
            last.map(describe).unwrap_or_default()
        ),
    }
}

/// A misspelt annotation would otherwise be ignored in silence.
fn warn_of_unknown(shared: &Shared, pod: &Pod, uid: &str) {
    if shared.state().notes(uid).failures > 0 {
        return;
    }
    let unknown = eci_annotations::unknown(pod.annotations());
    if !unknown.is_empty() {
        let message = format!("not known and ignored: {}", unknown.join(", "));
        shared
            .events
            .tell(pod, EventKind::Warning, "UnknownAnnotation", &message);
    }
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

fn describe(error: &EciError) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Every answer has another id; the same refusal again is no news.
fn without_request_id(message: &str) -> String {
    const MARK: &str = ", request ";
    let (mut gist, mut rest) = (String::with_capacity(message.len()), message);
    while let Some((before, after)) = rest.split_once(MARK) {
        gist.push_str(before);
        rest = after.find(')').map_or("", |end| &after[end..]);
    }
    gist + rest
}

async fn failed(shared: &Shared, pod: &Pod, uid: &str, failure: Failure) {
    let fail_fast = translate::options_of(pod).is_ok_and(|options| options.fail_fast);
    let (reason, message, for_good) = match failure {
        Failure::Quiet => {
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
        let gist = without_request_id(&message);
        let news = notes.last_problem != gist;
        notes.last_problem = gist;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_refusal_with_another_request_id_is_the_same() {
        let told = |id: &str| {
            format!(
                "no zone, last: A was refused with B (http 400, request {id}): no; C (http 403, request {id}): x"
            )
        };
        assert_eq!(
            without_request_id(&told("1-2")),
            without_request_id(&told("3"))
        );
        assert_eq!(
            without_request_id(&told("1")),
            "no zone, last: A was refused with B (http 400): no; C (http 403): x"
        );
        for odd in ["", ", request ", "a, request b", "plain"] {
            without_request_id(odd);
        }
        assert_eq!(without_request_id("plain"), "plain");
    }
}
