//! Signature version 3: `ACS3-HMAC-SHA256` over method, path, query, chosen headers and the body's hash.
//!
//! Which headers are signed differs by client, so a verifier goes by the list in `Authorization` and only insists
//! on the ones that make a request what it is.

use super::SignatureError;
use crate::encoding::{canonical_query, hex};
use ring::{digest, hmac};

/// The algorithm's name, the first word of the `Authorization` header.
pub const ALGORITHM: &str = "ACS3-HMAC-SHA256";
/// Headers that must be among the signed ones.
pub const MANDATORY_HEADERS: [&str; 6] = [
    "host",
    "x-acs-action",
    "x-acs-content-sha256",
    "x-acs-date",
    "x-acs-signature-nonce",
    "x-acs-version",
];
/// Most headers in a `SignedHeaders` list.
const MAX_SIGNED_HEADERS: usize = 100;

/// The parts of a request that the signature covers.
#[derive(Clone, Copy, Debug)]
pub struct SignedRequest<'a> {
    /// `GET` or `POST`.
    pub method: &'a str,
    /// The path, `/` for every action.
    pub path: &'a str,
    /// The decoded query parameters in any order.
    pub query: &'a [(String, String)],
    /// Headers to sign, names in lower case, in any order; several values of a name are several entries.
    pub headers: &'a [(String, String)],
    /// [`payload_hash`] of the body.
    pub payload_hash: &'a str,
}

impl SignedRequest<'_> {
    /// The canonical request, and the signed names joined by `;`.
    pub fn canonical(&self) -> (String, String) {
        let mut headers: Vec<(&str, &str)> = self
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.trim()))
            .collect();
        headers.sort_unstable();
        let mut lines = String::new();
        let mut names: Vec<&str> = Vec::with_capacity(headers.len());
        for (name, value) in headers {
            if names.last() == Some(&name) {
                lines.pop();
                lines.push(',');
            } else {
                lines.push_str(name);
                lines.push(':');
                names.push(name);
            }
            lines.push_str(value);
            lines.push('\n');
        }
        let names = names.join(";");
        let query = canonical_query(self.query);
        let Self {
            method,
            path,
            payload_hash,
            ..
        } = self;
        (
            format!("{method}\n{path}\n{query}\n{lines}\n{names}\n{payload_hash}"),
            names,
        )
    }

    fn string_to_sign(&self) -> (String, String) {
        let (canonical, names) = self.canonical();
        (
            format!("{ALGORITHM}\n{}", payload_hash(canonical.as_bytes())),
            names,
        )
    }

    /// The value of the `Authorization` header.
    pub fn authorization(&self, access_key_id: &str, secret: &str) -> String {
        let (string_to_sign, names) = self.string_to_sign();
        let signature = hex(hmac::sign(&key(secret), string_to_sign.as_bytes()).as_ref());
        format!(
            "{ALGORITHM} Credential={access_key_id},SignedHeaders={names},Signature={signature}"
        )
    }

    /// Checks a signature made over exactly these headers.
    pub fn verify(&self, secret: &str, signature: &str) -> Result<(), SignatureError> {
        let (string_to_sign, _) = self.string_to_sign();
        let given = unhex(signature).ok_or_else(|| SignatureError::Malformed {
            reason: "Signature is not hexadecimal".to_owned(),
        })?;
        hmac::verify(&key(secret), string_to_sign.as_bytes(), &given)
            .map_err(|_| SignatureError::Mismatch { string_to_sign })
    }
}

/// Lower-case hexadecimal SHA-256.
pub fn payload_hash(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes())
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).map(|value| value as u8))
        .collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    Some(
        digits
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

/// The parsed `Authorization` header.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    /// The access key id.
    pub access_key_id: String,
    /// The signed header names, lower case, in the order given.
    pub signed_headers: Vec<String>,
    /// The signature in hexadecimal.
    pub signature: String,
}

