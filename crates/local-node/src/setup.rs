//! Making a pod's surroundings and starting its containers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{
    BoundObjectReference, TokenRequest as ApiTokenRequest, TokenRequestSpec,
};
use k8s_openapi::api::core::v1::{ConfigMap, Pod, Secret, Service, ServiceAccount};
use kube::Api;
use kube::api::{ListParams, PostParams};
use local_runtime::image::Credentials;
use local_runtime::{SandboxState, SandboxStatus};

use crate::containers;
use crate::environment::{self, Facts, References};
use crate::pod_worker::{PodWorker, find_container};
use crate::termination;
use crate::volumes::{self, TokenRequest, VolumeInputs};

/// A postStart hook may take this long.
const HOOK_TIMEOUT: Duration = Duration::from_secs(30);

/// An error with its causes in one sentence.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// Address, network, volumes and sandbox; every step finds what an earlier attempt left.
pub(crate) async fn ensure_sandbox(worker: &mut PodWorker, pod: &Arc<Pod>) -> Result<(), String> {
    remove_dead_sandbox(worker).await?;
    let ip = match worker.observed.ip {
        Some(ip) => ip,
        None => {
            let allocated = worker
                .shared
                .pool
                .lock()
                .ok()
                .and_then(|mut pool| pool.allocate());
            allocated
                .ok_or_else(|| format!("no free address in {}", worker.shared.config.pod_cidr))?
        }
    };
    worker.observed.ip = Some(ip);
    let network = worker.shared.network.clone();
    let sandbox = worker.sandbox.clone();
    let (attached, prepared) =
        tokio::join!(network.attach(&sandbox, ip), prepare_inputs(worker, pod));
    let attached = attached.map_err(|error| chain(&error))?;
    prepared?;
    let spec = containers::sandbox_spec(
        pod,
        &worker.sandbox,
        &worker.shared.config,
        &ip.to_string(),
        attached.netns_path,
    );
    worker
        .shared
        .runtime
        .create_sandbox(spec)
        .await
        .map_err(|error| chain(&error))
}

/// Removes a sandbox whose shim has died, as one does that was being started when this program was killed, with its
/// network, which has an address already. Tried before each attempt to make it anew, because what the dead one left may
/// not let itself be removed at once.
async fn remove_dead_sandbox(worker: &PodWorker) -> Result<(), String> {
    let (shared, sandbox) = (&worker.shared, &worker.sandbox);
    let Ok(status) = shared.runtime.sandbox_status(sandbox).await else {
        return Ok(());
    };
    if status.state == SandboxState::Ready {
        return Ok(());
    }
    let detached = shared.network.detach(sandbox).await;
    detached.map_err(|error| chain(&error))?;
    let removed = shared.runtime.remove_sandbox(sandbox).await;
    removed.map_err(|error| chain(&error))?;
    shared.release_address(address_of(&status));
    Ok(())
}

/// The address that a sandbox was made with.
pub(crate) fn address_of(sandbox: &SandboxStatus) -> Option<Ipv4Addr> {
    sandbox.labels.get("ip").and_then(|ip| ip.parse().ok())
}

/// Fetches what the pod refers to and makes or refreshes its volumes.
pub(crate) async fn prepare_inputs(worker: &mut PodWorker, pod: &Arc<Pod>) -> Result<(), String> {
    worker.references = fetch_references(worker, pod).await?;
    let tokens = fetch_tokens(worker, pod).await?;
    let facts = facts(worker);
    let inputs = VolumeInputs {
        pod,
        references: &worker.references,
        facts: &facts,
        tokens: &tokens,
    };
    let made =
        volumes::materialise(&worker.volumes_dir(), &inputs).map_err(|error| chain(&error))?;
    worker.volumes = made;
    Ok(())
}

fn facts(worker: &PodWorker) -> Facts {
    let config = &worker.shared.config;
    Facts {
        pod_ip: worker
            .observed
            .ip
            .map(|ip| ip.to_string())
            .unwrap_or_default(),
        host_ip: config.address.to_string(),
        node_cpu_milli: config.capacity.cpu_milli,
        node_memory_bytes: config.capacity.memory_bytes,
    }
}

/// Names of config maps and secrets the pod mentions anywhere.
fn mentioned(pod: &Pod) -> (BTreeSet<String>, BTreeSet<String>) {
    let (mut maps, mut secrets) = (BTreeSet::new(), BTreeSet::new());
    let Some(spec) = &pod.spec else {
        return (maps, secrets);
    };
    for container in spec
        .init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
    {
        for source in container.env_from.iter().flatten() {
            maps.extend(source.config_map_ref.as_ref().map(|one| one.name.clone()));
            secrets.extend(source.secret_ref.as_ref().map(|one| one.name.clone()));
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|one| one.value_from.as_ref())
        {
            maps.extend(
                source
                    .config_map_key_ref
                    .as_ref()
                    .map(|one| one.name.clone()),
            );
            secrets.extend(source.secret_key_ref.as_ref().map(|one| one.name.clone()));
        }
    }
    for volume in spec.volumes.iter().flatten() {
        maps.extend(volume.config_map.as_ref().map(|one| one.name.clone()));
        secrets.extend(
            volume
                .secret
                .as_ref()
                .and_then(|one| one.secret_name.clone()),
        );
        for source in volume
            .projected
            .iter()
            .flat_map(|one| one.sources.iter().flatten())
        {
            maps.extend(source.config_map.as_ref().map(|one| one.name.clone()));
            secrets.extend(source.secret.as_ref().map(|one| one.name.clone()));
        }
    }
    secrets.extend(
        spec.image_pull_secrets
            .iter()
            .flatten()
            .map(|one| one.name.clone()),
    );
    (maps, secrets)
}

