//! Kubernetes quantities (`100m`, `1.5Gi`, `2e3`) as exact integers.
//!
//! Values are held in billionths; a value beyond the range or not a quantity is refused, never rounded silently to zero.

/// Billionths per unit.
const NANOS: i128 = 1_000_000_000;
/// Longest text that is looked at.
const MAX_LENGTH: usize = 64;

/// Text that is not a quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity, expected a number with a suffix such as m, k, Mi or Gi")]
pub struct QuantityError(pub String);

/// The value in billionths, rounded up when finer than that.
pub fn nanos(text: &str) -> Result<i128, QuantityError> {
    parse(text).ok_or_else(|| QuantityError(text.chars().take(MAX_LENGTH).collect()))
}

/// The value in thousandths, rounded up.
pub fn millis(text: &str) -> Result<i64, QuantityError> {
    narrow(text, NANOS / 1_000)
}

/// The value in whole units, rounded up; what memory is counted in.
pub fn units(text: &str) -> Result<i64, QuantityError> {
    narrow(text, NANOS)
}

fn narrow(text: &str, divisor: i128) -> Result<i64, QuantityError> {
    let value = nanos(text)?;
    let rounded = value.div_euclid(divisor) + i128::from(value.rem_euclid(divisor) != 0);
    i64::try_from(rounded).map_err(|_| QuantityError(text.to_owned()))
}

fn parse(text: &str) -> Option<i128> {
    if text.len() > MAX_LENGTH || !text.is_ascii() {
        return None;
    }
    let (negative, rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    let end = rest
        .find(|character: char| !character.is_ascii_digit() && character != '.')
        .unwrap_or(rest.len());
    let (number, suffix) = rest.split_at(end);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let (multiplier, divisor) = scale(suffix)?;
    let digits: i128 = format!("0{whole}{fraction}").parse().ok()?;
    let below = 10i128
        .checked_pow(u32::try_from(fraction.len()).ok()?)?
        .checked_mul(divisor)?;
    let above = digits.checked_mul(NANOS)?.checked_mul(multiplier)?;
    let value = above / below + i128::from(above % below != 0);
    Some(if negative { -value } else { value })
}

/// Multiplier and divisor of a suffix.
fn scale(suffix: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1i128 << (10 * power), 1));
    let decimal = |power: u32| Some((10i128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1_000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10i128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_suffix_is_read_exactly() {
        assert_eq!(millis("100m"), Ok(100));
        assert_eq!(millis("1.5"), Ok(1_500));
        assert_eq!(millis("0.0001"), Ok(1));
        assert_eq!(millis("250000u"), Ok(250));
        assert_eq!(units("1.5Gi"), Ok(1_610_612_736));
        assert_eq!(units("2e3"), Ok(2_000));
        assert_eq!(units("1E"), Ok(1_000_000_000_000_000_000));
        assert_eq!(units("512M"), Ok(512_000_000));
        assert_eq!(units("-1Ki"), Ok(-1_024));
        assert_eq!(nanos("3n"), Ok(3));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "-",
            ".",
            "Gi",
            "1.2.3",
            "1GiB",
            "1 Gi",
            "١",
            "1e99999",
            "9999999999999999999E",
        ] {
            assert!(nanos(text).is_err() || units(text).is_err(), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _ = nanos(&text);
            let _ = millis(&text);
        }

        #[test]
        fn thousandths_survive(value in 0i64..1_000_000_000) {
            prop_assert_eq!(millis(&format!("{value}m")), Ok(value));
            prop_assert_eq!(millis(&format!("{}.{:03}", value / 1000, value % 1000)), Ok(value));
        }
    }
}
