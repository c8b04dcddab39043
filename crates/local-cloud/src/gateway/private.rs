//! What the vendor does not have: `GET /springtide/ledger` and `GET /springtide/groups`.
//!
//! Both take the usual signatures, or the local token as `Authorization: Bearer …`.

use super::Gateway;
use super::authenticate::Incoming as Signed;
use super::keys::Caller;
use super::refusal::Refusal;
use crate::state::record::GroupRecord;
use cloud_api::encoding::parse_form;
use http::Request;
use hyper::body::Incoming;
use ring::hmac;
use serde_json::{Value, json};

impl Gateway {
    pub(super) async fn private(&self, request: &Request<Incoming>) -> Result<Value, Refusal> {
        self.admit(request)?;
        if request.uri().path() == "/springtide/ledger" {
            let ledger = self.shared.ledger().await?;
            return serde_json::to_value(ledger)
                .map_err(|error| Refusal::internal(error.to_string()));
        }
        let state = self.shared.state();
        let groups: Vec<Value> = state.groups.values().map(describe).collect();
        Ok(json!({ "groups": groups }))
    }

    fn admit(&self, request: &Request<Incoming>) -> Result<(), Refusal> {
        let header = request
            .headers()
            .get("authorization")
            .and_then(|value| value.to_str().ok());
        if header.is_some_and(|value| value.starts_with("Bearer ")) {
            return self.check_token(header);
        }
        let query = parse_form(request.uri().query().unwrap_or_default())
            .map_err(|error| Refusal::new(400, "InvalidParameter", error.to_string()))?;
        let signed = Signed {
            method: request.method().as_str(),
            path: request.uri().path(),
            query: &query,
            parameters: &query,
            headers: request.headers(),
            body: b"",
        };
        match self.authenticator.check(&signed, &self.shared)? {
            Caller::Account => Ok(()),
            Caller::User(user) => {
                let message = format!("User {user} may not read this; the account itself may.");
                Err(Refusal::new(403, "Forbidden.SubUser", message))
            }
        }
    }

    /// Whether an `Authorization` header holds the local token.
    pub(super) fn check_token(&self, header: Option<&str>) -> Result<(), Refusal> {
        let given = header.and_then(|value| value.strip_prefix("Bearer "));
        let known = self.shared.config.local_token.as_deref();
        let right = known
            .zip(given)
            .is_some_and(|(known, given)| same(known, given));
        right
            .then_some(())
            .ok_or_else(|| Refusal::new(403, "Forbidden", "The local token is wrong."))
    }
}

/// Compares without telling by its duration how much was right.
fn same(known: &str, given: &str) -> bool {
    let key = hmac::Key::new(hmac::HMAC_SHA256, b"local token");
    hmac::verify(
        &key,
        given.as_bytes(),
        hmac::sign(&key, known.as_bytes()).as_ref(),
    )
    .is_ok()
}

fn describe(group: &GroupRecord) -> Value {
    json!({
        "groupId": group.id,
        "name": group.request.container_group_name,
        "status": group.status.as_str(),
        "ready": group.is_ready(),
        "zone": group.zone,
        "vSwitch": group.v_switch,
        "address": group.address,
        "size": group.size,
        "tags": group.request.tag,
        "simulated": group.simulated,
        "createdAt": group.created_at,
        "changedAt": group.changed_at,
        "billedFrom": group.billed_from,
        "billedUntil": group.billed_until,
        "readySince": group.conditions.iter().find(|one| one.kind == "Ready" && one.status).map(|one| one.since),
    })
}