async fn fetch_references(worker: &PodWorker, pod: &Pod) -> Result<References, String> {
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let client = &worker.shared.client;
    let (map_names, secret_names) = mentioned(pod);
    let mut references = References::default();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    for name in map_names {
        if let Some(map) = maps
            .get_opt(&name)
            .await
            .map_err(|error| format!("get configmap {name}: {}", chain(&error)))?
        {
            references.config_maps.insert(name, map);
        }
    }
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    for name in secret_names {
        if let Some(secret) = secrets
            .get_opt(&name)
            .await
            .map_err(|error| format!("get secret {name}: {}", chain(&error)))?
        {
            references.secrets.insert(name, secret);
        }
    }
    let links = pod.spec.as_ref().and_then(|spec| spec.enable_service_links) != Some(false);
    let own: Api<Service> = Api::namespaced(client.clone(), namespace);
    let system: Api<Service> = Api::namespaced(client.clone(), "default");
    let list_error = |error: kube::Error| format!("list services: {}", chain(&error));
    if links {
        references.services = own
            .list(&ListParams::default())
            .await
            .map_err(list_error)?
            .items;
    }
    if namespace != "default" || !links {
        references
            .services
            .extend(system.get_opt("kubernetes").await.map_err(list_error)?);
    }
    Ok(references)
}

async fn fetch_tokens(
    worker: &PodWorker,
    pod: &Pod,
) -> Result<BTreeMap<TokenRequest, String>, String> {
    let mut tokens = BTreeMap::new();
    let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
    let account = pod
        .spec
        .as_ref()
        .and_then(|spec| spec.service_account_name.clone())
        .unwrap_or_else(|| "default".to_string());
    let accounts: Api<ServiceAccount> = Api::namespaced(worker.shared.client.clone(), namespace);
    for wanted in volumes::token_requests(pod) {
        let request = ApiTokenRequest {
            spec: TokenRequestSpec {
                audiences: wanted.audience.clone().into_iter().collect(),
                expiration_seconds: Some(wanted.expiration_seconds),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_string()),
                    kind: Some("Pod".to_string()),
                    name: pod.metadata.name.clone(),
                    uid: pod.metadata.uid.clone(),
                }),
            },
            ..ApiTokenRequest::default()
        };
        let answer = accounts
            .create_token_request(&account, &PostParams::default(), &request)
            .await
            .map_err(|error| {
                format!(
                    "request a token of service account {account}: {}",
                    chain(&error)
                )
            })?;
        let token = answer.status.map(|status| status.token).unwrap_or_default();
        tokens.insert(wanted, token);
    }
    Ok(tokens)
}

/// Credentials for an image from the pod's pull secrets (`kubernetes.io/dockerconfigjson`).
pub(crate) fn pull_credentials(
    pod: &Pod,
    references: &References,
    image: &str,
) -> Option<Credentials> {
    let host = image
        .split_once('/')
        .map(|(host, _)| host)
        .filter(|host| host.contains(['.', ':']) || *host == "localhost")
        .unwrap_or("docker.io");
    let names = pod.spec.as_ref()?.image_pull_secrets.as_ref()?;
    names.iter().find_map(|name| {
        let secret = references.secrets.get(&name.name)?;
        let config: serde_json::Value =
            serde_json::from_slice(&secret.data.as_ref()?.get(".dockerconfigjson")?.0).ok()?;
        let entries = config.get("auths")?.as_object()?;
        let (_, entry) = entries.iter().find(|(server, _)| {
            let server = server
                .trim_start_matches("https://")
                .trim_start_matches("http://");
            let server = server.split('/').next().unwrap_or(server);
            server == host || host == "docker.io" && server == "index.docker.io"
        })?;
        let text = |field: &str| {
            entry
                .get(field)
                .and_then(|value| value.as_str())
                .map(str::to_string)
        };
        match (text("username"), text("password")) {
            (Some(username), Some(password)) => Some(Credentials::Basic { username, password }),
            _ => decode_auth(&text("auth")?),
        }
    })
}

fn decode_auth(text: &str) -> Option<Credentials> {
    // `k8s_openapi::ByteString` decodes base64 as JSON text does.
    let bytes: k8s_openapi::ByteString =
        serde_json::from_value(serde_json::Value::String(text.to_string())).ok()?;
    let pair = String::from_utf8(bytes.0).ok()?;
    let (username, password) = pair.split_once(':')?;
    Some(Credentials::Basic {
        username: username.to_string(),
        password: password.to_string(),
    })
}

