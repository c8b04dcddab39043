//! The two signatures of the log service: `LOG` with HMAC-SHA1, and `SLS4-HMAC-SHA256`.

use crate::encoding::{hex, percent_encode};
use crate::signature::SignatureError;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest, Md5};
use ring::{digest, hmac};

/// Where the older signature's name stands.
pub const V1_PREFIX: &str = "LOG ";
/// The name of the newer signature.
pub const V4_ALGORITHM: &str = "SLS4-HMAC-SHA256";
const V4_END: &str = "aliyun_v4_request";
const PRODUCT: &str = "sls";

/// A request as far as signatures are concerned.
#[derive(Clone, Copy, Debug)]
pub struct LogRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The path, without the query.
    pub path: &'a str,
    /// The query's parameters, decoded.
    pub query: &'a [(String, String)],
    /// All headers, names in lower case.
    pub headers: &'a [(String, String)],
}

/// The upper-case hexadecimal MD5 of a body as it is sent.
pub fn content_md5(body: &[u8]) -> String {
    hex(&Md5::digest(body)).to_uppercase()
}

/// The lower-case hexadecimal SHA-256 of a body as it is sent.
pub fn content_sha256(body: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, body).as_ref())
}

impl LogRequest<'_> {
    fn header(&self, name: &str) -> &str {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map_or("", |(_, value)| value.as_str())
    }

    /// What the older signature signs. Clients add `x-log-date` after signing, as a rule.
    pub fn string_to_sign_v1(&self, with_log_date: bool) -> String {
        let mut extra: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| is_extra(name))
            .filter(|(name, _)| with_log_date || *name != "x-log-date")
            .collect();
        extra.sort_unstable();
        let mut text = [
            self.method,
            self.header("content-md5"),
            self.header("content-type"),
            self.header("date"),
        ]
        .join("\n");
        for (name, value) in extra {
            text.push_str(&format!("\n{name}:{value}"));
        }
        text.push('\n');
        text.push_str(self.path);
        let mut separator = '?';
        for (name, value) in sorted(self.query) {
            text.push_str(&format!("{separator}{name}={value}"));
            separator = '&';
        }
        text
    }

    /// The `Authorization` of the older signature.
    pub fn authorize_v1(&self, id: &str, secret: &str) -> String {
        let signature = hmac::sign(&sha1_key(secret), self.string_to_sign_v1(false).as_bytes());
        format!("{V1_PREFIX}{id}:{}", STANDARD.encode(signature))
    }

    /// Checks the older signature; `x-log-date` may or may not have been signed.
    pub fn verify_v1(&self, secret: &str, signature: &str) -> Result<(), SignatureError> {
        let given = STANDARD
            .decode(signature)
            .map_err(|_| malformed("it is not Base64"))?;
        let key = sha1_key(secret);
        let fits = |text: String| hmac::verify(&key, text.as_bytes(), &given).is_ok();
        if fits(self.string_to_sign_v1(false)) || fits(self.string_to_sign_v1(true)) {
            return Ok(());
        }
        Err(SignatureError::Mismatch {
            string_to_sign: self.string_to_sign_v1(false),
        })
    }

    fn canonical_v4(&self) -> String {
        let query: Vec<String> = sorted(self.query)
            .into_iter()
            .map(|(name, value)| match value {
                "" => name.to_owned(),
                value => format!("{name}={}", percent_encode(value)),
            })
            .collect();
        let mut signed: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .filter(|(name, _)| matches!(*name, "content-type" | "host") || is_extra(name))
            .collect();
        signed.sort_unstable();
        let lines: String = signed
            .iter()
            .map(|(name, value)| format!("{name}:{}\n", value.trim()))
            .collect();
        let names: Vec<&str> = signed.iter().map(|(name, _)| *name).collect();
        [
            self.method,
            self.path,
            &query.join("&"),
            &lines,
            &names.join(";"),
            self.header("x-log-content-sha256"),
        ]
        .join("\n")
    }

    /// What the newer signature signs.
    pub fn string_to_sign_v4(&self, region: &str) -> String {
        let date = self.header("x-log-date");
        let scope = scope(date, region);
        let canonical = content_sha256(self.canonical_v4().as_bytes());
        [V4_ALGORITHM, date, &scope, &canonical].join("\n")
    }

    fn signature_v4(&self, secret: &str, region: &str) -> hmac::Tag {
        let key = key_v4(secret, day(self.header("x-log-date")), region);
        hmac::sign(&key, self.string_to_sign_v4(region).as_bytes())
    }

    /// The `Authorization` of the newer signature.
    pub fn authorize_v4(&self, id: &str, secret: &str, region: &str) -> String {
        format!(
            "{V4_ALGORITHM} Credential={id}/{},Signature={}",
            scope(self.header("x-log-date"), region),
            hex(self.signature_v4(secret, region).as_ref())
        )
    }

    /// Checks the newer signature.
    pub fn verify_v4(
        &self,
        secret: &str,
        authorization: &V4Authorization,
    ) -> Result<(), SignatureError> {
        let given =
            unhex(&authorization.signature).ok_or_else(|| malformed("it is not hexadecimal"))?;
        let key = key_v4(
            secret,
            day(self.header("x-log-date")),
            &authorization.region,
        );
        let string_to_sign = self.string_to_sign_v4(&authorization.region);
        hmac::verify(&key, string_to_sign.as_bytes(), &given)
            .map_err(|_| SignatureError::Mismatch { string_to_sign })
    }
}

