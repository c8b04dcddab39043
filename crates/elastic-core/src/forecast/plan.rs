//! How many replicas a load will need by the time a new replica serves.

use jiff::Timestamp;

use super::declared::DeclaredTime;
use super::error::ErrorMeasure;
use super::grid::Grid;
use super::kind::PeriodChoice;
use super::model::Model;
use super::season::{PeriodLength, Season, detect};

/// How long the autoscaler takes to see a metric and act on it.
const SYNC_SECONDS: i64 = 15;
/// Quantiles that are always told.
const QUANTILES: [f64; 4] = [0.5, 0.9, 0.95, 0.99];

/// What is wanted.
#[derive(Clone, Debug)]
pub struct Policy {
    /// The probability that the replicas suffice, between 0 and 1.
    pub probability: f64,
    /// How long a new replica takes until it serves.
    pub startup_seconds: i64,
    /// What one replica carries.
    pub capacity_per_replica: f64,
    /// The period, or that it is to be found.
    pub period: PeriodChoice,
    /// The forecast asks for at least these.
    pub min_replicas: Option<i32>,
    /// The forecast asks for at most these.
    pub max_replicas: Option<i32>,
    /// Times that are known to be different.
    pub bounds: Vec<DeclaredTime>,
}

/// What is known.
#[derive(Clone, Copy, Debug)]
pub struct State<'a> {
    /// The load so far.
    pub history: &'a Grid,
    /// The replicas that there are.
    pub current_replicas: Option<i32>,
}

/// Whether there is a forecast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There is.
    Forecast,
    /// The load shows no clear period, or too little of it was seen.
    NoPeriod,
    /// The slots that are to come were never measured.
    Unseen,
}

/// A quantile of the forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantileValue {
    /// The probability.
    pub probability: f64,
    /// The load that is not exceeded with it.
    pub value: f64,
}

/// What is to come.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Whether there is a forecast.
    pub verdict: Verdict,
    /// The period.
    pub season: Option<Season>,
    /// The highest load until a replica that starts now would serve.
    pub values: Vec<QuantileValue>,
    /// The replicas that the forecast asks for.
    pub replicas: Option<i32>,
    /// The replicas that there would be: never less than there are.
    pub would_be: Option<i32>,
    /// How far the forecasts of the last week were off.
    pub errors: ErrorMeasure,
    /// And how far repeating the last period was off.
    pub naive_errors: ErrorMeasure,
}

/// How many slots must be forecast to cover the start of a replica.
pub fn horizon_slots(history: &Grid, startup_seconds: i64) -> usize {
    history.slots_in(startup_seconds + SYNC_SECONDS)
}

/// Decides. Only slots that are over count as known.
pub fn plan(state: State<'_>, policy: &Policy, now: Timestamp) -> Plan {
    let history = state.history;
    let slot = history.index_of(now).unwrap_or(0);
    let known = &history.values()[..slot.min(history.values().len())];
    let season = season(known, history.step_seconds(), policy.period);
    let mut plan = Plan {
        verdict: Verdict::NoPeriod,
        season,
        values: Vec::new(),
        replicas: None,
        would_be: None,
        errors: ErrorMeasure::default(),
        naive_errors: ErrorMeasure::default(),
    };
    if let Some(season) = season {
        let ahead = horizon_slots(history, policy.startup_seconds);
        let model = Model::fit(known, history.step_seconds(), season, ahead);
        plan.errors = model.errors();
        plan.naive_errors = model.naive_errors();
        let highest = highest(&model, known, slot..slot + ahead + 1);
        plan.verdict = if highest.is_some() {
            Verdict::Forecast
        } else {
            Verdict::Unseen
        };
        if let Some(highest) = highest {
            plan.values = QUANTILES
                .iter()
                .map(|probability| QuantileValue {
                    probability: *probability,
                    value: model.quantile(highest, *probability),
                })
                .collect();
            let value = model.quantile(highest, policy.probability);
            plan.replicas = Some(replicas_for(value, policy.capacity_per_replica));
        }
    }
    plan.replicas = bounded(plan.replicas, policy, now);
    plan.would_be = match (state.current_replicas, plan.replicas) {
        (Some(current), Some(wanted)) => Some(current.max(wanted)),
        (current, wanted) => current.or(wanted),
    };
    plan
}

/// The period to use.
pub(super) fn season(
    known: &[Option<f64>],
    step_seconds: i64,
    choice: PeriodChoice,
) -> Option<Season> {
    match choice {
        PeriodChoice::Auto => detect(known, step_seconds),
        PeriodChoice::Day => Season::named(known, step_seconds, PeriodLength::Day),
        PeriodChoice::Week => Season::named(known, step_seconds, PeriodLength::Week),
    }
}

/// The highest forecast among some slots.
pub(super) fn highest(
    model: &Model,
    known: &[Option<f64>],
    mut slots: std::ops::Range<usize>,
) -> Option<f64> {
    let first = model.forecast(known, slots.next()?);
    let rest = slots.filter_map(|slot| model.forecast(known, slot));
    first.into_iter().chain(rest).reduce(f64::max)
}

/// How many replicas carry a load.
pub(super) fn replicas_for(load: f64, capacity_per_replica: f64) -> i32 {
    let wanted = (load / capacity_per_replica).ceil();
    if wanted.is_finite() {
        wanted.clamp(0.0, f64::from(i32::MAX)) as i32
    } else {
        0
    }
}