/// Creates and starts one attempt of a container; `Err` is the waiting reason and its message.
pub(crate) async fn start(
    worker: &mut PodWorker,
    pod: &Arc<Pod>,
    name: &str,
    attempt: u32,
) -> Result<(), (&'static str, String)> {
    const CONFIG: &str = "CreateContainerConfigError";
    let Some(container) = find_container(pod, name) else {
        return Ok(());
    };
    // A restart picks up what config maps and secrets hold by now.
    if attempt > 0 {
        prepare_inputs(worker, pod)
            .await
            .map_err(|message| (CONFIG, message))?;
    }
    let env = environment::resolve(pod, container, &worker.references, &facts(worker))
        .map_err(|error| (CONFIG, error.0))?;
    let spec = containers::container_spec(pod, container, attempt, env, &worker.volumes)
        .map_err(|message| (CONFIG, message))?;
    for mount in spec.mounts.iter().filter(|mount| !mount.source.exists()) {
        // A sub-path of an emptyDir that nobody made yet.
        std::fs::create_dir_all(&mount.source)
            .map_err(|error| (CONFIG, format!("make {}: {error}", mount.source.display())))?;
    }
    let runtime = worker.shared.runtime.clone();
    let id = runtime
        .create_container(&worker.sandbox, spec)
        .await
        .map_err(|error| ("CreateContainerError", chain(&error)))?;
    worker
        .shared
        .events
        .normal(pod, "Created", format!("Created container: {name}"));
    if let Err(error) = runtime.start_container(&id).await {
        let _ = runtime.remove_container(&id).await;
        return Err(("RunContainerError", chain(&error)));
    }
    worker
        .shared
        .events
        .normal(pod, "Started", format!("Started container {name}"));
    forget_older_attempts(worker, name, attempt).await;
    let hook = container
        .lifecycle
        .as_ref()
        .and_then(|lifecycle| lifecycle.post_start.as_ref());
    if let (Some(hook), Some(ip)) = (hook, worker.observed.ip)
        && let Err(reason) = termination::run_hook(
            hook,
            container,
            &id,
            ip,
            &runtime,
            &worker.shared.network,
            HOOK_TIMEOUT,
        )
        .await
    {
        worker.shared.events.warning(
            pod,
            "FailedPostStartHook",
            format!("PostStartHook failed: {reason}"),
        );
        let _ = runtime.stop_container(&id, Duration::ZERO).await;
    }
    Ok(())
}

/// The newest attempt and the one before it are kept: `kubectl logs --previous` needs one.
async fn forget_older_attempts(worker: &PodWorker, name: &str, attempt: u32) {
    let runtime = &worker.shared.runtime;
    for old in runtime.containers(&worker.sandbox).await {
        if old.name == name
            && old.attempt + 1 < attempt
            && let Err(error) = runtime.remove_container(&old.id).await
        {
            tracing::warn!(container = %old.id, %error, "old attempt was not removed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pull_secrets_are_chosen_by_the_images_registry() {
        let config = json!({"auths": {"registry.test:5000": {"auth": "dXNlcjpwYXNz"}}}).to_string();
        let secret: Secret = serde_json::from_value(json!({
            "data": {".dockerconfigjson": k8s_openapi::ByteString(config.into_bytes())},
        }))
        .unwrap();
        let references = References {
            secrets: [("key".to_string(), secret)].into(),
            ..References::default()
        };
        let pod: Pod = serde_json::from_value(
            json!({"spec": {"containers": [], "imagePullSecrets": [{"name": "key"}]}}),
        )
        .unwrap();
        let found = pull_credentials(&pod, &references, "registry.test:5000/shop:1");
        assert!(
            matches!(found, Some(Credentials::Basic { username, password }) if username == "user" && password == "pass")
        );
        assert!(pull_credentials(&pod, &references, "other.test/shop:1").is_none());
    }

    #[test]
    fn every_place_that_can_mention_an_object_is_looked_at() {
        let pod: Pod = serde_json::from_value(json!({"spec": {
            "containers": [{"name": "a", "envFrom": [{"configMapRef": {"name": "m1"}}], "env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "s1", "key": "k"}}}]}],
            "initContainers": [{"name": "b", "envFrom": [{"secretRef": {"name": "s2"}}]}],
            "volumes": [{"name": "v", "configMap": {"name": "m2"}}, {"name": "w", "projected": {"sources": [{"secret": {"name": "s3"}}]}}],
            "imagePullSecrets": [{"name": "s4"}],
        }})).unwrap();
        let (maps, secrets) = mentioned(&pod);
        assert_eq!(maps.into_iter().collect::<Vec<_>>(), ["m1", "m2"]);
        assert_eq!(
            secrets.into_iter().collect::<Vec<_>>(),
            ["s1", "s2", "s3", "s4"]
        );
    }
}
