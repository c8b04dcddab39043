//! Writes exact thousandths as Kubernetes quantities in canonical form. Reading them is [`crate::quantity`]'s.

/// The decimal suffixes with the power of ten that each stands for.
const DECIMAL_SUFFIXES: [(&str, i32); 8] = [
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
const BINARY_SUFFIXES: [&str; 6] = ["Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];

/// Writes thousandths in the canonical decimal form: `100m`, `1`, `20`, `1k`.
pub fn format_decimal(milli: i64) -> String {
    if milli == 0 {
        return "0".to_owned();
    }
    let (mut value, mut exponent) = (milli, -3);
    while value % 1000 == 0 && exponent < 18 {
        value /= 1000;
        exponent += 3;
    }
    let suffix = DECIMAL_SUFFIXES
        .iter()
        .find(|(_, power)| *power == exponent)
        .map_or("", |(suffix, _)| suffix);
    format!("{value}{suffix}")
}

/// Writes thousandths in the canonical binary form (`150Mi`); falls back to the decimal one where that would lose
/// precision or where the value is small.
pub fn format_binary(milli: i64) -> String {
    let mut value = milli / 1000;
    if milli % 1000 != 0 || (-1024 < value && value < 1024) {
        return format_decimal(milli);
    }
    let mut suffix = "";
    for next in BINARY_SUFFIXES {
        if value % 1024 != 0 {
            break;
        }
        value /= 1024;
        suffix = next;
    }
    format!("{value}{suffix}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quantity::millis;
    use proptest::prelude::*;

    #[test]
    fn values_are_written_canonically() {
        assert_eq!(format_decimal(100), "100m");
        assert_eq!(format_decimal(20_000), "20");
        assert_eq!(format_decimal(1_000_000), "1k");
        assert_eq!(format_binary(157_286_400_000), "150Mi");
        assert_eq!(format_binary(157_286_401_000), "157286401");
        assert_eq!(format_binary(500_000), "500");
        assert_eq!(format_binary(157_286_400_001), "157286400001m");
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back_the_same(milli in -1_000_000_000_000_000_i64..1_000_000_000_000_000) {
            prop_assert_eq!(millis(&format_decimal(milli)), Ok(milli));
            prop_assert_eq!(millis(&format_binary(milli)), Ok(milli));
        }
    }
}
