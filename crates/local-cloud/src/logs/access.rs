//! Who calls the log service, and whether policies allow it: the access keys and users of the whole cloud.

use super::LogService;
use super::refusal::Refused;
use crate::gateway::keys::{self, Caller};
use crate::ram;
use bytes::Bytes;
use cloud_api::log::signature::{
    LogRequest, V4_ALGORITHM, V4Authorization, content_md5, content_sha256, parse_v1,
};
use cloud_api::signature::SignatureError;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;

/// Furthest that a request's clock may be off.
const TOLERANCE_SECONDS: i64 = 15 * 60;

/// A request with its query decoded and its headers in lower case.
pub(super) struct Request<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) query: Vec<(String, String)>,
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: &'a Bytes,
}

impl Request<'_> {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    pub(super) fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

impl LogService {
    /// Says who calls, or why it is not believed.
    pub(super) fn authenticate(&self, request: &Request<'_>) -> Result<Caller, Refused> {
        let authorization = request
            .header("authorization")
            .ok_or_else(|| Refused::parameter("header Authorization is missing"))?;
        let is_v4 = authorization.starts_with(V4_ALGORITHM);
        let v4 = is_v4
            .then(|| V4Authorization::parse(authorization))
            .transpose();
        let v4 = v4.map_err(|error| refuse_signature(&error))?;
        let v1 = (!is_v4).then(|| parse_v1(authorization)).transpose();
        let v1 = v1.map_err(|error| refuse_signature(&error))?;
        let id = match (&v4, &v1) {
            (Some(v4), _) => v4.access_key_id.as_str(),
            (None, Some((id, _))) => id,
            (None, None) => "",
        };
        let now = self.shared.now();
        let unauthorized = |message: String| Refused::new(401, "Unauthorized", message);
        let key = keys::find(&self.shared, id).map_err(|refusal| unauthorized(refusal.message))?;
        let mut headers = request.headers.clone();
        if v1.is_some()
            && request.header("date").is_none()
            && let Some(date) = request.header("x-log-date")
        {
            // A proxy dropped what was signed; the client put it here as well.
            headers.push(("date".to_owned(), date.to_owned()));
        }
        let signed = LogRequest {
            method: request.method,
            path: request.path,
            query: &request.query,
            headers: &headers,
        };
        let verified = match (&v4, &v1) {
            (Some(v4), _) => signed.verify_v4(&key.secret, v4),
            (None, Some((_, signature))) => signed.verify_v1(&key.secret, signature),
            (None, None) => return Err(Refused::parameter("header Authorization is missing")),
        };
        check_time(request, is_v4, now)?;
        verified.map_err(|error| refuse_signature(&error))?;
        check_body(request)?;
        keys::check_session(&key, request.header("x-acs-security-token"), now)
            .map_err(|refusal| unauthorized(refusal.message))?;
        Ok(key.caller)
    }

    /// Whether the caller's policies allow an action on a project, or on a part of one.
    pub(super) fn authorize(
        &self,
        caller: &Caller,
        action: &str,
        resource: &str,
    ) -> Result<(), Refused> {
        let Caller::User(user) = caller else {
            return Ok(());
        };
        let region = &self.shared.config.region;
        let resource = format!("acs:log:{region}:{}:{resource}", ram::ACCOUNT);
        let action = format!("log:{action}");
        let state = self.shared.state();
        let record = state.resources.users.get(user);
        if record.is_some_and(|record| ram::allows(&record.policies, &action, &resource)) {
            return Ok(());
        }
        let message = format!(
            "denied by sts or ram, action: {action}, resource: {resource}; give user {user} a policy that allows that"
        );
        Err(Refused::new(401, "Unauthorized", message))
    }
}

fn check_time(request: &Request<'_>, is_v4: bool, now: Timestamp) -> Result<(), Refused> {
    let date = match is_v4 {
        true => request.header("x-log-date"),
        false => request.header("date").or(request.header("x-log-date")),
    };
    let date = date.ok_or_else(|| Refused::parameter("header Date is missing"))?;
    let time = match is_v4 {
        true => DateTime::strptime("%Y%m%dT%H%M%SZ", date)
            .and_then(|time| time.to_zoned(TimeZone::UTC))
            .map(|time| time.timestamp()),
        false => jiff::fmt::rfc2822::parse(date).map(|time| time.timestamp()),
    };
    let time = time.map_err(|_| {
        let message = format!("the request's time {date:?} cannot be read");
        Refused::new(400, "InvalidRequestTime", message)
    })?;
    if (time.as_second() - now.as_second()).abs() > TOLERANCE_SECONDS {
        let message =
            format!("the request's time {date} is more than 15 minutes from ours, {now:.0}");
        return Err(Refused::new(400, "RequestTimeExpired", message));
    }
    Ok(())
}

/// The signature covers the hash of the body, so the hash has to be right.
fn check_body(request: &Request<'_>) -> Result<(), Refused> {
    if let Some(given) = request.header("content-md5")
        && given != content_md5(request.body)
    {
        return Err(Refused::parameter("Content-MD5 is not the body's"));
    }
    let is_v4 = request
        .header("authorization")
        .is_some_and(|text| text.starts_with(V4_ALGORITHM));
    match request.header("x-log-content-sha256") {
        Some(given) if given == content_sha256(request.body) => Ok(()),
        None if !is_v4 && (request.body.is_empty() || request.header("content-md5").is_some()) => {
            Ok(())
        }
        Some(_) => Err(Refused::parameter("x-log-content-sha256 is not the body's")),
        None => Err(Refused::parameter(
            "the body's hash is missing: send Content-MD5 with it",
        )),
    }
}

fn refuse_signature(error: &SignatureError) -> Refused {
    match error {
        SignatureError::Malformed { reason } => {
            Refused::parameter(format!("the signature is malformed: {reason}"))
        }
        SignatureError::Mismatch { string_to_sign } => Refused::new(
            401,
            "SignatureNotMatch",
            format!("signature is not matched; the server signs {string_to_sign:?}"),
        ),
    }
}
