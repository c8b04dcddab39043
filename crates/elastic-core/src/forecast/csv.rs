//! A history as text: one line a measurement, `timestamp,value`, with or without a heading. Refuses everything else by
//! its line.

use jiff::Timestamp;
use jiff::civil::DateTime;

use super::grid::Sample;

/// Text that is no history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CsvError {
    /// A line that cannot be read.
    #[error("line {line} is no `timestamp,value`: {reason}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// No line holds a measurement.
    #[error("there is no line `timestamp,value`")]
    Empty,
}

/// Reads a history. Times are RFC 3339, seconds since the epoch, or `2014-07-01 00:30:00` without a zone, which is
/// taken as UTC. The samples come back in the order of their times.
///
/// # Errors
/// Names the first line that cannot be read.
pub fn parse_csv(text: &str) -> Result<Vec<Sample>, CsvError> {
    let mut samples = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok(sample) => samples.push(sample),
            // The first line may be a heading.
            Err(_) if index == 0 && line.bytes().all(|byte| !byte.is_ascii_digit()) => {}
            Err(reason) => {
                return Err(CsvError::Line {
                    line: index + 1,
                    reason,
                });
            }
        }
    }
    if samples.is_empty() {
        return Err(CsvError::Empty);
    }
    samples.sort_by_key(|sample| sample.at);
    Ok(samples)
}

fn parse_line(line: &str) -> Result<Sample, String> {
    let (time, value) = line.split_once(',').ok_or("it has no comma")?;
    let at = parse_time(time.trim()).ok_or_else(|| format!("`{time}` is no time"))?;
    let value: f64 = value
        .trim()
        .parse()
        .map_err(|_| format!("`{value}` is no number"))?;
    Ok(Sample { at, value })
}

fn parse_time(text: &str) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    if let Ok(local) = text.parse::<DateTime>() {
        return local
            .to_zoned(jiff::tz::TimeZone::UTC)
            .ok()
            .map(|zoned| zoned.timestamp());
    }
    Timestamp::from_second(text.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_three_forms_of_time_are_read() {
        let text = "timestamp,value\n2014-07-01 00:30:00,10844\n\n# note\n1404171000,8127\n2014-07-01T00:00:00+01:00,3\n";
        let samples = parse_csv(text).unwrap();
        let seconds: Vec<i64> = samples.iter().map(|sample| sample.at.as_second()).collect();
        assert_eq!(seconds, [1_404_169_200, 1_404_171_000, 1_404_174_600]);
        assert_eq!(samples[2].value, 10844.0);
    }

    #[test]
    fn a_bad_line_is_named() {
        let error = parse_csv("timestamp,value\n2014-07-01 00:30:00,many\n").unwrap_err();
        assert_eq!(
            error.to_string(),
            "line 2 is no `timestamp,value`: `many` is no number"
        );
        assert!(parse_csv("yesterday 5").is_err());
        assert_eq!(parse_csv("time,value\n"), Err(CsvError::Empty));
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "[0-9a-z,:. \\n-]{0,80}") {
            let _ = parse_csv(&text);
        }
    }
}
