//! Containers for real: a sandbox of the local runtime per group, with the group's address from the local network.
//!
//! Everything is found again by the group's id, so a restarted process takes its groups up where they are. Volumes
//! and logs lie below `<data_dir>/groups/<id>`.

mod commit;
mod images;
mod probes;
mod spec;
mod traffic;
mod volumes;

use super::{
    BackendError, CommandOutput, CommandSession, ContainerExit, ContainerUsage, GroupBackend,
    GroupPlan, InterfaceUsage, LogQuery, PulledImage, Run,
};
use async_trait::async_trait;
use cloud_api::model::create::{ContainerSpec, ProbeSpec};
use futures::StreamExt;
use jiff::Timestamp;
use local_network::{ClusterNetwork, PodReach};
use local_runtime::{
    ContainerId, ContainerState, ContainerStatus, ExecSpec, Runtime, RuntimeError, SandboxState,
};
use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A lost wake-up is made good after so long.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Marks our sandboxes among those of one runtime.
const OWNER_LABEL: &str = "springtide.local/owner";
const OWNER: &str = "local-cloud";
/// Our attachments begin like our groups' ids.
const ID_PREFIX: &str = "eci-";
/// Most log text in one answer.
const MAX_LOG_BYTES: usize = 1_048_576;

/// What the real backend works with.
#[derive(Clone)]
pub struct RealBackendConfig {
    /// Runs the containers.
    pub runtime: Runtime,
    /// Gives them their addresses.
    pub network: ClusterNetwork,
    /// Volumes and logs.
    pub data_dir: PathBuf,
    /// Where the groups' cgroups lie below the cluster's, usually `cloud`.
    pub cgroup_subpath: String,
    /// `/etc/resolv.conf` of groups that bring no DNS configuration; empty leaves the image's.
    pub default_resolv_conf: String,
}

/// Runs groups for real.
pub struct RealBackend {
    config: RealBackendConfig,
    /// One at a time makes or remakes a group's sandbox.
    locks: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    /// Numbers the workspaces of commits.
    commits: AtomicU64,
}

fn failed(reason: &'static str) -> impl Fn(RuntimeError) -> BackendError {
    move |error| BackendError::from_error(reason, &error)
}

/// What is gone already need not be stopped or removed.
fn unless_gone(result: Result<(), RuntimeError>) -> Result<(), BackendError> {
    match result {
        Err(error) if error.is_not_found() || matches!(error, RuntimeError::ShimGone(_)) => Ok(()),
        other => other.map_err(failed("FailedKillPod")),
    }
}

fn id_of(plan: &GroupPlan, run: Run<'_>) -> ContainerId {
    ContainerId::new(plan.id.as_str(), run.container.name.as_str(), run.attempt)
}

impl RealBackend {
    /// Over a runtime and a network that are already open.
    pub fn new(config: RealBackendConfig) -> Self {
        Self {
            config,
            locks: Mutex::default(),
            commits: AtomicU64::new(0),
        }
    }

    fn directory(&self, group_id: &str) -> PathBuf {
        self.config.data_dir.join("groups").join(group_id)
    }

    fn lock(&self, group_id: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut locks = self.locks.lock().unwrap_or_else(PoisonError::into_inner);
        locks.entry(group_id.to_owned()).or_default().clone()
    }

