//! A load on a regular grid: one value a slot, or none where nothing was measured.

use jiff::Timestamp;

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

/// The load. Slots begin at multiples of the step since the epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct Grid {
    step_seconds: i64,
    first_slot: i64,
    values: Vec<Option<f64>>,
}

impl Grid {
    /// Averages the samples of each slot; values that are no number are left out, and so are slots without any.
    ///
    /// # Errors
    /// When nothing is left, or the step or the length cannot be used.
    pub fn from_samples(samples: &[Sample], step_seconds: i64) -> Result<Self, GridError> {
        if !(1..=86_400).contains(&step_seconds) {
            return Err(GridError::Step(step_seconds));
        }
        let usable = || samples.iter().filter(|sample| sample.value.is_finite());
        let slot = |sample: &Sample| sample.at.as_second().div_euclid(step_seconds);
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
        usize::try_from(at.as_second().div_euclid(self.step_seconds) - self.first_slot).ok()
    }

    /// When a slot begins.
    pub fn time_of(&self, index: usize) -> Timestamp {
        let slot = self.first_slot + i64::try_from(index).unwrap_or(0);
        Timestamp::from_second(slot * self.step_seconds).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// The same load, moved by whole weeks so that it ends in the last week before a time: the shape of an old week
    /// stands for the present one.
    #[must_use]
    pub fn moved_before(mut self, now: Timestamp) -> Self {
        const WEEK_SECONDS: i64 = 7 * 86_400;
        let end = self.time_of(self.values.len()).as_second();
        let weeks = (now.as_second() - end).div_euclid(WEEK_SECONDS);
        if weeks > 0 && WEEK_SECONDS % self.step_seconds == 0 {
            self.first_slot += weeks * WEEK_SECONDS / self.step_seconds;
        }
        self
    }
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
        assert_eq!(Grid::from_samples(&[], 60), Err(GridError::Empty));
        let far = samples(&[(0, 1.0), (10_000_000_000, 1.0)]);
        assert!(matches!(
            Grid::from_samples(&far, 60),
            Err(GridError::TooLong { .. })
        ));
        assert_eq!(Grid::from_samples(&far, 0), Err(GridError::Step(0)));
    }

    #[test]
    fn an_old_history_moves_by_whole_weeks() {
        let week = 7 * 86_400;
        let grid = Grid::from_samples(&samples(&[(600, 1.0), (1200, 2.0)]), 600).unwrap();
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
}
