//! Money as whole numbers of 10⁻⁹ CNY.
//!
//! The price list is written in 10⁻⁸ CNY per second; half a GiB costs half of an odd number of those, hence the
//! finer unit. Nothing here ever rounds.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

/// Units of an [`Amount`] in one CNY.
pub const UNITS_PER_CNY: u128 = 1_000_000_000;

/// An exact amount of money.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Amount(pub u128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// The nearest floating-point number of CNY, for charts and for answers of the interface.
    pub fn as_cny(self) -> f64 {
        self.0 as f64 / UNITS_PER_CNY as f64
    }

    /// So many times as much.
    pub fn times(self, count: u64) -> Self {
        Self(self.0.saturating_mul(u128::from(count)))
    }
}

impl Add for Amount {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Amount {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::ZERO, Self::add)
    }
}

/// All nine decimals, so that nothing is hidden.
impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{}.{:09}",
            self.0 / UNITS_PER_CNY,
            self.0 % UNITS_PER_CNY
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_written_with_all_their_decimals() {
        assert_eq!(Amount(122_520).to_string(), "0.000122520");
        assert_eq!(Amount(12_000_000_001).to_string(), "12.000000001");
        assert_eq!(
            [Amount(1), Amount(2)].into_iter().sum::<Amount>(),
            Amount(3)
        );
        assert_eq!(Amount(5).times(7), Amount(35));
    }
}
