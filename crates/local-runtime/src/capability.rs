//! Linux capabilities by name, and the set a container starts with.

/// Names in the kernel's numbering; the position is the number.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// What containerd gives a container that asks for nothing.
const DEFAULT: [&str; 14] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "FSETID",
    "FOWNER",
    "MKNOD",
    "NET_RAW",
    "SETGID",
    "SETUID",
    "SETFCAP",
    "SETPCAP",
    "NET_BIND_SERVICE",
    "SYS_CHROOT",
    "KILL",
    "AUDIT_WRITE",
];

/// How many capabilities we know.
pub(crate) const COUNT: u32 = NAMES.len() as u32;

fn bit(name: &str) -> Option<u64> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    NAMES
        .iter()
        .position(|known| *known == bare)
        .map(|number| 1 << number)
}

/// The set after adding and dropping; dropping a name wins over adding it, adding a name wins over dropping `ALL`.
/// Gives back the first unknown name.
pub(crate) fn effective_set(added: &[String], dropped: &[String]) -> Result<u64, String> {
    let all = (1_u64 << COUNT) - 1;
    let is_all = |name: &String| name.eq_ignore_ascii_case("ALL");
    let mut set: u64 = DEFAULT.iter().filter_map(|name| bit(name)).sum();
    if added.iter().any(is_all) {
        set = all;
    }
    if dropped.iter().any(is_all) {
        set = 0;
    }
    for name in added.iter().filter(|name| !is_all(name)) {
        set |= bit(name).ok_or_else(|| name.clone())?;
    }
    for name in dropped.iter().filter(|name| !is_all(name)) {
        set &= !bit(name).ok_or_else(|| name.clone())?;
    }
    Ok(set)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(added: &[&str], dropped: &[&str]) -> Result<u64, String> {
        let own = |names: &[&str]| {
            names
                .iter()
                .map(|name| (*name).to_owned())
                .collect::<Vec<_>>()
        };
        effective_set(&own(added), &own(dropped))
    }

    #[test]
    fn the_default_set_is_the_well_known_mask() {
        assert_eq!(set(&[], &[]), Ok(0xa804_25fb));
    }

    #[test]
    fn dropping_all_leaves_only_what_is_added() {
        assert_eq!(set(&["NET_BIND_SERVICE"], &["ALL"]), Ok(1 << 10));
        assert_eq!(set(&["cap_sys_time"], &["all"]), Ok(1 << 25));
    }

    #[test]
    fn an_unknown_name_is_given_back() {
        assert_eq!(set(&["FLY"], &[]), Err("FLY".to_owned()));
    }
}
