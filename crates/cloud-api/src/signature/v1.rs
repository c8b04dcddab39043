//! Signature version 1: `HMAC-SHA1`, Base64, over all parameters.

use super::SignatureError;
use crate::encoding::{encode_pairs, percent_encode};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use ring::hmac;

/// The parameter that carries the signature and is itself not signed.
pub const SIGNATURE_PARAMETER: &str = "Signature";
/// The one method that the reference knows.
pub const METHOD: &str = "HMAC-SHA1";

/// What gets signed: method, `/`, and the sorted parameters, encoded twice.
pub fn string_to_sign(method: &str, parameters: &[(String, String)]) -> String {
    let mut sorted: Vec<(&str, &str)> = parameters
        .iter()
        .filter(|(name, _)| name != SIGNATURE_PARAMETER)
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    sorted.sort_unstable();
    format!("{method}&%2F&{}", percent_encode(&encode_pairs(sorted)))
}

/// The value of the `Signature` parameter.
pub fn sign(secret: &str, string_to_sign: &str) -> String {
    STANDARD.encode(hmac::sign(&key(secret), string_to_sign.as_bytes()))
}

/// Checks the `Signature` among the parameters.
pub fn verify(
    method: &str,
    parameters: &[(String, String)],
    secret: &str,
) -> Result<(), SignatureError> {
    let given = parameters
        .iter()
        .find(|(name, _)| name == SIGNATURE_PARAMETER)
        .map(|(_, value)| value);
    let given = given.and_then(|value| STANDARD.decode(value).ok());
    let given = given.ok_or_else(|| SignatureError::Malformed {
        reason: "Signature is not Base64".to_owned(),
    })?;
    let string_to_sign = string_to_sign(method, parameters);
    hmac::verify(&key(secret), string_to_sign.as_bytes(), &given)
        .map_err(|_| SignatureError::Mismatch { string_to_sign })
}

fn key(secret: &str) -> hmac::Key {
    hmac::Key::new(
        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        format!("{secret}&").as_bytes(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vector() -> Vec<(String, String)> {
        [
            ("Action", "DescribeContainerGroups"),
            ("Version", "2018-08-08"),
            ("Format", "JSON"),
            ("RegionId", "cn-hangzhou"),
            ("ContainerGroupName", "a b+c*~(d)"),
            ("ContainerGroupIds", "[\"eci-1\"]"),
            ("Timestamp", "2024-01-02T03:04:05Z"),
            ("SignatureMethod", "HMAC-SHA1"),
            ("SignatureType", ""),
            ("SignatureVersion", "1.0"),
            ("SignatureNonce", "3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf"),
            ("AccessKeyId", "testid"),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .to_vec()
    }

    const EXPECTED: &str = "GET&%2F&AccessKeyId%3Dtestid%26Action%3DDescribeContainerGroups%26ContainerGroupIds%3D%255B%2522eci-1%2522%255D%26ContainerGroupName%3Da%2520b%252Bc%252A~%2528d%2529%26Format%3DJSON%26RegionId%3Dcn-hangzhou%26SignatureMethod%3DHMAC-SHA1%26SignatureNonce%3D3ee8c1b8-83d3-44af-a94f-4e0ad82fd6cf%26SignatureType%3D%26SignatureVersion%3D1.0%26Timestamp%3D2024-01-02T03%253A04%253A05Z%26Version%3D2018-08-08";

    #[test]
    fn the_reference_vectors_come_out() {
        let string = string_to_sign("GET", &vector());
        assert_eq!(string, EXPECTED);
        assert_eq!(sign("testsecret", &string), "vgN+KpSGlekpzRuqURB0DY7M8uI=");
        let string = string_to_sign("POST", &vector());
        assert_eq!(sign("testsecret", &string), "jP8SX921hmbw7UWDsZqruZ9CI5Q=");
    }

    #[test]
    fn verifying_takes_the_right_signature_and_no_other() {
        let mut parameters = vector();
        parameters.push((
            "Signature".to_owned(),
            "vgN+KpSGlekpzRuqURB0DY7M8uI=".to_owned(),
        ));
        assert_eq!(verify("GET", &parameters, "testsecret"), Ok(()));
        assert!(matches!(
            verify("POST", &parameters, "testsecret"),
            Err(SignatureError::Mismatch { .. })
        ));
        assert!(matches!(
            verify("GET", &parameters, "other"),
            Err(SignatureError::Mismatch { .. })
        ));
        parameters[4].1.push('x');
        assert!(matches!(
            verify("GET", &parameters, "testsecret"),
            Err(SignatureError::Mismatch { .. })
        ));
        parameters.pop();
        assert!(matches!(
            verify("GET", &parameters, "testsecret"),
            Err(SignatureError::Malformed { .. })
        ));
    }
}
