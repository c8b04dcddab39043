//! Turns a raw proposal into the count that may be set now: the stabilization windows, the rate policies and the
//! minimum and maximum. Keeps what the windows need in [`Memory`], which a restart forgets, as upstream.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{HPAScalingRules, HorizontalPodAutoscalerBehavior};

/// Recommendations and scale events older than every window are reused; this bounds what a very short sync period
/// can pile up (an hour's window at one second).
const MEMORY_ENTRIES_MAX: usize = 4096;

/// What one autoscaler remembers between its cycles.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    recommendations: Vec<(Timestamp, i32)>,
    scale_ups: Vec<(Timestamp, i32)>,
    scale_downs: Vec<(Timestamp, i32)>,
    has_seen_initial: bool,
    learnt_until: Option<Timestamp>,
}

/// A condition's status, reason and message.
pub(super) type Finding = (bool, &'static str, &'static str);

/// The limits of one cycle.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits<'a> {
    pub(super) current: i32,
    pub(super) min: i32,
    pub(super) max: i32,
    pub(super) behavior: Option<&'a HorizontalPodAutoscalerBehavior>,
    pub(super) downscale_stabilization: SignedDuration,
    pub(super) now: Timestamp,
}

/// The final count with what `AbleToScale` and `ScalingLimited` say about it.
pub(super) struct Normalized {
    pub(super) replicas: i32,
    pub(super) able_to_scale: Finding,
    pub(super) limited: Finding,
}

const READY: Finding = (
    true,
    "ReadyForNewScale",
    "recommended size matches current size",
);
const STABILIZED_DOWN: Finding = (
    true,
    "ScaleDownStabilized",
    "recent recommendations were higher than current one, applying the highest recent recommendation",
);
const STABILIZED_UP: Finding = (
    true,
    "ScaleUpStabilized",
    "recent recommendations were lower than current one, applying the lowest recent recommendation",
);
const WITHIN: Finding = (
    false,
    "DesiredWithinRange",
    "the desired count is within the acceptable range",
);
const TOO_FEW: Finding = (
    true,
    "TooFewReplicas",
    "the desired replica count is less than the minimum replica count",
);
const TOO_MANY: Finding = (
    true,
    "TooManyReplicas",
    "the desired replica count is more than the maximum replica count",
);
const UP_LIMIT: Finding = (
    true,
    "ScaleUpLimit",
    "the desired replica count is increasing faster than the maximum scale rate",
);
const DOWN_LIMIT: Finding = (
    true,
    "ScaleDownLimit",
    "the desired replica count is decreasing faster than the maximum scale rate",
);

impl Memory {
    /// Remembers the size at first sight, so that a restart does not shrink at once.
    pub fn see_initial(&mut self, current: i32, now: Timestamp) {
        if !self.has_seen_initial {
            self.has_seen_initial = true;
            self.recommended(current, now);
        }
    }

    /// Remembers what was recommended at some time.
    pub(super) fn recommended(&mut self, replicas: i32, at: Timestamp) {
        remember(&mut self.recommendations, |_| false, (at, replicas));
    }

    /// Up to when others' scale calls are known.
    pub(super) fn learnt_until(&self) -> Option<Timestamp> {
        self.learnt_until
    }

    /// Scale calls on record up to then are known.
    pub fn has_learnt(&mut self, until: Timestamp) {
        self.learnt_until = self.learnt_until.max(Some(until));
    }

    /// Remembers that a scale call went through. Only rate policies look at it.
    pub fn rescaled(
        &mut self,
        behavior: Option<&HorizontalPodAutoscalerBehavior>,
        from: i32,
        to: i32,
        now: Timestamp,
    ) {
        let Some(behavior) = behavior else { return };
        let (events, rules, change) = if to > from {
            (&mut self.scale_ups, behavior.scale_up.as_ref(), to - from)
        } else {
            (
                &mut self.scale_downs,
                behavior.scale_down.as_ref(),
                from - to,
            )
        };
        let longest = policies(rules, to > from)
            .iter()
            .map(|policy| policy.2)
            .max()
            .unwrap_or(0);
        let cutoff = now - SignedDuration::from_secs(i64::from(longest));
        remember(events, |time| time < cutoff, (now, change));
    }

    pub(super) fn normalize(&mut self, proposed: i32, limits: Limits<'_>) -> Normalized {
        match limits.behavior {
            None => self.normalize_plain(proposed, limits),
            Some(behavior) => self.normalize_with(behavior, proposed, limits),
        }
    }

    fn normalize_plain(&mut self, proposed: i32, limits: Limits<'_>) -> Normalized {
        let cutoff = limits.now - limits.downscale_stabilization;
        let recent = self
            .recommendations
            .iter()
            .filter(|(time, _)| *time >= cutoff)
            .map(|(_, count)| *count);
        let stabilized = recent.max().unwrap_or(proposed).max(proposed);
        remember(
            &mut self.recommendations,
            |time| time < cutoff,
            (limits.now, proposed),
        );
        let up_limit = limits.current.saturating_mul(2).max(4);
        let (ceiling, too_high) = lower_of(limits.max, up_limit);
        let (replicas, limited) = if stabilized < limits.min {
            (limits.min, TOO_FEW)
        } else if stabilized > ceiling {
            (ceiling, too_high)
        } else {
            (stabilized, WITHIN)
        };
        Normalized {
            replicas,
            able_to_scale: if stabilized == proposed {
                READY
            } else {
                STABILIZED_DOWN
            },
            limited,
        }
    }

