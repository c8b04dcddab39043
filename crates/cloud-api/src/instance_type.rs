//! Names of machine sizes: `ecs.c6.xlarge`, and the short form `2-4Gi`, as they stand in `InstanceType`.
//!
//! The families known here are the ordinary ones, whose memory follows from their letter. Others are refused: what
//! they hold cannot be worked out from their names.

use crate::catalog::{PriceList, Size};
use crate::money::Amount;

/// Families whose sizes follow from their names: letters and generations, and GiB for each vCPU.
const FAMILIES: [(&str, u32); 13] = [
    ("ic5", 1),
    ("c5", 2),
    ("c6", 2),
    ("c7", 2),
    ("c8i", 2),
    ("g5", 4),
    ("g6", 4),
    ("g7", 4),
    ("g8i", 4),
    ("r5", 8),
    ("r6", 8),
    ("r7", 8),
    ("r8i", 8),
];
/// Largest multiple of an `xlarge`.
const LARGEST_MULTIPLE: u32 = 32;
/// A machine type costs more than the same size asked for in vCPU and GiB: 0.62 CNY an hour for `ecs.c5.large`,
/// where 2 vCPU and 4 GiB cost 0.4411.
const PRICE_MILLIONTHS: u128 = 1_405_664;

/// One choice of a request's list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// `2-4Gi`: a size.
    Size(Size),
    /// `ecs.c6.large`: a machine type and the size it has.
    Machine {
        /// The whole name.
        name: String,
        /// What it has.
        size: Size,
    },
}

impl Choice {
    /// Reads one choice; `None` when it is neither form or the family is not known.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("ecs.") {
            Some(rest) => Some(Self::Machine {
                name: text.to_owned(),
                size: machine_size(rest)?,
            }),
            None => {
                let (vcpu, memory) = text.split_once('-')?;
                let memory = memory.strip_suffix("Gi")?;
                Size::from_decimals(vcpu.parse().ok()?, memory.parse().ok()?).map(Self::Size)
            }
        }
    }

    /// What it has, before rounding.
    pub fn size(&self) -> Size {
        match self {
            Self::Size(size) | Self::Machine { size, .. } => *size,
        }
    }

    /// The machine type, when it is one.
    pub fn machine(&self) -> Option<&str> {
        match self {
            Self::Size(_) => None,
            Self::Machine { name, .. } => Some(name),
        }
    }
}

/// The family of a machine type: `ecs.c6` of `ecs.c6.large`.
pub fn family(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(family, _)| family)
}

/// All machine types that are known, smallest of a family first.
pub fn machine_types() -> impl Iterator<Item = (String, Size)> {
    const SIZES: [&str; 7] = [
        "large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "13xlarge", "16xlarge",
    ];
    FAMILIES.iter().flat_map(|(family, _)| {
        SIZES.iter().filter_map(move |size| {
            let name = format!("{family}.{size}");
            Some((format!("ecs.{name}"), machine_size(&name)?))
        })
    })
}

fn machine_size(name: &str) -> Option<Size> {
    let (family, size) = name.split_once('.')?;
    let ratio = FAMILIES.iter().find(|(known, _)| *known == family)?.1;
    let vcpu = match size {
        "large" => 2,
        "xlarge" => 4,
        _ => {
            let multiple: u32 = size.strip_suffix("xlarge")?.parse().ok()?;
            4 * Some(multiple).filter(|multiple| (2..=LARGEST_MULTIPLE).contains(multiple))?
        }
    };
    Some(Size {
        vcpu_milli: vcpu * 1_000,
        memory_mib: vcpu * ratio * 1_024,
    })
}

impl PriceList {
    /// The price of one second of a machine type of this size; fractions of the smallest unit count as one.
    pub fn machine_per_second(&self, size: Size, extra_ephemeral_gib: u64) -> Amount {
        let bare = self.per_second(size, false, 0);
        let storage = self.per_second(size, false, extra_ephemeral_gib).0 - bare.0;
        Amount((bare.0 * PRICE_MILLIONTHS).div_ceil(1_000_000) + storage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn both_forms_are_read_and_others_are_not() {
        let size = |text: &str| Choice::parse(text).map(|choice| choice.size().to_string());
        assert_eq!(size("2-4Gi").as_deref(), Some("2 vCPU 4 GiB"));
        assert_eq!(size("0.5-1Gi").as_deref(), Some("0.5 vCPU 1 GiB"));
        assert_eq!(size("ecs.c6.large").as_deref(), Some("2 vCPU 4 GiB"));
        assert_eq!(size("ecs.g7.xlarge").as_deref(), Some("4 vCPU 16 GiB"));
        assert_eq!(size("ecs.r5.2xlarge").as_deref(), Some("8 vCPU 64 GiB"));
        for wrong in [
            "",
            "2",
            "2-4",
            "ecs.c6",
            "ecs.zz9.large",
            "ecs.c6.0xlarge",
            "ecs.c6.99xlarge",
            "-1-2Gi",
        ] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
        assert_eq!(family("ecs.c6.large"), "ecs.c6");
    }

    #[test]
    fn the_documented_machine_costs_what_is_documented() {
        let size = Choice::parse("ecs.c5.large").unwrap().size();
        let hour = PriceList::default()
            .machine_per_second(size, 0)
            .times(3_600);
        assert!((hour.as_cny() - 0.62).abs() < 0.000_01, "{hour}");
    }

    #[test]
    fn every_listed_machine_reads_as_itself() {
        for (name, size) in machine_types() {
            assert_eq!(Choice::parse(&name).unwrap().size(), size, "{name}");
        }
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = Choice::parse(&text);
            let _ = Choice::parse(&format!("ecs.{text}"));
        }
    }
}
