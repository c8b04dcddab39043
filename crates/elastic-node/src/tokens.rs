//! Service account tokens in the files of running groups: how long they are asked for, and when they are renewed. Pure.
//!
//! A kubelet renews a token when four fifths of its life are over. Here that costs a call that changes a running group,
//! so a token may be asked for with a longer life than the pod says (it is bound to the pod and ends with it), and a group
//! that had better not be changed gets a long-lived one and a warning.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use elastic_core::names::TOKEN_LIFE_ANNOTATION;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Pod, PodSpec, ServiceAccountTokenProjection};
use kube::ResourceExt;

use crate::config::TokenPolicy;
use crate::status::never_restarts;

/// Life that Kubernetes itself gives to tokens of clients that do not read their file again; asked for where a token
/// cannot be renewed.
pub(crate) const LONG_LIFE: Duration = Duration::from_secs(365 * 86_400);
/// Life of a token whose projection names none.
pub(crate) const DEFAULT_LIFE_SECONDS: i64 = 3_600;
/// A token is renewed when this part of its life is over, …
const RENEW_AT: f64 = 0.8;
/// … or earlier by up to this part, so that pods made together do not renew together.
const JITTER: f64 = 0.1;
/// A renewal that failed is tried again after this part of the time that is left, …
const RETRY_PART: u32 = 10;
/// … but neither sooner nor later than this.
const RETRY_BOUNDS: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(600));

/// From when to when a token holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TokenLife {
    /// Its beginning.
    pub begin: Timestamp,
    /// Its end.
    pub end: Timestamp,
}

impl TokenLife {
    /// A life of `seconds` from `begin` on. Lives are counted from here, so a clock that differs from the API server's
    /// does no harm.
    pub(crate) fn of(begin: Timestamp, seconds: i64) -> Self {
        let end = begin.checked_add(SignedDuration::from_secs(seconds));
        Self {
            begin,
            end: end.unwrap_or(Timestamp::MAX),
        }
    }

    /// When to renew; `jitter` from 0 up to 1 brings it forward.
    pub(crate) fn renew_at(self, jitter: f64) -> Timestamp {
        let part = RENEW_AT - JITTER * jitter.clamp(0.0, 1.0);
        let wait = self.end.duration_since(self.begin).mul_f64(part);
        self.begin.checked_add(wait).unwrap_or(self.end)
    }

    /// When to try again what failed at `now`.
    pub(crate) fn retry_at(self, now: Timestamp) -> Timestamp {
        let left = Duration::try_from(self.end.duration_since(now)).unwrap_or_default();
        let wait = (left / RETRY_PART).clamp(RETRY_BOUNDS.0, RETRY_BOUNDS.1);
        now.checked_add(wait).unwrap_or(Timestamp::MAX)
    }
}

impl fmt::Display for TokenLife {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:.0}/{:.0}", self.begin, self.end)
    }
}

impl FromStr for TokenLife {
    type Err = jiff::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (begin, end) = text.split_once('/').unwrap_or((text, text));
        Ok(Self {
            begin: begin.parse()?,
            end: end.parse()?,
        })
    }
}

/// Why a pod's tokens are not renewed in its running group.
pub(crate) fn lasting(pod: &Pod, policy: &TokenPolicy) -> Option<&'static str> {
    let disks = |spec: &PodSpec| {
        let mut volumes = spec.volumes.iter().flatten();
        volumes
            .any(|volume| volume.flex_volume.is_some() || volume.persistent_volume_claim.is_some())
    };
    if !policy.renew_in_place {
        Some("renewal is switched off (ECI_TOKEN_RENEWAL)")
    } else if never_restarts(pod) {
        Some("the cloud warns of changing groups with the restart policy Never")
    } else if pod.spec.as_ref().is_some_and(disks) {
        Some("the cloud changes no volumes of a group that may have disks")
    } else {
        None
    }
}

/// The least life tokens of a pod are asked for.
pub(crate) fn least_life(pod: &Pod, policy: &TokenPolicy) -> Duration {
    match lasting(pod, policy) {
        Some(_) => policy.least_life.max(LONG_LIFE),
        None => policy.least_life,
    }
}

/// When a pod's tokens are to be renewed; `None` for a pod without any.
pub(crate) fn renew_at(pod: &Pod, policy: &TokenPolicy) -> Option<Timestamp> {
    let asked = projections(pod.spec.as_ref()?).map(asked_seconds).min()?;
    let written = pod.annotations().get(TOKEN_LIFE_ANNOTATION);
    let life = written.and_then(|text| text.parse::<TokenLife>().ok());
    let life = life.or_else(|| {
        // Not noted (yet): not before the pod was made, and not for less than is asked for.
        let least = i64::try_from(least_life(pod, policy).as_secs()).unwrap_or(i64::MAX);
        let made = pod.metadata.creation_timestamp.as_ref()?.0;
        Some(TokenLife::of(made, asked.max(least)))
    })?;
    Some(life.renew_at(spread(pod.metadata.uid.as_deref().unwrap_or_default())))
}

