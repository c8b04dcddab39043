//! What forecasts would have been worth over a load that is known: how far they were off, and what a reactive autoscaler
//! does with and without them. Every forecast uses only what was known at its time.

use serde::Serialize;

use super::error::ErrorMeasure;
use super::grid::Grid;
use super::kind::PeriodChoice;
use super::model::Model;
use super::plan::{highest, horizon_slots, replicas_for, season};
use super::simulate::{Simulation, SimulationPolicy, simulate};

const DAY_SECONDS: i64 = 86_400;

/// What to compare.
#[derive(Clone, Copy, Debug)]
pub struct BacktestPolicy {
    /// The autoscaler and the replicas.
    pub simulation: SimulationPolicy,
    /// The probability that the replicas suffice, between 0 and 1.
    pub probability: f64,
    /// The period, or that it is to be found.
    pub period: PeriodChoice,
    /// How many days at the end are compared; the days before them are learned from first.
    pub days: i64,
}

/// Why nothing can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BacktestError {
    /// There is nothing to learn from.
    #[error(
        "the history spans {days} days; at least 3 are needed, two to learn from and one to compare"
    )]
    TooShort {
        /// So many whole days.
        days: i64,
    },
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// `Day`, `Week`, or `None` when the load shows no clear period.
    pub period: &'static str,
    /// How much the load is like itself one period ago.
    pub period_strength: Option<f64>,
    /// Days that were learned from before the first forecast.
    pub learned_days: f64,
    /// Days that were compared.
    pub compared_days: f64,
    /// Slots without a value.
    pub missing_slots: usize,
    /// Slots for which there was a forecast.
    pub forecast_slots: usize,
    /// The forecasts' weighted absolute error, as a share of the load.
    pub wape: Option<f64>,
    /// That of repeating the last period (the last day where there is none).
    pub seasonal_naive_wape: Option<f64>,
    /// The share of slots whose load stayed below the quantile.
    pub quantile_held: Option<f64>,
    /// The autoscaler alone.
    pub reactive: Outcome,
    /// The autoscaler with the forecast as a second metric.
    pub with_forecast: Outcome,
}

/// What an autoscaler came to.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Outcome {
    /// Replicas times hours.
    pub replica_hours: f64,
    /// The share of the load that found no room.
    pub unmet_share: f64,
    /// The load that found no room.
    pub unmet_demand: f64,
    /// For how long there was such a load.
    pub under_provisioned_minutes: f64,
    /// Replicas that were not needed, times minutes.
    pub over_provisioned_replica_minutes: f64,
    /// How often the number was changed.
    pub rescales: u32,
}

impl From<Simulation> for Outcome {
    fn from(result: Simulation) -> Self {
        let share = if result.demand > 0.0 {
            result.unmet_demand / result.demand
        } else {
            0.0
        };
        Outcome {
            replica_hours: result.replica_hours,
            unmet_share: share,
            unmet_demand: result.unmet_demand,
            under_provisioned_minutes: result.under_provisioned_minutes,
            over_provisioned_replica_minutes: result.over_provisioned_replica_minutes,
            rescales: result.rescales,
        }
    }
}

/// Compares.
///
/// # Errors
/// When the history is too short.
pub fn backtest(load: &Grid, policy: &BacktestPolicy) -> Result<Report, BacktestError> {
    let total = load.values().len();
    let day = load.slots_in(DAY_SECONDS);
    let total_days = i64::try_from(total / day).unwrap_or(0);
    if total_days < 3 {
        return Err(BacktestError::TooShort { days: total_days });
    }
    let compared = usize::try_from(policy.days.clamp(1, total_days - 2)).unwrap_or(1) * day;
    let first = total - compared;
    let made = forecasts(load, first, policy);
    let floor = |slot: usize| made.floors[slot - first];
    let reactive = simulate(load, first..total, None, &policy.simulation);
    let with_forecast = simulate(load, first..total, Some(&floor), &policy.simulation);
    let last_season = season(load.values(), load.step_seconds(), policy.period);
    let in_days = |slots: usize| slots as f64 / day as f64;
    let count = made.errors.count();
    Ok(Report {
        period: last_season.map_or("None", |season| season.length.name()),
        period_strength: last_season.map(|season| season.strength),
        learned_days: in_days(first),
        compared_days: in_days(compared),
        missing_slots: load.missing(),
        forecast_slots: count,
        wape: made.errors.wape(),
        seasonal_naive_wape: made.naive_errors.wape(),
        quantile_held: (count > 0).then(|| made.held as f64 / count as f64),
        reactive: reactive.into(),
        with_forecast: with_forecast.into(),
    })
}

