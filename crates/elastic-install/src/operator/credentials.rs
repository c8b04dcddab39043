//! Whose access key is used: the add-on's Secret, the environment, or the RAM role of the machine, in this order.
//!
//! Looked at again and again, so that a rotated key or a role's next temporary key takes effect without a restart.
//! Keys never show in logs or errors.

use std::time::Duration;

use bytes::Bytes;
use cloud_api::client::{BoxError, HyperTransport, Transport};
use cloud_api::{Credentials, EciClient};
use http::Request;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use super::settings::Texts;
use crate::names::{ACCESS_KEY_ID, ACCESS_KEY_SECRET, CREDENTIALS, NAMESPACE};

/// Where machines of the cloud ask about themselves.
pub const METADATA_ENDPOINT: &str = "http://100.100.100.200";
const ROLE_PATH: &str = "/latest/meta-data/ram/security-credentials/";
const TOKEN_PATH: &str = "/latest/api/token";
const TOKEN_HEADER: &str = "x-aliyun-ecs-metadata-token";
const TOKEN_SECONDS_HEADER: &str = "x-aliyun-ecs-metadata-token-ttl-seconds";
const TOKEN_SECONDS: &str = "60";
const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// Between looks for other keys; a role's keys live for hours and are renewed long before they end.
const REFRESH: Duration = Duration::from_secs(30);

/// Environment variables with a key, in the order of their use.
const VARIABLES: [(&str, &str, &str); 2] = [
    ("ECI_ACCESS_KEY", "ECI_SECRET_KEY", "ECI_SECURITY_TOKEN"),
    (
        "ALIBABA_CLOUD_ACCESS_KEY_ID",
        "ALIBABA_CLOUD_ACCESS_KEY_SECRET",
        "ALIBABA_CLOUD_SECURITY_TOKEN",
    ),
];

/// Where a key came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Secret `kube-system/alibaba-addon-secret`.
    Secret,
    /// This variable and its companion.
    Environment(&'static str),
    /// This RAM role, by the metadata service.
    RamRole(String),
}

impl std::fmt::Display for Source {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Secret => write!(formatter, "Secret {NAMESPACE}/{CREDENTIALS}"),
            Self::Environment(name) => write!(formatter, "environment variable {name}"),
            Self::RamRole(role) => write!(formatter, "RAM role {role}"),
        }
    }
}

/// No usable key.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The Secret cannot be read.
    #[error("read Secret {NAMESPACE}/{CREDENTIALS}")]
    Secret(#[source] Box<kube::Error>),
    /// The Secret lacks a key.
    #[error("Secret {NAMESPACE}/{CREDENTIALS} has no text under {0:?}")]
    Incomplete(&'static str),
    /// One half only.
    #[error("{0} is set but {1} is not")]
    Half(&'static str, &'static str),
    /// Nothing anywhere.
    #[error(
        "no access key: make Secret {NAMESPACE}/{CREDENTIALS} with {ACCESS_KEY_ID} and {ACCESS_KEY_SECRET}, set \
         ECI_ACCESS_KEY and ECI_SECRET_KEY, or give the machine a RAM role (the metadata service says: {0})"
    )]
    Nowhere(String),
}

/// Looks for a key.
pub async fn find(
    client: &Client,
    environment: &Texts,
    metadata_endpoint: &str,
) -> Result<(Credentials, Source), CredentialsError> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = secrets
        .get_opt(CREDENTIALS)
        .await
        .map_err(|error| CredentialsError::Secret(Box::new(error)))?;
    if let Some(secret) = secret {
        return Ok((from_secret(&secret)?, Source::Secret));
    }
    if let Some(found) = from_environment(environment)? {
        return Ok(found);
    }
    let role = environment.get("ECI_RAM_ROLE").map(String::as_str);
    match tokio::time::timeout(METADATA_TIMEOUT, from_role(metadata_endpoint, role)).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(error)) => Err(CredentialsError::Nowhere(error.to_string())),
        Err(_) => Err(CredentialsError::Nowhere("no answer".to_owned())),
    }
}

fn from_secret(secret: &Secret) -> Result<Credentials, CredentialsError> {
    let text = |key: &'static str| {
        let bytes = secret.data.as_ref().and_then(|data| data.get(key));
        let text = bytes.and_then(|bytes| std::str::from_utf8(&bytes.0).ok());
        text.map(str::trim)
            .filter(|text| !text.is_empty())
            .ok_or(CredentialsError::Incomplete(key))
    };
    Ok(Credentials::new(
        text(ACCESS_KEY_ID)?,
        text(ACCESS_KEY_SECRET)?,
    ))
}

