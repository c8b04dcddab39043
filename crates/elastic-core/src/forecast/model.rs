//! The forecast itself: the middle of the same slot in earlier periods, times how much higher or lower the load has been
//! lately, with a band from how far such forecasts were off.

use super::error::ErrorMeasure;
use super::season::Season;

/// The load of the last two hours, or of so many slots, says how high it is at present.
const RECENT_SECONDS: i64 = 7200;
const RECENT_SLOTS_MIN: usize = 4;
/// How far the present may lift or lower the shape.
const LEVEL_MIN: f64 = 0.5;
const LEVEL_MAX: f64 = 2.0;
/// Errors of the last week make the band.
const RESIDUALS_SECONDS: i64 = 7 * 86_400;
/// Below this share of the mean a forecast is too small to divide by.
const SMALL: f64 = 0.05;

/// A forecast of one load.
#[derive(Clone, Debug, PartialEq)]
pub struct Model {
    season: Season,
    recent_slots: usize,
    /// What happened divided by what was forecast, in order of size.
    ratios: Vec<f64>,
    errors: ErrorMeasure,
    naive_errors: ErrorMeasure,
}

impl Model {
    /// Learns from what is known, for forecasts that many slots ahead.
    pub fn fit(known: &[Option<f64>], step_seconds: i64, season: Season, lead: usize) -> Self {
        let whole = |seconds: i64| usize::try_from(seconds / step_seconds.max(1)).unwrap_or(0);
        let mut model = Model {
            season,
            recent_slots: whole(RECENT_SECONDS).max(RECENT_SLOTS_MIN),
            ratios: Vec::new(),
            errors: ErrorMeasure::default(),
            naive_errors: ErrorMeasure::default(),
        };
        let margin = model.recent_slots + lead;
        let first = known
            .len()
            .saturating_sub(whole(RESIDUALS_SECONDS))
            .max(season.slots + margin);
        if first >= known.len() {
            return model;
        }
        // The shape is needed for each slot and again for the level of the slots after it.
        let shape: Vec<Option<f64>> = (first - margin..known.len())
            .map(|slot| model.shape(&known[..slot], slot))
            .collect();
        let values: Vec<f64> = known.iter().flatten().copied().collect();
        let small = SMALL * values.iter().sum::<f64>() / values.len().max(1) as f64;
        for slot in first..known.len() {
            let offset = slot - (first - margin);
            let Some((actual, shape_here)) = known[slot].zip(shape[offset]) else {
                continue;
            };
            let before = offset - lead - model.recent_slots..offset - lead;
            let until = slot - lead;
            let recent = known[until - model.recent_slots..until]
                .iter()
                .zip(&shape[before]);
            let forecast = shape_here * level(recent);
            model.errors.add(forecast, actual);
            if let Some(naive) = known[slot - season.slots] {
                model.naive_errors.add(naive, actual);
            }
            if forecast > small {
                model.ratios.push(actual / forecast);
            }
        }
        model.ratios.sort_by(f64::total_cmp);
        model
    }

    /// The period it uses.
    pub fn season(&self) -> Season {
        self.season
    }

    /// How far its forecasts of the last week were off.
    pub fn errors(&self) -> ErrorMeasure {
        self.errors
    }

    /// How far repeating the last period would have been off.
    pub fn naive_errors(&self) -> ErrorMeasure {
        self.naive_errors
    }

    /// The forecast of a slot behind the known ones; `None` when no earlier period shows that slot.
    pub fn forecast(&self, known: &[Option<f64>], slot: usize) -> Option<f64> {
        Some(self.shape(known, slot)? * self.level_now(known, slot.min(known.len())))
    }

    /// What the load stays below with that probability, between 0 and 1.
    pub fn quantile(&self, forecast: f64, probability: f64) -> f64 {
        forecast * quantile(&self.ratios, probability).unwrap_or(1.0)
    }

    /// The middle of the same slot in the last periods that show it.
    fn shape(&self, known: &[Option<f64>], slot: usize) -> Option<f64> {
        let mut earlier: Vec<f64> = (1..)
            .map_while(|periods: usize| slot.checked_sub(periods * self.season.slots))
            .filter_map(|index| *known.get(index)?)
            .take(self.season.length.periods())
            .collect();
        earlier.sort_by(f64::total_cmp);
        quantile(&earlier, 0.5)
    }

    fn level_now(&self, known: &[Option<f64>], until: usize) -> f64 {
        let recent = until.saturating_sub(self.recent_slots)..until;
        let shape: Vec<Option<f64>> = recent
            .clone()
            .map(|slot| self.shape(&known[..slot], slot))
            .collect();
        level(known[recent].iter().zip(&shape))
    }
}