    /// Makes the group's network and sandbox unless a living one is there.
    async fn ensure_sandbox(&self, plan: &GroupPlan) -> Result<(), BackendError> {
        let lock = self.lock(&plan.id);
        let _guard = lock.lock().await;
        let runtime = &self.config.runtime;
        match runtime.sandbox_status(&plan.id).await {
            Ok(status) if status.state == SandboxState::Ready => return Ok(()),
            // Its shim is gone and its containers with it.
            Ok(_) => runtime
                .remove_sandbox(&plan.id)
                .await
                .map_err(failed("FailedCreatePodSandBox"))?,
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(failed("FailedCreatePodSandBox")(error)),
        }
        let reach = if plan.reaches_services() {
            PodReach::Everywhere
        } else {
            PodReach::WithoutServices
        };
        let network = &self.config.network;
        let attached = network.attach_with(&plan.id, plan.address, reach).await;
        let network =
            attached.map_err(|error| BackendError::from_error("NetworkNotReady", &error))?;
        let directory = self.directory(&plan.id);
        let mut sandbox = spec::sandbox(
            plan,
            &self.config,
            network.netns_path,
            directory.join("logs"),
        );
        sandbox
            .labels
            .insert(OWNER_LABEL.to_owned(), OWNER.to_owned());
        runtime
            .create_sandbox(sandbox)
            .await
            .map_err(failed("FailedCreatePodSandBox"))
    }

    async fn status(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
    ) -> Result<Option<ContainerStatus>, BackendError> {
        match self
            .config
            .runtime
            .container_status(&id_of(plan, run))
            .await
        {
            Ok(status) => Ok(Some(status)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(failed("ContainerLost")(error)),
        }
    }

    /// Files of runs that nobody can ask about any more: the one before the current keeps its log.
    async fn remove_old_runs(&self, plan: &GroupPlan, run: Run<'_>) {
        let is_old = |status: &ContainerStatus| {
            status.name == run.container.name && status.attempt < run.attempt
        };
        let known = self.config.runtime.containers(&plan.id).await;
        for status in known.into_iter().filter(is_old) {
            if let Err(error) = self.config.runtime.remove_container(&status.id).await {
                tracing::warn!(container = %status.id, %error, "old run cannot be removed");
            }
        }
        if let Some(oldest) = run.attempt.checked_sub(2) {
            let logs = self
                .directory(&plan.id)
                .join("logs")
                .join(&run.container.name);
            volumes::remove_files(&logs, &format!("{oldest}.log")).await;
        }
    }
}

#[async_trait]
impl GroupBackend for RealBackend {
    fn is_simulated(&self) -> bool {
        false
    }

    async fn prepare(&self, plan: &GroupPlan) -> Result<(), BackendError> {
        volumes::make(&self.directory(&plan.id), plan).await?;
        self.ensure_sandbox(plan).await
    }

    async fn pull(
        &self,
        plan: &GroupPlan,
        container: &ContainerSpec,
    ) -> Result<PulledImage, BackendError> {
        images::pull(self.config.runtime.images(), &plan.request, container).await
    }

    async fn start(&self, plan: &GroupPlan, run: Run<'_>) -> Result<Timestamp, BackendError> {
        let runtime = &self.config.runtime;
        let status = self.status(plan, run).await?;
        match &status {
            Some(status) if status.state != ContainerState::Created => {
                return Ok(status.started_at.unwrap_or(status.created_at));
            }
            Some(_) => {}
            None => {
                self.ensure_sandbox(plan).await?;
                self.remove_old_runs(plan, run).await;
                let mounts =
                    volumes::mounts(&self.directory(&plan.id), plan, run.container).await?;
                let spec = spec::container(plan, run, mounts)?;
                runtime
                    .create_container(&plan.id, spec)
                    .await
                    .map_err(failed("CreateContainerError"))?;
            }
        }
        runtime
            .start_container(&id_of(plan, run))
            .await
            .map_err(failed("StartError"))?;
        let started = self
            .status(plan, run)
            .await?
            .and_then(|status| status.started_at);
        Ok(started.unwrap_or_else(Timestamp::now))
    }

