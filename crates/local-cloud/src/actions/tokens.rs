//! Client tokens: the same token with the same parameters is the same call.

use super::Call;
use crate::gateway::refusal::Refusal;
use crate::state::{State, TokenRecord};
use cloud_api::encoding::canonical_query;
use cloud_api::model::Action;
use cloud_api::signature::v3::payload_hash;

const MAX_TOKEN_LENGTH: usize = 64;

/// A call's token, ready for looking up and remembering.
pub(super) struct Token {
    key: String,
    fingerprint: String,
}

impl Token {
    /// `None` when the call has no token.
    pub(super) fn of<A: Action>(call: &Call<'_>, request: &A) -> Result<Option<Self>, Refusal> {
        let token = request.client_token();
        if token.is_empty() {
            return Ok(None);
        }
        if token.len() > MAX_TOKEN_LENGTH || !token.is_ascii() {
            return Err(Refusal::invalid(
                "ClientToken",
                "it must be up to 64 ASCII characters",
            ));
        }
        let fingerprint = payload_hash(canonical_query(call.parameters).as_bytes());
        Ok(Some(Self {
            key: format!("{}/{token}", A::NAME),
            fingerprint,
        }))
    }

    /// The group that the token was first used for.
    pub(super) fn look_up(&self, state: &State) -> Result<Option<String>, Refusal> {
        match state.tokens.get(&self.key) {
            None => Ok(None),
            Some(known) if known.fingerprint == self.fingerprint => {
                Ok(Some(known.group_id.clone()))
            }
            Some(_) => {
                let message = "The client token was used before with other parameters.";
                Err(Refusal::new(400, "IdempotentParameterMismatch", message))
            }
        }
    }

    /// Remembers what the token stands for.
    pub(super) fn remember(self, state: &mut State, group_id: &str, now: jiff::Timestamp) {
        let record = TokenRecord {
            fingerprint: self.fingerprint,
            group_id: group_id.to_owned(),
            used_at: now,
        };
        state.remember_token(self.key, record);
    }
}
