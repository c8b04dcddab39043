//! Installs the custom kinds and waits until the API serves them. A kind of another product's group is left as it is where
//! somebody else installed it, and left out where we may not install it.

use std::time::Duration;

use elastic_core::definitions::{definitions, is_foreign, is_ours};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use serde_json::Value;

const ESTABLISH_TIMEOUT: Duration = Duration::from_secs(20);
const ESTABLISH_POLL: Duration = Duration::from_millis(20);
const MAX_ATTEMPTS: usize = 5;

/// Why a kind could not be installed.
#[derive(Debug, thiserror::Error)]
pub enum DefinitionError {
    /// The API refused.
    #[error("install custom resource definition {name}")]
    Api {
        /// The definition.
        name: String,
        /// What the API said.
        #[source]
        source: Box<kube::Error>,
    },
    /// The API took it but does not serve it.
    #[error("custom resource definition {0} was not established within {ESTABLISH_TIMEOUT:?}")]
    NotEstablished(String),
}

/// Creates or updates the definitions of all our kinds and waits until they are served. Calling it again changes nothing.
pub async fn install_definitions(client: &Client) -> Result<(), DefinitionError> {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    let wanted = definitions();
    let mut installed = Vec::new();
    for definition in &wanted {
        let name = definition.name_any();
        match install(&api, definition).await {
            Ok(()) => installed.push(name),
            Err(DefinitionError::Api { source, .. })
                if is_foreign(&name) && is_forbidden(&source) =>
            {
                tracing::info!(
                    definition = name,
                    "kind of another product is not there and may not be installed, its objects are not served"
                );
            }
            Err(error) => return Err(error),
        }
    }
    for name in &installed {
        wait_established(&api, name).await?;
    }
    Ok(())
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 403)
}

async fn install(
    api: &Api<CustomResourceDefinition>,
    wanted: &CustomResourceDefinition,
) -> Result<(), DefinitionError> {
    let name = wanted.name_any();
    for attempt in 1.. {
        match put(api, &name, wanted).await {
            Ok(()) => break,
            // Somebody else wrote in between; look again.
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < MAX_ATTEMPTS => {}
            Err(error) => return Err(refused(&name, error)),
        }
    }
    Ok(())
}

async fn wait_established(
    api: &Api<CustomResourceDefinition>,
    name: &str,
) -> Result<(), DefinitionError> {
    let established = async {
        loop {
            if is_established(&api.get(name).await?) {
                return Ok(());
            }
            tokio::time::sleep(ESTABLISH_POLL).await;
        }
    };
    match tokio::time::timeout(ESTABLISH_TIMEOUT, established).await {
        Ok(result) => result.map_err(|error| refused(name, error)),
        Err(_) => Err(DefinitionError::NotEstablished(name.to_owned())),
    }
}

fn refused(name: &str, source: kube::Error) -> DefinitionError {
    DefinitionError::Api {
        name: name.to_owned(),
        source: Box::new(source),
    }
}

async fn put(
    api: &Api<CustomResourceDefinition>,
    name: &str,
    wanted: &CustomResourceDefinition,
) -> Result<(), kube::Error> {
    match api.get_opt(name).await? {
        None => api.create(&PostParams::default(), wanted).await.map(drop),
        Some(existing) if !is_ours(&existing) || is_current(&existing, wanted) => Ok(()),
        Some(mut existing) => {
            existing.spec = wanted.spec.clone();
            api.replace(name, &PostParams::default(), &existing)
                .await
                .map(drop)
        }
    }
}

/// The server fills in defaults (conversion and the like), so only what we ask for is compared.
fn is_current(existing: &CustomResourceDefinition, wanted: &CustomResourceDefinition) -> bool {
    let versions = |definition: &CustomResourceDefinition| -> Value {
        serde_json::to_value(&definition.spec.versions).unwrap_or_default()
    };
    versions(existing) == versions(wanted)
}

fn is_established(definition: &CustomResourceDefinition) -> bool {
    let conditions = definition
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .any(|condition| condition.type_ == "Established" && condition.status == "True")
}
