//! Resource quantities: `100m`, `1.5Gi`, `1e3`, parsed exactly and written in upstream's canonical form.
//!
//! A quantity is kept as a whole number of nano units, which is upstream's finest scale; finer input is rounded away
//! from zero and anything above 2^63 - 1 is capped, as upstream does. It refuses floating point.

use std::cmp::Ordering;
use std::fmt;

use serde_json::Value;

/// One unit in nano units.
const NANOS: i128 = 1_000_000_000;
/// Upstream caps every quantity here.
const LARGEST: i128 = i64::MAX as i128 * NANOS;
/// Digits after the point that can still matter; the rest only rounds up.
const MEANINGFUL_DECIMALS: usize = 28;

/// How a quantity is written back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum QuantityFormat {
    /// Powers of ten with letters: `5k`, `100m`.
    DecimalSi,
    /// Powers of two with letters: `64Mi`.
    BinarySi,
    /// Powers of ten with an exponent: `5e3`.
    DecimalExponent,
}

/// Why a text is no quantity, worded as upstream words it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Not of the shape number, suffix.
    #[error(
        "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// The number has no digits.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// The suffix is none of the known ones.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: QuantityFormat,
}

impl Quantity {
    /// Nothing of anything.
    pub const ZERO: Self = Self {
        nanos: 0,
        format: QuantityFormat::DecimalSi,
    };

    /// A whole number in decimal form.
    pub fn from_integer(value: i64) -> Self {
        Self {
            nanos: i128::from(value) * NANOS,
            format: QuantityFormat::DecimalSi,
        }
    }

    /// Parses the text form.
    pub fn parse(text: &str) -> Result<Self, QuantityError> {
        let parts = Parts::split(text)?;
        let (scale, format) = suffix(parts.suffix).ok_or(QuantityError::Suffix)?;
        if parts.whole.is_empty() && parts.decimals.is_empty() {
            return Err(QuantityError::Number);
        }
        let magnitude = magnitude(parts.whole, parts.decimals, scale);
        let nanos = if parts.negative {
            -magnitude
        } else {
            magnitude
        };
        Ok(Self { nanos, format })
    }

    /// Parses a JSON string or number, as the API accepts both.
    pub fn from_value(value: &Value) -> Result<Self, QuantityError> {
        match value {
            Value::String(text) => Self::parse(text.trim()),
            Value::Number(number) => Self::parse(&number.to_string()),
            Value::Null => Ok(Self::ZERO),
            _ => Err(QuantityError::Format),
        }
    }

    /// Whole units, rounded away from zero.
    pub fn value(&self) -> i64 {
        self.scaled(NANOS)
    }

    /// Thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        self.scaled(NANOS / 1000)
    }

    /// The exact amount in nano units.
    pub fn nanos(&self) -> i128 {
        self.nanos
    }

    /// True for zero in any form.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// True when there is no fraction.
    pub fn is_integer(&self) -> bool {
        self.nanos % NANOS == 0
    }

    /// Rounded away from zero to whole thousandths, as upstream does to resource lists.
    pub fn rounded_to_milli(self) -> Self {
        Self {
            nanos: divide_away(self.nanos, NANOS / 1000) * (NANOS / 1000),
            ..self
        }
    }

    /// How it is written back.
    pub fn format(&self) -> QuantityFormat {
        self.format
    }

    fn scaled(&self, unit: i128) -> i64 {
        let value = divide_away(self.nanos, unit);
        i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl fmt::Display for Quantity {
    /// Upstream's canonical form: no fraction, the largest suffix that loses nothing.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 {
            return formatter.write_str("0");
        }
        let whole = self.nanos / NANOS;
        // Small or fractional binary amounts are shown in decimal, so that nothing is rounded.
        let binary = self.format == QuantityFormat::BinarySi
            && self.is_integer()
            && whole.unsigned_abs() >= 1024;
        if binary {
            return write_binary(formatter, whole);
        }
        let exponent = self.format == QuantityFormat::DecimalExponent;
        write_decimal(formatter, self.nanos, exponent)
    }
}

