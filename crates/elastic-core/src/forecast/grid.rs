//! A load on a regular grid: one value a slot, or none where nothing was measured.
//!
//! Days are those of a time zone: people come at eight in the morning, summer time or not. So slots are counted by what the
//! clock on the wall shows. The hour that is skipped in spring is a gap, the one that comes twice in autumn an average.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// A year at five minutes and a bit; a longer history says nothing more.
const SLOTS_MAX: i64 = 200_000;

/// One measurement.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sample {
    /// When.
    pub at: Timestamp,
    /// How much.
    pub value: f64,
}

/// Why samples make no grid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GridError {
    /// There is nothing.
    #[error("the history holds no usable value")]
    Empty,
    /// The step is none.
    #[error("the step must be between 1 second and 1 day, it is {0} seconds")]
    Step(i64),
    /// The history is longer than can be used.
    #[error(
        "the history has {slots} steps of {step_seconds} seconds, at most {SLOTS_MAX} can be used; take a longer step"
    )]
    TooLong {
        /// So many steps.
        slots: i64,
        /// Of this length.
        step_seconds: i64,
    },
}

/// The load. Slots begin at multiples of the step since midnight by the zone's clock.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    step_seconds: i64,
    first_slot: i64,
    values: Vec<Option<f64>>,
    zone: TimeZone,
}

impl Grid {
    /// Averages the samples of each slot; values that are no number are left out, and so are slots without any.
    ///
    /// # Errors
    /// When nothing is left, or the step or the length cannot be used.
    pub fn from_samples(
        samples: &[Sample],
        step_seconds: i64,
        zone: &TimeZone,
    ) -> Result<Self, GridError> {
        if !(1..=86_400).contains(&step_seconds) {
            return Err(GridError::Step(step_seconds));
        }
        let usable = || samples.iter().filter(|sample| sample.value.is_finite());
        let slot = |sample: &Sample| wall_second(sample.at, zone).div_euclid(step_seconds);
        let first_slot = usable().map(slot).min().ok_or(GridError::Empty)?;
        let last_slot = usable().map(slot).max().ok_or(GridError::Empty)?;
        let slots = last_slot - first_slot + 1;
        if slots > SLOTS_MAX {
            return Err(GridError::TooLong {
                slots,
                step_seconds,
            });
        }
        let mut sums = vec![(0.0, 0_u32); usize::try_from(slots).unwrap_or(0)];
        for sample in usable() {
            let index = usize::try_from(slot(sample) - first_slot).unwrap_or(0);
            sums[index].0 += sample.value;
            sums[index].1 += 1;
        }
        let mean = |(sum, count): (f64, u32)| (count > 0).then(|| sum / f64::from(count));
        Ok(Grid {
            step_seconds,
            first_slot,
            values: sums.into_iter().map(mean).collect(),
            zone: zone.clone(),
        })
    }

    /// The length of a slot.
    pub fn step_seconds(&self) -> i64 {
        self.step_seconds
    }

    /// The values, oldest first.
    pub fn values(&self) -> &[Option<f64>] {
        &self.values
    }

    /// How many slots hold nothing.
    pub fn missing(&self) -> usize {
        self.values.iter().filter(|value| value.is_none()).count()
    }

    /// How many slots make up that many seconds, at least one.
    pub fn slots_in(&self, seconds: i64) -> usize {
        usize::try_from((seconds + self.step_seconds - 1) / self.step_seconds)
            .unwrap_or(1)
            .max(1)
    }

    /// The slot that a time lies in, counted from the first; it may lie behind the last. `None` before the first.
    pub fn index_of(&self, at: Timestamp) -> Option<usize> {
        let slot = wall_second(at, &self.zone).div_euclid(self.step_seconds);
        usize::try_from(slot - self.first_slot).ok()
    }

