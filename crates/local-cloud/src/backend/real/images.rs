//! Making an image present, with the request's logins and plain-HTTP registries.

use crate::backend::{BackendError, PulledImage};
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
use local_runtime::ImageStore;
use local_runtime::image::{Credentials, PullOptions, PullPolicy, RegistryConfig};
use tokio::time::Instant;

/// Where images without a registry in their name come from.
const DEFAULT_REGISTRY: &str = "docker.io";

pub(super) async fn pull(
    store: &ImageStore,
    request: &CreateContainerGroupRequest,
    container: &ContainerSpec,
) -> Result<PulledImage, BackendError> {
    let image = &container.image;
    let policy = policy(container);
    let start = Instant::now();
    if policy != PullPolicy::Always {
        let found = store
            .find(image)
            .await
            .map_err(|error| BackendError::from_error("ErrImagePull", &error))?;
        if let Some(found) = found {
            return Ok(PulledImage {
                id: found.id,
                was_present: true,
                took: start.elapsed(),
            });
        }
    }
    let store = match plain_http(request) {
        registries if registries.is_empty() => store.clone(),
        plain_http => store.clone().with_registry_config(RegistryConfig {
            plain_http,
            ..Default::default()
        }),
    };
    let options = PullOptions {
        policy,
        credentials: credentials(request, image),
        progress: None,
    };
    let pulled = store.pull(image, options).await;
    let pulled = pulled.map_err(|error| BackendError::from_error("ErrImagePull", &error))?;
    Ok(PulledImage {
        id: pulled.id,
        was_present: false,
        took: start.elapsed(),
    })
}

/// An image that is there is used unless the request says otherwise.
fn policy(container: &ContainerSpec) -> PullPolicy {
    match container.image_pull_policy.as_deref() {
        Some("Always") => PullPolicy::Always,
        Some("Never") => PullPolicy::Never,
        _ => PullPolicy::IfNotPresent,
    }
}

fn plain_http(request: &CreateContainerGroupRequest) -> Vec<String> {
    let list = request
        .plain_http_registry
        .as_deref()
        .unwrap_or_default()
        .split(',');
    list.map(|registry| host(registry).to_owned())
        .filter(|registry| !registry.is_empty())
        .collect()
}

/// The host of a registry that may be written with scheme and path.
fn host(registry: &str) -> &str {
    let bare = registry.trim();
    let bare = bare.split_once("://").map_or(bare, |(_, rest)| rest);
    bare.split('/').next().unwrap_or_default()
}

/// The registry that an image's name begins with.
fn registry(image: &str) -> &str {
    match image.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => DEFAULT_REGISTRY,
    }
}

fn credentials(request: &CreateContainerGroupRequest, image: &str) -> Option<Credentials> {
    let registry = registry(image);
    let fits = |server: &str| {
        let server = host(server);
        server == registry
            || (registry == DEFAULT_REGISTRY
                && matches!(server, "index.docker.io" | "registry-1.docker.io"))
    };
    let login = request
        .image_registry_credential
        .iter()
        .find(|login| fits(&login.server))?;
    Some(Credentials::Basic {
        username: login.user_name.clone(),
        password: login.password.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloud_api::model::create::RegistryCredential;

    #[test]
    fn an_image_s_registry_is_found_in_its_name() {
        for (image, expected) in [
            ("busybox", "docker.io"),
            ("library/busybox:1", "docker.io"),
            ("registry.example.com/a/b", "registry.example.com"),
            ("127.0.0.1:5000/a", "127.0.0.1:5000"),
            ("localhost/a", "localhost"),
        ] {
            assert_eq!(registry(image), expected, "{image}");
        }
    }

    #[test]
    fn the_login_of_the_right_registry_is_used() {
        let login = |server: &str, user: &str| RegistryCredential {
            server: server.to_owned(),
            user_name: user.to_owned(),
            password: "p".to_owned(),
        };
        let request = CreateContainerGroupRequest {
            image_registry_credential: vec![
                login("https://r.example.com/v2/", "r"),
                login("index.docker.io", "hub"),
            ],
            ..Default::default()
        };
        let user = |image: &str| match credentials(&request, image) {
            Some(Credentials::Basic { username, .. }) => username,
            other => format!("{other:?}"),
        };
        assert_eq!(
            (user("r.example.com/a"), user("busybox")),
            ("r".to_owned(), "hub".to_owned())
        );
        assert_eq!(user("other.example.com/a"), "None");
    }
}
