//! What can run out: the zones' vCPU and the vSwitches' addresses.

use crate::config::{LocalCloudConfig, VSwitchConfig};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

/// The addresses of a vSwitch. The first and the last three stay free, as in the real one.
#[derive(Debug)]
pub(crate) struct Addresses {
    first: u32,
    last: u32,
    taken: BTreeSet<u32>,
    /// Where the next search starts, so that an address given back is not given out again at once.
    cursor: u32,
}

impl Addresses {
    /// From `10.4.1.0/24`; prefixes from 8 to 29 make sense.
    pub(crate) fn parse(cidr: &str) -> Option<Self> {
        let (base, prefix) = cidr.split_once('/')?;
        let base = u32::from(base.parse::<Ipv4Addr>().ok()?);
        let prefix: u32 = prefix
            .parse()
            .ok()
            .filter(|prefix| (8..=29).contains(prefix))?;
        let size = 1u32 << (32 - prefix);
        let network = base & !(size - 1);
        let first = network + 1;
        Some(Self {
            first,
            last: network + size - 4,
            taken: BTreeSet::new(),
            cursor: first,
        })
    }

    pub(crate) fn available(&self) -> u32 {
        (self.last - self.first + 1)
            .saturating_sub(u32::try_from(self.taken.len()).unwrap_or(u32::MAX))
    }

    pub(crate) fn take(&mut self) -> Option<Ipv4Addr> {
        if self.available() == 0 {
            return None;
        }
        let upwards = (self.cursor..=self.last).chain(self.first..self.cursor);
        let free = upwards
            .into_iter()
            .find(|address| !self.taken.contains(address))?;
        self.taken.insert(free);
        self.cursor = if free == self.last {
            self.first
        } else {
            free + 1
        };
        Some(Ipv4Addr::from(free))
    }

    /// Takes this very address; `false` when it is not to be had.
    pub(crate) fn take_exactly(&mut self, address: Ipv4Addr) -> bool {
        let address = u32::from(address);
        (self.first..=self.last).contains(&address) && self.taken.insert(address)
    }

    pub(crate) fn give_back(&mut self, address: Ipv4Addr) {
        self.taken.remove(&u32::from(address));
    }
}

#[derive(Debug)]
pub(crate) struct VSwitch {
    pub(crate) config: VSwitchConfig,
    pub(crate) addresses: Addresses,
}

/// The vCPU of a zone, in thousandths.
#[derive(Debug, Default)]
pub(crate) struct Zone {
    pub(crate) stock: Option<u64>,
    pub(crate) used: u64,
}

impl Zone {
    pub(crate) fn has(&self, vcpu_milli: u64) -> bool {
        self.stock
            .is_none_or(|stock| self.used + vcpu_milli <= stock)
    }
}

/// All zones and vSwitches.
#[derive(Debug)]
pub(crate) struct Pools {
    pub(crate) zones: BTreeMap<String, Zone>,
    /// In the order of preference.
    pub(crate) v_switches: Vec<VSwitch>,
    /// Public addresses.
    pub(crate) eips: Addresses,
}

impl Pools {
    pub(crate) fn new(config: &LocalCloudConfig) -> Result<Self, String> {
        let mut zones = BTreeMap::new();
        for zone in &config.zones {
            zones.insert(
                zone.id.clone(),
                Zone {
                    stock: zone.stock_vcpu.map(milli),
                    used: 0,
                },
            );
        }
        let mut v_switches = Vec::new();
        for v_switch in &config.v_switches {
            if !zones.contains_key(&v_switch.zone) {
                return Err(format!(
                    "vSwitch {} lies in zone {}, which does not exist",
                    v_switch.id, v_switch.zone
                ));
            }
            let addresses = Addresses::parse(&v_switch.cidr).ok_or_else(|| {
                format!(
                    "vSwitch {} has {:?}, which is no range such as 10.4.1.0/24",
                    v_switch.id, v_switch.cidr
                )
            })?;
            v_switches.push(VSwitch {
                config: v_switch.clone(),
                addresses,
            });
        }
        let eips = Addresses::parse(&config.public_cidr).ok_or_else(|| {
            format!(
                "the range of public addresses is {:?}, which is no range such as 198.18.0.0/16",
                config.public_cidr
            )
        })?;
        Ok(Self {
            zones,
            v_switches,
            eips,
        })
    }

