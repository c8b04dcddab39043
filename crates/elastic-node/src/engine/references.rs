//! Fetches what pods refer to. A thousand pods of one Deployment refer to the same objects, so each is fetched once per
//! moment: an object is used for at most [`FRESH`], and pods that ask at the same time share one request.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, Namespace, PersistentVolume, PersistentVolumeClaim, Pod, PodSpec, Secret,
    ServiceAccount,
};
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::OnceCell;
use tokio::time::Instant;

use crate::config::{Clock, TokenPolicy};
use crate::tokens::{self, TokenLife};
use crate::translate::{ClaimState, References, TokenKey};

/// How long a fetched object is used for further pods.
const FRESH: Duration = Duration::from_millis(500);
/// How long the labels of a namespace are used.
const NAMESPACE_FRESH: Duration = Duration::from_secs(2);
/// Entries kept; the oldest half goes when there are more.
const MAX_ENTRIES: usize = 1_024;

/// An object could not be fetched; its absence is no error.
#[derive(Debug, thiserror::Error)]
#[error("fetch {kind} {namespace}/{name}")]
pub(crate) struct FetchError {
    kind: &'static str,
    namespace: String,
    name: String,
    #[source]
    source: Box<kube::Error>,
}

type Slot<V> = Arc<OnceCell<V>>;

/// One kind of object, shared between pods that ask at the same time.
struct Fresh<K, V> {
    life: Duration,
    slots: Mutex<HashMap<K, (Instant, Slot<V>)>>,
}

impl<K: Eq + Hash + Clone, V: Clone> Fresh<K, V> {
    fn new(life: Duration) -> Self {
        Self {
            life,
            slots: Mutex::default(),
        }
    }

    async fn get<F, E>(&self, key: K, fetch: F) -> Result<V, E>
    where
        F: Future<Output = Result<V, E>>,
    {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            let now = Instant::now();
            if slots.len() >= MAX_ENTRIES {
                slots.retain(|_, (born, _)| now.duration_since(*born) < self.life);
            }
            if slots.len() >= MAX_ENTRIES {
                slots.clear();
            }
            let slot = slots.entry(key).or_insert_with(|| (now, Slot::default()));
            if now.duration_since(slot.0) >= self.life {
                *slot = (now, Slot::default());
            }
            slot.1.clone()
        };
        slot.get_or_try_init(|| fetch).await.cloned()
    }
}

type Key = (String, String);

pub(crate) struct ReferenceCache {
    client: Client,
    tokens: TokenPolicy,
    clock: Clock,
    config_maps: Fresh<Key, Option<ConfigMap>>,
    secrets: Fresh<Key, Option<Secret>>,
    claims: Fresh<Key, ClaimState>,
    namespaces: Fresh<String, BTreeMap<String, String>>,
}

impl ReferenceCache {
    pub(crate) fn new(client: Client, tokens: TokenPolicy, clock: Clock) -> Self {
        Self {
            client,
            tokens,
            clock,
            config_maps: Fresh::new(FRESH),
            secrets: Fresh::new(FRESH),
            claims: Fresh::new(FRESH),
            namespaces: Fresh::new(NAMESPACE_FRESH),
        }
    }

    /// Everything `pod` refers to.
    pub(crate) async fn of(&self, pod: &Pod) -> Result<References, FetchError> {
        let namespace = pod.namespace().unwrap_or_else(|| "default".to_owned());
        let Some(spec) = &pod.spec else {
            return Ok(References::default());
        };
        let needed = Needed::by(spec);
        let mut references = References::default();
        for name in needed.config_maps {
            let key = (namespace.clone(), name.clone());
            let found = self
                .config_maps
                .get(key, self.fetch("ConfigMap", &namespace, &name))
                .await?;
            references.config_maps.insert(name, found);
        }
        for name in needed.secrets {
            let key = (namespace.clone(), name.clone());
            let found = self
                .secrets
                .get(key, self.fetch("Secret", &namespace, &name))
                .await?;
            references.secrets.insert(name, found);
        }
        let account = spec
            .service_account_name
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        for token in needed.tokens {
            let found = self.token(pod, &namespace, &account, &token).await?;
            if let Some((text, life)) = found {
                references.tokens.insert(token, text);
                let first = references.token_life.filter(|first| first.end <= life.end);
                references.token_life = first.or(Some(life));
            }
        }
        for name in needed.claims {
            let key = (namespace.clone(), name.clone());
            let found = self.claims.get(key, self.claim(&namespace, &name)).await?;
            references.claims.insert(name, found);
        }
        Ok(references)
    }

