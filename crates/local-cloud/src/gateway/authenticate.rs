//! Who calls? Both signatures, the clock's tolerance, and no nonce twice.

use super::nonces::{Nonces, Seen};
use super::refusal::Refusal;
use cloud_api::Credentials;
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
    credentials: Vec<Credentials>,
    nonces: Mutex<Nonces>,
}

impl Authenticator {
    pub(super) fn new(credentials: Vec<Credentials>) -> Self {
        Self {
            credentials,
            nonces: Mutex::default(),
        }
    }

    /// Says yes or why not.
    pub(super) fn check(&self, incoming: &Incoming<'_>, now: Timestamp) -> Result<(), Refusal> {
        if incoming.is_v3() {
            self.check_v3(incoming, now)
        } else {
            self.check_v1(incoming, now)
        }
    }

    fn check_v3(&self, incoming: &Incoming<'_>, now: Timestamp) -> Result<(), Refusal> {
        let header = incoming.mandatory_header("authorization")?;
        let authorization = v3::Authorization::parse(&header).map_err(refuse_signature)?;
        let credentials = self.find(&authorization.access_key_id)?;
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
            .verify(&credentials.access_key_secret, &authorization.signature)
            .map_err(refuse_signature)?;
        self.remember(
            credentials,
            &incoming.mandatory_header("x-acs-signature-nonce")?,
            now,
        )
    }

    fn check_v1(&self, incoming: &Incoming<'_>, now: Timestamp) -> Result<(), Refusal> {
        let credentials = self.find(incoming.mandatory_parameter("AccessKeyId")?)?;
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
        v1::verify(
            incoming.method,
            incoming.parameters,
            &credentials.access_key_secret,
        )
        .map_err(refuse_signature)?;
        self.remember(credentials, nonce, now)
    }

    fn find(&self, access_key_id: &str) -> Result<&Credentials, Refusal> {
        let known = self
            .credentials
            .iter()
            .find(|credentials| credentials.access_key_id == access_key_id);
        known.ok_or_else(|| {
            Refusal::new(
                404,
                "InvalidAccessKeyId.NotFound",
                "Specified access key is not found.",
            )
        })
    }

    /// Only after the signature was found right, so that nobody else can use nonces up.
    fn remember(
        &self,
        credentials: &Credentials,
        nonce: &str,
        now: Timestamp,
    ) -> Result<(), Refusal> {
        let mut nonces = self.nonces.lock().unwrap_or_else(PoisonError::into_inner);
        match nonces.remember(&credentials.access_key_id, nonce, now.as_second()) {
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