const BINARY_SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
const DECIMAL_SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];

fn write_binary(formatter: &mut fmt::Formatter<'_>, whole: i128) -> fmt::Result {
    let mut number = whole;
    let mut steps = 0;
    while number % 1024 == 0 && steps < BINARY_SUFFIXES.len() - 1 {
        number /= 1024;
        steps += 1;
    }
    write!(formatter, "{number}{}", BINARY_SUFFIXES[steps])
}

fn write_decimal(formatter: &mut fmt::Formatter<'_>, nanos: i128, exponent: bool) -> fmt::Result {
    let mut number = nanos;
    let mut steps = 0;
    while number % 1000 == 0 && steps < DECIMAL_SUFFIXES.len() - 1 {
        number /= 1000;
        steps += 1;
    }
    match exponent {
        true if steps != 3 => write!(formatter, "{number}e{}", steps as i32 * 3 - 9),
        true => write!(formatter, "{number}"),
        false => write!(formatter, "{number}{}", DECIMAL_SUFFIXES[steps]),
    }
}

/// What stands left of the number: a power of ten or of two.
#[derive(Clone, Copy)]
enum Scale {
    Ten(i32),
    Two(u32),
}

fn suffix(text: &str) -> Option<(Scale, QuantityFormat)> {
    if let Some(step) = BINARY_SUFFIXES.iter().position(|one| *one == text)
        && step > 0
    {
        return Some((Scale::Two(step as u32 * 10), QuantityFormat::BinarySi));
    }
    if let Some(step) = DECIMAL_SUFFIXES.iter().position(|one| *one == text) {
        return Some((Scale::Ten(step as i32 * 3 - 9), QuantityFormat::DecimalSi));
    }
    let digits = text.strip_prefix(['e', 'E'])?;
    let exponent: i32 = digits.parse().ok()?;
    Some((Scale::Ten(exponent), QuantityFormat::DecimalExponent))
}

/// Nano units of `whole.decimals` times the scale, rounded up and capped.
fn magnitude(whole: &str, decimals: &str, scale: Scale) -> i128 {
    let (kept, rest) = decimals.split_at(decimals.len().min(MEANINGFUL_DECIMALS));
    let sticky = rest.bytes().any(|byte| byte != b'0');
    let digits = format!("{whole}{kept}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return i128::from(sticky);
    }
    // A number too long for the arithmetic is either far above the cap or, with a negative exponent, imprecise input
    // that no resource needs.
    let Ok(mantissa) = digits.parse::<i128>() else {
        return LARGEST;
    };
    let (mantissa, power) = match scale {
        Scale::Ten(exponent) => (Some(mantissa), exponent.saturating_add(9)),
        Scale::Two(bits) => (mantissa.checked_mul(1_i128 << bits), 9),
    };
    let Some(mantissa) = mantissa else {
        return LARGEST;
    };
    shift(mantissa, power.saturating_sub(kept.len() as i32), sticky).min(LARGEST)
}

/// `mantissa × 10^power`, rounded up, saturating.
fn shift(mantissa: i128, power: i32, sticky: bool) -> i128 {
    let factor = 10_i128.checked_pow(power.unsigned_abs());
    match (power >= 0, factor) {
        (true, Some(factor)) => mantissa.saturating_mul(factor) + i128::from(sticky),
        (true, None) => LARGEST,
        (false, Some(factor)) => {
            let more = mantissa % factor != 0 || sticky;
            mantissa / factor + i128::from(more)
        }
        (false, None) => 1,
    }
}

fn divide_away(number: i128, unit: i128) -> i128 {
    let rest = number % unit;
    number / unit + rest.signum()
}

/// A quantity's text in pieces.
struct Parts<'a> {
    negative: bool,
    whole: &'a str,
    decimals: &'a str,
    suffix: &'a str,
}

