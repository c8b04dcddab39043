//! The sizes a group can have, how a wish is rounded up to one of them, and what each costs per second.

use crate::money::Amount;
use serde::{Deserialize, Serialize};
use std::fmt;

/// A size of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Size {
    /// Thousandths of a vCPU.
    pub vcpu_milli: u32,
    /// MiB of memory.
    pub memory_mib: u32,
}

/// What a group gets when nothing is asked for.
pub const DEFAULT_SIZE: Size = Size {
    vcpu_milli: 2_000,
    memory_mib: 4_096,
};
/// Scratch space that costs nothing.
pub const FREE_EPHEMERAL_GIB: u64 = 30;

impl Size {
    /// A size from the interface's decimals (vCPU, GiB); `None` when they are negative, zero or absurd.
    pub fn from_decimals(vcpu: f64, memory_gib: f64) -> Option<Self> {
        Some(Self {
            vcpu_milli: scaled(vcpu, 1_000.0)?,
            memory_mib: scaled(memory_gib, 1_024.0)?,
        })
    }

    /// vCPU as a decimal.
    pub fn vcpu(self) -> f64 {
        f64::from(self.vcpu_milli) / 1_000.0
    }

    /// GiB as a decimal.
    pub fn memory_gib(self) -> f64 {
        f64::from(self.memory_mib) / 1_024.0
    }
}

/// Rounded up to whole units, forgiving the noise of binary fractions.
fn scaled(value: f64, factor: f64) -> Option<u32> {
    let scaled = (value * factor - 1e-6).ceil();
    (1.0..=1e9).contains(&scaled).then_some(scaled as u32)
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} vCPU {} GiB", self.vcpu(), self.memory_gib())
    }
}

/// One vCPU count with the memory sizes it comes with (MiB).
type Row = (u32, &'static [u32]);

const GIB: u32 = 1_024;
/// What every region has.
const BASE: [Row; 12] = [
    (250, &[GIB / 2, GIB]),
    (500, &[GIB, 2 * GIB]),
    (1_000, &[2 * GIB, 4 * GIB, 8 * GIB]),
    (2_000, &[GIB, 2 * GIB, 4 * GIB, 8 * GIB, 16 * GIB]),
    (4_000, &[2 * GIB, 4 * GIB, 8 * GIB, 16 * GIB, 32 * GIB]),
    (8_000, &[4 * GIB, 8 * GIB, 16 * GIB, 32 * GIB, 64 * GIB]),
    (12_000, &[12 * GIB, 24 * GIB, 48 * GIB, 96 * GIB]),
    (16_000, &[16 * GIB, 32 * GIB, 64 * GIB, 128 * GIB]),
    (24_000, &[24 * GIB, 48 * GIB, 96 * GIB, 192 * GIB]),
    (32_000, &[32 * GIB, 64 * GIB, 128 * GIB, 256 * GIB]),
    (52_000, &[96 * GIB, 192 * GIB, 384 * GIB]),
    (64_000, &[128 * GIB, 256 * GIB, 512 * GIB]),
];

/// What large regions have besides: (vCPU, first GiB, last GiB), in steps of two.
const LARGE_REGION: [(u32, u32, u32); 6] = [
    (2_000, 6, 6),
    (2_000, 10, 14),
    (4_000, 6, 6),
    (4_000, 10, 30),
    (6_000, 6, 48),
    (8_000, 10, 62),
];

/// A class of computing power; without one, the cloud chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// Cheaper vCPU, in small sizes only.
    Economy,
    /// What costs the list price.
    General,
}

impl Category {
    /// Reads the interface's word.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "economy" => Some(Self::Economy),
            "general" => Some(Self::General),
            _ => None,
        }
    }

    /// The interface's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Economy => "economy",
            Self::General => "general",
        }
    }

    /// The vCPU counts it comes in.
    pub fn vcpu_milli(self) -> std::ops::RangeInclusive<u32> {
        match self {
            Self::Economy => 250..=8_000,
            Self::General => 1_000..=64_000,
        }
    }
}

/// Which sizes there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Catalog {
    /// Sorted by vCPU, then memory.
    sizes: Vec<Size>,
}

