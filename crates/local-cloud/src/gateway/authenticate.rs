//! Who calls? Both signatures, the clock's tolerance, and no nonce twice.

use super::keys::{Caller, Key, check_session, find};
use super::nonces::{Nonces, Seen};
use super::refusal::Refusal;
use crate::shared::Shared;
use cloud_api::signature::{SignatureError, v1, v3};
use jiff::Timestamp;
use std::sync::{Mutex, PoisonError};

/// Furthest that a request's clock may be off.
const TOLERANCE_SECONDS: i64 = 15 * 60;

/// A request as far as signatures are concerned.
pub(super) struct Incoming<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: &'a [(String, String)],
    /// Query and form parameters together.
    pub(super) parameters: &'a [(String, String)],
    pub(super) headers: &'a http::HeaderMap,
    pub(super) body: &'a [u8],
}

impl Incoming<'_> {
    fn header(&self, name: &str) -> Option<String> {
        let values: Vec<&str> = self
            .headers
            .get_all(name)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        (!values.is_empty()).then(|| values.join(","))
    }

    fn mandatory_header(&self, name: &str) -> Result<String, Refusal> {
        self.header(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Refusal::missing(name))
    }

    fn mandatory_parameter(&self, name: &str) -> Result<&str, Refusal> {
        self.parameter(name)
            .filter(|value| !value.is_empty())
            .ok_or_else(|| Refusal::missing(name))
    }

    /// A parameter's value.
    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the request carries signature version 3.
    pub(super) fn is_v3(&self) -> bool {
        self.header("authorization")
            .is_some_and(|value| value.starts_with("ACS3-"))
    }
}

/// Checks signatures.
pub(super) struct Authenticator {
    nonces: Mutex<Nonces>,
}

impl Authenticator {
    pub(super) fn new(nonces: Nonces) -> Self {
        Self {
            nonces: Mutex::new(nonces),
        }
    }

    /// Says who calls, or why it is not believed.
    pub(super) fn check(
        &self,
        incoming: &Incoming<'_>,
        shared: &Shared,
    ) -> Result<Caller, Refusal> {
        let now = shared.now();
        if incoming.is_v3() {
            self.check_v3(incoming, shared, now)
        } else {
            self.check_v1(incoming, shared, now)
        }
    }

    fn check_v3(
        &self,
        incoming: &Incoming<'_>,
        shared: &Shared,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let header = incoming.mandatory_header("authorization")?;
        let authorization = v3::Authorization::parse(&header).map_err(refuse_signature)?;
        let key = find(shared, &authorization.access_key_id)?;
        check_time(&incoming.mandatory_header("x-acs-date")?, now)?;
        let mut headers = Vec::with_capacity(authorization.signed_headers.len());
        for name in &authorization.signed_headers {
            headers.push((name.clone(), incoming.header(name).unwrap_or_default()));
        }
        let payload_hash = v3::payload_hash(incoming.body);
        if incoming.mandatory_header("x-acs-content-sha256")? != payload_hash {
            let message = "The body does not have the hash of header x-acs-content-sha256.";
            return Err(Refusal::new(
                400,
                "SignatureDoesNotMatch",
                format!("{message} server string to sign is:"),
            ));
        }
        let signed = v3::SignedRequest {
            method: incoming.method,
            path: incoming.path,
            query: incoming.query,
            headers: &headers,
            payload_hash: &payload_hash,
        };
        signed
            .verify(&key.secret, &authorization.signature)
            .map_err(refuse_signature)?;
        check_session(
            &key,
            incoming.header("x-acs-security-token").as_deref(),
            now,
        )?;
        let nonce = incoming.mandatory_header("x-acs-signature-nonce")?;
        self.remember(&key, &nonce, now)?;
        Ok(key.caller)
    }

    fn check_v1(
        &self,
        incoming: &Incoming<'_>,
        shared: &Shared,
        now: Timestamp,
    ) -> Result<Caller, Refusal> {
        let key = find(shared, incoming.mandatory_parameter("AccessKeyId")?)?;
        let method = incoming.mandatory_parameter("SignatureMethod")?;
        if !method.eq_ignore_ascii_case(v1::METHOD) {
            let message = format!(
                "The signature method {method} is not known; use {}.",
                v1::METHOD
            );
            return Err(Refusal::new(400, "InvalidSignatureMethod", message));
        }
        check_time(incoming.mandatory_parameter("Timestamp")?, now)?;
        incoming.mandatory_parameter(v1::SIGNATURE_PARAMETER)?;
        let nonce = incoming.mandatory_parameter("SignatureNonce")?;
        v1::verify(incoming.method, incoming.parameters, &key.secret).map_err(refuse_signature)?;
        check_session(&key, incoming.parameter("SecurityToken"), now)?;
        self.remember(&key, nonce, now)?;
        Ok(key.caller)
    }

    /// Only after the signature was found right, so that nobody else can use nonces up.
    fn remember(&self, key: &Key, nonce: &str, now: Timestamp) -> Result<(), Refusal> {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        match nonces.remember(&key.id, nonce, now.as_second()) {
            Seen::New => Ok(()),
            Seen::Before => Err(Refusal::new(
                400,
                "SignatureNonceUsed",
                "Specified signature nonce was used already.",
            )),
            Seen::Full => Err(Refusal::new(
                503,
                "ServiceUnavailable",
                "Too many calls within half an hour.",
            )),
            Seen::Unwritten => Err(Refusal::new(
                503,
                "ServiceUnavailable",
                "The cloud cannot write to its directory.",
            )),
        }
    }
}

fn check_time(text: &str, now: Timestamp) -> Result<(), Refusal> {
    let time = cloud_api::time::parse(text).ok_or_else(|| {
        let message = "Specified time stamp or date value is not well formatted.";
        Refusal::new(400, "InvalidTimeStamp.Format", message)
    })?;
    if (time.as_second() - now.as_second()).abs() > TOLERANCE_SECONDS {
        let message = format!(
            "Specified time stamp or date value is expired. The server's time is {now:.0}."
        );
        return Err(Refusal::new(400, "InvalidTimeStamp.Expired", message));
    }
    Ok(())
}

fn refuse_signature(error: SignatureError) -> Refusal {
    match error {
        SignatureError::Malformed { reason } => Refusal::new(
            400,
            "IncompleteSignature",
            format!("The signature is malformed: {reason}."),
        ),
        // Clients split this sentence at its first colon and compare the rest with their own.
        SignatureError::Mismatch { string_to_sign } => {
            let sentence = "Specified signature is not matched with our calculation. server string to sign is:";
            Refusal::new(
                400,
                "SignatureDoesNotMatch",
                format!("{sentence}{string_to_sign}"),
            )
        }
    }
}
