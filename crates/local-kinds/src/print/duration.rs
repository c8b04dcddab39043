//! Durations as people read them: two units at most, fewer the longer it is.

use jiff::SignedDuration;

const MINUTE: i64 = 60;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
const YEAR: i64 = 365 * DAY;

/// `45s`, `2m10s`, `15m`, `5h30m`, `2d4h`, `100d`, `3y20d`, as upstream's `HumanDuration`.
pub fn human(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    // A clock that runs a little ahead is no reason to show nonsense.
    if seconds < -1 {
        return "<invalid>".to_string();
    }
    if seconds < 0 {
        return "0s".to_string();
    }
    let (minutes, hours, days) = (seconds / MINUTE, seconds / HOUR, seconds / DAY);
    if seconds < 2 * MINUTE {
        format!("{seconds}s")
    } else if minutes < 10 {
        two(minutes, "m", seconds % MINUTE, "s")
    } else if minutes < 3 * 60 {
        format!("{minutes}m")
    } else if hours < 8 {
        two(hours, "h", minutes % 60, "m")
    } else if hours < 48 {
        format!("{hours}h")
    } else if hours < 24 * 8 {
        two(days, "d", hours % 24, "h")
    } else if hours < 24 * 365 * 2 {
        format!("{days}d")
    } else if hours < 24 * 365 * 8 {
        two(seconds / YEAR, "y", days % 365, "d")
    } else {
        format!("{}y", seconds / YEAR)
    }
}

fn two(big: i64, big_unit: &str, small: i64, small_unit: &str) -> String {
    if small == 0 {
        format!("{big}{big_unit}")
    } else {
        format!("{big}{big_unit}{small}{small_unit}")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_steps_are_upstreams() {
        for (seconds, shown) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (130, "2m10s"),
            (600, "10m"),
            (179 * 60 + 59, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 60, "3h1m"),
            (8 * HOUR + 60, "8h"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY, "8d"),
            (2 * YEAR, "2y"),
            (2 * YEAR + DAY, "2y1d"),
            (9 * YEAR + DAY, "9y"),
            (-5, "<invalid>"),
        ] {
            assert_eq!(human(SignedDuration::from_secs(seconds)), shown);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_never_more_and_never_off_by_more_than_its_last_unit(seconds in 0_i64..20 * YEAR) {
            let shown = human(SignedDuration::from_secs(seconds));
            let mut total = 0;
            let mut number = 0;
            let mut last = 1;
            for letter in shown.chars() {
                if let Some(digit) = letter.to_digit(10) {
                    number = number * 10 + i64::from(digit);
                    continue;
                }
                last = match letter { 's' => 1, 'm' => MINUTE, 'h' => HOUR, 'd' => DAY, _ => YEAR };
                total += number * last;
                number = 0;
            }
            // A whole big unit leaves its small one out.
            prop_assert!(total <= seconds && seconds < total + last, "{seconds} as {shown}");
        }
    }
}
