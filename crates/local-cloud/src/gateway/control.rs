//! The control API below `/springtide/control/`: faults, users, network file systems, public addresses, the ledger.
//!
//! It takes the local token as `Authorization: Bearer …` and nothing else; without one in the configuration it is
//! closed. Bodies and answers are JSON; a refusal has the envelope of all others and changes nothing.

use super::refusal::Refusal;
use super::{Answer, Gateway, json};
use crate::actions::eips;
use crate::ledger::LedgerPage;
use crate::nas;
use crate::ram::Policy;
use crate::state::faults::{FaultOrder, FaultRecord};
use crate::state::resources::EipRecord;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

pub(super) const PREFIX: &str = "/springtide/control/";
/// Largest body: a policy is a few hundred bytes.
const MAX_BODY_BYTES: usize = 256 * 1024;
const DEFAULT_SESSION_SECONDS: i64 = 3_600;
/// Most lines of the ledger in one answer.
const MAX_LEDGER_LINES: usize = 10_000;
/// Most public addresses that nobody uses.
const MAX_EIPS: usize = 1_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewUser {
    name: String,
    policies: Vec<Policy>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeySwitch {
    active: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewSession {
    #[serde(default)]
    seconds: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewFileSystem {
    #[serde(default)]
    description: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct NewEip {
    #[serde(default = "default_bandwidth")]
    bandwidth: i64,
}

fn default_bandwidth() -> i64 {
    5
}

fn wrong(reason: impl Into<String>) -> Refusal {
    Refusal::new(400, "InvalidParameter", reason)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, Refusal> {
    let text: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(text)
        .map_err(|error| wrong(format!("The body cannot be read: {error}.")))
}

impl Gateway {
    /// One call of the control API.
    pub(super) async fn control(&self, request: Request<Incoming>) -> Result<Answer, Refusal> {
        let header = request.headers().get("authorization");
        self.check_token(header.and_then(|value| value.to_str().ok()))?;
        let (head, body) = request.into_parts();
        let body = Limited::new(body, MAX_BODY_BYTES).collect().await;
        let body = body
            .map_err(|error| wrong(format!("The body cannot be read: {error}.")))?
            .to_bytes();
        let path = head.uri.path().strip_prefix(PREFIX).unwrap_or_default();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        let answer = match parts.first().copied() {
            Some("faults") => self.faults(&head.method, &parts[1..], &body),
            Some("users") => self.users(&head.method, &parts[1..], &body),
            Some("file-systems") => self.file_systems(&head.method, &parts[1..], &body).await,
            Some("eips") => self.eips(&head.method, &parts[1..], &body),
            Some("ledger") => self.ledger(&head.method, &parts[1..]).await,
            _ => Err(nothing_at(&head.method, path)),
        }?;
        // What was answered has survived.
        let version = self.shared.state().version;
        self.shared.durable(version).await?;
        Ok(json(StatusCode::OK, &answer))
    }

    fn faults(&self, method: &Method, parts: &[&str], body: &[u8]) -> Result<Value, Refusal> {
        match (method, parts) {
            (&Method::GET, []) => {
                let now = self.shared.now();
                let state = self.shared.state();
                let faults = state.resources.faults.iter();
                let listed: Vec<Value> = faults
                    .map(|(id, fault)| {
                        // A record of texts and numbers is always an object in JSON.
                        let mut value = serde_json::to_value(fault).unwrap_or_default();
                        value["id"] = json!(id);
                        value["active"] = json!(!fault.is_spent(now));
                        value
                    })
                    .collect();
                Ok(json!({ "faults": listed }))
            }
            (&Method::POST, []) => {
                let order: FaultOrder = parse(body)?;
                let ordered = self.shared.order_fault(order);
                let id = ordered.map_err(|error| wrong(format!("{error}.")))?;
                let state = self.shared.state();
                let hits = state.resources.faults.get(&id).map(|fault| fault.hits);
                Ok(json!({ "id": id, "hits": hits }))
            }
            (&Method::DELETE, []) => Ok(json!({ "cleared": self.shared.state().clear_faults() })),
            (&Method::DELETE, [id]) => {
                let cleared = self.shared.state().take_row::<FaultRecord>(id);
                cleared
                    .map(|_| json!({ "cleared": 1 }))
                    .ok_or_else(|| wrong(format!("There is no fault {id}.")))
            }
            _ => Err(nothing_at(method, "faults")),
        }
    }

    fn users(&self, method: &Method, parts: &[&str], body: &[u8]) -> Result<Value, Refusal> {
        let now = self.shared.now();
        let mut state = self.shared.state();
        let refuse = |reason: String| wrong(format!("{reason}."));
        let done = |()| json!({});
        // Keys are lists of texts, which are always JSON.
        let told = |key| serde_json::to_value(key).unwrap_or_default();
        match (method, parts) {
            (&Method::GET, []) => Ok(json!({ "users": state.users() })),
            (&Method::POST, []) => {
                let new: NewUser = parse(body)?;
                state
                    .put_user(&new.name, new.policies)
                    .map(done)
                    .map_err(refuse)
            }
            (&Method::DELETE, [name]) => state.remove_user(name).map(done).map_err(refuse),
            (&Method::POST, [name, "keys"]) => state.new_key(name).map(told).map_err(refuse),
            (&Method::PUT, [name, "keys", id]) => {
                let switch: KeySwitch = parse(body)?;
                state
                    .set_key(name, id, switch.active)
                    .map(done)
                    .map_err(refuse)
            }
            (&Method::DELETE, [name, "keys", id]) => {
                state.remove_key(name, id).map(done).map_err(refuse)
            }
            (&Method::POST, [name, "sessions"]) => {
                let new: NewSession = parse(body)?;
                let seconds = new.seconds.unwrap_or(DEFAULT_SESSION_SECONDS);
                state
                    .new_session(name, seconds, now)
                    .map(told)
                    .map_err(refuse)
            }
            _ => Err(nothing_at(method, "users")),
        }
    }

    async fn file_systems(
        &self,
        method: &Method,
        parts: &[&str],
        body: &[u8],
    ) -> Result<Value, Refusal> {
        let shared = &self.shared;
        let refuse = |error: nas::NasError| match &error {
            nas::NasError::Directory { source, .. } => {
                Refusal::internal(format!("{error}: {source}."))
            }
            _ => wrong(format!("{error}.")),
        };
        match (method, parts) {
            (&Method::GET, []) => {
                let listed = nas::list(&shared.state(), &shared.config);
                Ok(json!({ "fileSystems": listed }))
            }
            (&Method::POST, []) => {
                let new: NewFileSystem = parse(body)?;
                let mut state = shared.state();
                let now = shared.now();
                let made = nas::create(&mut state, &shared.config, &new.description, now);
                made.map(|made| json!(made)).map_err(refuse)
            }
            (&Method::POST, [id, "mount-targets"]) => {
                let added = nas::add_mount_target(&mut shared.state(), &shared.config, id);
                added
                    .map(|server| json!({ "mountTarget": server }))
                    .map_err(refuse)
            }
            (&Method::DELETE, [id]) => {
                let deleted = nas::delete(shared, id).await;
                deleted.map(|()| json!({})).map_err(refuse)
            }
            _ => Err(nothing_at(method, "file-systems")),
        }
    }

    fn eips(&self, method: &Method, parts: &[&str], body: &[u8]) -> Result<Value, Refusal> {
        let now = self.shared.now();
        let mut state = self.shared.state();
        match (method, parts) {
            (&Method::GET, []) => {
                let listed: Vec<Value> = state
                    .resources
                    .eips
                    .iter()
                    .map(|(id, eip)| {
                        json!({
                            "id": id, "address": eip.address, "bandwidth": eip.bandwidth,
                            "automatic": eip.automatic, "user": eip.user, "createdAt": eip.created_at,
                        })
                    })
                    .collect();
                Ok(json!({ "eips": listed }))
            }
            (&Method::POST, []) => {
                let new: NewEip = parse(body)?;
                if state.resources.eips.len() >= MAX_EIPS {
                    return Err(wrong(format!("There may be at most {MAX_EIPS} addresses.")));
                }
                let made = eips::make(new.bandwidth, None, &mut state, now);
                made.map(|(id, address)| json!({ "id": id, "address": address }))
                    .ok_or_else(|| wrong("There is no free public address."))
            }
            (&Method::DELETE, [id]) => match state.resources.eips.get(*id) {
                None => Err(wrong(format!("There is no public address {id}."))),
                Some(EipRecord {
                    user: Some(user), ..
                }) => Err(wrong(format!("The public address {id} belongs to {user}."))),
                Some(_) => {
                    if let Some(gone) = state.take_row::<EipRecord>(id) {
                        state.pools.eips.give_back(gone.address);
                    }
                    Ok(json!({}))
                }
            },
            _ => Err(nothing_at(method, "eips")),
        }
    }
}

impl Gateway {
    async fn ledger(&self, method: &Method, parts: &[&str]) -> Result<Value, Refusal> {
        let (&Method::GET, []) = (method, parts) else {
            return Err(nothing_at(method, "ledger"));
        };
        let page = LedgerPage::of(self.shared.ledger().await?, MAX_LEDGER_LINES);
        serde_json::to_value(page)
            .map_err(|error| Refusal::internal(format!("The ledger cannot be written: {error}.")))
    }
}

fn nothing_at(method: &Method, path: &str) -> Refusal {
    let message = format!("There is nothing at {method} {PREFIX}{path}.");
    Refusal::new(404, "InvalidAction.NotFound", message)
}
