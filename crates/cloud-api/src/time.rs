//! Times as the interface writes them: RFC 3339 in UTC, whole seconds, ending in `Z`.

use jiff::Timestamp;

/// Writes a time, cutting off the fraction of the second.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// Reads a time; `None` when the text is none (also when it is empty, which stands for "not yet").
pub fn parse(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_seconds_come_back_and_fractions_are_cut() {
        let time: Timestamp = "2024-01-02T03:04:05.987Z".parse().unwrap();
        assert_eq!(format(time), "2024-01-02T03:04:05Z");
        assert_eq!(
            parse("2024-01-02T03:04:05Z").unwrap().as_second(),
            time.as_second()
        );
        assert_eq!(parse(""), None);
    }
}