    /// The labels of a namespace; none when it is gone.
    pub(crate) async fn namespace_labels(
        &self,
        name: &str,
    ) -> Result<BTreeMap<String, String>, FetchError> {
        let fetch = async {
            let api: Api<Namespace> = Api::all(self.client.clone());
            let found = api.get_metadata_opt(name).await;
            let found = found.map_err(|source| failed("Namespace", "", name, source))?;
            Ok(found
                .and_then(|found| found.metadata.labels)
                .unwrap_or_default())
        };
        self.namespaces.get(name.to_owned(), fetch).await
    }

    async fn claim(&self, namespace: &str, name: &str) -> Result<ClaimState, FetchError> {
        let Some(claim) = self
            .fetch::<PersistentVolumeClaim>("PersistentVolumeClaim", namespace, name)
            .await?
        else {
            return Ok(ClaimState::Missing);
        };
        let Some(volume) = claim.spec.and_then(|spec| spec.volume_name) else {
            return Ok(ClaimState::Unbound);
        };
        let api: Api<PersistentVolume> = Api::all(self.client.clone());
        let found = api.get_opt(&volume).await;
        let found = found.map_err(|source| failed("PersistentVolume", "", &volume, source))?;
        Ok(found.map_or(ClaimState::Unbound, |volume| {
            ClaimState::Bound(Box::new(volume))
        }))
    }

    async fn fetch<K>(
        &self,
        kind: &'static str,
        namespace: &str,
        name: &str,
    ) -> Result<Option<K>, FetchError>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), namespace);
        let found = api.get_opt(name).await;
        found.map_err(|source| failed(kind, namespace, name, source))
    }

    async fn token(
        &self,
        pod: &Pod,
        namespace: &str,
        account: &str,
        key: &TokenKey,
    ) -> Result<Option<(String, TokenLife)>, FetchError> {
        let least = tokens::least_life(pod, &self.tokens).as_secs();
        let wanted = i64::try_from(least)
            .unwrap_or(i64::MAX)
            .max(key.expiration_seconds);
        let begin = (self.clock)();
        let api: Api<ServiceAccount> = Api::namespaced(self.client.clone(), namespace);
        let request = TokenRequest {
            spec: TokenRequestSpec {
                audiences: Some(key.audience.clone())
                    .filter(|text| !text.is_empty())
                    .into_iter()
                    .collect(),
                expiration_seconds: Some(wanted),
                bound_object_ref: Some(BoundObjectReference {
                    api_version: Some("v1".to_owned()),
                    kind: Some("Pod".to_owned()),
                    name: pod.metadata.name.clone(),
                    uid: pod.uid(),
                }),
            },
            ..TokenRequest::default()
        };
        match api
            .create_token_request(account, &PostParams::default(), &request)
            .await
        {
            Ok(answer) => {
                // What was granted: the API server may cap what is asked for.
                let granted = answer.spec.expiration_seconds.unwrap_or(wanted);
                let life = TokenLife::of(begin, granted);
                Ok(answer.status.map(|status| (status.token, life)))
            }
            // The cluster issues no tokens, or the account is gone: the pod runs without one, as far as it goes.
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 405 => {
                tracing::debug!(
                    namespace,
                    account,
                    "no service account token to be had, the pod runs without"
                );
                Ok(None)
            }
            Err(source) => Err(failed(
                "token of ServiceAccount",
                namespace,
                account,
                source,
            )),
        }
    }
}

fn failed(kind: &'static str, namespace: &str, name: &str, source: kube::Error) -> FetchError {
    FetchError {
        kind,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        source: Box::new(source),
    }
}

