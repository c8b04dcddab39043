//! Names of machine sizes: `ecs.c6.xlarge`, and the short form `2-4Gi`, as they stand in `InstanceType`.
//!
//! The families known here are the ordinary ones, whose memory follows from their letter, and those with GPUs that are
//! listed one by one. Others are refused: what they hold cannot be worked out from their names.

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
/// Machine types with GPUs: name, vCPU, GiB, GPUs. Their memory follows no rule.
const GPU_MACHINES: [(&str, u32, u32, u32); 31] = [
    ("gn5-c4g1.xlarge", 4, 30, 1),
    ("gn5-c8g1.2xlarge", 8, 60, 1),
    ("gn5-c4g1.2xlarge", 8, 60, 2),
    ("gn5-c8g1.4xlarge", 16, 120, 2),
    ("gn5-c28g1.7xlarge", 28, 112, 1),
    ("gn5-c8g1.8xlarge", 32, 240, 4),
    ("gn5-c28g1.14xlarge", 56, 224, 2),
    ("gn5-c8g1.14xlarge", 54, 480, 8),
    ("gn5i-c2g1.large", 2, 8, 1),
    ("gn5i-c4g1.xlarge", 4, 16, 1),
    ("gn5i-c8g1.2xlarge", 8, 32, 1),
    ("gn5i-c16g1.4xlarge", 16, 64, 1),
    ("gn5i-c16g1.8xlarge", 32, 128, 2),
    ("gn5i-c28g1.14xlarge", 56, 224, 2),
    ("gn6i-c4g1.xlarge", 4, 15, 1),
    ("gn6i-c8g1.2xlarge", 8, 31, 1),
    ("gn6i-c16g1.4xlarge", 16, 62, 1),
    ("gn6i-c24g1.6xlarge", 24, 93, 1),
    ("gn6i-c24g1.12xlarge", 48, 186, 2),
    ("gn6i-c24g1.24xlarge", 96, 372, 4),
    ("gn6e-c12g1.3xlarge", 12, 92, 1),
    ("gn6e-c12g1.12xlarge", 48, 368, 4),
    ("gn6e-c12g1.24xlarge", 96, 736, 8),
    ("gn6v-c8g1.2xlarge", 8, 32, 1),
    ("gn6v-c8g1.8xlarge", 32, 128, 4),
    ("gn6v-c8g1.16xlarge", 64, 256, 8),
    ("gn7i-c8g1.2xlarge", 8, 30, 1),
    ("gn7i-c16g1.4xlarge", 16, 60, 1),
    ("gn7i-c32g1.8xlarge", 32, 188, 1),
    ("gn7i-c32g1.16xlarge", 64, 376, 2),
    ("gn7i-c32g1.32xlarge", 128, 752, 4),
];
/// Beginnings of the names of families with GPUs, also of those that are not listed.
const GPU_FAMILIES: [&str; 5] = ["gn", "vgn", "sgn", "ebmgn", "sccgn"];
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
        /// GPUs that it has.
        gpus: u32,
    },
}