impl<'a> Parts<'a> {
    fn split(text: &'a str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Format);
        }
        let negative = text.starts_with('-');
        let text = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = leading_digits(text);
        let (decimals, suffix) = match rest.strip_prefix('.') {
            Some(rest) => leading_digits(rest),
            None => ("", rest),
        };
        if !is_suffix_shaped(suffix) {
            return Err(QuantityError::Format);
        }
        Ok(Self {
            negative,
            whole,
            decimals,
            suffix,
        })
    }
}

fn leading_digits(text: &str) -> (&str, &str) {
    let end = text
        .find(|one: char| !one.is_ascii_digit())
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Letters, a sign, digits: each optional, nothing after.
fn is_suffix_shaped(text: &str) -> bool {
    let rest = text.trim_start_matches(|one: char| "eEinumkKMGTP".contains(one));
    let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    rest.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(text: &str) -> String {
        Quantity::parse(text).unwrap().to_string()
    }

    #[test]
    fn canonical_forms_are_upstreams() {
        for (input, output) in [
            ("0", "0"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1000", "1k"),
            ("1024", "1024"),
            ("1Ki", "1Ki"),
            ("1024Mi", "1Gi"),
            ("0.5Gi", "512Mi"),
            ("1.5Ki", "1536"),
            ("0.1Ki", "102400m"),
            ("1e3", "1e3"),
            ("10e2", "1e3"),
            ("5E", "5E"),
            ("100e-3", "100e-3"),
            ("-1", "-1"),
            ("1500000", "1500k"),
            ("0.0000000001", "1n"),
            (".5", "500m"),
            ("1.", "1"),
            ("99999999999999999999", "9223372036854775807"),
        ] {
            assert_eq!(canonical(input), output, "{input}");
        }
    }

    #[test]
    fn malformed_texts_are_refused_with_upstreams_sentences() {
        for (input, error) in [
            ("", QuantityError::Format),
            ("abc", QuantityError::Format),
            ("1x", QuantityError::Format),
            ("1 Gi", QuantityError::Format),
            ("1.2.3", QuantityError::Format),
            ("m", QuantityError::Number),
            ("1mm", QuantityError::Suffix),
            ("1e", QuantityError::Suffix),
        ] {
            assert_eq!(Quantity::parse(input).unwrap_err(), error, "{input}");
        }
    }

    #[test]
    fn numbers_and_strings_mean_the_same() {
        let text = Quantity::from_value(&serde_json::json!("2")).unwrap();
        assert_eq!(Quantity::from_value(&serde_json::json!(2)).unwrap(), text);
    }

    #[test]
    fn values_round_away_from_zero() {
        let quantity = Quantity::parse("1500m").unwrap();
        assert_eq!((quantity.value(), quantity.milli_value()), (2, 1500));
        let small = Quantity::parse("1u").unwrap();
        assert_eq!(small.rounded_to_milli().to_string(), "1m");
    }

    proptest! {
        #[test]
        fn the_canonical_form_means_the_same_and_is_stable(
            number in 0_u64..10_000_000, decimals in 0_u32..1000,
            suffix in prop::sample::select(vec!["", "n", "u", "m", "k", "M", "G", "Ki", "Mi", "Gi", "e2", "E3"]),
        ) {
            let quantity = Quantity::parse(&format!("{number}.{decimals}{suffix}")).unwrap();
            let again = Quantity::parse(&quantity.to_string()).unwrap();
            prop_assert_eq!(quantity, again);
            prop_assert_eq!(quantity.to_string(), again.to_string());
        }

        #[test]
        fn any_text_is_parsed_or_refused_without_panic(text in "[+-]?[0-9.]{0,50}[eEinumkKMGTP]{0,2}[-+]?[0-9]{0,12}") {
            let _ = Quantity::parse(&text);
        }

        #[test]
        fn order_follows_the_numbers(left in -1_000_000_i64..1_000_000, right in -1_000_000_i64..1_000_000) {
            let parse = |value: i64| Quantity::parse(&format!("{value}m")).unwrap();
            prop_assert_eq!(parse(left).cmp(&parse(right)), left.cmp(&right));
        }
    }
}