fn bounded(replicas: Option<i32>, policy: &Policy, now: Timestamp) -> Option<i32> {
    let ahead = jiff::SignedDuration::from_secs(policy.startup_seconds + SYNC_SECONDS);
    // A window that opens while a replica would still be starting counts already.
    let mut windows = policy.bounds.iter();
    let window = windows.find(|window| window.holds(now, ahead));
    let Some(window) = window else {
        let least = policy.min_replicas.unwrap_or(0);
        return replicas.map(|wanted| {
            wanted
                .max(least)
                .min(policy.max_replicas.unwrap_or(i32::MAX))
        });
    };
    let most = window
        .max_replicas
        .or(policy.max_replicas)
        .unwrap_or(i32::MAX);
    let least = window.min_replicas.or(policy.min_replicas);
    match (replicas, least) {
        (None, None) => None,
        (wanted, least) => Some(wanted.unwrap_or(0).max(least.unwrap_or(0)).min(most)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forecast::grid::Sample;
    use crate::forecast::kind::Window;

    const UTC: jiff::tz::TimeZone = jiff::tz::TimeZone::UTC;
    const HOUR: i64 = 3600;
    const NOW: i64 = 14 * 24 * HOUR;

    /// Two weeks of days that rise at eight and fall at twenty.
    fn history() -> Grid {
        let sample = |hour: i64| Sample {
            at: Timestamp::from_second(hour * HOUR).unwrap(),
            value: if (8..20).contains(&(hour % 24)) {
                1000.0
            } else {
                100.0
            },
        };
        Grid::from_samples(&(0..14 * 24).map(sample).collect::<Vec<_>>(), HOUR, &UTC).unwrap()
    }

    fn policy() -> Policy {
        Policy {
            probability: 0.95,
            startup_seconds: 120,
            capacity_per_replica: 300.0,
            period: PeriodChoice::Auto,
            min_replicas: None,
            max_replicas: None,
            bounds: Vec::new(),
        }
    }

    fn decide(policy: &Policy, second: i64, current: i32) -> Plan {
        let state = State {
            history: &history(),
            current_replicas: Some(current),
        };
        plan(state, policy, Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn the_rise_is_prepared_before_it_comes() {
        let night = decide(&policy(), NOW + 3 * HOUR, 1);
        assert_eq!(
            (night.verdict, night.replicas, night.would_be),
            (Verdict::Forecast, Some(1), Some(1))
        );
        let before = decide(&policy(), NOW + 7 * HOUR + 3590, 1);
        assert_eq!((before.replicas, before.would_be), (Some(4), Some(4)));
        assert_eq!(before.errors.wape(), Some(0.0));
    }

    #[test]
    fn a_forecast_never_shrinks_what_is_there() {
        let night = decide(&policy(), NOW + 3 * HOUR, 9);
        assert_eq!((night.replicas, night.would_be), (Some(1), Some(9)));
    }

    #[test]
    fn a_load_without_a_period_is_left_alone() {
        let flat = Grid::from_samples(
            &(0..400)
                .map(|hour| Sample {
                    at: Timestamp::from_second(hour * HOUR).unwrap(),
                    value: 5.0,
                })
                .collect::<Vec<_>>(),
            HOUR,
            &UTC,
        )
        .unwrap();
        let state = State {
            history: &flat,
            current_replicas: Some(2),
        };
        let found = plan(
            state,
            &policy(),
            Timestamp::from_second(400 * HOUR).unwrap(),
        );
        assert_eq!(
            (found.verdict, found.replicas, found.would_be),
            (Verdict::NoPeriod, None, Some(2))
        );
    }

    #[test]
    fn declared_windows_count_instead_of_the_ordinary_bounds() {
        let time = |second: i64| {
            Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(
                Timestamp::from_second(second).unwrap(),
            ))
        };
        let window = |min_replicas, max_replicas| {
            let window = Window {
                start_time: time(NOW + 4 * HOUR),
                end_time: time(NOW + 10 * HOUR),
                min_replicas,
                max_replicas,
                ..Window::default()
            };
            DeclaredTime::read(&window, "UTC").unwrap()
        };
        let mut policy = policy();
        policy.max_replicas = Some(3);
        assert_eq!(decide(&policy, NOW + 9 * HOUR, 0).replicas, Some(3));
        policy.bounds = vec![window(Some(6), Some(8))];
        // It opens in two minutes: replicas are to serve by then.
        assert_eq!(decide(&policy, NOW + 4 * HOUR - 120, 0).replicas, Some(6));
        assert_eq!(decide(&policy, NOW + 4 * HOUR - 200, 0).replicas, Some(1));
        assert_eq!(decide(&policy, NOW + 9 * HOUR, 0).replicas, Some(6));
        policy.bounds = vec![window(None, Some(2))];
        assert_eq!(decide(&policy, NOW + 9 * HOUR, 0).replicas, Some(2));
        assert_eq!(decide(&policy, NOW + 10 * HOUR, 0).replicas, Some(3));
    }

    proptest! {
        #[test]
        fn there_is_never_less_than_now_and_more_certainty_never_asks_for_less(
            second in NOW..NOW + 7 * 24 * HOUR, current in 0..50, sure in 0.5..0.99_f64,
        ) {
            let less = Policy { probability: 0.5, ..policy() };
            let more = Policy { probability: sure, ..policy() };
            let (less, more) = (decide(&less, second, current), decide(&more, second, current));
            prop_assert!(more.would_be >= Some(current));
            prop_assert!(more.replicas >= less.replicas);
        }
    }
}