impl Catalog {
    /// The sizes of a region; large ones have more steps.
    pub fn new(large_region: bool) -> Self {
        let base = BASE.iter().flat_map(|&(vcpu_milli, memories)| {
            memories.iter().map(move |&memory_mib| Size {
                vcpu_milli,
                memory_mib,
            })
        });
        let mut sizes: Vec<Size> = base.collect();
        if large_region {
            for (vcpu_milli, first, last) in LARGE_REGION {
                let steps = (first..=last).step_by(2);
                sizes.extend(steps.map(|gib| Size {
                    vcpu_milli,
                    memory_mib: gib * GIB,
                }));
            }
        }
        sizes.sort_unstable();
        sizes.dedup();
        Self { sizes }
    }

    /// All sizes, smallest vCPU first.
    pub fn sizes(&self) -> &[Size] {
        &self.sizes
    }

    /// The size that is billed for a wish: the smallest vCPU row that suffices, in it the smallest memory that
    /// suffices; when the row has none, the next row. `None` when nothing is large enough.
    pub fn round_up(&self, wish: Size) -> Option<Size> {
        self.first(wish, |_| true)
    }

    /// The same for spot groups, which have fewer sizes: 2 vCPU and more, none of a large region's extra steps, and
    /// at least as many GiB as vCPU.
    pub fn round_up_spot(&self, wish: Size) -> Option<Size> {
        let in_base = |size: &Size| {
            BASE.iter().any(|(vcpu_milli, memories)| {
                *vcpu_milli == size.vcpu_milli && memories.contains(&size.memory_mib)
            })
        };
        self.first(wish, |size| {
            size.vcpu_milli >= 2_000
                && u64::from(size.memory_mib) * 1_000 >= u64::from(size.vcpu_milli) * u64::from(GIB)
                && in_base(size)
        })
    }

    /// The same for a compute category: `economy` has no more than 8 vCPU, `general` no less than 1.
    pub fn round_up_in(&self, wish: Size, category: Category) -> Option<Size> {
        self.first(wish, |size| {
            category.vcpu_milli().contains(&size.vcpu_milli)
        })
    }

    fn first(&self, wish: Size, offered: impl Fn(&Size) -> bool) -> Option<Size> {
        // Sorted by row, then memory, so the first that holds both is the one.
        let holds =
            |size: &&Size| size.vcpu_milli >= wish.vcpu_milli && size.memory_mib >= wish.memory_mib;
        self.sizes
            .iter()
            .filter(holds)
            .find(|size| offered(size))
            .copied()
    }
}

/// Prices per second in 10⁻⁸ CNY, the unit of the published list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PriceList {
    /// A vCPU.
    pub vcpu: u64,
    /// A vCPU of the economy class.
    pub economy_vcpu: u64,
    /// A GiB of memory.
    pub memory_gib: u64,
    /// A GiB of scratch space above [`FREE_EPHEMERAL_GIB`].
    pub ephemeral_gib: u64,
    /// A GPU of any kind. The vendor's price differs by machine type and is not on the published list: a number to set.
    #[serde(default = "default_gpu")]
    pub gpu: u64,
}

/// About nine CNY an hour, of the order of what the smaller machine types with a GPU are sold for.
fn default_gpu() -> u64 {
    250_000
}

impl Default for PriceList {
    fn default() -> Self {
        Self {
            vcpu: 4_900,
            economy_vcpu: 2_700,
            memory_gib: 613,
            ephemeral_gib: 59,
            gpu: default_gpu(),
        }
    }
}

/// Units of [`Amount`] in one unit of the price list.
const AMOUNT_UNITS: u128 = 10;

impl PriceList {
    /// The price of one second. Exact for every size of the catalog; memory that is no multiple of half a GiB
    /// counts as the next one, vCPU that is no multiple of a hundredth as the next.
    pub fn per_second(&self, size: Size, economy: bool, extra_ephemeral_gib: u64) -> Amount {
        let half_gibs = u128::from(size.memory_mib.div_ceil(GIB / 2));
        self.vcpu_per_second(size, economy)
            + Amount(half_gibs * u128::from(self.memory_gib) * AMOUNT_UNITS / 2)
            + Amount(
                u128::from(extra_ephemeral_gib) * u128::from(self.ephemeral_gib) * AMOUNT_UNITS,
            )
    }