fn projections(spec: &PodSpec) -> impl Iterator<Item = &ServiceAccountTokenProjection> {
    let volumes = spec.volumes.iter().flatten();
    let sources = volumes.flat_map(|volume| &volume.projected);
    let sources = sources.flat_map(|projected| projected.sources.iter().flatten());
    sources.filter_map(|source| source.service_account_token.as_ref())
}

fn asked_seconds(token: &ServiceAccountTokenProjection) -> i64 {
    token.expiration_seconds.unwrap_or(DEFAULT_LIFE_SECONDS)
}

/// A part of 1 that differs from pod to pod and stays the same for one.
pub(crate) fn spread(uid: &str) -> f64 {
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let mix = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(PRIME);
    f64::from(uid.bytes().fold(OFFSET, mix)) / f64::from(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;

    const RENEWING: TokenPolicy = TokenPolicy {
        least_life: Duration::ZERO,
        renew_in_place: true,
    };

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn pod(change: impl FnOnce(&mut Value)) -> Pod {
        let token = json!({"projected": {"sources": [{"serviceAccountToken": {"path": "token", "expirationSeconds": 1000}}]}, "name": "api"});
        let mut pod = json!({
            "metadata": {"name": "web", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"containers": [], "volumes": [token]}
        });
        change(&mut pod);
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_token_is_renewed_at_four_fifths_of_its_life_or_a_little_earlier() {
        let life = TokenLife::of(at("2026-01-01T00:00:00Z"), 1_000);
        assert_eq!(life.renew_at(0.0), at("2026-01-01T00:13:20Z"));
        assert_eq!(life.renew_at(1.0), at("2026-01-01T00:11:40Z"));
        assert_eq!(
            life.to_string(),
            "2026-01-01T00:00:00Z/2026-01-01T00:16:40Z"
        );
        assert_eq!(life.to_string().parse::<TokenLife>().unwrap(), life);
        assert!("yesterday".parse::<TokenLife>().is_err());
    }

    #[test]
    fn a_failed_renewal_is_tried_again_while_there_is_time() {
        let life = TokenLife::of(at("2026-01-01T00:00:00Z"), 36_000);
        let after = |text: &str| life.retry_at(at(text)).duration_since(at(text)).as_secs();
        assert_eq!(after("2026-01-01T08:20:00Z"), 600);
        assert_eq!(after("2026-01-01T09:50:00Z"), 60);
        assert_eq!(after("2026-01-01T09:59:00Z"), 10);
        assert_eq!(after("2026-01-01T11:00:00Z"), 10, "also when it is over");
    }

    #[test]
    fn what_is_noted_counts_and_else_what_was_asked_for() {
        let jitter = spread("u");
        let made = at("2026-01-01T00:00:00Z");
        let expected = TokenLife::of(made, 1_000).renew_at(jitter);
        assert_eq!(renew_at(&pod(|_| {}), &RENEWING), Some(expected));
        let noted = pod(|pod| {
            pod["metadata"]["annotations"] =
                json!({TOKEN_LIFE_ANNOTATION: "2026-02-01T00:00:00Z/2026-02-01T01:00:00Z"});
        });
        let expected = TokenLife::of(at("2026-02-01T00:00:00Z"), 3_600).renew_at(jitter);
        assert_eq!(renew_at(&noted, &RENEWING), Some(expected));
        let without = pod(|pod| pod["spec"]["volumes"] = json!([{"name": "a", "emptyDir": {}}]));
        assert_eq!(renew_at(&without, &RENEWING), None);
    }

    #[test]
    fn groups_that_had_better_not_be_changed_get_tokens_that_last() {
        let off = TokenPolicy {
            renew_in_place: false,
            ..RENEWING
        };
        let cases = [
            (pod(|_| {}), RENEWING, Duration::ZERO),
            (pod(|_| {}), off, LONG_LIFE),
            (
                pod(|pod| pod["spec"]["restartPolicy"] = json!("Never")),
                RENEWING,
                LONG_LIFE,
            ),
            (
                pod(|pod| {
                    let disk = json!({"name": "d", "flexVolume": {"driver": "alicloud/disk"}});
                    pod["spec"]["volumes"].as_array_mut().unwrap().push(disk);
                }),
                RENEWING,
                LONG_LIFE,
            ),
        ];
        for (pod, policy, expected) in cases {
            assert_eq!(least_life(&pod, &policy), expected, "{pod:?}");
            assert_eq!(lasting(&pod, &policy).is_some(), expected == LONG_LIFE);
        }
    }

    proptest! {
        #[test]
        fn a_renewal_always_comes_between_seven_tenths_and_four_fifths(
            seconds in 600_i64..40_000_000, uid in "[a-f0-9-]{36}", jitter in -1.0_f64..2.0
        ) {
            let begin = at("2026-01-01T00:00:00Z");
            let life = TokenLife::of(begin, seconds);
            for jitter in [jitter, spread(&uid)] {
                let part = life.renew_at(jitter).duration_since(begin).as_secs_f64() / seconds as f64;
                prop_assert!((0.699..0.801).contains(&part), "{part}");
            }
        }
    }
}
