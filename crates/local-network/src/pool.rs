//! A pool of IPv4 addresses: the lowest free one after the last handed out, so that an address rests before it is reused.

use std::{collections::BTreeSet, net::Ipv4Addr};

/// The smallest and largest networks a pool may manage.
const PREFIX_BITS: std::ops::RangeInclusive<u8> = 8..=30;

/// Why a network cannot be a pool.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("address pool {cidr:?}: {reason}")]
pub struct PoolError {
    cidr: String,
    reason: &'static str,
}

/// Addresses of one network, without its first (the network's) and last (the broadcast address).
#[derive(Debug, Clone)]
pub struct AddressPool {
    first: u32,
    last: u32,
    next: u32,
    taken: BTreeSet<u32>,
}

impl AddressPool {
    /// A pool of all host addresses of a network such as `10.30.1.0/24`.
    pub fn new(cidr: &str) -> Result<Self, PoolError> {
        let refused = |reason| PoolError {
            cidr: cidr.to_owned(),
            reason,
        };
        let (network, bits) = cidr
            .split_once('/')
            .ok_or_else(|| refused("expected <address>/<prefix length>"))?;
        let network: Ipv4Addr = network
            .parse()
            .map_err(|_| refused("the address is not an IPv4 address"))?;
        let bits: u8 = bits
            .parse()
            .map_err(|_| refused("the prefix length is not a number"))?;
        if !PREFIX_BITS.contains(&bits) {
            return Err(refused("the prefix length must be 8 to 30"));
        }
        let size = 1u32 << (32 - bits);
        let base = u32::from(network);
        if base % size != 0 {
            return Err(refused("the address has bits set beyond the prefix"));
        }
        let first = base + 1;
        Ok(Self {
            first,
            last: base + size - 2,
            next: first,
            taken: BTreeSet::new(),
        })
    }

    /// Takes a free address; `None` when all are taken.
    pub fn allocate(&mut self) -> Option<Ipv4Addr> {
        let free = self
            .first_free(self.next, self.last)
            .or_else(|| self.first_free(self.first, self.last))?;
        self.taken.insert(free);
        self.next = if free == self.last {
            self.first
        } else {
            free + 1
        };
        Some(Ipv4Addr::from(free))
    }

    /// Takes this very address; false when it is taken already or not in the pool.
    pub fn reserve(&mut self, ip: Ipv4Addr) -> bool {
        self.contains(ip) && self.taken.insert(u32::from(ip))
    }

    /// Gives an address back; false when it was not taken.
    pub fn release(&mut self, ip: Ipv4Addr) -> bool {
        self.taken.remove(&u32::from(ip))
    }

    /// How many addresses are free.
    pub fn available(&self) -> usize {
        (self.last - self.first + 1) as usize - self.taken.len()
    }

    /// True for an address this pool manages, taken or not.
    pub fn contains(&self, ip: Ipv4Addr) -> bool {
        (self.first..=self.last).contains(&u32::from(ip))
    }

    fn first_free(&self, from: u32, to: u32) -> Option<u32> {
        let mut candidate = from;
        for taken in self.taken.range(from..=to) {
            if *taken != candidate {
                break;
            }
            candidate += 1;
        }
        (candidate <= to).then_some(candidate)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pool_hands_out_each_address_once_and_then_says_so() {
        let mut pool = AddressPool::new("10.30.1.0/29").unwrap();
        let all: Vec<_> = std::iter::from_fn(|| pool.allocate()).collect();
        assert_eq!(
            all,
            (1..=6)
                .map(|n| Ipv4Addr::new(10, 30, 1, n))
                .collect::<Vec<_>>()
        );
        assert_eq!(pool.available(), 0);
    }

    #[test]
    fn a_released_address_rests_until_the_pool_came_round() {
        let mut pool = AddressPool::new("10.30.1.0/29").unwrap();
        let first = pool.allocate().unwrap();
        assert!(pool.release(first));
        assert!(!pool.release(first));
        assert_ne!(pool.allocate(), Some(first));
    }

    #[test]
    fn malformed_networks_are_refused_with_the_reason() {
        for (cidr, reason) in [
            ("10.0.0.0", "expected"),
            ("ten/24", "IPv4"),
            ("10.0.0.0/x", "number"),
            ("10.0.0.0/31", "8 to 30"),
            ("10.0.0.1/24", "beyond the prefix"),
        ] {
            let error = AddressPool::new(cidr).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains(cidr), "{error}");
        }
    }

    proptest! {
        #[test]
        fn taken_and_free_always_add_up(steps in prop::collection::vec((0u8..3, 0u8..16), 0..200)) {
            let mut pool = AddressPool::new("10.4.0.0/28").unwrap();
            let mut taken = BTreeSet::new();
            for (step, host) in steps {
                let ip = Ipv4Addr::new(10, 4, 0, host);
                match step {
                    0 => if let Some(ip) = pool.allocate() { prop_assert!(taken.insert(ip)) },
                    1 => prop_assert_eq!(pool.reserve(ip), (1..15).contains(&host) && taken.insert(ip)),
                    _ => prop_assert_eq!(pool.release(ip), taken.remove(&ip)),
                }
                prop_assert_eq!(pool.available(), 14 - taken.len());
            }
        }
    }
}