impl Choice {
    /// Reads one choice; `None` when it is neither form or the family is not known.
    pub fn parse(text: &str) -> Option<Self> {
        match text.strip_prefix("ecs.") {
            Some(rest) => {
                let (size, gpus) = machine(rest)?;
                Some(Self::Machine {
                    name: text.to_owned(),
                    size,
                    gpus,
                })
            }
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

    /// GPUs that it has.
    pub fn gpus(&self) -> u32 {
        match self {
            Self::Size(_) => 0,
            Self::Machine { gpus, .. } => *gpus,
        }
    }
}

/// Whether a machine type's name says that it has GPUs, be it known or not.
pub fn has_gpus(name: &str) -> bool {
    name.strip_prefix("ecs.").is_some_and(|rest| {
        let generation = |beginning: &&str| {
            let rest = rest.strip_prefix(*beginning);
            rest.is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        GPU_FAMILIES.iter().any(generation)
    })
}

/// The family of a machine type: `ecs.c6` of `ecs.c6.large`.
pub fn family(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(family, _)| family)
}

/// All machine types that are known, smallest of a family first, those with GPUs last.
pub fn machine_types() -> impl Iterator<Item = (String, Size)> {
    const SIZES: [&str; 7] = [
        "large", "xlarge", "2xlarge", "4xlarge", "8xlarge", "13xlarge", "16xlarge",
    ];
    let ordinary = FAMILIES.iter().flat_map(|(family, _)| {
        SIZES.iter().filter_map(move |size| {
            let name = format!("{family}.{size}");
            Some((format!("ecs.{name}"), ordinary_size(&name)?))
        })
    });
    let with_gpus = GPU_MACHINES
        .iter()
        .map(|(name, vcpu, gib, _)| (format!("ecs.{name}"), whole(*vcpu, *gib)));
    ordinary.chain(with_gpus)
}

fn whole(vcpu: u32, gib: u32) -> Size {
    Size {
        vcpu_milli: vcpu * 1_000,
        memory_mib: gib * 1_024,
    }
}

/// What a machine type has, and its GPUs.
fn machine(name: &str) -> Option<(Size, u32)> {
    let listed = GPU_MACHINES.iter().find(|(known, ..)| *known == name);
    match listed {
        Some((_, vcpu, gib, gpus)) => Some((whole(*vcpu, *gib), *gpus)),
        None => Some((ordinary_size(name)?, 0)),
    }
}

fn ordinary_size(name: &str) -> Option<Size> {
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
    Some(whole(vcpu, vcpu * ratio))
}

impl PriceList {
    /// The price of one second of a machine type of this size with so many GPUs; fractions of the smallest unit count as one.
    pub fn machine_per_second(&self, size: Size, gpus: u32, extra_ephemeral_gib: u64) -> Amount {
        let bare = self.per_second(size, false, 0);
        let storage = self.per_second(size, false, extra_ephemeral_gib).0 - bare.0;
        Amount((bare.0 * PRICE_MILLIONTHS).div_ceil(1_000_000) + storage)
            + self.gpus_per_second(gpus)
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
            .machine_per_second(size, 0, 0)
            .times(3_600);
        assert!((hour.as_cny() - 0.62).abs() < 0.000_01, "{hour}");
    }

    #[test]
    fn machines_with_gpus_have_what_the_list_says_and_cost_their_gpus_besides() {
        let read = |text: &str| {
            Choice::parse(text).map(|choice| (choice.size().to_string(), choice.gpus()))
        };
        let of = |size: &str, gpus| Some((size.to_owned(), gpus));
        assert_eq!(read("ecs.gn6i-c4g1.xlarge"), of("4 vCPU 15 GiB", 1));
        assert_eq!(read("ecs.gn7i-c32g1.16xlarge"), of("64 vCPU 376 GiB", 2));
        assert_eq!(read("ecs.gn5-c8g1.14xlarge"), of("54 vCPU 480 GiB", 8));
        assert_eq!(read("ecs.c6.large"), of("2 vCPU 4 GiB", 0));
        assert_eq!(read("2-4Gi"), of("2 vCPU 4 GiB", 0));
        assert_eq!(read("ecs.gn6i-c4g1.2xlarge"), None, "there is none");
        let prices = PriceList::default();
        let size = Choice::parse("ecs.gn6i-c4g1.xlarge").unwrap().size();
        let per_second = |gpus| prices.machine_per_second(size, gpus, 0).0;
        assert_eq!(
            per_second(2) - per_second(0),
            2 * prices.gpus_per_second(1).0
        );
        assert!(per_second(1) > per_second(0));
    }

    #[test]
    fn a_name_tells_whether_there_are_gpus() {
        for name in [
            "gn6i-c4g1.xlarge",
            "gn99x.large",
            "vgn7i-vws.x",
            "ebmgn7e.32xlarge",
        ] {
            assert!(has_gpus(&format!("ecs.{name}")), "{name}");
        }
        for name in ["c6.large", "g6.large", "gnome.large", "gn", ""] {
            assert!(!has_gpus(&format!("ecs.{name}")), "{name}");
        }
        for (name, ..) in GPU_MACHINES {
            assert!(has_gpus(&format!("ecs.{name}")), "{name}");
        }
        assert!(!has_gpus("2-4Gi"));
    }

    #[test]
    fn every_listed_machine_reads_as_itself() {
        for (name, size) in machine_types() {
            assert_eq!(Choice::parse(&name).unwrap().size(), size, "{name}");
        }
        let names: std::collections::HashSet<_> = machine_types().map(|(name, _)| name).collect();
        assert_eq!(names.len(), machine_types().count(), "each name once");
    }

    proptest! {
        #[test]
        fn reading_never_panics(text in ".{0,40}") {
            let _ = Choice::parse(&text);
            let _ = Choice::parse(&format!("ecs.{text}"));
        }
    }
}
