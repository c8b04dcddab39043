//! Who may call besides the account itself: users with policies, their access keys, and keys for a while.

use super::State;
use crate::ram::Policy;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// Most users.
const MAX_USERS: usize = 100;
/// Most access keys of a user, as with the vendor.
const MAX_KEYS: usize = 2;
const MAX_SESSIONS: usize = 1_000;
/// Shortest and longest life of a session.
const SESSION_SECONDS: std::ops::RangeInclusive<i64> = 900..=43_200;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) policies: Vec<Policy>,
    /// By access key id.
    pub(crate) keys: BTreeMap<String, KeyRecord>,
}

#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct KeyRecord {
    pub(crate) secret: String,
    pub(crate) active: bool,
}

/// A key for a while, with the rights of its user.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct SessionRecord {
    pub(crate) user: String,
    pub(crate) secret: String,
    pub(crate) token: String,
    pub(crate) expires_at: Timestamp,
}

/// A user as it is listed; secrets are told only when they are made.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct UserInfo {
    pub(crate) name: String,
    pub(crate) policies: Vec<Policy>,
    pub(crate) access_keys: Vec<KeyInfo>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct KeyInfo {
    pub(crate) access_key_id: String,
    pub(crate) active: bool,
}

/// A key as it is handed out.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct NewKey {
    pub(crate) access_key_id: String,
    pub(crate) access_key_secret: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) security_token: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) expiration: Option<Timestamp>,
}

/// The secret stays out of every log.
impl fmt::Debug for KeyRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("KeyRecord");
        shown.field("active", &self.active).finish_non_exhaustive()
    }
}

/// Secret and token stay out of every log.
impl fmt::Debug for SessionRecord {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("SessionRecord");
        shown.field("user", &self.user).finish_non_exhaustive()
    }
}

fn unknown(name: &str) -> String {
    format!("there is no user {name}")
}

impl State {
    /// Makes a user, or gives one other policies; its keys stay.
    pub(crate) fn put_user(&mut self, name: &str, policies: Vec<Policy>) -> Result<(), String> {
        let letters = name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if name.is_empty() || name.len() > 64 || !letters {
            return Err(
                "name must be 1 to 64 letters, digits, dots, dashes and underscores".to_owned(),
            );
        }
        for (number, policy) in policies.iter().enumerate() {
            policy
                .check()
                .map_err(|reason| format!("policies[{number}]: {reason}"))?;
        }
        let known = self.resources.users.get(name).cloned();
        if known.is_none() && self.resources.users.len() >= MAX_USERS {
            return Err(format!("there may be at most {MAX_USERS} users"));
        }
        let keys = known.map(|known| known.keys).unwrap_or_default();
        self.put(name, UserRecord { policies, keys });
        Ok(())
    }

    /// Removes a user with its keys and sessions.
    pub(crate) fn remove_user(&mut self, name: &str) -> Result<(), String> {
        self.take_row::<UserRecord>(name)
            .ok_or_else(|| unknown(name))?;
        let sessions = self.resources.sessions.iter();
        let own = sessions.filter(|(_, session)| session.user == name);
        let own: Vec<String> = own.map(|(id, _)| id.clone()).collect();
        for id in own {
            self.take_row::<SessionRecord>(&id);
        }
        Ok(())
    }

    /// Makes an access key for a user.
    pub(crate) fn new_key(&mut self, name: &str) -> Result<NewKey, String> {
        let known = self.resources.users.get(name);
        if known.ok_or_else(|| unknown(name))?.keys.len() >= MAX_KEYS {
            return Err(format!(
                "user {name} has {MAX_KEYS} access keys already; remove one first"
            ));
        }
        let key = NewKey {
            access_key_id: self.random_id("LTAI"),
            access_key_secret: secret(),
            security_token: None,
            expiration: None,
        };
        self.change_row(name, |user: &mut UserRecord| {
            let record = KeyRecord {
                secret: key.access_key_secret.clone(),
                active: true,
            };
            user.keys.insert(key.access_key_id.clone(), record);
        });
        Ok(key)
    }

    /// Switches a key on or off.
    pub(crate) fn set_key(&mut self, name: &str, id: &str, active: bool) -> Result<(), String> {
        let set = self.change_row(name, |user: &mut UserRecord| {
            let key = user.keys.get_mut(id)?;
            key.active = active;
            Some(())
        });
        set.flatten()
            .ok_or_else(|| format!("user {name} has no access key {id}"))
    }

    /// Removes a key.
    pub(crate) fn remove_key(&mut self, name: &str, id: &str) -> Result<(), String> {
        let removed = self.change_row(name, |user: &mut UserRecord| user.keys.remove(id));
        removed
            .flatten()
            .map(|_| ())
            .ok_or_else(|| format!("user {name} has no access key {id}"))
    }

    /// Makes a key for a while.
    pub(crate) fn new_session(
        &mut self,
        name: &str,
        seconds: i64,
        now: Timestamp,
    ) -> Result<NewKey, String> {
        if !self.resources.users.contains_key(name) {
            return Err(unknown(name));
        }
        if !SESSION_SECONDS.contains(&seconds) {
            let (least, most) = SESSION_SECONDS.into_inner();
            return Err(format!("seconds must be from {least} to {most}"));
        }
        if self.resources.sessions.len() >= MAX_SESSIONS {
            return Err(format!("there may be at most {MAX_SESSIONS} sessions"));
        }
        let id = self.random_id("STS.");
        let session = SessionRecord {
            user: name.to_owned(),
            secret: secret(),
            token: secret(),
            expires_at: now + SignedDuration::from_secs(seconds),
        };
        let key = NewKey {
            access_key_id: id.clone(),
            access_key_secret: session.secret.clone(),
            security_token: Some(session.token.clone()),
            expiration: Some(session.expires_at),
        };
        self.put(&id, session);
        Ok(key)
    }

    /// All users.
    pub(crate) fn users(&self) -> Vec<UserInfo> {
        let users = self.resources.users.iter();
        users
            .map(|(name, user)| UserInfo {
                name: name.clone(),
                policies: user.policies.clone(),
                access_keys: user
                    .keys
                    .iter()
                    .map(|(id, key)| KeyInfo {
                        access_key_id: id.clone(),
                        active: key.active,
                    })
                    .collect(),
            })
            .collect()
    }
}

/// Secrets come from the machine's randomness, never from the seed of ids: nobody shall work one out.
fn secret() -> String {
    uuid::Uuid::new_v4().simple().to_string()
}
