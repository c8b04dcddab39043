//! Targets: anything with `/scale` by its group and kind, and HorizontalPodAutoscalers as autoscaling/v2, of which two
//! numbers are written and nothing else is touched.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use elastic_core::cron_horizontal_pod_autoscaler::{
    HPA_KIND, HpaSize, ScaleTargetRef, TargetNumbers, TargetSize, decide_hpa, group_of,
    scaled_message, skipped_for_hpa,
};
use k8s_openapi::api::autoscaling::v1::Scale;
use kube::api::{Api, ApiResource, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt};
use serde_json::{Value, json};

/// How long it is remembered where a kind is served.
const REMEMBER: Duration = Duration::from_secs(300);
/// Kinds that are remembered.
const KINDS_MOST: usize = 200;

/// Why a target could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(super) enum TargetError {
    #[error("no kind {kind:?} with a scale subresource is served in group {group:?}")]
    Kind { kind: String, group: String },
    #[error("{0}")]
    Api(#[from] kube::Error),
    #[error("HorizontalPodAutoscaler {0} names no scaleTargetRef")]
    NoTarget(String),
}

impl TargetError {
    pub(super) fn is_gone(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 404)
    }

    /// Somebody else wrote in between; what there is now can be read at once.
    pub(super) fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(kube::Error::Api(status)) if status.code == 409)
    }

    /// The reason without the words around it.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Api(kube::Error::Api(status)) => status.message.clone(),
            other => other.to_string(),
        }
    }
}

type Known = HashMap<(String, String), (Instant, Vec<ApiResource>)>;

/// Reads and writes targets.
pub(super) struct Targets {
    client: Client,
    known: Mutex<Known>,
}

/// A workload's scale, and where to write it.
pub(super) struct Scaled {
    api: Api<DynamicObject>,
    scale: Scale,
}

impl Scaled {
    pub(super) fn replicas(&self) -> i32 {
        let spec = self.scale.spec.as_ref();
        spec.and_then(|spec| spec.replicas).unwrap_or(0)
    }

    /// The version that was read goes along: nobody else's change is overwritten unseen.
    pub(super) async fn write(mut self, replicas: i32) -> Result<(), TargetError> {
        if self.replicas() == replicas {
            return Ok(());
        }
        self.scale.spec.get_or_insert_default().replicas = Some(replicas);
        let name = self.scale.name_any();
        let params = PostParams::default();
        self.api.replace_scale(&name, &params, &self.scale).await?;
        Ok(())
    }
}

/// A HorizontalPodAutoscaler as far as it concerns us.
struct Autoscaler {
    api: Api<DynamicObject>,
    object: DynamicObject,
    min: i32,
    max: i32,
    target: ScaleTargetRef,
}

impl Autoscaler {
    async fn write(&self, min: Option<i32>, max: Option<i32>) -> Result<(), TargetError> {
        let mut spec = serde_json::Map::new();
        for (key, old, new) in [
            ("minReplicas", self.min, min),
            ("maxReplicas", self.max, max),
        ] {
            if let Some(new) = new.filter(|new| *new != old) {
                spec.insert(key.to_owned(), json!(new));
            }
        }
        if spec.is_empty() {
            return Ok(());
        }
        let version = self.object.resource_version();
        let patch = json!({"metadata": {"resourceVersion": version}, "spec": spec});
        let name = self.object.name_any();
        let patch = Patch::Merge(patch);
        self.api
            .patch(&name, &PatchParams::default(), &patch)
            .await?;
        Ok(())
    }
}

impl Targets {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    /// Brings a target to `size` and says what was done.
    pub(super) async fn scale(
        &self,
        namespace: &str,
        target: &ScaleTargetRef,
        size: i32,
    ) -> Result<String, TargetError> {
        if target.kind != HPA_KIND {
            let scaled = self.scaled(namespace, target).await?;
            let old = scaled.replicas();
            scaled.write(size).await?;
            return Ok(scaled_message(old, size));
        }
        let hpa = self.autoscaler(namespace, &target.name).await?;
        let scaled = self.scaled(namespace, &hpa.target).await?;
        let current = scaled.replicas();
        let step = decide_hpa(
            size,
            HpaSize {
                min: hpa.min,
                max: hpa.max,
                current,
            },
        );
        hpa.write(Some(step.min), Some(step.max)).await?;
        match step.replicas {
            Some(replicas) => {
                scaled.write(replicas).await?;
                Ok(scaled_message(current, replicas))
            }
            None => Ok(skipped_for_hpa(&target.name, namespace, current, size)),
        }
    }

    /// What a target looks like.
    pub(super) async fn size(
        &self,
        namespace: &str,
        target: &ScaleTargetRef,
    ) -> Result<TargetSize, TargetError> {
        if target.kind != HPA_KIND {
            return Ok(TargetSize {
                replicas: self.scaled(namespace, target).await?.replicas(),
                bounds: None,
            });
        }
        let hpa = self.autoscaler(namespace, &target.name).await?;
        let scaled = self.scaled(namespace, &hpa.target).await?;
        Ok(TargetSize {
            replicas: scaled.replicas(),
            bounds: Some((hpa.min, hpa.max)),
        })
    }