/// The parts of an older `Authorization`: key id and signature.
pub fn parse_v1(authorization: &str) -> Result<(&str, &str), SignatureError> {
    authorization
        .strip_prefix(V1_PREFIX)
        .and_then(|rest| rest.trim().split_once(':'))
        .ok_or_else(|| malformed("Authorization is not \"LOG <id>:<signature>\""))
}

/// A newer `Authorization`, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct V4Authorization {
    /// Whose key.
    pub access_key_id: String,
    /// The region in the scope.
    pub region: String,
    /// In hexadecimal.
    pub signature: String,
}

impl V4Authorization {
    /// Takes it apart.
    pub fn parse(authorization: &str) -> Result<Self, SignatureError> {
        let wrong = || {
            malformed(
                "Authorization is not \"SLS4-HMAC-SHA256 Credential=<id>/<scope>,Signature=<hex>\"",
            )
        };
        let rest = authorization
            .strip_prefix(V4_ALGORITHM)
            .ok_or_else(wrong)?
            .trim();
        let (credential, signature) = rest.split_once(',').ok_or_else(wrong)?;
        let credential = credential.trim().strip_prefix("Credential=");
        let signature = signature.trim().strip_prefix("Signature=");
        let (credential, signature) = credential.zip(signature).ok_or_else(wrong)?;
        let parts: Vec<&str> = credential.split('/').collect();
        match parts[..] {
            [id, _, region, PRODUCT, V4_END] => Ok(Self {
                access_key_id: id.to_owned(),
                region: region.to_owned(),
                signature: signature.to_owned(),
            }),
            _ => Err(wrong()),
        }
    }
}

/// Whether a header of the product's own is signed.
fn is_extra(name: &str) -> bool {
    name.starts_with("x-acs-") || name.starts_with("x-log-") && !name.starts_with("x-log-meta-")
}

fn sorted(pairs: &[(String, String)]) -> Vec<(&str, &str)> {
    let mut sorted: Vec<(&str, &str)> = pairs
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    sorted.sort_unstable();
    sorted
}

fn day(date: &str) -> &str {
    date.get(..8).unwrap_or(date)
}

fn scope(date: &str, region: &str) -> String {
    format!("{}/{region}/{PRODUCT}/{V4_END}", day(date))
}

fn sha1_key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, secret.as_bytes())
}

fn key_v4(secret: &str, date: &str, region: &str) -> hmac::Key {
    let start = hmac::Key::new(hmac::HMAC_SHA256, format!("aliyun_v4{secret}").as_bytes());
    [date, region, PRODUCT, V4_END]
        .into_iter()
        .fold(start, |key, part| {
            hmac::Key::new(
                hmac::HMAC_SHA256,
                hmac::sign(&key, part.as_bytes()).as_ref(),
            )
        })
}