/// A key from the environment, or none when no variable is set.
pub fn from_environment(
    environment: &Texts,
) -> Result<Option<(Credentials, Source)>, CredentialsError> {
    let value = |name: &str| environment.get(name).filter(|text| !text.is_empty());
    for (id, secret, token) in VARIABLES {
        match (value(id), value(secret)) {
            (None, None) => {}
            (Some(_), None) => return Err(CredentialsError::Half(id, secret)),
            (None, Some(_)) => return Err(CredentialsError::Half(secret, id)),
            (Some(key_id), Some(key_secret)) => {
                let mut credentials = Credentials::new(key_id, key_secret);
                credentials.security_token = value(token).cloned();
                return Ok(Some((credentials, Source::Environment(id))));
            }
        }
    }
    Ok(None)
}

/// A role's temporary key, as the metadata service writes it.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleKey {
    access_key_id: String,
    access_key_secret: String,
    security_token: String,
}

async fn from_role(endpoint: &str, role: Option<&str>) -> Result<(Credentials, Source), BoxError> {
    let transport = HyperTransport::new(false, 1)?;
    let endpoint = endpoint.trim_end_matches('/');
    // The hardened form of the service wants a token first; the plain form has no such path.
    let token = Request::put(format!("{endpoint}{TOKEN_PATH}"))
        .header(TOKEN_SECONDS_HEADER, TOKEN_SECONDS)
        .body(Bytes::new())?;
    let answer = transport.send(token).await?;
    let token = answer.status().is_success().then(|| answer.into_body());
    let get = async |path: &str| -> Result<String, BoxError> {
        let mut request = Request::get(format!("{endpoint}{ROLE_PATH}{path}"));
        if let Some(token) = &token {
            request = request.header(TOKEN_HEADER, token.as_ref());
        }
        let answer = transport.send(request.body(Bytes::new())?).await?;
        if !answer.status().is_success() {
            return Err(format!("status {} for the role", answer.status()).into());
        }
        Ok(String::from_utf8_lossy(answer.body()).trim().to_owned())
    };
    let role = match role.filter(|role| !role.is_empty()) {
        Some(role) => role.to_owned(),
        None => get("").await?,
    };
    // A parser's message could quote the key, so it is not passed on.
    let key: RoleKey = serde_json::from_str(&get(&role).await?)
        .map_err(|_| format!("the key of role {role} has an unknown form"))?;
    let mut credentials = Credentials::new(key.access_key_id, key.access_key_secret);
    credentials.security_token = Some(key.security_token);
    Ok((credentials, Source::RamRole(role)))
}

/// Looks again and again until `shutdown`, and gives clients the newest key.
pub(super) async fn keep_fresh(
    client: Client,
    environment: Texts,
    metadata_endpoint: String,
    clouds: Vec<EciClient>,
    mut current: Credentials,
    shutdown: CancellationToken,
) {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(REFRESH) => {}
        }
        match find(&client, &environment, &metadata_endpoint).await {
            Ok((found, source)) if found != current => {
                tracing::info!(%source, "access key changed, using the new one");
                for cloud in &clouds {
                    cloud.set_credentials(found.clone());
                }
                current = found;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(%error, "access key cannot be looked at again, using the last one");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(pairs: &[(&str, &str)]) -> Texts {
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        pairs.iter().map(owned).collect()
    }

    #[test]
    fn the_environment_has_two_pairs_and_half_a_pair_is_an_error() {
        let both = texts(&[
            ("ALIBABA_CLOUD_ACCESS_KEY_ID", "b"),
            ("ALIBABA_CLOUD_ACCESS_KEY_SECRET", "s"),
            ("ECI_ACCESS_KEY", "a"),
            ("ECI_SECRET_KEY", "s"),
        ]);
        let (credentials, source) = from_environment(&both).unwrap().unwrap();
        assert_eq!(credentials.access_key_id, "a");
        assert_eq!(source.to_string(), "environment variable ECI_ACCESS_KEY");
        let half = from_environment(&texts(&[("ECI_SECRET_KEY", "topsecret")])).unwrap_err();
        assert_eq!(
            half.to_string(),
            "ECI_SECRET_KEY is set but ECI_ACCESS_KEY is not"
        );
        assert!(from_environment(&Texts::new()).unwrap().is_none());
    }
}