/// Names of what a pod refers to.
#[derive(Debug, Default, PartialEq, Eq)]
struct Needed {
    config_maps: BTreeSet<String>,
    secrets: BTreeSet<String>,
    tokens: BTreeSet<TokenKey>,
    claims: BTreeSet<String>,
}

impl Needed {
    fn by(spec: &PodSpec) -> Self {
        let mut needed = Self::default();
        let containers = spec
            .containers
            .iter()
            .chain(spec.init_containers.iter().flatten());
        containers.for_each(|container| needed.add_container(container));
        needed.secrets.extend(
            spec.image_pull_secrets
                .iter()
                .flatten()
                .map(|secret| secret.name.clone()),
        );
        for volume in spec.volumes.iter().flatten() {
            needed
                .config_maps
                .extend(volume.config_map.iter().map(|source| source.name.clone()));
            needed.secrets.extend(
                volume
                    .secret
                    .iter()
                    .filter_map(|source| source.secret_name.clone()),
            );
            let claim = volume.persistent_volume_claim.as_ref();
            needed
                .claims
                .extend(claim.map(|claim| claim.claim_name.clone()));
            let projections = volume
                .projected
                .iter()
                .flat_map(|source| source.sources.iter().flatten());
            for projection in projections {
                needed.config_maps.extend(
                    projection
                        .config_map
                        .iter()
                        .map(|source| source.name.clone()),
                );
                needed
                    .secrets
                    .extend(projection.secret.iter().map(|source| source.name.clone()));
                needed
                    .tokens
                    .extend(projection.service_account_token.iter().map(TokenKey::from));
            }
        }
        needed
    }

    fn add_container(&mut self, container: &Container) {
        for source in container.env_from.iter().flatten() {
            self.config_maps.extend(
                source
                    .config_map_ref
                    .iter()
                    .map(|source| source.name.clone()),
            );
            self.secrets
                .extend(source.secret_ref.iter().map(|source| source.name.clone()));
        }
        for source in container
            .env
            .iter()
            .flatten()
            .filter_map(|variable| variable.value_from.as_ref())
        {
            self.config_maps
                .extend(source.config_map_key_ref.iter().map(|key| key.name.clone()));
            self.secrets
                .extend(source.secret_key_ref.iter().map(|key| key.name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::json;

    use super::*;

    #[test]
    fn every_reference_of_a_pod_is_found() {
        let spec: PodSpec = serde_json::from_value(json!({
            "imagePullSecrets": [{"name": "pull"}],
            "initContainers": [{"name": "i", "envFrom": [{"secretRef": {"name": "s1"}}]}],
            "containers": [{"name": "c", "env": [{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "m1", "key": "k"}}}]}],
            "volumes": [
                {"name": "a", "configMap": {"name": "m2"}},
                {"name": "b", "projected": {"sources": [
                    {"secret": {"name": "s2"}}, {"serviceAccountToken": {"path": "token", "audience": "vault"}}
                ]}}
            ]
        }))
        .unwrap();
        let needed = Needed::by(&spec);
        assert_eq!(
            needed.config_maps.into_iter().collect::<Vec<_>>(),
            ["m1", "m2"]
        );
        assert_eq!(
            needed.secrets.into_iter().collect::<Vec<_>>(),
            ["pull", "s1", "s2"]
        );
        assert_eq!(needed.tokens.first().unwrap().audience, "vault");
    }

    #[tokio::test]
    async fn pods_that_ask_at_the_same_time_share_one_request() {
        let fresh: Fresh<&str, u32> = Fresh::new(Duration::from_secs(60));
        let calls = AtomicU32::new(0);
        let ask = || {
            fresh.get("k", async {
                Ok::<_, ()>(calls.fetch_add(1, Ordering::SeqCst))
            })
        };
        let answers = futures::future::join_all((0..20).map(|_| ask())).await;
        assert!(answers.iter().all(|answer| *answer == Ok(0)));
        let stale: Fresh<&str, u32> = Fresh::new(Duration::ZERO);
        assert_eq!(stale.get("k", async { Ok::<_, ()>(1) }).await, Ok(1));
        assert_eq!(stale.get("k", async { Ok::<_, ()>(2) }).await, Ok(2));
    }
}
