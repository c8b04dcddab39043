//! Who asks, and what they may do.

pub mod authenticate;
pub mod authorize;
pub mod pki;
pub mod reviews;
pub mod signer;
pub mod token;

/// Group whose members may do everything.
pub const MASTERS: &str = "system:masters";
/// Group of everybody who is somebody.
pub const AUTHENTICATED: &str = "system:authenticated";
/// Name of those who showed no credentials.
pub const ANONYMOUS: &str = "system:anonymous";

/// An authenticated user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// `system:serviceaccount:default:x`
    pub name: String,
    /// Stable identifier, may be empty.
    pub uid: String,
    /// `system:masters`
    pub groups: Vec<String>,
    /// Further attributes.
    pub extra: Vec<(String, Vec<String>)>,
}

impl User {
    /// A user of the given name and groups.
    pub fn new(name: &str, groups: &[&str]) -> Self {
        Self {
            name: name.to_string(),
            groups: groups.iter().map(|one| one.to_string()).collect(),
            ..Self::default()
        }
    }

    /// Somebody without credentials.
    pub fn anonymous() -> Self {
        Self::new(ANONYMOUS, &["system:unauthenticated"])
    }

    /// Whether the user is in a group.
    pub fn in_group(&self, group: &str) -> bool {
        self.groups.iter().any(|one| one == group)
    }

    /// Adds `system:authenticated` unless it is there.
    pub fn authenticated(mut self) -> Self {
        if !self.in_group(AUTHENTICATED) {
            self.groups.push(AUTHENTICATED.into());
        }
        self
    }
}