    /// When a slot begins.
    pub fn time_of(&self, index: usize) -> Timestamp {
        let slot = self.first_slot + i64::try_from(index).unwrap_or(0);
        at_wall_second(slot * self.step_seconds, &self.zone).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The same load, moved by whole weeks so that it ends in the last week before a time: the shape of an old week
    /// stands for the present one.
    #[must_use]
    pub fn moved_before(mut self, now: Timestamp) -> Self {
        const WEEK_SECONDS: i64 = 7 * 86_400;
        let slots = i64::try_from(self.values.len()).unwrap_or(0);
        let end = (self.first_slot + slots) * self.step_seconds;
        let weeks = (wall_second(now, &self.zone) - end).div_euclid(WEEK_SECONDS);
        if weeks > 0 && WEEK_SECONDS % self.step_seconds == 0 {
            self.first_slot += weeks * WEEK_SECONDS / self.step_seconds;
        }
        self
    }
}

/// Seconds from 1970 to what the clock on the wall shows.
fn wall_second(at: Timestamp, zone: &TimeZone) -> i64 {
    at.as_second() + i64::from(zone.to_offset(at).seconds())
}

/// When the clock on the wall shows it; the first time when it does so twice.
fn at_wall_second(second: i64, zone: &TimeZone) -> Option<Timestamp> {
    let wall = Timestamp::from_second(second).ok()?;
    let wall = TimeZone::UTC.to_datetime(wall);
    zone.to_ambiguous_timestamp(wall).compatible().ok()
}

/// The usual distance between two samples in a row, in seconds.
pub fn usual_step(samples: &[Sample]) -> Option<i64> {
    let mut steps: Vec<i64> = samples
        .windows(2)
        .map(|pair| pair[1].at.as_second() - pair[0].at.as_second())
        .filter(|step| *step > 0)
        .collect();
    steps.sort_unstable();
    steps.get(steps.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(points: &[(i64, f64)]) -> Vec<Sample> {
        let sample = |(second, value): &(i64, f64)| Sample {
            at: Timestamp::from_second(*second).unwrap(),
            value: *value,
        };
        points.iter().map(sample).collect()
    }

    #[test]
    fn gaps_stay_gaps_and_several_samples_are_averaged() {
        let grid = Grid::from_samples(
            &samples(&[(600, 1.0), (650, 3.0), (1300, f64::NAN), (2400, 7.0)]),
            600,
            &TimeZone::UTC,
        )
        .unwrap();
        assert_eq!(grid.values(), [Some(2.0), None, None, Some(7.0)]);
        assert_eq!(grid.missing(), 2);
        assert_eq!(
            grid.index_of(Timestamp::from_second(1300).unwrap()),
            Some(1)
        );
        assert_eq!(grid.index_of(Timestamp::from_second(10).unwrap()), None);
        assert_eq!(grid.time_of(3).as_second(), 2400);
        assert_eq!(grid.slots_in(601), 2);
    }

    #[test]
    fn what_makes_no_grid_is_refused() {
        assert_eq!(
            Grid::from_samples(&[], 60, &TimeZone::UTC),
            Err(GridError::Empty)
        );
        let far = samples(&[(0, 1.0), (10_000_000_000, 1.0)]);
        assert!(matches!(
            Grid::from_samples(&far, 60, &TimeZone::UTC),
            Err(GridError::TooLong { .. })
        ));
        assert_eq!(
            Grid::from_samples(&far, 0, &TimeZone::UTC),
            Err(GridError::Step(0))
        );
    }

    #[test]
    fn an_old_history_moves_by_whole_weeks() {
        let week = 7 * 86_400;
        let grid =
            Grid::from_samples(&samples(&[(600, 1.0), (1200, 2.0)]), 600, &TimeZone::UTC).unwrap();
        let now = Timestamp::from_second(5 * week + 900).unwrap();
        let moved = grid.clone().moved_before(now);
        assert_eq!(moved.time_of(0).as_second(), 4 * week + 600);
        let early = Timestamp::from_second(1900).unwrap();
        assert_eq!(grid.clone().moved_before(early), grid);
    }

    #[test]
    fn the_usual_step_is_the_middle_one() {
        assert_eq!(
            usual_step(&samples(&[(0, 0.0), (300, 0.0), (600, 0.0), (4000, 0.0)])),
            Some(300)
        );
        assert_eq!(usual_step(&samples(&[(0, 0.0)])), None);
    }

    #[test]
    fn days_are_those_of_the_zone_also_when_its_clocks_change() {
        // Every hour from 20 days before the change to summer time on 2026-03-29 to 5 days after it.
        let zone = crate::cron::time_zone("Europe/Berlin").unwrap();
        let change = "2026-03-29T01:00:00Z".parse::<Timestamp>().unwrap();
        let hour = |number: i64| Sample {
            at: Timestamp::from_second(change.as_second() + number * 3600).unwrap(),
            value: f64::from(
                zone.to_datetime(
                    Timestamp::from_second(change.as_second() + number * 3600).unwrap(),
                )
                .hour(),
            ),
        };
        let all: Vec<Sample> = (-20 * 24..5 * 24).map(hour).collect();
        let grid = Grid::from_samples(&all, 3600, &zone).unwrap();
        let first_hour = usize::from(zone.to_datetime(all[0].at).hour().unsigned_abs());
        for (index, value) in grid.values().iter().enumerate() {
            let shown = (index + first_hour) % 24;
            match value {
                Some(value) => assert_eq!(*value as usize, shown, "slot {index}"),
                None => assert_eq!(shown, 2, "only the hour that was skipped is a gap"),
            }
        }
        assert_eq!(grid.missing(), 1);
        for sample in &all {
            let slot = grid.index_of(sample.at).unwrap();
            assert_eq!(grid.time_of(slot), sample.at);
        }
    }

    #[test]
    fn an_hour_that_comes_twice_is_one_slot() {
        let zone = crate::cron::time_zone("Europe/Berlin").unwrap();
        let twice = samples(&[
            (
                "2026-10-25T00:30:00Z"
                    .parse::<Timestamp>()
                    .unwrap()
                    .as_second(),
                10.0,
            ),
            (
                "2026-10-25T01:30:00Z"
                    .parse::<Timestamp>()
                    .unwrap()
                    .as_second(),
                20.0,
            ),
        ]);
        let grid = Grid::from_samples(&twice, 3600, &zone).unwrap();
        assert_eq!(grid.values(), [Some(15.0)]);
    }
}