    async fn wait(&self, plan: &GroupPlan, run: Run<'_>) -> Result<ContainerExit, BackendError> {
        // Subscribed before the first look, so that no change falls in between.
        let mut events = self.config.runtime.events();
        loop {
            let status = self.status(plan, run).await?;
            let status = status
                .ok_or_else(|| BackendError::new("ContainerLost", "the container is gone"))?;
            if status.state == ContainerState::Exited {
                return Ok(ContainerExit {
                    exit_code: status.exit_code.unwrap_or(128),
                    signal: status.signal,
                    out_of_memory: status.oom_killed,
                    finished_at: status.finished_at.unwrap_or_else(Timestamp::now),
                    message: status.message,
                });
            }
            let ours = async {
                // A listener that lags may have missed ours, so it looks again as well.
                while let Ok(changed) = events.recv().await {
                    if changed == plan.id {
                        return;
                    }
                }
            };
            // Without a wake-up the next look comes by the clock.
            let _ = tokio::time::timeout(LOOK_AGAIN, ours).await;
        }
    }

    async fn stop(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        grace: Duration,
    ) -> Result<(), BackendError> {
        unless_gone(
            self.config
                .runtime
                .stop_container(&id_of(plan, run), grace)
                .await,
        )
    }

    async fn probe(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        probe: &ProbeSpec,
    ) -> Result<(), BackendError> {
        if let Some(exec) = &probe.exec {
            let limit = probe
                .timeout_seconds
                .and_then(|seconds| u64::try_from(seconds).ok())
                .unwrap_or(1)
                .max(1);
            let output = self
                .exec_sync(plan, run, exec.command.clone(), Duration::from_secs(limit))
                .await?;
            if output.exit_code == 0 {
                return Ok(());
            }
            return Err(BackendError::new(
                "Unhealthy",
                format!("command ended with {}", output.exit_code),
            ));
        }
        probes::over_network(&self.config.network.sockets(), plan.address, probe).await
    }

    async fn exec_sync(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<CommandOutput, BackendError> {
        let output = self
            .config
            .runtime
            .exec_sync(&id_of(plan, run), command, timeout)
            .await;
        let mut output = output.map_err(failed("ExecFailed"))?;
        output.stdout.append(&mut output.stderr);
        Ok(CommandOutput {
            exit_code: output.exit_code,
            output: output.stdout,
        })
    }

    async fn exec(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        command: Vec<String>,
        tty: bool,
        stdin: bool,
    ) -> Result<CommandSession, BackendError> {
        let session = self
            .config
            .runtime
            .exec(
                &id_of(plan, run),
                ExecSpec {
                    command,
                    tty,
                    stdin,
                },
            )
            .await;
        let session = session.map_err(failed("ExecFailed"))?;
        let exit = session.exit;
        Ok(CommandSession {
            stdin: session.stdin,
            stdout: session.stdout,
            stderr: session.stderr,
            resize: Some(session.resize),
            exit: Box::pin(async move {
                exit.await
                    .map_err(|error| BackendError::from_error("ExecFailed", &error))
            }),
        })
    }

    async fn logs(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        query: &LogQuery,
    ) -> Result<String, BackendError> {
        let logs = self.directory(&plan.id).join("logs");
        let path = local_runtime::logs::path(&logs, &run.container.name, run.attempt);
        if !tokio::fs::try_exists(&path).await.unwrap_or(false) {
            return Ok(String::new());
        }
        let limit = query
            .limit_bytes
            .unwrap_or(MAX_LOG_BYTES)
            .min(MAX_LOG_BYTES);
        let options = local_runtime::logs::LogOptions {
            tail_lines: query.tail.and_then(|lines| u64::try_from(lines).ok()),
            since: query.since,
            follow: false,
            timestamps: query.timestamps,
            limit_bytes: u64::try_from(limit).ok(),
        };
        let mut chunks = Box::pin(local_runtime::logs::read(
            path,
            options,
            CancellationToken::new(),
        ));
        let mut text = Vec::new();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| BackendError::from_error("LogUnreadable", &error))?;
            text.extend_from_slice(&chunk);
            if text.len() >= limit {
                text.truncate(limit);
                break;
            }
        }
        Ok(String::from_utf8_lossy(&text).into_owned())
    }