    /// Writes the numbers that are given.
    pub(super) async fn write(
        &self,
        namespace: &str,
        target: &ScaleTargetRef,
        numbers: TargetNumbers,
    ) -> Result<(), TargetError> {
        let mut workload = target.clone();
        if target.kind == HPA_KIND {
            let hpa = self.autoscaler(namespace, &target.name).await?;
            hpa.write(numbers.min_replicas, numbers.max_replicas)
                .await?;
            workload = hpa.target;
        }
        if let Some(replicas) = numbers.replicas {
            let scaled = self.scaled(namespace, &workload).await?;
            scaled.write(replicas).await?;
        }
        Ok(())
    }

    async fn autoscaler(&self, namespace: &str, name: &str) -> Result<Autoscaler, TargetError> {
        let api = Api::namespaced_with(self.client.clone(), namespace, &autoscalers());
        let object: DynamicObject = api.get(name).await?;
        let spec = &object.data["spec"];
        let number = |key: &str| {
            let value = spec[key].as_i64();
            value.and_then(|value| i32::try_from(value).ok())
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let target = &spec["scaleTargetRef"];
        let target = ScaleTargetRef {
            api_version: text(&target["apiVersion"]),
            kind: text(&target["kind"]),
            name: text(&target["name"]),
        };
        if target.kind.is_empty() || target.name.is_empty() {
            return Err(TargetError::NoTarget(name.to_owned()));
        }
        let min = number("minReplicas").unwrap_or(1);
        Ok(Autoscaler {
            min,
            max: number("maxReplicas").unwrap_or(min),
            target,
            object,
            api,
        })
    }

    /// The HorizontalPodAutoscaler that scales `target` too, if there is one.
    pub(super) async fn rival(
        &self,
        namespace: &str,
        target: &ScaleTargetRef,
    ) -> Result<Option<String>, TargetError> {
        let api: Api<DynamicObject> =
            Api::namespaced_with(self.client.clone(), namespace, &autoscalers());
        let all = api.list(&ListParams::default()).await?;
        let scales = |object: &DynamicObject| {
            let found = &object.data["spec"]["scaleTargetRef"];
            let group = group_of(found["apiVersion"].as_str().unwrap_or_default());
            found["kind"] == target.kind
                && found["name"] == target.name
                && group == group_of(&target.api_version)
        };
        Ok(all
            .items
            .iter()
            .find(|object| scales(object))
            .map(ResourceExt::name_any))
    }

    /// The scale of a workload, by whichever version of its group serves one.
    pub(super) async fn scaled(
        &self,
        namespace: &str,
        target: &ScaleTargetRef,
    ) -> Result<Scaled, TargetError> {
        let group = group_of(&target.api_version);
        let mut last = None;
        for resource in self.resources(group, &target.kind).await? {
            let api: Api<DynamicObject> =
                Api::namespaced_with(self.client.clone(), namespace, &resource);
            match api.get_scale(&target.name).await {
                Ok(scale) => return Ok(Scaled { api, scale }),
                Err(error) => last = Some(TargetError::Api(error)),
            }
        }
        Err(last.unwrap_or_else(|| TargetError::Kind {
            kind: target.kind.clone(),
            group: group.to_owned(),
        }))
    }

    /// Every version in which a kind is served with a scale, the preferred one first.
    async fn resources(&self, group: &str, kind: &str) -> Result<Vec<ApiResource>, TargetError> {
        let key = (group.to_owned(), kind.to_owned());
        if let Some((at, resources)) = self.lock().get(&key)
            && at.elapsed() < REMEMBER
        {
            return Ok(resources.clone());
        }
        let found = kube::discovery::group(&self.client, group).await;
        let served = match found {
            Ok(served) => served,
            Err(kube::Error::Discovery(_)) => return Ok(Vec::new()),
            Err(error) => return Err(error.into()),
        };
        let mut versions: Vec<&str> = served.versions().collect();
        versions.sort_by_key(|version| Some(*version) != served.preferred_version());
        let mut resources = Vec::new();
        for version in versions {
            let all = served.versioned_resources(version).into_iter();
            let scalable = all.filter(|(resource, capabilities)| {
                let mut parts = capabilities.subresources.iter();
                resource.kind == kind && parts.any(|(part, _)| is_scale(&part.plural))
            });
            resources.extend(scalable.map(|(resource, _)| resource));
        }
        // What is not there may be installed any moment and is asked for again.
        if !resources.is_empty() {
            let mut known = self.lock();
            if known.len() >= KINDS_MOST {
                known.clear();
            }
            known.insert(key, (Instant::now(), resources.clone()));
        }
        Ok(resources)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The version that has all kinds of metrics.
fn autoscalers() -> ApiResource {
    ApiResource {
        group: "autoscaling".to_owned(),
        version: "v2".to_owned(),
        api_version: "autoscaling/v2".to_owned(),
        kind: HPA_KIND.to_owned(),
        plural: "horizontalpodautoscalers".to_owned(),
    }
}

fn is_scale(name: &str) -> bool {
    name == "scale" || name.ends_with("/scale")
}
