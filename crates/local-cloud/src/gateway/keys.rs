//! What access keys there are: the account's own, those of users, and keys for a while. All of the cloud's services
//! share them.

use super::refusal::Refusal;
use crate::shared::Shared;
use jiff::Timestamp;

/// Whose signature a request carries.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// The account itself, which may do everything.
    Account,
    /// A user, who may do what policies allow.
    User(String),
}

/// What is known of an access key.
pub(crate) struct Key {
    pub(super) id: String,
    pub(crate) secret: String,
    pub(crate) caller: Caller,
    /// What has to come with a key for a while, and until when it is good.
    session: Option<(String, Timestamp)>,
}

/// The account's keys are looked at first: they are the ones that come often, and need no lock.
pub(crate) fn find(shared: &Shared, id: &str) -> Result<Key, Refusal> {
    let mut own = shared.config.credentials.iter();
    if let Some(own) = own.find(|own| own.access_key_id == id) {
        return Ok(Key {
            id: id.to_owned(),
            secret: own.access_key_secret.clone(),
            caller: Caller::Account,
            session: None,
        });
    }
    let state = shared.state();
    if let Some(session) = state.resources.sessions.get(id) {
        return Ok(Key {
            id: id.to_owned(),
            secret: session.secret.clone(),
            caller: Caller::User(session.user.clone()),
            session: Some((session.token.clone(), session.expires_at)),
        });
    }
    let mut users = state.resources.users.iter();
    let found = users.find_map(|(name, user)| Some((name, user.keys.get(id)?)));
    match found {
        Some((name, key)) if key.active => Ok(Key {
            id: id.to_owned(),
            secret: key.secret.clone(),
            caller: Caller::User(name.clone()),
            session: None,
        }),
        Some(_) => Err(Refusal::new(
            403,
            "InvalidAccessKeyId.Inactive",
            "Specified access key is disabled.",
        )),
        None => Err(Refusal::new(
            404,
            "InvalidAccessKeyId.NotFound",
            "Specified access key is not found.",
        )),
    }
}

/// A key for a while is good only with its token, and any other key only without one.
pub(crate) fn check_session(key: &Key, token: Option<&str>, now: Timestamp) -> Result<(), Refusal> {
    let refuse = |code: &str, message: &str| Err(Refusal::new(400, code, message));
    match (&key.session, token.filter(|token| !token.is_empty())) {
        (None, None) => Ok(()),
        (Some(_), None) => refuse(
            "MissingSecurityToken",
            "SecurityToken is mandatory for this access key.",
        ),
        (Some((known, _)), Some(given)) if known != given => refuse(
            "InvalidSecurityToken.MismatchWithAccessKey",
            "Specified SecurityToken does not belong to the access key.",
        ),
        (Some((_, expires_at)), Some(_)) if *expires_at <= now => refuse(
            "InvalidSecurityToken.Expired",
            "Specified SecurityToken is expired.",
        ),
        (Some(_), Some(_)) => Ok(()),
        (None, Some(_)) => refuse(
            "InvalidSecurityToken.MismatchWithAccessKey",
            "Specified SecurityToken does not belong to the access key.",
        ),
    }
}
