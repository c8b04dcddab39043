//! Users and groups as an image's `/etc/passwd` and `/etc/group` know them.

use std::collections::BTreeSet;

/// Who a process runs as.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) groups: BTreeSet<u32>,
    pub(super) home: Option<String>,
}

struct PasswdEntry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn passwd_entries(text: &str) -> impl Iterator<Item = PasswdEntry<'_>> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else {
            return None;
        };
        Some(PasswdEntry {
            name,
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            home,
        })
    })
}

/// Name, number and members of each group.
fn group_entries(text: &str) -> impl Iterator<Item = (&str, u32, Vec<&str>)> {
    text.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, gid, members, ..] = fields.as_slice() else {
            return None;
        };
        Some((*name, gid.parse().ok()?, members.split(',').collect()))
    })
}

/// Resolves `user[:group]`; numbers need no entry, names do. An empty text means root.
pub(super) fn resolve(text: &str, passwd: &str, group: &str) -> Result<Identity, String> {
    let (user, wanted_group) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let number: Option<u32> = user.parse().ok();
    let entry =
        passwd_entries(passwd).find(|entry| entry.name == user || Some(entry.uid) == number);
    let mut identity = match (&entry, number) {
        (Some(entry), _) => Identity {
            uid: entry.uid,
            gid: entry.gid,
            home: Some(entry.home.to_owned()),
            ..Identity::default()
        },
        (None, Some(uid)) => Identity {
            uid,
            ..Identity::default()
        },
        (None, None) => return Err(format!("user {user:?} is not in the image's /etc/passwd")),
    };
    if let Some(name) = wanted_group {
        identity.gid = match name.parse() {
            Ok(gid) => gid,
            Err(_) => group_entries(group)
                .find(|(known, ..)| *known == name)
                .map(|(_, gid, _)| gid)
                .ok_or_else(|| format!("group {name:?} is not in the image's /etc/group"))?,
        };
    } else if let Some(entry) = &entry {
        let memberships =
            group_entries(group).filter(|(_, _, members)| members.contains(&entry.name));
        identity.groups = memberships.map(|(_, gid, _)| gid).collect();
    }
    Ok(identity)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nweb:x:101:102:Web:/srv:/bin/false\nbroken\n";
    const GROUP: &str = "root:x:0:\nwww:x:33:web,other\nstaff:x:50:\n";

    #[test]
    fn names_and_numbers_find_their_entry() {
        let wanted = Identity {
            uid: 101,
            gid: 102,
            groups: BTreeSet::from([33]),
            home: Some("/srv".to_owned()),
        };
        assert_eq!(resolve("web", PASSWD, GROUP), Ok(wanted.clone()));
        assert_eq!(resolve("101", PASSWD, GROUP), Ok(wanted));
    }

    #[test]
    fn an_explicit_group_replaces_the_users() {
        assert_eq!(resolve("web:staff", PASSWD, GROUP).unwrap().gid, 50);
        assert_eq!(resolve("7:9", "", "").unwrap().gid, 9);
    }

    #[test]
    fn unknown_numbers_are_taken_and_unknown_names_refused() {
        assert_eq!(
            resolve("4242", PASSWD, GROUP),
            Ok(Identity {
                uid: 4242,
                ..Identity::default()
            })
        );
        assert!(
            resolve("nobody", PASSWD, GROUP)
                .unwrap_err()
                .contains("nobody")
        );
        assert!(
            resolve("web:none", PASSWD, GROUP)
                .unwrap_err()
                .contains("none")
        );
    }

    #[test]
    fn an_empty_text_is_root() {
        assert_eq!(resolve("", "", ""), Ok(Identity::default()));
    }
}
