//! The loopback addresses of load balancers: one network `127.83.<n>.0/24` for each cluster on the machine, one address
//! in it for each service, the same after a restart.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::Ipv4Addr,
    os::{linux::net::SocketAddrExt, unix::net},
};

use local_network::ServiceKey;

/// The first two bytes of every load balancer's address.
const PREFIX: [u8; 2] = [127, 83];
const NETWORKS: std::ops::RangeInclusive<u8> = 1..=254;
const HOSTS: std::ops::RangeInclusive<u8> = 1..=254;

/// The network of one cluster; nobody else on this machine can have it while this value lives.
pub(crate) struct LoopbackNetwork {
    number: u8,
    /// An abstract socket name is gone with its process, however that ends, and leaves no file.
    _claim: net::UnixListener,
}

impl LoopbackNetwork {
    /// Claims a network: one of `earlier` addresses, or one that follows from the cluster's id, or any free one.
    pub(crate) fn claim(
        cluster_id: &str,
        earlier: impl Iterator<Item = Ipv4Addr>,
    ) -> io::Result<Self> {
        let earlier: BTreeSet<u8> = earlier.filter_map(network_of).collect();
        let start = fingerprint(cluster_id);
        let all = (0..254u8).map(|step| ((u16::from(start) + u16::from(step)) % 254) as u8 + 1);
        let mut last_error = io::Error::other("no network is left");
        for number in earlier
            .into_iter()
            .filter(|number| NETWORKS.contains(number))
            .chain(all)
        {
            let name = format!("springtide-loopback-{number}");
            let claimed = net::SocketAddr::from_abstract_name(name)
                .and_then(|name| net::UnixListener::bind_addr(&name));
            match claimed {
                Ok(claim) => {
                    return Ok(Self {
                        number,
                        _claim: claim,
                    });
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => last_error = error,
                Err(error) => return Err(error),
            }
        }
        Err(last_error)
    }

    fn address(&self, host: u8) -> Ipv4Addr {
        Ipv4Addr::new(PREFIX[0], PREFIX[1], self.number, host)
    }
}

/// True for an address that can only have come from a load balancer.
pub(crate) fn is_ours(ip: Ipv4Addr) -> bool {
    network_of(ip).is_some()
}

fn network_of(ip: Ipv4Addr) -> Option<u8> {
    let [a, b, network, _] = ip.octets();
    ([a, b] == PREFIX).then_some(network)
}

fn fingerprint(cluster_id: &str) -> u8 {
    let hash = cluster_id.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    ((hash ^ (hash >> 16)) % 254) as u8
}

/// Which service has which address.
pub(crate) struct Addresses {
    network: LoopbackNetwork,
    hosts: BTreeMap<ServiceKey, u8>,
}

impl Addresses {
    pub(crate) fn new(network: LoopbackNetwork) -> Self {
        Self {
            network,
            hosts: BTreeMap::new(),
        }
    }

    /// Gives each wanted service an address: the one it has, the one it had, or the next free one. Those no longer wanted
    /// lose theirs. A service is missing in the answer only when all addresses are taken.
    pub(crate) fn assign(
        &mut self,
        wanted: &BTreeMap<ServiceKey, Option<Ipv4Addr>>,
    ) -> BTreeMap<ServiceKey, Ipv4Addr> {
        self.hosts.retain(|key, _| wanted.contains_key(key));
        let mut taken: BTreeSet<u8> = self.hosts.values().copied().collect();
        let missing: Vec<_> = wanted
            .iter()
            .filter(|(key, _)| !self.hosts.contains_key(*key))
            .collect();
        for (key, earlier) in &missing {
            let host = earlier
                .filter(|ip| network_of(*ip) == Some(self.network.number))
                .map(|ip| ip.octets()[3]);
            if let Some(host) = host.filter(|host| HOSTS.contains(host) && taken.insert(*host)) {
                self.hosts.insert((*key).clone(), host);
            }
        }
        for (key, _) in missing {
            if !self.hosts.contains_key(key) {
                let Some(host) = HOSTS.clone().find(|host| !taken.contains(host)) else {
                    break;
                };
                taken.insert(host);
                self.hosts.insert(key.clone(), host);
            }
        }
        self.hosts
            .iter()
            .map(|(key, host)| (key.clone(), self.network.address(*host)))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u16) -> ServiceKey {
        ServiceKey::new("default", format!("shop-{n:03}"))
    }

    fn unique_id(test: &str) -> String {
        format!("{test}-{}", std::process::id())
    }

    #[test]
    fn clusters_never_share_a_network_and_a_restarted_one_gets_its_own_back() {
        let id = unique_id("claims");
        let first = LoopbackNetwork::claim(&id, std::iter::empty()).unwrap();
        let second = LoopbackNetwork::claim(&id, std::iter::empty()).unwrap();
        assert_ne!(first.number, second.number);
        let (number, earlier) = (second.number, second.address(7));
        drop((first, second));
        let again =
            LoopbackNetwork::claim(&id, [Ipv4Addr::LOCALHOST, earlier].into_iter()).unwrap();
        assert_eq!(again.number, number);
    }

    #[test]
    fn services_keep_their_address_and_new_ones_get_a_free_one() {
        let network = LoopbackNetwork::claim(&unique_id("assign"), std::iter::empty()).unwrap();
        let earlier = network.address(2);
        let mut addresses = Addresses::new(network);
        let mut wanted: BTreeMap<_, _> =
            [(key(1), None), (key(2), None), (key(3), Some(earlier))].into();
        let first = addresses.assign(&wanted);
        assert_eq!(first[&key(3)], earlier);
        assert_eq!(first.values().collect::<BTreeSet<_>>().len(), 3);
        wanted.remove(&key(1));
        wanted.insert(key(4), Some(earlier));
        let second = addresses.assign(&wanted);
        assert_eq!(
            (second[&key(2)], second[&key(3)]),
            (first[&key(2)], earlier)
        );
        assert_eq!(
            second[&key(4)],
            first[&key(1)],
            "the freed address, as the wanted one is taken"
        );
    }

    #[test]
    fn when_all_addresses_are_taken_the_rest_has_none() {
        let network = LoopbackNetwork::claim(&unique_id("full"), std::iter::empty()).unwrap();
        let mut addresses = Addresses::new(network);
        let wanted: BTreeMap<_, _> = (0..300).map(|n| (key(n), None)).collect();
        assert_eq!(addresses.assign(&wanted).len(), 254);
    }
}