#[derive(Default)]
struct Forecasts {
    errors: ErrorMeasure,
    naive_errors: ErrorMeasure,
    held: usize,
    /// For each compared slot, the replicas that the forecast asks for.
    floors: Vec<i32>,
}

/// Walks through the compared slots; learns anew each day.
fn forecasts(load: &Grid, first: usize, policy: &BacktestPolicy) -> Forecasts {
    let (values, step) = (load.values(), load.step_seconds());
    let day = load.slots_in(DAY_SECONDS);
    let lead = horizon_slots(load, policy.simulation.startup_seconds);
    let mut made = Forecasts::default();
    let mut model: Option<Model> = None;
    for slot in first..values.len() {
        let known = &values[..slot];
        if (slot - first).is_multiple_of(day) {
            let found = season(known, step, policy.period);
            model = found.map(|found| Model::fit(known, step, found, lead));
        }
        let Some(model) = &model else {
            made.floors.push(0);
            if let (Some(actual), Some(naive)) = (values[slot], values[slot - day]) {
                made.naive_errors.add(naive, actual);
            }
            continue;
        };
        let ahead = highest(model, known, slot..slot + lead + 1);
        let wanted = ahead.map(|ahead| model.quantile(ahead, policy.probability));
        let floor = wanted.map(|load| replicas_for(load, policy.simulation.capacity_per_replica));
        made.floors
            .push(floor.unwrap_or(0).min(policy.simulation.max_replicas));
        // What was said of this slot when a replica had to start to serve in it.
        let before = &values[..(slot + 1).saturating_sub(lead)];
        let naive = values[slot - model.season().slots];
        let said = model.forecast(before, slot);
        if let (Some(actual), Some(said), Some(naive)) = (values[slot], said, naive) {
            made.errors.add(said, actual);
            made.naive_errors.add(naive, actual);
            made.held += usize::from(actual <= model.quantile(said, policy.probability));
        }
    }
    made
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::forecast::grid::Sample;

    fn days(count: i64, value: impl Fn(i64, f64) -> f64) -> Grid {
        let sample = |slot: i64| Sample {
            at: Timestamp::from_second(slot * 1800).unwrap(),
            value: value(slot / 48, (slot % 48) as f64 / 2.0),
        };
        Grid::from_samples(
            &(0..count * 48).map(sample).collect::<Vec<_>>(),
            1800,
            &jiff::tz::TimeZone::UTC,
        )
        .unwrap()
    }

    fn policy() -> BacktestPolicy {
        BacktestPolicy {
            simulation: SimulationPolicy {
                capacity_per_replica: 100.0,
                target_percent: 80.0,
                startup_seconds: 300,
                sync_seconds: 60,
                min_replicas: 1,
                max_replicas: 100,
            },
            probability: 0.95,
            period: PeriodChoice::Auto,
            days: 3,
        }
    }

    /// Jumps each morning within minutes.
    fn jumping(hour: f64) -> f64 {
        if (8.0..20.0).contains(&hour) {
            2000.0
        } else {
            200.0
        }
    }

    #[test]
    fn a_sudden_morning_is_met_only_with_the_forecast() {
        let report = backtest(&days(10, |_, hour| jumping(hour)), &policy()).unwrap();
        assert_eq!((report.period, report.wape), ("Day", Some(0.0)));
        assert!(report.reactive.unmet_demand > 0.0, "{report:?}");
        assert!(
            report.with_forecast.unmet_demand < report.reactive.unmet_demand / 2.0,
            "{report:?}"
        );
    }

    #[test]
    fn without_a_period_the_forecast_changes_nothing() {
        let report = backtest(
            &days(10, |day, hour| 100.0 + day as f64 * 24.0 + hour),
            &policy(),
        )
        .unwrap();
        assert_eq!(
            (report.period, report.forecast_slots, report.wape),
            ("None", 0, None)
        );
        assert_eq!(report.reactive, report.with_forecast);
        assert!(report.seasonal_naive_wape.is_some());
    }

    #[test]
    fn two_days_are_too_short() {
        assert_eq!(
            backtest(&days(2, |_, hour| hour), &policy()),
            Err(BacktestError::TooShort { days: 2 })
        );
    }

    #[test]
    fn what_comes_later_changes_no_earlier_forecast() {
        let whole = days(12, |day, hour| {
            jumping(hour) * (1.0 + 0.1 * (day % 3) as f64)
        });
        let changed = days(12, |day, hour| {
            if day >= 11 {
                9.0
            } else {
                jumping(hour) * (1.0 + 0.1 * (day % 3) as f64)
            }
        });
        let first = 9 * 48;
        let (one, other) = (
            forecasts(&whole, first, &policy()),
            forecasts(&changed, first, &policy()),
        );
        assert_eq!(one.floors[..2 * 48], other.floors[..2 * 48]);
    }
}
