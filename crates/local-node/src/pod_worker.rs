//! One pod: sees, decides with [`plan`], acts, reports; again whenever something changed or is due.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::{Container, Pod, PodStatus};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, Preconditions, PropagationPolicy};
use local_runtime::image::{ImageError, PullOptions, PullPolicy};
use local_runtime::{ContainerId, ContainerState, SandboxState};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::containers;
use crate::environment::References;
use crate::observed::{ImageState, Observed, StartFailure};
use crate::plan::{self, Action};
use crate::probes::ProbeSet;
use crate::setup;
use crate::status::{self, NodeFacts};
use crate::termination;
use crate::worker::Shared;

/// First wait after a failed image pull, sandbox or start; doubled each time.
const RETRY_FIRST: SignedDuration = SignedDuration::from_secs(1);
/// Longest wait between such attempts.
const RETRY_MAX: SignedDuration = SignedDuration::from_secs(300);
/// Mounted config maps, secrets and tokens are brought up to date this often.
const VOLUME_REFRESH: Duration = Duration::from_secs(60);

type PullResult = Result<(), ImageError>;

/// The task of one pod.
pub(crate) struct PodWorker {
    pub(crate) shared: Arc<Shared>,
    uid: String,
    pub(crate) sandbox: String,
    pod: watch::Receiver<Option<Arc<Pod>>>,
    wake: Arc<Notify>,
    pub(crate) observed: Observed,
    pub(crate) references: References,
    pub(crate) volumes: BTreeMap<String, std::path::PathBuf>,
    failures: BTreeMap<String, u32>,
    pulls: JoinSet<(String, PullResult)>,
    probes: ProbeSet,
    written: Option<serde_json::Value>,
    forced: Option<(String, String)>,
    released: bool,
}

impl PodWorker {
    pub(crate) fn new(
        shared: Arc<Shared>,
        uid: String,
        pod: watch::Receiver<Option<Arc<Pod>>>,
        wake: Arc<Notify>,
    ) -> Self {
        let probes = ProbeSet::new(
            shared.runtime.clone(),
            shared.network.sockets(),
            shared.events.clone(),
            wake.clone(),
        );
        Self {
            sandbox: Shared::sandbox_id(&uid),
            shared,
            uid,
            pod,
            wake,
            observed: Observed::default(),
            references: References::default(),
            volumes: BTreeMap::new(),
            failures: BTreeMap::new(),
            pulls: JoinSet::new(),
            probes,
            written: None,
            forced: None,
            released: false,
        }
    }

