//! A recorded demand curve, replayed: one day of it, squeezed into minutes, as a number of active devices, and which of
//! them report in which second. Plain functions; whoever replays brings the clock.

/// Most points of one day.
const MAX_POINTS: usize = 86_400;
const DAY_SECONDS: f64 = 86_400.0;

/// One day of demand.
#[derive(Clone, Debug, PartialEq)]
pub struct Curve {
    /// Second of the day and demand there, in order of time.
    points: Vec<(f64, f64)>,
    highest: f64,
}

/// Why a file is no curve.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CurveError {
    /// A line of another form.
    #[error("line {line} is not \"YYYY-MM-DD HH:MM:SS,number\"")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// Nothing of that day.
    #[error("there are fewer than two points of {day}")]
    Day {
        /// The day wanted.
        day: String,
    },
    /// No demand at all, or too many points.
    #[error("the curve needs a demand above 0 and at most {MAX_POINTS} points a day")]
    Flat,
}

impl Curve {
    /// Reads one day (`2014-10-30`) of a file with the columns `timestamp,value`.
    pub fn parse(text: &str, day: &str) -> Result<Self, CurveError> {
        let mut points = Vec::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') || number == 0 && line == "timestamp,value"
            {
                continue;
            }
            let wrong = CurveError::Line { line: number + 1 };
            let (date, second, value) = point(line).ok_or(wrong)?;
            if date == day {
                points.push((second, value));
            }
        }
        points.sort_by(|one, other| one.0.total_cmp(&other.0));
        let highest = points.iter().map(|(_, value)| *value).fold(0.0, f64::max);
        if points.len() < 2 {
            return Err(CurveError::Day {
                day: day.to_owned(),
            });
        }
        if highest <= 0.0 || points.len() > MAX_POINTS {
            return Err(CurveError::Flat);
        }
        Ok(Self { points, highest })
    }

    /// Demand at a share of the day (0 to 1), as a share of the day's highest; straight lines between points.
    pub fn at(&self, share_of_day: f64) -> f64 {
        let second = share_of_day.clamp(0.0, 1.0) * DAY_SECONDS;
        let after = self.points.partition_point(|(at, _)| *at <= second);
        let value = match (
            after.checked_sub(1).map(|before| self.points[before]),
            self.points.get(after),
        ) {
            (Some((from, low)), Some((to, high))) => {
                low + (high - low) * (second - from) / (to - from)
            }
            (Some((_, last)), None) => last,
            (None, first) => first.map_or(0.0, |(_, value)| *value),
        };
        value / self.highest
    }
}

fn point(line: &str) -> Option<(&str, f64, f64)> {
    let (timestamp, value) = line.split_once(',')?;
    let (date, time) = timestamp.split_once(' ')?;
    let mut parts = time.split(':').map(|part| part.parse::<u32>().ok());
    let (hours, minutes, seconds) = (parts.next()??, parts.next()??, parts.next()??);
    let value: f64 = value.trim().parse().ok()?;
    let fits = hours < 24 && minutes < 60 && seconds < 60 && value.is_finite() && value >= 0.0;
    fits.then(|| {
        (
            date,
            f64::from(hours * 3_600 + minutes * 60 + seconds),
            value,
        )
    })
}

/// The devices out of `active` that report in this second, when each reports once in `period_seconds`.
pub fn reporting(active: u32, second: u64, period_seconds: u32) -> impl Iterator<Item = u32> {
    let period = period_seconds.max(1);
    let first = u32::try_from(second % u64::from(period)).unwrap_or_default();
    (first..active).step_by(usize::try_from(period).unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    const FILE: &str = "timestamp,value\n2014-07-01 00:00:00,50\n2014-07-01 12:00:00,200\n2014-07-02 00:00:00,7\n2014-07-02 12:00:00,7\n";

    #[test]
    fn demand_is_a_share_of_the_day_s_highest() {
        let curve = Curve::parse(FILE, "2014-07-01").unwrap();
        assert_eq!(
            (curve.at(0.0), curve.at(0.25), curve.at(0.5), curve.at(1.0)),
            (0.25, 0.625, 1.0, 1.0)
        );
    }

    #[test]
    fn what_is_no_curve_is_told() {
        let error = |text: &str, day: &str| Curve::parse(text, day).unwrap_err();
        assert_eq!(error("x", "2014-07-01"), CurveError::Line { line: 1 });
        assert_eq!(
            error("2014-07-01 25:00:00,1", "2014-07-01"),
            CurveError::Line { line: 1 }
        );
        assert_eq!(
            error(FILE, "2014-07-03"),
            CurveError::Day {
                day: "2014-07-03".to_owned()
            }
        );
        let flat = "2014-07-01 00:00:00,0\n2014-07-01 01:00:00,0";
        assert_eq!(error(flat, "2014-07-01"), CurveError::Flat);
    }

    proptest! {
        #[test]
        fn within_one_period_every_device_reports_once(active in 0u32..500, period in 1u32..30, start in 0u64..1_000) {
            let mut seen = BTreeSet::new();
            for second in start..start + u64::from(period) {
                for device in reporting(active, second, period) {
                    prop_assert!(seen.insert(device), "{} reports twice", device);
                }
            }
            prop_assert_eq!(seen.len(), usize::try_from(active).unwrap());
        }

        #[test]
        fn demand_stays_between_nothing_and_the_highest(share in -1.0f64..2.0) {
            let curve = Curve::parse(FILE, "2014-07-01").unwrap();
            prop_assert!((0.0..=1.0).contains(&curve.at(share)));
        }
    }
}