    fn normalize_with(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        proposed: i32,
        limits: Limits<'_>,
    ) -> Normalized {
        let stabilized = self.stabilize(behavior, proposed, limits);
        let able_to_scale = match stabilized {
            _ if stabilized == proposed => READY,
            _ if proposed >= limits.current => STABILIZED_UP,
            _ => STABILIZED_DOWN,
        };
        let (replicas, limited) = self.rate_limit(behavior, stabilized, limits);
        Normalized {
            replicas,
            able_to_scale,
            limited,
        }
    }

    fn stabilize(
        &mut self,
        behavior: &HorizontalPodAutoscalerBehavior,
        proposed: i32,
        limits: Limits<'_>,
    ) -> i32 {
        let window = |rules: Option<&HPAScalingRules>, default: SignedDuration| {
            rules
                .and_then(|rules| rules.stabilization_window_seconds)
                .map_or(default, |seconds| {
                    SignedDuration::from_secs(i64::from(seconds))
                })
        };
        let up_cutoff = limits.now - window(behavior.scale_up.as_ref(), SignedDuration::ZERO);
        let down_cutoff =
            limits.now - window(behavior.scale_down.as_ref(), limits.downscale_stabilization);
        let (mut lowest, mut highest) = (proposed, proposed);
        for (time, count) in &self.recommendations {
            if *time > up_cutoff {
                lowest = lowest.min(*count);
            }
            if *time > down_cutoff {
                highest = highest.max(*count);
            }
        }
        remember(
            &mut self.recommendations,
            |time| time < up_cutoff && time < down_cutoff,
            (limits.now, proposed),
        );
        limits.current.max(lowest).min(highest)
    }

    fn rate_limit(
        &self,
        behavior: &HorizontalPodAutoscalerBehavior,
        wanted: i32,
        limits: Limits<'_>,
    ) -> (i32, Finding) {
        if wanted > limits.current {
            let allowed = self
                .up_limit(behavior.scale_up.as_ref(), limits)
                .max(limits.current);
            let (ceiling, reason) = lower_of(limits.max, allowed);
            if wanted > ceiling {
                return (ceiling, reason);
            }
        } else if wanted < limits.current {
            let allowed = self
                .down_limit(behavior.scale_down.as_ref(), limits)
                .min(limits.current);
            let (floor, reason) = if limits.min < allowed {
                (allowed, DOWN_LIMIT)
            } else {
                (limits.min, TOO_FEW)
            };
            if wanted < floor {
                return (floor, reason);
            }
        }
        (wanted, WITHIN)
    }

    fn up_limit(&self, rules: Option<&HPAScalingRules>, limits: Limits<'_>) -> i32 {
        let counts = policies(rules, true)
            .into_iter()
            .map(|(is_percent, value, period)| {
                let start = self.period_start(period, limits);
                if is_percent {
                    (f64::from(start) * (1.0 + f64::from(value) / 100.0)).ceil() as i32
                } else {
                    start.saturating_add(value)
                }
            });
        match select(rules) {
            "Disabled" => limits.current,
            "Min" => counts.min().unwrap_or(i32::MAX),
            _ => counts.max().unwrap_or(i32::MIN),
        }
    }

    fn down_limit(&self, rules: Option<&HPAScalingRules>, limits: Limits<'_>) -> i32 {
        let counts = policies(rules, false)
            .into_iter()
            .map(|(is_percent, value, period)| {
                let start = self.period_start(period, limits);
                if is_percent {
                    (f64::from(start) * (1.0 - f64::from(value) / 100.0)) as i32
                } else {
                    start.saturating_sub(value)
                }
            });
        match select(rules) {
            "Disabled" => limits.current,
            "Min" => counts.max().unwrap_or(i32::MIN),
            _ => counts.min().unwrap_or(i32::MAX),
        }
    }

    /// How many replicas there were when the policy's period began.
    fn period_start(&self, period_seconds: i32, limits: Limits<'_>) -> i32 {
        let cutoff = limits.now - SignedDuration::from_secs(i64::from(period_seconds));
        let sum = |events: &[(Timestamp, i32)]| -> i32 {
            events
                .iter()
                .filter(|(time, _)| *time > cutoff)
                .map(|(_, change)| *change)
                .sum()
        };
        limits.current - sum(&self.scale_ups) + sum(&self.scale_downs)
    }
}

/// Replaces an entry that no window needs any more, or adds one.
fn remember(
    entries: &mut Vec<(Timestamp, i32)>,
    is_old: impl Fn(Timestamp) -> bool,
    entry: (Timestamp, i32),
) {
    match entries.iter().rposition(|(time, _)| is_old(*time)) {
        Some(index) => entries[index] = entry,
        None if entries.len() >= MEMORY_ENTRIES_MAX => entries[0] = entry,
        None => entries.push(entry),
    }
}

fn lower_of(max: i32, rate: i32) -> (i32, Finding) {
    if max > rate {
        (rate, UP_LIMIT)
    } else {
        (max, TOO_MANY)
    }
}

fn select(rules: Option<&HPAScalingRules>) -> &str {
    rules
        .and_then(|rules| rules.select_policy.as_deref())
        .unwrap_or("Max")
}

/// Whether a policy is a percentage, its value and its period; the defaults where none are given.
fn policies(rules: Option<&HPAScalingRules>, is_up: bool) -> Vec<(bool, i32, i32)> {
    let given = rules
        .and_then(|rules| rules.policies.as_ref())
        .filter(|policies| !policies.is_empty());
    match given {
        Some(policies) => policies
            .iter()
            .map(|policy| {
                (
                    policy.type_ == "Percent",
                    policy.value,
                    policy.period_seconds,
                )
            })
            .collect(),
        None if is_up => vec![(false, 4, 15), (true, 100, 15)],
        None => vec![(true, 100, 15)],
    }
}