    /// Until the pod is gone or the worker stops; containers go on in the latter case.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) {
        self.adopt().await;
        loop {
            let Some(pod) = self.pod.borrow_and_update().clone() else {
                self.end_now().await;
                break;
            };
            let wake_at = if pod.metadata.deletion_timestamp.is_some() {
                if self.terminate(&pod, &shutdown).await {
                    break;
                }
                None
            } else {
                self.step(&pod).await
            };
            let pause = wake_at.map_or(VOLUME_REFRESH, until).min(VOLUME_REFRESH);
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = self.pod.changed() => {}
                () = self.wake.notified() => {}
                Some(pulled) = self.pulls.join_next(), if !self.pulls.is_empty() => self.pulled(pulled),
                () = tokio::time::sleep(pause) => self.refresh_volumes(&pod).await,
            }
        }
        if let Ok(mut pods) = self.shared.pods.lock() {
            pods.remove(&self.uid);
        }
    }

    /// Finds what an earlier run of this program left. A sandbox whose shim died is removed when it is made anew.
    async fn adopt(&mut self) {
        let Ok(status) = self.shared.runtime.sandbox_status(&self.sandbox).await else {
            return;
        };
        if status.state == SandboxState::Ready {
            self.observed.sandbox_ready = true;
            self.observed.ip = setup::address_of(&status);
            let pod = self.pod.borrow().clone();
            if let Some(pod) = pod
                && let Err(error) = setup::prepare_inputs(self, &pod).await
            {
                tracing::warn!(
                    pod = self.uid,
                    error,
                    "volumes of an adopted pod were not refreshed"
                );
            }
        }
    }

    /// One pass for a pod that is wanted; gives when to look again.
    async fn step(&mut self, pod: &Arc<Pod>) -> Option<Timestamp> {
        if self.released {
            self.report(pod).await;
            return None;
        }
        if let Some(sentence) = pod.spec.as_ref().and_then(containers::refusal) {
            self.shared
                .events
                .warning(pod, "FailedValidation", sentence.clone());
            self.forced = Some(("UnsupportedPod".to_string(), sentence));
            self.released = true;
            self.report(pod).await;
            return None;
        }
        if pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .is_some_and(|phase| phase == "Succeeded" || phase == "Failed")
        {
            self.release().await;
            self.released = true;
            return None;
        }
        let mut wake_at: Option<Timestamp> = None;
        // Each pass may enable the next (sandbox, then image, then start); bounded so that a flapping state cannot spin.
        for _ in 0..8 {
            self.look(pod).await;
            let actions = plan::plan(pod, &self.observed, Timestamp::now());
            let mut acted = false;
            wake_at = None;
            for action in actions {
                match action {
                    Action::WakeAt(at) => wake_at = Some(wake_at.map_or(at, |old| old.min(at))),
                    action => {
                        acted = true;
                        self.act(pod, action).await;
                    }
                }
            }
            if !acted || self.released {
                break;
            }
        }
        self.report(pod).await;
        wake_at
    }

    /// Brings `observed` up to date with the runtime.
    async fn look(&mut self, pod: &Arc<Pod>) {
        let mut newest: BTreeMap<String, local_runtime::ContainerStatus> = BTreeMap::new();
        let mut previous = BTreeMap::new();
        if self.observed.sandbox_ready {
            let mut all = self.shared.runtime.containers(&self.sandbox).await;
            all.sort_by_key(|one| one.attempt);
            for one in all {
                if let Some(before) = newest.insert(one.name.clone(), one) {
                    previous.insert(before.name.clone(), before);
                }
            }
        }
        let running: BTreeMap<String, ContainerId> = newest
            .values()
            .filter(|one| one.state == ContainerState::Running)
            .map(|one| (one.name.clone(), one.id.clone()))
            .collect();
        if let Some(ip) = self.observed.ip {
            self.probes.track(pod, ip, &running);
        }
        self.observed.containers = newest;
        self.observed.previous = previous;
        self.observed.probes = self.probes.results();
    }

    async fn act(&mut self, pod: &Arc<Pod>, action: Action) {
        match action {
            Action::EnsureSandbox => {
                let result = setup::ensure_sandbox(self, pod).await;
                self.observed.sandbox_failure =
                    self.outcome("sandbox", result, "FailedCreatePodSandBox", pod);
                self.observed.sandbox_ready = self.observed.sandbox_failure.is_none();
            }
            Action::PullImage { container } => self.pull(pod, &container),
            Action::Start { container, attempt } => {
                let result = setup::start(self, pod, &container, attempt).await;
                let (reason, result) = match result {
                    Ok(()) => ("", Ok(())),
                    Err((reason, message)) => (reason, Err(message)),
                };
                match self.outcome(&format!("start {container}"), result, reason, pod) {
                    Some(failure) => self.observed.start_failures.insert(container, failure),
                    None => self.observed.start_failures.remove(&container),
                };
            }
            Action::Stop { container, reason } => {
                self.shared.events.normal(pod, "Killing", reason);
                if let Some(status) = self.observed.containers.get(&container)
                    && let Err(error) = self
                        .shared
                        .runtime
                        .stop_container(&status.id, plan::grace_period(pod))
                        .await
                {
                    tracing::warn!(container, %error, "container was not stopped");
                }
            }
            Action::StopAll { reason } => {
                if plan::deadline(pod).is_some_and(|deadline| deadline <= Timestamp::now()) {
                    self.forced = Some(("DeadlineExceeded".to_string(), reason));
                }
                self.stop(pod, plan::grace_period(pod)).await;
                self.look(pod).await;
                self.report(pod).await;
                self.released = true;
            }
            Action::WakeAt(_) => {}
        }
    }

    /// Turns a failure into its event and its next attempt.
    fn outcome(
        &mut self,
        what: &str,
        result: Result<(), String>,
        reason: &'static str,
        pod: &Pod,
    ) -> Option<StartFailure> {
        match result {
            Ok(()) => {
                self.failures.remove(what);
                None
            }
            Err(message) => {
                tracing::warn!(pod = self.uid, what, message, "a step of a pod failed");
                self.shared
                    .events
                    .warning(pod, "Failed", format!("Error: {message}"));
                let retry_at = self.retry_at(what);
                Some(StartFailure {
                    reason,
                    message,
                    retry_at,
                })
            }
        }
    }

    fn retry_at(&mut self, what: &str) -> Timestamp {
        let count = self.failures.entry(what.to_string()).or_default();
        let wait = (RETRY_FIRST * (1 << (*count).min(9))).min(RETRY_MAX);
        *count += 1;
        Timestamp::now() + wait
    }

    fn pull(&mut self, pod: &Pod, name: &str) {
        let Some(container) = find_container(pod, name) else {
            return;
        };
        let image = container.image.clone().unwrap_or_default();
        let policy = match container.image_pull_policy.as_deref() {
            Some("Always") => PullPolicy::Always,
            Some("Never") => PullPolicy::Never,
            _ => PullPolicy::IfNotPresent,
        };
        self.observed
            .images
            .insert(name.to_string(), ImageState::Pulling);
        let (runtime, events, pod, name) = (
            self.shared.runtime.clone(),
            self.shared.events.clone(),
            pod.clone(),
            name.to_string(),
        );
        let credentials = setup::pull_credentials(&pod, &self.references, &image);
        self.pulls.spawn(async move {
            let present = matches!(runtime.images().find(&image).await, Ok(Some(_)));
            if policy == PullPolicy::Always || !present && policy != PullPolicy::Never {
                events.normal(&pod, "Pulling", format!("Pulling image \"{image}\""));
            }
            let options = PullOptions {
                policy,
                credentials,
                progress: None,
            };
            let result = runtime.images().pull(&image, options).await;
            if let Ok(info) = &result {
                let note = if present && policy != PullPolicy::Always {
                    format!("Container image \"{image}\" already present on machine")
                } else {
                    format!(
                        "Successfully pulled image \"{image}\". Image size: {} bytes.",
                        info.size_bytes
                    )
                };
                events.normal(&pod, "Pulled", note);
            }
            (name, result.map(drop))
        });
    }

    fn pulled(&mut self, pulled: Result<(String, PullResult), tokio::task::JoinError>) {
        let Ok((name, result)) = pulled else { return };
        let state = match result {
            Ok(()) => {
                self.failures.remove(&format!("pull {name}"));
                ImageState::Present
            }
            Err(error) => {
                let reason = match &error {
                    ImageError::InvalidReference { .. } => "InvalidImageName",
                    ImageError::NotPresent(_) => "ErrImageNeverPull",
                    _ if self.failures.contains_key(&format!("pull {name}")) => "ImagePullBackOff",
                    _ => "ErrImagePull",
                };
                let message = setup::chain(&error);
                if let Some(pod) = self.pod.borrow().as_ref() {
                    self.shared.events.warning(
                        pod,
                        "Failed",
                        format!("Failed to pull image: {message}"),
                    );
                }
                let retry_at = self.retry_at(&format!("pull {name}"));
                ImageState::Failed {
                    reason,
                    message,
                    retry_at,
                }
            }
        };
        self.observed.images.insert(name, state);
    }

    /// Deletion asked for: true when the pod is gone from the API.
    async fn terminate(&mut self, pod: &Arc<Pod>, shutdown: &CancellationToken) -> bool {
        for status in self
            .observed
            .containers
            .values()
            .filter(|one| one.state == ContainerState::Running)
        {
            self.shared.events.normal(
                pod,
                "Killing",
                format!("Stopping container {}", status.name),
            );
        }
        let shared = self.shared.clone();
        let (sandbox, ip) = (self.sandbox.clone(), self.observed.ip);
        let grace = pod
            .metadata
            .deletion_timestamp
            .as_ref()
            .map_or(Duration::ZERO, |at| until(at.0));
        let stopping = termination::stop_containers(
            pod,
            &sandbox,
            ip,
            &shared.runtime,
            &shared.network,
            grace,
        );
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return true,
                () = &mut stopping => break,
                changed = self.pod.changed() => {
                    // Gone, or deleted again with less grace: nothing is left to wait for.
                    let forced = self.pod.borrow_and_update().as_ref().is_none_or(|pod| pod.metadata.deletion_grace_period_seconds == Some(0));
                    if changed.is_err() || forced {
                        let _ = shared.runtime.stop_sandbox(&sandbox, Duration::ZERO).await;
                    }
                }
            }
        }
        self.look(pod).await;
        self.report(pod).await;
        self.release().await;
        self.delete_object(pod).await
    }

    async fn delete_object(&self, pod: &Pod) -> bool {
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else {
            return true;
        };
        let pods: Api<Pod> = Api::namespaced(self.shared.client.clone(), namespace);
        let parameters = DeleteParams {
            grace_period_seconds: Some(0),
            propagation_policy: Some(PropagationPolicy::Background),
            preconditions: Some(Preconditions {
                uid: Some(self.uid.clone()),
                resource_version: None,
            }),
            ..DeleteParams::default()
        };
        match pods.delete(name, &parameters).await {
            Ok(_) => true,
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => true,
            Err(error) => {
                tracing::warn!(pod = name, %error, "pod object was not deleted, trying again");
                self.wake_later();
                false
            }
        }
    }

    fn wake_later(&self) {
        let wake = self.wake.clone();
        // Short-lived: one wake-up.
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            wake.notify_one();
        });
    }

    /// The pod object is gone: no grace is due to anyone.
    async fn end_now(&mut self) {
        let _ = self
            .shared
            .runtime
            .stop_sandbox(&self.sandbox, Duration::ZERO)
            .await;
        self.release().await;
    }

    async fn stop(&self, pod: &Pod, grace: Duration) {
        let shared = &self.shared;
        termination::stop_containers(
            pod,
            &self.sandbox,
            self.observed.ip,
            &shared.runtime,
            &shared.network,
            grace,
        )
        .await;
    }

    async fn release(&mut self) {
        let volumes = self.volumes_dir();
        for failure in termination::release(
            &self.sandbox,
            &volumes,
            &self.shared.runtime,
            &self.shared.network,
        )
        .await
        {
            tracing::warn!(pod = self.uid, failure, "pod was not freed completely");
        }
        self.shared.release_address(self.observed.ip.take());
        self.observed.sandbox_ready = false;
    }

    pub(crate) fn volumes_dir(&self) -> std::path::PathBuf {
        self.shared.config.volumes_dir.join(&self.uid)
    }

    async fn refresh_volumes(&mut self, pod: &Arc<Pod>) {
        let has_volumes = pod.spec.as_ref().is_some_and(|spec| {
            spec.volumes
                .as_ref()
                .is_some_and(|volumes| !volumes.is_empty())
        });
        if self.observed.sandbox_ready
            && has_volumes
            && pod.metadata.deletion_timestamp.is_none()
            && let Err(error) = setup::prepare_inputs(self, pod).await
        {
            tracing::warn!(pod = self.uid, error, "volumes were not refreshed");
        }
    }

    /// Writes the status when it differs from what was written last.
    async fn report(&mut self, pod: &Arc<Pod>) {
        let current = self.pod.borrow().clone().unwrap_or_else(|| pod.clone());
        let node = NodeFacts {
            address: self.shared.config.address.to_string(),
        };
        let forced = self
            .forced
            .as_ref()
            .map(|(reason, message)| (reason.as_str(), message.as_str()));
        let mut status: PodStatus =
            status::pod_status(&current, &self.observed, &node, forced, Timestamp::now());
        // An ended pod keeps the address it had.
        if status.pod_ip.is_none() {
            let old = current.status.clone().unwrap_or_default();
            (status.pod_ip, status.pod_ips) = (old.pod_ip, old.pod_ips);
        }
        let Ok(value) = serde_json::to_value(&status) else {
            return;
        };
        if self.written.as_ref() == Some(&value) {
            return;
        }
        let (Some(namespace), Some(name)) = (&pod.metadata.namespace, &pod.metadata.name) else {
            return;
        };
        let pods: Api<Pod> = Api::namespaced(self.shared.client.clone(), namespace);
        let patch = serde_json::json!({"metadata": {"uid": self.uid}, "status": value});
        match pods
            .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
            .await
        {
            Ok(_) => self.written = Some(value),
            Err(kube::Error::Api(status)) if status.code == 404 || status.code == 409 => {}
            Err(error) => {
                tracing::warn!(pod = name, %error, "pod status was not written, trying again");
                self.wake_later();
            }
        }
    }
}

fn until(at: Timestamp) -> Duration {
    Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or(Duration::ZERO)
}

/// An app or init container by name.
pub(crate) fn find_container<'a>(pod: &'a Pod, name: &str) -> Option<&'a Container> {
    let spec = pod.spec.as_ref()?;
    spec.init_containers
        .iter()
        .flatten()
        .chain(&spec.containers)
        .find(|one| one.name == name)
}