fn malformed(reason: &str) -> SignatureError {
    SignatureError::Malformed {
        reason: reason.to_owned(),
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let digits = digits.filter(|digits| digits.len() % 2 == 0)?;
    Some(
        digits
            .chunks(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const BODY: &str = r#"{"from": 1704164600, "to": 1704164645, "line": 100, "offset": 0, "query": "* | select count(distinct device_id) as active_devices"}"#;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_older_vectors_come_out_with_and_without_the_later_date() {
        let headers = pairs(&[
            ("content-md5", &content_md5(BODY.as_bytes())),
            ("content-type", "application/json"),
            ("date", "Tue, 02 Jan 2024 03:04:05 GMT"),
            ("x-log-apiversion", "0.6.0"),
            ("x-log-bodyrawsize", "131"),
            ("x-log-signaturemethod", "hmac-sha1"),
            ("x-log-date", "Tue, 02 Jan 2024 03:04:05 GMT"),
        ]);
        let request = LogRequest {
            method: "POST",
            path: "/logstores/store/logs",
            query: &[],
            headers: &headers,
        };
        let expected = "LOG testid:wGb6zCB+OGqQyPYcs0aPeWAAFD0=";
        assert_eq!(request.authorize_v1("testid", "testsecret"), expected);
        let (id, signature) = parse_v1(expected).unwrap();
        assert_eq!(id, "testid");
        assert_eq!(request.verify_v1("testsecret", signature), Ok(()));
        let wrong = request.verify_v1("other", signature);
        assert!(matches!(wrong, Err(SignatureError::Mismatch { .. })));
        let with_date = hmac::sign(&sha1_key("s"), request.string_to_sign_v1(true).as_bytes());
        assert_eq!(request.verify_v1("s", &STANDARD.encode(with_date)), Ok(()));
    }

    #[test]
    fn the_older_vector_of_a_query_string_comes_out() {
        let headers = pairs(&[
            ("date", "Tue, 02 Jan 2024 03:04:05 GMT"),
            ("x-log-apiversion", "0.6.0"),
            ("x-log-bodyrawsize", "0"),
            ("x-log-signaturemethod", "hmac-sha1"),
        ]);
        let query = pairs(&[
            ("type", "log"),
            ("from", "1704164600"),
            ("to", "1704164645"),
            ("line", "100"),
            ("offset", "0"),
            ("reverse", "false"),
            (
                "query",
                "* | select count(distinct device_id) as active_devices",
            ),
        ]);
        let request = LogRequest {
            method: "GET",
            path: "/logstores/store",
            query: &query,
            headers: &headers,
        };
        assert_eq!(
            request.authorize_v1("testid", "testsecret"),
            "LOG testid:olVapvJFGcumzncw4J/HBydjPx8="
        );
    }

    #[test]
    fn the_newer_vector_comes_out_and_is_verified() {
        let hash = content_sha256(BODY.as_bytes());
        assert_eq!(
            hash,
            "33000d41a6a34b5413e95b0efc393318bc4d1eb1bb3874ac124e23164c31ae97"
        );
        let mut headers = pairs(&[
            ("content-type", "application/json"),
            ("host", "proj.127.0.0.1"),
            ("x-log-apiversion", "0.6.0"),
            ("x-log-bodyrawsize", "131"),
            ("x-log-content-sha256", &hash),
            ("x-log-date", "20240102T030405Z"),
            ("accept-encoding", "lz4"),
        ]);
        let request = LogRequest {
            method: "POST",
            path: "/logstores/store/logs",
            query: &[],
            headers: &headers,
        };
        let authorization = request.authorize_v4("testid", "testsecret", "cn-hangzhou");
        let parsed = V4Authorization::parse(&authorization).unwrap();
        assert_eq!(
            parsed.signature,
            "ea7efcd95f99608014c105b0a63230c7eb7e90944535c94214a8f7e439a76c5b"
        );
        assert_eq!(parsed.access_key_id, "testid");
        assert_eq!(request.verify_v4("testsecret", &parsed), Ok(()));
        headers[1].1 = "other.127.0.0.1".to_owned();
        let request = LogRequest {
            headers: &headers,
            method: "POST",
            path: "/logstores/store/logs",
            query: &[],
        };
        let wrong = request.verify_v4("testsecret", &parsed);
        assert!(matches!(wrong, Err(SignatureError::Mismatch { .. })));
    }

    #[test]
    fn malformed_authorizations_are_told() {
        for text in ["", "LOG", "LOG testid", "acs testid:x"] {
            assert!(parse_v1(text).is_err(), "{text}");
        }
        for text in [
            "SLS4-HMAC-SHA256",
            "SLS4-HMAC-SHA256 Credential=a/b,Signature=00",
            "SLS4-HMAC-SHA256 Credential=a/d/r/sls/aliyun_v4_request",
        ] {
            assert!(V4Authorization::parse(text).is_err(), "{text}");
        }
    }
}