    /// The vCPU's share of [`PriceList::per_second`].
    pub fn vcpu_per_second(&self, size: Size, economy: bool) -> Amount {
        let price = if economy {
            self.economy_vcpu
        } else {
            self.vcpu
        };
        let hundredths = u128::from(size.vcpu_milli.div_ceil(10));
        Amount((hundredths * u128::from(price) * AMOUNT_UNITS).div_ceil(100))
    }

    /// The price of one second of so many GPUs.
    pub fn gpus_per_second(&self, gpus: u32) -> Amount {
        Amount(u128::from(gpus) * u128::from(self.gpu) * AMOUNT_UNITS)
    }

    /// What a size costs for so many seconds.
    pub fn amount(&self, size: Size, seconds: u64) -> Amount {
        self.per_second(size, false, 0).times(seconds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn size(vcpu: f64, memory: f64) -> Size {
        Size::from_decimals(vcpu, memory).unwrap()
    }

    #[test]
    fn spot_groups_have_fewer_sizes() {
        let catalog = Catalog::new(true);
        let spot = |vcpu, memory| catalog.round_up_spot(size(vcpu, memory));
        assert_eq!(spot(2.0, 1.0), Some(size(2.0, 2.0)));
        assert_eq!(spot(2.0, 5.0), Some(size(2.0, 8.0)));
        assert_eq!(spot(4.0, 2.0), Some(size(4.0, 4.0)));
        assert_eq!(spot(5.0, 4.0), Some(size(8.0, 8.0)));
        assert_eq!(spot(0.25, 0.5), Some(size(2.0, 2.0)));
    }

    fn rounded(large: bool, vcpu: f64, memory: f64) -> Option<Size> {
        Catalog::new(large).round_up(size(vcpu, memory))
    }

    /// The published table, row by row: vCPU, then GiB. A large region's steps are written out.
    #[test]
    fn every_row_of_the_published_table_is_sold_and_nothing_else() {
        let base: [(f64, &[f64]); 12] = [
            (0.25, &[0.5, 1.0]),
            (0.5, &[1.0, 2.0]),
            (1.0, &[2.0, 4.0, 8.0]),
            (2.0, &[1.0, 2.0, 4.0, 8.0, 16.0]),
            (4.0, &[2.0, 4.0, 8.0, 16.0, 32.0]),
            (8.0, &[4.0, 8.0, 16.0, 32.0, 64.0]),
            (12.0, &[12.0, 24.0, 48.0, 96.0]),
            (16.0, &[16.0, 32.0, 64.0, 128.0]),
            (24.0, &[24.0, 48.0, 96.0, 192.0]),
            (32.0, &[32.0, 64.0, 128.0, 256.0]),
            (52.0, &[96.0, 192.0, 384.0]),
            (64.0, &[128.0, 256.0, 512.0]),
        ];
        let large: [(f64, &[u32]); 4] = [
            (2.0, &[6, 10, 12, 14]),
            (4.0, &[6, 10, 12, 14, 18, 20, 22, 24, 26, 28, 30]),
            (
                6.0,
                &[
                    6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36, 38, 40, 42, 44,
                    46, 48,
                ],
            ),
            (
                8.0,
                &[
                    10, 12, 14, 18, 20, 22, 24, 26, 28, 30, 34, 36, 38, 40, 42, 44, 46, 48, 50, 52,
                    54, 56, 58, 60, 62,
                ],
            ),
        ];
        let pairs = |rows: &[(f64, &[f64])]| -> Vec<Size> {
            let row = |(vcpu, gibs): &(f64, &[f64])| -> Vec<Size> {
                gibs.iter().map(|gib| size(*vcpu, *gib)).collect()
            };
            rows.iter().flat_map(row).collect()
        };
        let mut expected = pairs(&base);
        assert_eq!(Catalog::new(false).sizes(), expected);
        for (vcpu, gibs) in large {
            expected.extend(gibs.iter().map(|gib| size(vcpu, f64::from(*gib))));
        }
        expected.sort_unstable();
        assert_eq!(Catalog::new(true).sizes(), expected);
        for one in expected {
            assert_eq!(Catalog::new(true).round_up(one), Some(one), "{one}");
        }
    }

    /// Wishes between the rows: region, wish, what is billed.
    #[test]
    fn wishes_between_the_rows_go_up_to_the_next_one() {
        type Pair = (f64, f64);
        let cases: [(bool, Pair, Pair); 20] = [
            // The sum of limits of ordinary pods.
            (false, (0.25, 0.75), (0.25, 1.0)),
            (false, (0.25, 1.5), (0.5, 2.0)),
            (false, (0.3, 0.5), (0.5, 1.0)),
            (false, (0.5, 4.0), (1.0, 4.0)),
            (false, (1.0, 1.0), (1.0, 2.0)),
            (false, (1.0, 9.0), (2.0, 16.0)),
            (false, (1.5, 0.5), (2.0, 1.0)),
            (false, (3.0, 6.0), (4.0, 8.0)),
            (false, (4.25, 8.5), (8.0, 16.0)),
            (false, (7.0, 13.0), (8.0, 16.0)),
            (false, (8.0, 65.0), (12.0, 96.0)),
            (false, (13.0, 8.0), (16.0, 16.0)),
            (false, (33.0, 1.0), (52.0, 96.0)),
            (false, (52.0, 385.0), (64.0, 512.0)),
            (true, (2.0, 5.0), (2.0, 6.0)),
            (true, (2.0, 15.0), (2.0, 16.0)),
            (true, (4.5, 1.0), (6.0, 6.0)),
            (true, (6.0, 49.0), (8.0, 50.0)),
            (true, (8.0, 63.0), (8.0, 64.0)),
            // A wish without vCPU: the smallest row that has the memory.
            (true, (0.001, 3.0), (1.0, 4.0)),
        ];
        for (large, (vcpu, gib), (sold_vcpu, sold_gib)) in cases {
            let found = rounded(large, vcpu, gib);
            assert_eq!(found, Some(size(sold_vcpu, sold_gib)), "{vcpu} {gib}");
        }
        for (vcpu, gib) in [(64.1, 1.0), (1.0, 513.0)] {
            assert_eq!(rounded(true, vcpu, gib), None, "{vcpu} {gib}");
        }
    }

    #[test]
    fn every_spot_size_is_a_base_row_with_a_gib_for_each_vcpu() {
        let catalog = Catalog::new(true);
        let sold = |one: &&Size| catalog.round_up_spot(**one) == Some(**one);
        let spot: Vec<String> = catalog
            .sizes()
            .iter()
            .filter(sold)
            .map(Size::to_string)
            .collect();
        let first: [(f64, f64); 12] = [
            (2.0, 2.0),
            (2.0, 4.0),
            (2.0, 8.0),
            (2.0, 16.0),
            (4.0, 4.0),
            (4.0, 8.0),
            (4.0, 16.0),
            (4.0, 32.0),
            (8.0, 8.0),
            (8.0, 16.0),
            (8.0, 32.0),
            (8.0, 64.0),
        ];
        let first = first.map(|(vcpu, gib)| size(vcpu, gib).to_string());
        assert_eq!(spot[..12], first);
        let rest = Catalog::new(false);
        let rest = rest.sizes().iter().filter(|size| size.vcpu_milli >= 12_000);
        assert_eq!(spot[12..], rest.map(Size::to_string).collect::<Vec<_>>());
    }

    #[test]
    fn classes_come_in_the_sizes_they_cover() {
        let catalog = Catalog::new(false);
        let within =
            |vcpu, gib, name| catalog.round_up_in(size(vcpu, gib), Category::parse(name).unwrap());
        assert_eq!(within(0.25, 0.5, "economy"), Some(size(0.25, 0.5)));
        assert_eq!(within(8.0, 64.0, "economy"), Some(size(8.0, 64.0)));
        assert_eq!(within(8.5, 1.0, "economy"), None);
        assert_eq!(within(1.0, 65.0, "economy"), None);
        assert_eq!(within(0.25, 0.5, "general"), Some(size(1.0, 2.0)));
        assert_eq!(within(64.0, 512.0, "general"), Some(size(64.0, 512.0)));
        for category in [Category::Economy, Category::General] {
            assert_eq!(Category::parse(category.name()), Some(category));
        }
        assert_eq!(Category::parse("spare"), None);
    }

    #[test]
    fn the_documented_examples_are_rounded_as_documented() {
        assert_eq!(rounded(true, 7.0, 13.0), Some(size(8.0, 14.0)));
        assert_eq!(rounded(true, 3.0, 6.0), Some(size(4.0, 6.0)));
        assert_eq!(rounded(true, 4.25, 8.5), Some(size(6.0, 10.0)));
        assert_eq!(rounded(false, 2.0, 3.0), Some(size(2.0, 4.0)));
        assert_eq!(rounded(false, 0.1, 0.1), Some(size(0.25, 0.5)));
        assert_eq!(rounded(false, 1.0, 16.0), Some(size(2.0, 16.0)));
        assert_eq!(rounded(false, 65.0, 1.0), None);
    }

    #[test]
    fn large_regions_add_the_documented_steps_only() {
        let large = Catalog::new(true);
        let row = |vcpu_milli| -> Vec<u32> {
            let row = large
                .sizes()
                .iter()
                .filter(|size| size.vcpu_milli == vcpu_milli);
            row.map(|size| size.memory_mib / GIB).collect()
        };
        assert_eq!(row(2_000), [1, 2, 4, 6, 8, 10, 12, 14, 16]);
        assert_eq!(
            row(4_000),
            [2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32]
        );
        assert_eq!(row(6_000).len(), 22);
        assert_eq!(row(8_000).first_chunk(), Some(&[4, 8, 10, 12, 14, 16, 18]));
    }

    #[test]
    fn two_vcpu_and_four_gib_cost_what_the_list_says() {
        let list = PriceList::default();
        assert_eq!(
            list.per_second(DEFAULT_SIZE, false, 0).to_string(),
            "0.000122520"
        );
        assert_eq!(
            list.per_second(DEFAULT_SIZE, true, 0).to_string(),
            "0.000078520"
        );
        assert_eq!(
            list.per_second(size(0.25, 0.5), false, 0),
            Amount(12_250 + 3_065)
        );
        assert_eq!(
            list.per_second(DEFAULT_SIZE, false, 10),
            Amount(122_520 + 5_900)
        );
        assert_eq!(list.amount(DEFAULT_SIZE, 3_600).to_string(), "0.441072000");
    }

    proptest! {
        #[test]
        fn rounding_holds_the_wish_and_is_a_fixed_point(vcpu in 1u32..70_000, memory in 1u32..600_000, large: bool) {
            let catalog = Catalog::new(large);
            let wish = Size { vcpu_milli: vcpu, memory_mib: memory };
            match catalog.round_up(wish) {
                Some(found) => {
                    prop_assert!(found.vcpu_milli >= vcpu && found.memory_mib >= memory);
                    prop_assert!(catalog.sizes().contains(&found));
                    prop_assert_eq!(catalog.round_up(found), Some(found));
                    // No row below would have done, nor less memory in the same row.
                    for other in catalog.sizes().iter().filter(|size| **size < found) {
                        prop_assert!(other.vcpu_milli < vcpu || other.memory_mib < memory);
                    }
                }
                None => prop_assert!(vcpu > 64_000 || memory > 512 * GIB),
            }
        }

        #[test]
        fn amounts_are_linear_in_seconds(index in 0usize..40, first in 0u64..1_000_000, second in 0u64..1_000_000) {
            let catalog = Catalog::new(false);
            let size = catalog.sizes()[index % catalog.sizes().len()];
            let list = PriceList::default();
            let whole = list.amount(size, first + second);
            prop_assert_eq!(list.amount(size, first) + list.amount(size, second), whole);
            // Checked the long way round, in halves of the list's unit.
            let halves = u128::from(size.vcpu_milli) * 4_900 * 2 / 1_000 + u128::from(size.memory_mib / 512) * 613;
            prop_assert_eq!(whole.0, halves * 5 * u128::from(first + second));
        }
    }
}