impl Authorization {
    /// Reads the header and checks that the signed names hold the mandatory ones.
    pub fn parse(header: &str) -> Result<Self, SignatureError> {
        let malformed = |reason: &str| SignatureError::Malformed {
            reason: reason.to_owned(),
        };
        let rest = header
            .trim()
            .strip_prefix(ALGORITHM)
            .ok_or_else(|| malformed("unknown algorithm"))?;
        let (mut credential, mut names, mut signature) = (None, None, None);
        for part in rest.split(',') {
            match part.trim().split_once('=') {
                Some(("Credential", value)) => credential = Some(value),
                Some(("SignedHeaders", value)) => names = Some(value),
                Some(("Signature", value)) => signature = Some(value),
                _ => return Err(malformed("unknown member in Authorization")),
            }
        }
        let (Some(credential), Some(names), Some(signature)) = (credential, names, signature)
        else {
            return Err(malformed(
                "Authorization needs Credential, SignedHeaders and Signature",
            ));
        };
        let signed_headers: Vec<String> = names.split(';').map(str::to_ascii_lowercase).collect();
        if signed_headers.len() > MAX_SIGNED_HEADERS {
            return Err(malformed("too many signed headers"));
        }
        for mandatory in MANDATORY_HEADERS {
            if !signed_headers.iter().any(|name| name == mandatory) {
                return Err(malformed(&format!("header {mandatory} must be signed")));
            }
        }
        Ok(Self {
            access_key_id: credential.to_owned(),
            signed_headers,
            signature: signature.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs<const N: usize>(list: [(&str, &str); N]) -> Vec<(String, String)> {
        list.map(|(name, value)| (name.to_owned(), value.to_owned()))
            .to_vec()
    }

    fn headers(action: &str, hash: &str) -> Vec<(String, String)> {
        pairs([
            ("x-acs-version", "2018-08-08"),
            ("host", "127.0.0.1:8080"),
            ("x-acs-action", action),
            ("x-acs-content-sha256", hash),
            ("x-acs-date", "2024-01-02T03:04:05Z"),
            ("x-acs-signature-nonce", "0123456789abcdef0123456789abcdef"),
        ])
    }

    #[test]
    fn the_vector_with_an_empty_body_comes_out() {
        let query = pairs([
            ("RegionId", "cn-hangzhou"),
            ("ContainerGroupName", "vector-1"),
            ("Container.1.Name", "main"),
            ("Container.1.Image", "busybox:latest"),
            ("Container.1.Command.1", "/bin/sh"),
            ("Container.1.Command.2", "-c"),
            ("Container.1.Command.3", "echo a+b *~(c)"),
            ("Container.1.EnvironmentVar.1.Key", "LANG"),
            ("Container.1.EnvironmentVar.1.Value", "中文"),
        ]);
        let hash = payload_hash(b"");
        let headers = headers("CreateContainerGroup", &hash);
        let request = SignedRequest {
            method: "POST",
            path: "/",
            query: &query,
            headers: &headers,
            payload_hash: &hash,
        };
        let (canonical, names) = request.canonical();
        assert_eq!(
            hash,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
        assert_eq!(names, MANDATORY_HEADERS.join(";"));
        assert_eq!(
            payload_hash(canonical.as_bytes()),
            "eb827e774074a7c7e04839ed5b5f0f458fde54423f4a0aa8410f611d07be390e"
        );
        let authorization =
            Authorization::parse(&request.authorization("testid", "testsecret")).unwrap();
        assert_eq!(authorization.access_key_id, "testid");
        assert_eq!(
            authorization.signature,
            "6625cae017d90e88c951a772d61733d831b84d386faf7001d2f41fef8c2f5352"
        );
        assert_eq!(
            request.verify("testsecret", &authorization.signature),
            Ok(())
        );
        assert!(request.verify("other", &authorization.signature).is_err());
    }

    #[test]
    fn the_vector_with_a_form_body_comes_out() {
        let hash = payload_hash(b"ContainerGroupIds=%5B%22eci-1%22%5D&RegionId=cn-hangzhou");
        assert_eq!(
            hash,
            "ff2ab590ab6c731846c6d132a51f44ae9ba9260a9a1735e5cb1ccc3707e5e69c"
        );
        let mut headers = headers("DescribeContainerGroups", &hash);
        headers.push((
            "content-type".to_owned(),
            "application/x-www-form-urlencoded".to_owned(),
        ));
        let request = SignedRequest {
            method: "POST",
            path: "/",
            query: &[],
            headers: &headers,
            payload_hash: &hash,
        };
        let signature = "f2dd735b6d18cd8bf8637d04ba7dd91605759e496c0f9012519e98707741bbb4";
        assert_eq!(request.verify("testsecret", signature), Ok(()));
    }

    #[test]
    fn several_values_of_a_header_are_joined_by_commas() {
        let headers = pairs([("b", " 2 "), ("a", "x"), ("b", "1")]);
        let request = SignedRequest {
            method: "GET",
            path: "/",
            query: &[],
            headers: &headers,
            payload_hash: "h",
        };
        assert_eq!(request.canonical().0, "GET\n/\n\na:x\nb:1,2\n\na;b\nh");
    }

    #[test]
    fn a_signature_that_leaves_out_a_mandatory_header_is_refused() {
        let names = MANDATORY_HEADERS[1..].join(";");
        let header = format!("{ALGORITHM} Credential=a,SignedHeaders={names},Signature=00");
        let error = Authorization::parse(&header).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the signature is malformed: header host must be signed"
        );
    }

    #[test]
    fn garbage_in_the_header_is_refused() {
        for header in [
            "",
            "Basic x",
            "ACS3-HMAC-SHA256",
            "ACS3-HMAC-SHA256 Credential=a,Signature=b",
        ] {
            assert!(Authorization::parse(header).is_err(), "{header}");
        }
    }
}
