//! Whether a load repeats each day or each week. Refuses to see a period that does not stand out clearly.

const DAY_SECONDS: i64 = 86_400;
/// A period counts only when the load is at least this much like itself one period ago.
const STRENGTH_MIN: f64 = 0.3;
/// And by this much more than a quarter of a day earlier and later.
const PROMINENCE_MIN: f64 = 0.15;
/// A week is preferred to a day when it explains this much more.
const WEEK_GAIN_MIN: f64 = 0.02;
/// So many whole periods must have been seen.
const PERIODS_MIN: usize = 2;

/// How long a period is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeriodLength {
    /// 24 hours.
    Day,
    /// Seven days.
    Week,
}

impl PeriodLength {
    /// Its length.
    pub fn seconds(self) -> i64 {
        match self {
            PeriodLength::Day => DAY_SECONDS,
            PeriodLength::Week => 7 * DAY_SECONDS,
        }
    }

    /// Its name, as the status shows it.
    pub fn name(self) -> &'static str {
        match self {
            PeriodLength::Day => "Day",
            PeriodLength::Week => "Week",
        }
    }

    /// From how many earlier periods a forecast is made.
    pub(super) fn periods(self) -> usize {
        match self {
            PeriodLength::Day => 7,
            PeriodLength::Week => 4,
        }
    }
}

/// A period.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Season {
    /// How long it is.
    pub length: PeriodLength,
    /// In slots.
    pub slots: usize,
    /// How much the load is like itself one period ago: the autocorrelation, at most 1.
    pub strength: f64,
}

impl Season {
    /// A period that the user names; `None` when a step does not divide it or less than two periods were seen.
    pub fn named(values: &[Option<f64>], step_seconds: i64, length: PeriodLength) -> Option<Self> {
        let slots = slots(length, step_seconds)?;
        (values.len() >= PERIODS_MIN * slots).then(|| Season {
            length,
            slots,
            strength: autocorrelation(values, slots).unwrap_or(0.0),
        })
    }
}

fn slots(length: PeriodLength, step_seconds: i64) -> Option<usize> {
    let is_whole = step_seconds > 0 && length.seconds() % step_seconds == 0;
    usize::try_from(length.seconds() / step_seconds)
        .ok()
        .filter(|slots| is_whole && *slots >= 4)
}

/// Looks for a period: a week where it explains more than a day, a day, or none.
pub fn detect(values: &[Option<f64>], step_seconds: i64) -> Option<Season> {
    let candidate = |length| {
        let season = Season::named(values, step_seconds, length)?;
        is_clear(values, step_seconds, &season).then_some(season)
    };
    let (day, week) = (candidate(PeriodLength::Day), candidate(PeriodLength::Week));
    match (day, week) {
        (Some(day), Some(week)) if week.strength < day.strength + WEEK_GAIN_MIN => Some(day),
        (_, Some(week)) => Some(week),
        (day, None) => day,
    }
}

/// Whether the autocorrelation has a peak there: high, and lower a quarter of a day to either side.
fn is_clear(values: &[Option<f64>], step_seconds: i64, season: &Season) -> bool {
    let Some(quarter) = slots(PeriodLength::Day, step_seconds).map(|day| day / 4) else {
        return false;
    };
    let beside = [season.slots - quarter, season.slots + quarter];
    season.strength >= STRENGTH_MIN
        && beside.iter().all(|lag| {
            autocorrelation(values, *lag)
                .is_some_and(|other| season.strength - other >= PROMINENCE_MIN)
        })
}

/// How much the load is like itself that many slots ago; pairs with a gap are left out. `None` for a constant load.
fn autocorrelation(values: &[Option<f64>], lag: usize) -> Option<f64> {
    let known: Vec<f64> = values.iter().flatten().copied().collect();
    let count = |length: usize| length as f64;
    let mean = known.iter().sum::<f64>() / count(known.len());
    let variance = known
        .iter()
        .map(|value| (value - mean).powi(2))
        .sum::<f64>()
        / count(known.len());
    let pairs: Vec<f64> = values
        .iter()
        .zip(values.get(lag..)?)
        .filter_map(|(early, late)| Some(((*early)? - mean) * ((*late)? - mean)))
        .collect();
    let is_usable = variance > f64::EPSILON * mean.abs().max(1.0) && !pairs.is_empty();
    is_usable.then(|| pairs.iter().sum::<f64>() / count(pairs.len()) / variance)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STEP: i64 = 1800;

    /// Four weeks at half an hour; `shape` gets the day and the hour of the day.
    fn load(shape: impl Fn(usize, f64) -> f64) -> Vec<Option<f64>> {
        (0..28 * 48)
            .map(|slot| Some(shape(slot / 48, (slot % 48) as f64 / 2.0)))
            .collect()
    }

    fn wave(hour: f64) -> f64 {
        100.0 + 80.0 * (hour / 24.0 * std::f64::consts::TAU).sin()
    }

    /// The same every time it runs, without any pattern.
    fn noise(slot: usize) -> f64 {
        let mixed = (slot as u64)
            .wrapping_mul(0x9E37_79B9_7F4A_7C15)
            .rotate_left(29);
        (mixed.wrapping_mul(0xBF58_476D_1CE4_E5B9) >> 40) as f64 / (1 << 24) as f64
    }

    #[test]
    fn equal_days_have_a_daily_period() {
        let season = detect(&load(|_, hour| wave(hour)), STEP).unwrap();
        assert_eq!((season.length, season.slots), (PeriodLength::Day, 48));
        assert!(season.strength > 0.9);
    }

    #[test]
    fn quiet_weekends_make_a_weekly_period() {
        let values = load(|day, hour| wave(hour) * if day % 7 < 5 { 1.0 } else { 0.4 });
        assert_eq!(detect(&values, STEP).unwrap().length, PeriodLength::Week);
    }

    #[test]
    fn noise_trends_and_constants_have_no_period() {
        let slots = |day: usize, hour: f64| day * 48 + (hour * 2.0) as usize;
        assert_eq!(
            detect(&load(|day, hour| noise(slots(day, hour))), STEP),
            None
        );
        assert_eq!(
            detect(&load(|day, hour| slots(day, hour) as f64), STEP),
            None
        );
        assert_eq!(detect(&load(|_, _| 5.0), STEP), None);
    }

    #[test]
    fn a_history_of_less_than_two_periods_shows_none() {
        let values = load(|_, hour| wave(hour));
        assert_eq!(detect(&values[..90], STEP), None);
        assert!(detect(&values[..120], STEP).is_some());
    }

    #[test]
    fn gaps_do_not_hide_a_period() {
        let mut values = load(|_, hour| wave(hour));
        for slot in (0..values.len()).filter(|slot| slot % 5 == 0) {
            values[slot] = None;
        }
        assert_eq!(detect(&values, STEP).unwrap().length, PeriodLength::Day);
    }
}