/// How high the load is compared with its shape; 1 where nothing is known.
fn level<'a>(pairs: impl Iterator<Item = (&'a Option<f64>, &'a Option<f64>)>) -> f64 {
    let (mut actual, mut expected) = (0.0, 0.0);
    for (value, shape) in pairs {
        if let (Some(value), Some(shape)) = (value, shape) {
            actual += value;
            expected += shape;
        }
    }
    if expected > 0.0 {
        (actual / expected).clamp(LEVEL_MIN, LEVEL_MAX)
    } else {
        1.0
    }
}

/// A quantile of sorted values, between neighbours in proportion.
pub(super) fn quantile(sorted: &[f64], probability: f64) -> Option<f64> {
    let last = sorted.len().checked_sub(1)?;
    let place = probability.clamp(0.0, 1.0) * last as f64;
    let below = place.floor();
    let (low, high) = (
        sorted[below as usize],
        sorted[(below as usize + 1).min(last)],
    );
    Some(low + (high - low) * (place - below))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::forecast::season::{PeriodLength, detect};

    const STEP: i64 = 3600;

    fn days(count: usize, value: impl Fn(usize, usize) -> f64) -> Vec<Option<f64>> {
        (0..count * 24)
            .map(|slot| Some(value(slot / 24, slot % 24)))
            .collect()
    }

    fn shape(hour: usize) -> f64 {
        10.0 + (hour as f64 - 12.0).abs()
    }

    fn daily(known: &[Option<f64>]) -> Model {
        let season = Season::named(known, STEP, PeriodLength::Day).unwrap();
        Model::fit(known, STEP, season, 1)
    }

    #[test]
    fn a_repeating_load_is_forecast_without_error() {
        let known = days(10, |_, hour| shape(hour));
        let model = daily(&known);
        for ahead in 0..24 {
            assert_eq!(model.forecast(&known, 240 + ahead), Some(shape(ahead % 24)));
        }
        assert_eq!(model.errors().wape(), Some(0.0));
        assert_eq!(model.quantile(10.0, 0.95), 10.0);
        assert_eq!(detect(&known, STEP).unwrap().length, PeriodLength::Day);
    }

    #[test]
    fn a_higher_day_lifts_the_forecast_but_not_without_bound() {
        let lifted = |factor: f64| {
            let mut known = days(10, |_, hour| shape(hour));
            for value in known.iter_mut().skip(9 * 24) {
                *value = value.map(|value| value * factor);
            }
            daily(&known).forecast(&known, 240).unwrap() / shape(0)
        };
        assert!((lifted(1.5) - 1.5).abs() < 1e-9);
        assert_eq!(lifted(9.0), LEVEL_MAX);
        assert_eq!(lifted(0.01), LEVEL_MIN);
    }

    #[test]
    fn one_odd_day_does_not_move_the_shape() {
        let known = days(10, |day, hour| if day == 6 { 1000.0 } else { shape(hour) });
        let forecast = daily(&known).forecast(&known, 240).unwrap();
        assert_eq!(forecast, shape(0));
    }

    #[test]
    fn quantiles_come_from_how_far_forecasts_were_off() {
        let known = days(20, |day, hour| {
            shape(hour) * (1.0 + 0.02 * ((day * 7 + hour) % 11) as f64)
        });
        let model = daily(&known);
        let (half, most) = (model.quantile(100.0, 0.5), model.quantile(100.0, 0.95));
        assert!(half < most && most < 130.0, "{half} {most}");
    }

    #[test]
    fn a_slot_that_was_never_seen_has_no_forecast() {
        let mut known = days(3, |_, hour| shape(hour));
        for day in 0..3 {
            known[day * 24 + 5] = None;
        }
        assert_eq!(daily(&known).forecast(&known, 3 * 24 + 5), None);
    }

    proptest! {
        /// Whatever the history, a forecast lies within the clamped range of what was seen in that slot.
        #[test]
        fn a_forecast_stays_near_what_was_seen(
            values in proptest::collection::vec(proptest::option::weighted(0.9, 0.0..1000.0_f64), 96..300),
            ahead in 0..24_usize,
        ) {
            let model = daily(&values);
            let slot = values.len() + ahead;
            let seen: Vec<f64> = (1..=20).filter_map(|days| *values.get(slot.checked_sub(days * 24)?)?).collect();
            match model.forecast(&values, slot) {
                None => prop_assert!(seen.is_empty()),
                Some(forecast) => {
                    let highest = seen.iter().copied().fold(0.0, f64::max);
                    prop_assert!(forecast >= 0.0 && forecast <= highest * LEVEL_MAX + 1e-9);
                    prop_assert!(model.quantile(forecast, 0.95) + 1e-9 >= model.quantile(forecast, 0.5));
                }
            }
        }
    }
}