    pub(crate) fn v_switch(&mut self, id: &str) -> Option<&mut VSwitch> {
        self.v_switches
            .iter_mut()
            .find(|v_switch| v_switch.config.id == id)
    }

    /// vCPU in use over all zones, in thousandths.
    pub(crate) fn used(&self) -> u64 {
        self.zones.values().map(|zone| zone.used).sum()
    }

    /// Takes back what a restarted process finds in its records.
    pub(crate) fn take_again(
        &mut self,
        zone: &str,
        v_switch: &str,
        address: Ipv4Addr,
        vcpu_milli: u32,
    ) {
        if let Some(zone) = self.zones.get_mut(zone) {
            zone.used += u64::from(vcpu_milli);
        }
        if let Some(v_switch) = self.v_switch(v_switch) {
            v_switch.addresses.take_exactly(address);
        }
    }

    pub(crate) fn give_back_stock(&mut self, zone: &str, vcpu_milli: u32) {
        if let Some(zone) = self.zones.get_mut(zone) {
            zone.used = zone.used.saturating_sub(u64::from(vcpu_milli));
        }
    }

    pub(crate) fn give_back_address(&mut self, v_switch: &str, address: Ipv4Addr) {
        if let Some(v_switch) = self.v_switch(v_switch) {
            v_switch.addresses.give_back(address);
        }
    }
}

/// vCPU in thousandths.
pub(crate) fn milli(vcpu: f64) -> u64 {
    (vcpu.max(0.0) * 1_000.0).round() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_small_range_gives_all_its_addresses_once_then_none() {
        let mut pool = Addresses::parse("10.4.1.0/28").unwrap();
        let taken: Vec<Ipv4Addr> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(taken.len(), 12);
        assert_eq!(
            (taken[0], taken[11]),
            (Ipv4Addr::new(10, 4, 1, 1), Ipv4Addr::new(10, 4, 1, 12))
        );
        pool.give_back(taken[5]);
        assert_eq!(pool.take(), Some(taken[5]));
        assert_eq!(pool.take(), None);
    }

    #[test]
    fn an_address_given_back_is_not_the_next_one_out() {
        let mut pool = Addresses::parse("10.4.1.0/24").unwrap();
        let first = pool.take().unwrap();
        pool.give_back(first);
        assert_ne!(pool.take(), Some(first));
    }

    #[test]
    fn ranges_that_are_none_are_refused() {
        for cidr in [
            "",
            "10.4.1.0",
            "10.4.1.0/33",
            "10.4.1.0/30",
            "x/24",
            "10.4.1.0/7",
        ] {
            assert!(Addresses::parse(cidr).is_none(), "{cidr}");
        }
    }

    proptest! {
        #[test]
        fn no_address_is_ever_held_twice(steps in proptest::collection::vec(any::<Option<u8>>(), 0..200)) {
            let mut pool = Addresses::parse("10.4.1.0/27").unwrap();
            let mut held: Vec<Ipv4Addr> = Vec::new();
            for step in steps {
                match step {
                    Some(which) if !held.is_empty() => {
                        let address = held.swap_remove(usize::from(which) % held.len());
                        pool.give_back(address);
                    }
                    _ => if let Some(address) = pool.take() {
                        prop_assert!(!held.contains(&address));
                        held.push(address);
                    }
                }
                prop_assert_eq!(pool.available() as usize, 28 - held.len());
            }
        }
    }
}
