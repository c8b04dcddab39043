//! Who takes the fast path, how often it looks, and which of its decisions it may act on beside a controller that looks
//! more rarely.

use std::collections::BTreeMap;
use std::time::Duration;

use super::decide::{Decision, Rescale};
use crate::names::{FAST_DIRECTION, FAST_SYNC_PERIOD};

/// The shortest period: shorter ones ask metrics APIs more than they know.
pub const PERIOD_MIN: Duration = Duration::from_millis(100);
/// The longest period: the ordinary controller is not slower.
pub const PERIOD_MAX: Duration = Duration::from_secs(15);

/// Instead of a period: looks only when a metric was pushed.
const PUSHED: &str = "pushed";

/// In which directions the fast path scales.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Up only; the ordinary controller lowers.
    Up,
    /// Both ways.
    Both,
}

/// How an autoscaler takes the fast path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FastPath {
    /// From one look to the next; none: a look when a metric was pushed.
    pub period: Option<Duration>,
    /// In which directions it scales.
    pub direction: Direction,
}

impl FastPath {
    /// What the annotations ask for; nothing when they do not ask.
    ///
    /// # Errors
    /// The sentence that names the annotation and the remedy.
    pub fn of(annotations: Option<&BTreeMap<String, String>>) -> Result<Option<Self>, String> {
        let value = |name: &str| {
            annotations
                .and_then(|all| all.get(name))
                .map(String::as_str)
        };
        let Some(period) = value(FAST_SYNC_PERIOD) else {
            return Ok(None);
        };
        let period = match period {
            PUSHED => None,
            period => Some(parse_period(period).ok_or_else(|| {
                format!(
                    "annotation {FAST_SYNC_PERIOD} is {period:?}, expected a time from 100ms to 15s such as 1s or 250ms, or {PUSHED}"
                )
            })?),
        };
        let direction = match value(FAST_DIRECTION) {
            None | Some("up") => Direction::Up,
            Some("both") => Direction::Both,
            Some(other) => {
                return Err(format!(
                    "annotation {FAST_DIRECTION} is {other:?}, expected up or both"
                ));
            }
        };
        Ok(Some(FastPath { period, direction }))
    }

    /// The scale call of a decision, when the fast path may make it.
    ///
    /// What only an older recommendation asks for is left alone: the ordinary controller looks more rarely and does not
    /// know it, so that the two would pull in different directions.
    pub fn allows<'a>(&self, current: i32, decision: &'a Decision) -> Option<&'a Rescale> {
        decision.rescale.as_ref().filter(|rescale| {
            let is_asked_for_now = !rescale.reason.is_empty();
            let is_upwards = rescale.replicas > current;
            is_asked_for_now && (is_upwards || self.direction == Direction::Both)
        })
    }
}

fn parse_period(text: &str) -> Option<Duration> {
    let (number, unit_millis) = match text.strip_suffix("ms") {
        Some(number) => (number, 1.0),
        None => (text.strip_suffix('s')?, 1_000.0),
    };
    let is_plain = number.chars().all(|one| one.is_ascii_digit() || one == '.');
    let number = number.parse::<f64>().ok().filter(|_| is_plain)?;
    let period = Duration::try_from_secs_f64(number * unit_millis / 1_000.0).ok()?;
    (PERIOD_MIN..=PERIOD_MAX)
        .contains(&period)
        .then_some(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<FastPath>, String> {
        let pairs = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        FastPath::of(Some(&pairs.collect()))
    }

    #[test]
    fn an_autoscaler_opts_in_with_a_period() {
        assert_eq!(FastPath::of(None), Ok(None));
        assert_eq!(of(&[(FAST_DIRECTION, "both")]), Ok(None));
        let path = of(&[(FAST_SYNC_PERIOD, "250ms")]).unwrap().unwrap();
        assert_eq!(path.period, Some(Duration::from_millis(250)));
        assert_eq!(path.direction, Direction::Up);
        let both = of(&[(FAST_SYNC_PERIOD, "1.5s"), (FAST_DIRECTION, "both")]);
        let path = both.unwrap().unwrap();
        assert_eq!(path.period, Some(Duration::from_millis(1_500)));
        assert_eq!(path.direction, Direction::Both);
        let pushed = of(&[(FAST_SYNC_PERIOD, "pushed")]).unwrap().unwrap();
        assert_eq!(pushed.period, None);
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for period in [
            "", "1", "1m", "50ms", "16s", "-1s", "1e3ms", "infs", "NaNs", "s",
        ] {
            let error = of(&[(FAST_SYNC_PERIOD, period)]).unwrap_err();
            assert!(
                error.contains(FAST_SYNC_PERIOD) && error.contains("100ms"),
                "{error}"
            );
        }
        let error = of(&[(FAST_SYNC_PERIOD, "1s"), (FAST_DIRECTION, "down")]).unwrap_err();
        assert!(
            error.contains(FAST_DIRECTION) && error.contains("up or both"),
            "{error}"
        );
    }

    #[test]
    fn only_what_the_metrics_ask_for_now_is_acted_on() {
        let decision = |replicas, reason: &str| Decision {
            rescale: Some(Rescale {
                replicas,
                reason: reason.to_owned(),
            }),
            ..Decision::default()
        };
        let path = |direction| FastPath {
            period: Some(PERIOD_MIN),
            direction,
        };
        for (direction, replicas, reason, is_allowed) in [
            (Direction::Up, 6, "pods metric rps above target", true),
            (Direction::Up, 2, "All metrics below target", false),
            (Direction::Both, 2, "All metrics below target", true),
            (Direction::Up, 6, "", false),
            (Direction::Both, 6, "", false),
        ] {
            let decision = decision(replicas, reason);
            let allowed = path(direction).allows(3, &decision).is_some();
            assert_eq!(allowed, is_allowed, "{direction:?} {replicas} {reason}");
        }
        assert!(
            path(Direction::Both)
                .allows(3, &Decision::default())
                .is_none()
        );
    }
}