    async fn commit(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        reference: &str,
    ) -> Result<(), BackendError> {
        let lost = || BackendError::new("ContainerLost", "the container does not run");
        let status = self.status(plan, run).await?.ok_or_else(lost)?;
        let pid = status
            .pid
            .filter(|_| status.state == ContainerState::Running);
        let pid = pid.ok_or_else(lost)?;
        let images = self.config.runtime.images();
        let number = self.commits.fetch_add(1, Ordering::Relaxed);
        let workspace = self
            .config
            .data_dir
            .join("commits")
            .join(number.to_string());
        // What an earlier process left there is nobody's.
        volumes::remove(&workspace).await?;
        let made = commit::commit(images, &workspace, pid, &run.container.image, reference).await;
        let removed = volumes::remove(&workspace).await;
        made.and(removed)
    }

    async fn usage(&self, plan: &GroupPlan) -> Result<Vec<ContainerUsage>, BackendError> {
        let usage = self
            .config
            .runtime
            .usage(&plan.id)
            .await
            .map_err(failed("UsageUnknown"))?;
        let containers = usage
            .containers
            .into_iter()
            .map(|container| ContainerUsage {
                name: container.name,
                cpu_nanos: container.cpu_usage_nanos,
                working_set_bytes: container.memory_working_set_bytes,
                usage_bytes: container.memory_usage_bytes,
                rss_bytes: container.memory_rss_bytes,
            });
        Ok(containers.collect())
    }

    async fn traffic(&self, plan: &GroupPlan) -> Result<Vec<InterfaceUsage>, BackendError> {
        let known = self.config.runtime.containers(&plan.id).await;
        let running = |status: &ContainerStatus| status.state == ContainerState::Running;
        let mut pids = known.into_iter().filter(running).filter_map(|one| one.pid);
        // All containers of a group share its network, so any of them shows it.
        let Some(pid) = pids.next() else {
            return Ok(Vec::new());
        };
        let path = format!("/proc/{pid}/net/dev");
        let text = tokio::fs::read_to_string(&path).await;
        let text = text.map_err(|error| BackendError::new("UsageUnknown", error.to_string()))?;
        Ok(traffic::read(&text))
    }

    async fn end(&self, plan: &GroupPlan) -> Result<(), BackendError> {
        self.end_by_id(&plan.id).await
    }

    async fn forget(&self, group_id: &str) -> Result<(), BackendError> {
        self.end_by_id(group_id).await?;
        self.locks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(group_id);
        volumes::remove(&self.directory(group_id)).await
    }

    async fn known_groups(&self) -> Result<Vec<String>, BackendError> {
        let sandboxes = self.config.runtime.sandboxes().await.into_iter();
        let owned = sandboxes.filter(|sandbox| {
            sandbox
                .labels
                .get(OWNER_LABEL)
                .is_some_and(|owner| owner == OWNER)
        });
        let mut known: BTreeSet<String> = owned.map(|sandbox| sandbox.id).collect();
        let attached = self.config.network.attached().await;
        let attached =
            attached.map_err(|error| BackendError::from_error("NetworkNotReady", &error))?;
        known.extend(
            attached
                .into_iter()
                .map(|pod| pod.name)
                .filter(|name| name.starts_with(ID_PREFIX)),
        );
        known.extend(volumes::names(&self.config.data_dir.join("groups")).await?);
        Ok(known.into_iter().collect())
    }
}

impl RealBackend {
    /// Containers, sandbox, address, volumes; each is tried although another failed.
    async fn end_by_id(&self, group_id: &str) -> Result<(), BackendError> {
        let lock = self.lock(group_id);
        let _guard = lock.lock().await;
        let runtime = &self.config.runtime;
        let stopped = unless_gone(runtime.stop_sandbox(group_id, Duration::ZERO).await);
        let removed = unless_gone(runtime.remove_sandbox(group_id).await);
        let detached = self.config.network.detach(group_id).await;
        let detached = detached.map_err(|error| BackendError::from_error("FailedKillPod", &error));
        let emptied = volumes::remove(&self.directory(group_id).join("volumes")).await;
        stopped.and(removed).and(detached).and(emptied)
    }
}
