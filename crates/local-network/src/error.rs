//! What can go wrong while namespaces, links and addresses are set up.

use std::{io, net::Ipv4Addr};

/// An operation on a cluster's network that could not be done.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The cluster id cannot become part of a file name.
    #[error(
        "cluster id {id:?} is not usable: 1 to 40 letters, digits, '.', '_' or single '-', starting and ending with a letter or digit"
    )]
    InvalidClusterId {
        /// The refused id.
        id: String,
    },
    /// The attachment's name cannot be recorded on its link.
    #[error(
        "network attachment name {name:?} is not usable: 1 to 200 printable characters without spaces"
    )]
    InvalidName {
        /// The refused name.
        name: String,
    },
    /// The process lacks the rights for network namespaces.
    #[error(
        "{attempt} {object} needs root (CAP_SYS_ADMIN and CAP_NET_ADMIN): run this program as root"
    )]
    NotPermitted {
        /// What was attempted.
        attempt: &'static str,
        /// On which object.
        object: String,
    },
    /// The kernel or the file system refused.
    #[error("{attempt} {object}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which object.
        object: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A name is attached already, with another address.
    #[error("{name} is attached already with address {existing}, not {wanted}: detach it first")]
    AttachedElsewhere {
        /// The attachment's name.
        name: String,
        /// The address it has.
        existing: Ipv4Addr,
        /// The address that was asked for.
        wanted: Ipv4Addr,
    },
    /// Another attachment holds the address.
    #[error("attaching {name}: address {address} is in use by another pod of this cluster")]
    AddressInUse {
        /// The attachment's name.
        name: String,
        /// The address in question.
        address: Ipv4Addr,
    },
    /// A helper thread could not be started or went away.
    #[error("the network thread for {object} stopped before it answered")]
    Stopped {
        /// What the thread was working on.
        object: String,
    },
}

impl NetworkError {
    /// Wraps an IO error, telling missing rights apart.
    pub(crate) fn io(
        attempt: &'static str,
        object: impl Into<String>,
        source: impl Into<io::Error>,
    ) -> Self {
        let (object, source) = (object.into(), source.into());
        if source.kind() == io::ErrorKind::PermissionDenied {
            return Self::NotPermitted { attempt, object };
        }
        Self::Io {
            attempt,
            object,
            source,
        }
    }
}
