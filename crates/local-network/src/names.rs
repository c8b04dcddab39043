//! How namespaces, links and hardware addresses are named after the cluster and the attachment.
//!
//! `springtide-<cluster>` is the router, `springtide-<cluster>--<name>` a pod. A cluster id has no `--`, so the two can
//! be told apart for every pair of clusters.

use std::net::Ipv4Addr;

use crate::NetworkError;

const PREFIX: &str = "springtide-";
const SEPARATOR: &str = "--";
const CLUSTER_ID_MAX_CHARS: usize = 40;
/// The name is kept in the link's alias (at most 255 bytes) beside the address.
const NAME_MAX_CHARS: usize = 200;
/// A file name may have 255 bytes; longer names keep their start and get a hash.
const FILE_NAME_PART_MAX_CHARS: usize = 160;

/// The hardware address of every link's router side. Each link is point to point, so it need not be unique.
pub(crate) const ROUTER_HARDWARE_ADDRESS: [u8; 6] = [0x02, 0x53, 0x54, 0x00, 0x00, 0x01];

pub(crate) fn check_cluster_id(id: &str) -> Result<(), NetworkError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    if id.len() > CLUSTER_ID_MAX_CHARS
        || !id.chars().all(allowed)
        || id.contains(SEPARATOR)
        || !edge(id.chars().next())
        || !edge(id.chars().last())
    {
        return Err(NetworkError::InvalidClusterId { id: id.to_owned() });
    }
    Ok(())
}

pub(crate) fn check_name(name: &str) -> Result<(), NetworkError> {
    if name.is_empty() || name.len() > NAME_MAX_CHARS || !name.chars().all(|c| c.is_ascii_graphic())
    {
        return Err(NetworkError::InvalidName {
            name: name.to_owned(),
        });
    }
    Ok(())
}

pub(crate) fn router_namespace(cluster_id: &str) -> String {
    format!("{PREFIX}{cluster_id}")
}

/// The namespace name of an attachment: readable, and different for different attachments.
pub(crate) fn pod_namespace(cluster_id: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.len() <= FILE_NAME_PART_MAX_CHARS && name.chars().all(plain) {
        return format!("{PREFIX}{cluster_id}{SEPARATOR}{name}");
    }
    let readable: String = name
        .chars()
        .map(|c| if plain(c) { c } else { '_' })
        .take(FILE_NAME_PART_MAX_CHARS - 17)
        .collect();
    format!(
        "{PREFIX}{cluster_id}{SEPARATOR}{readable}~{:016x}",
        fingerprint(name)
    )
}

/// True for every namespace that belongs to this cluster and no other.
pub(crate) fn belongs_to(namespace: &str, cluster_id: &str) -> bool {
    let Some(rest) = namespace
        .strip_prefix(PREFIX)
        .and_then(|rest| rest.strip_prefix(cluster_id))
    else {
        return false;
    };
    rest.is_empty() || rest.starts_with(SEPARATOR)
}

/// The router-side link of an attachment; interface names have at most 15 characters.
pub(crate) fn router_link(name: &str) -> String {
    format!("st{:012x}", fingerprint(name) & 0xffff_ffff_ffff)
}

/// Made from the pod's address as CNI plugins do, so that a reused address keeps its hardware address.
pub(crate) fn pod_hardware_address(ip: Ipv4Addr) -> [u8; 6] {
    let [a, b, c, d] = ip.octets();
    [0x0a, 0x58, a, b, c, d]
}

/// The link alias that marks an attachment as complete and says what it is.
pub(crate) fn alias(name: &str, ip: Ipv4Addr) -> String {
    format!("{ip} {name}")
}

/// Reads an alias back; anything else is not a complete attachment.
pub(crate) fn parse_alias(alias: &str) -> Option<(String, Ipv4Addr)> {
    let (ip, name) = alias.split_once(' ')?;
    check_name(name).ok()?;
    Some((name.to_owned(), ip.parse().ok()?))
}

/// FNV-1a: names must hash alike in every build, which the standard library's hasher does not promise.
pub(crate) fn fingerprint(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cluster_ids_that_could_be_mixed_up_are_refused() {
        for id in ["", "-a", "a-", "a--b", "a/b", "ä", &"x".repeat(41)] {
            assert!(check_cluster_id(id).is_err(), "{id:?}");
        }
        for id in ["a", "default", "test-12-3", "A.b_c"] {
            assert!(check_cluster_id(id).is_ok(), "{id:?}");
        }
    }

    #[test]
    fn namespaces_of_a_cluster_with_a_longer_id_are_not_ours() {
        assert!(belongs_to(&router_namespace("a"), "a"));
        assert!(belongs_to(&pod_namespace("a", "b"), "a"));
        assert!(!belongs_to(&router_namespace("a-b"), "a"));
        assert!(!belongs_to(&pod_namespace("a-b", "c"), "a"));
        assert!(!belongs_to("other-a", "a"));
    }

    proptest! {
        #[test]
        fn names_fit_the_kernels_limits_and_come_back_from_the_alias(name in "[!-~]{1,200}") {
            prop_assert!(check_name(&name).is_ok());
            let file = pod_namespace("cluster", &name);
            prop_assert!(file.len() <= 255 && !file.contains('/'));
            prop_assert!(router_link(&name).len() <= 15);
            let ip = Ipv4Addr::new(10, 30, 1, 7);
            prop_assert!(alias(&name, ip).len() <= 255);
            prop_assert_eq!(parse_alias(&alias(&name, ip)), Some((name, ip)));
        }
    }
}
