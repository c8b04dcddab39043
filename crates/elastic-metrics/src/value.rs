//! Numbers of Prometheus as quantities of Kubernetes, in thousandths.
//!
//! What is not a number, or does not fit, is refused: an autoscaler must never take it for a zero.

/// A sample that cannot be a quantity.
#[derive(Clone, Copy, Debug, PartialEq, thiserror::Error)]
pub enum ValueError {
    /// NaN or an infinity, such as a division by zero gives.
    #[error("the value is {0}, not a number")]
    NotANumber(f64),
    /// Beyond what a quantity in thousandths holds.
    #[error("the value {0} is beyond the range of quantities")]
    OutOfRange(f64),
}

/// Thousandths, rounded; what is not zero does not become zero.
pub fn millis(value: f64) -> Result<i64, ValueError> {
    /// Below this every thousandth of an `i64` is meant exactly.
    const LIMIT: f64 = 9.2e18;
    if !value.is_finite() {
        return Err(ValueError::NotANumber(value));
    }
    let scaled = value * 1_000.0;
    if scaled.abs() >= LIMIT {
        return Err(ValueError::OutOfRange(value));
    }
    let rounded = scaled.round();
    if rounded == 0.0 && value != 0.0 {
        return Ok(if value > 0.0 { 1 } else { -1 });
    }
    Ok(rounded as i64)
}

/// Thousandths, written canonically: `1500m`, `2`, `3k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quantity(pub(crate) i64);

impl std::fmt::Display for Quantity {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        const SUFFIXES: [&str; 8] = ["m", "", "k", "M", "G", "T", "P", "E"];
        let (mut number, mut power) = (self.0, 0);
        if number == 0 {
            return out.write_str("0");
        }
        while number % 1_000 == 0 && power + 1 < SUFFIXES.len() {
            number /= 1_000;
            power += 1;
        }
        write!(out, "{number}{}", SUFFIXES[power])
    }
}

impl serde::Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The same as a text.
pub fn quantity(millis: i64) -> String {
    Quantity(millis).to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quantities_are_written_canonically() {
        let cases = [
            (0.0, "0"),
            (1.5, "1500m"),
            (2721.0, "2721"),
            (3000.0, "3k"),
            (0.1 + 0.2, "300m"),
            (0.0001, "1m"),
            (-2.0, "-2"),
            (1e9, "1G"),
            (12_345_000.0, "12345k"),
        ];
        for (value, text) in cases {
            assert_eq!(quantity(millis(value).unwrap()), text, "{value}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        assert!(matches!(millis(f64::NAN), Err(ValueError::NotANumber(_))));
        assert!(millis(f64::INFINITY).is_err());
        assert_eq!(millis(1e17), Err(ValueError::OutOfRange(1e17)));
    }

    proptest! {
        #[test]
        fn every_quantity_reads_back(value in any::<i64>()) {
            prop_assert_eq!(elastic_core::quantity::nanos(&quantity(value)).unwrap(), i128::from(value) * 1_000_000);
        }
    }
}
