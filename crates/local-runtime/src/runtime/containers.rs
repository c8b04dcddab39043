//! Operations on containers.

use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::sandbox::Sandbox;
use super::{Runtime, client, connect, millis, resolve};
use crate::cgroup::{GroupUsage, cluster_group};
use crate::error::RuntimeError;
use crate::id::ContainerId;
use crate::image::ImageError;
use crate::logs::{self, LogOptions, LogStream};
use crate::protocol::{Request, Response};
use crate::session::ExecSession;
use crate::spec::{ContainerSpec, ExecSpec};
use crate::status::{ContainerState, ContainerStatus, ContainerUsage, ExecOutput, SandboxUsage};

/// A follower looks itself when no event has come for so long.
const FOLLOW_CHECK: Duration = Duration::from_secs(1);

impl Runtime {
    /// Prepares a container in a sandbox; does nothing when this attempt is already there.
    pub async fn create_container(
        &self,
        sandbox_id: &str,
        spec: ContainerSpec,
    ) -> Result<ContainerId, RuntimeError> {
        let sandbox = self.inner.sandbox(sandbox_id)?;
        let id = ContainerId::new(sandbox_id, spec.name.clone(), spec.attempt);
        let failed = |source: ImageError| RuntimeError::Image {
            container: id.to_string(),
            source,
        };
        let images = &self.inner.images;
        let image = images.find(&spec.image).await.map_err(failed)?;
        let image = image.ok_or_else(|| failed(ImageError::NotPresent(spec.image.clone())))?;
        let layers = images.layer_names(&image);
        let record = resolve::resolve(
            &sandbox.record,
            &sandbox.log_directory(),
            spec,
            &image,
            &images.layers_root(),
            layers,
        )?;
        self.order(
            &sandbox,
            &id,
            "create",
            &Request::Create(Box::new(record)),
            Duration::ZERO,
        )
        .await?;
        Ok(id)
    }

    /// Starts a created container; returns when its program runs.
    pub async fn start_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let sandbox = self.inner.sandbox(id.sandbox())?;
        self.order(
            &sandbox,
            id,
            "start",
            &Request::Start(id.clone()),
            Duration::ZERO,
        )
        .await
    }

    /// Sends the stop signal, then kills after `grace`; returns when the container has ended.
    pub async fn stop_container(
        &self,
        id: &ContainerId,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let sandbox = self.inner.sandbox(id.sandbox())?;
        if sandbox.gone.is_cancelled() {
            return Ok(());
        }
        let request = Request::Stop {
            id: id.clone(),
            grace_ms: millis(grace),
        };
        match self.order(&sandbox, id, "stop", &request, grace).await {
            // Its containers ended with it.
            Err(RuntimeError::ShimGone(_)) => Ok(()),
            other => other,
        }
    }

    /// Removes a container and its files (killing it when it runs); its log stays when the caller chose the log directory.
    pub async fn remove_container(&self, id: &ContainerId) -> Result<(), RuntimeError> {
        let Ok(sandbox) = self.inner.sandbox(id.sandbox()) else {
            return Ok(());
        };
        if !sandbox.gone.is_cancelled() {
            return self
                .order(
                    &sandbox,
                    id,
                    "remove",
                    &Request::Remove(id.clone()),
                    Duration::ZERO,
                )
                .await;
        }
        let directory = sandbox.directory.container(id);
        match tokio::fs::remove_dir_all(&directory).await {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(RuntimeError::Io {
                action: "remove container directory",
                path: directory,
                source,
            }),
            _ => Ok(()),
        }
    }

    async fn order(
        &self,
        sandbox: &Sandbox,
        id: &ContainerId,
        operation: &'static str,
        request: &Request,
        grace: Duration,
    ) -> Result<(), RuntimeError> {
        let limit = grace + client::REQUEST_LIMIT;
        let container = id.to_string();
        client::command(
            &sandbox.directory.0,
            id.sandbox(),
            &container,
            operation,
            request,
            limit,
        )
        .await
    }

    /// One container.
    pub async fn container_status(
        &self,
        id: &ContainerId,
    ) -> Result<ContainerStatus, RuntimeError> {
        self.inner.sandbox(id.sandbox())?;
        let statuses = self.containers(id.sandbox()).await;
        let found = statuses.into_iter().find(|status| status.id == *id);
        found.ok_or_else(|| RuntimeError::ContainerNotFound(id.to_string()))
    }

    /// All attempts of all containers in a sandbox, by name and attempt.
    pub async fn containers(&self, sandbox_id: &str) -> Vec<ContainerStatus> {
        let Ok(sandbox) = self.inner.sandbox(sandbox_id) else {
            return Vec::new();
        };
        if !sandbox.gone.is_cancelled() {
            let asked = client::ask(
                &sandbox.directory.0,
                sandbox_id,
                &Request::Containers,
                client::REQUEST_LIMIT,
            );
            match asked.await {
                Ok((Response::Containers(statuses), _)) => return statuses,
                Ok((other, _)) => {
                    tracing::warn!(sandbox = sandbox_id, ?other, "an answer out of place")
                }
                Err(error) => tracing::debug!(sandbox = sandbox_id, %error, "ask for containers"),
            }
        }
        sandbox.lost_containers()
    }

    /// Runs a command to its end; after `timeout` it is killed and [`RuntimeError::Timeout`] returned.
    pub async fn exec_sync(
        &self,
        id: &ContainerId,
        command: Vec<String>,
        timeout_after: Duration,
    ) -> Result<ExecOutput, RuntimeError> {
        let run = async {
            let session = self
                .exec(
                    id,
                    ExecSpec {
                        command,
                        tty: false,
                        stdin: false,
                    },
                )
                .await?;
            connect::run_to_end(session)
                .await
                .map_err(|error| RuntimeError::Shim {
                    sandbox: id.sandbox().to_owned(),
                    reason: error.to_string(),
                })
        };
        // Dropping the session closes its connection, and the shim ends the command.
        timeout(timeout_after, run).await.unwrap_or_else(|_| {
            Err(RuntimeError::Timeout {
                operation: "a command",
                object: format!("container {id}"),
                limit_ms: timeout_after.as_millis(),
            })
        })
    }

    /// Starts a command with live streams.
    pub async fn exec(
        &self,
        id: &ContainerId,
        spec: ExecSpec,
    ) -> Result<ExecSession, RuntimeError> {
        let with_stdin = spec.stdin;
        self.open_session(
            id,
            "exec",
            &Request::Exec {
                id: id.clone(),
                spec,
            },
            with_stdin,
        )
        .await
    }

    /// Connects to the first process of a running container. `stdin` asks for its standard input.
    pub async fn attach(&self, id: &ContainerId, stdin: bool) -> Result<ExecSession, RuntimeError> {
        self.open_session(
            id,
            "attach",
            &Request::Attach {
                id: id.clone(),
                stdin,
            },
            stdin,
        )
        .await
    }

    async fn open_session(
        &self,
        id: &ContainerId,
        operation: &'static str,
        request: &Request,
        with_stdin: bool,
    ) -> Result<ExecSession, RuntimeError> {
        let sandbox = self.inner.sandbox(id.sandbox())?;
        let asked = client::ask(
            &sandbox.directory.0,
            id.sandbox(),
            request,
            client::REQUEST_LIMIT,
        )
        .await?;
        match asked {
            (Response::Streams(set), connection) => connect::session(connection, set, with_stdin)
                .map_err(|error| RuntimeError::Shim {
                    sandbox: id.sandbox().to_owned(),
                    reason: error.to_string(),
                }),
            (Response::Failed { kind, reason }, _) => Err(client::refused(
                id.sandbox(),
                &id.to_string(),
                operation,
                kind,
                reason,
            )),
            (other, _) => Err(client::unexpected(id.sandbox(), &other)),
        }
    }

    /// Reads a container's log; following ends when the container does.
    pub async fn container_logs(
        &self,
        id: &ContainerId,
        options: LogOptions,
    ) -> Result<LogStream, RuntimeError> {
        let mut events = self.events();
        let status = self.container_status(id).await?;
        let finished = CancellationToken::new();
        if !options.follow || status.state == ContainerState::Exited {
            finished.cancel();
            return Ok(Box::pin(logs::read(status.log_path, options, finished)));
        }
        let reader_gone = CancellationToken::new();
        let guard = reader_gone.clone().drop_guard();
        let (runtime, id, token) = (self.clone(), id.clone(), finished.clone());
        // Ends with the container or with the reader.
        tokio::spawn(async move {
            let watch = async {
                while matches!(runtime.container_status(&id).await, Ok(status) if status.state != ContainerState::Exited)
                {
                    // Whatever woke us, the state is looked at again.
                    let _ = timeout(FOLLOW_CHECK, events.recv()).await;
                }
            };
            tokio::select! {
                () = watch => token.cancel(),
                () = reader_gone.cancelled() => {}
            }
        });
        let stream = logs::read(status.log_path, options, finished);
        Ok(Box::pin(futures::StreamExt::inspect(stream, move |_| {
            // Lives as long as the stream does.
            let _ = &guard;
        })))
    }

    /// Usage of the running containers of a sandbox.
    pub async fn usage(&self, sandbox_id: &str) -> Result<SandboxUsage, RuntimeError> {
        let sandbox = self.inner.sandbox(sandbox_id)?;
        let cgroups = self.inner.cgroups.clone();
        let sample = move || {
            let read = |directory: String| {
                // `<name>.<attempt>`; anything else is not a container.
                let (name, attempt) = directory.rsplit_once('.')?;
                attempt.parse::<u32>().ok()?;
                let usage = cgroups.usage(&sandbox.group.join(&directory)).ok()?;
                Some(container_usage(name, usage))
            };
            let groups = cgroups.children(&sandbox.group).into_iter();
            SandboxUsage {
                timestamp: Timestamp::now(),
                containers: groups.filter_map(read).collect(),
            }
        };
        let sampled = tokio::task::spawn_blocking(sample).await;
        sampled.map_err(|error| RuntimeError::Shim {
            sandbox: sandbox_id.to_owned(),
            reason: error.to_string(),
        })
    }

    /// Usage of everything below a cgroup subpath together, for example a whole worker.
    pub async fn group_usage(&self, cgroup_subpath: &str) -> Result<ContainerUsage, RuntimeError> {
        resolve::check_subpath("group", cgroup_subpath)?;
        let group = cluster_group(&self.inner.cluster_id).join(cgroup_subpath);
        let usage = self.inner.cgroups.usage(&group);
        let usage = usage.map_err(RuntimeError::io("read usage of cgroup", group))?;
        Ok(container_usage(cgroup_subpath, usage))
    }
}

fn container_usage(name: &str, usage: GroupUsage) -> ContainerUsage {
    ContainerUsage {
        name: name.to_owned(),
        cpu_usage_nanos: usage.cpu_nanos,
        memory_working_set_bytes: usage.memory_working_set_bytes,
        memory_usage_bytes: usage.memory_usage_bytes,
        memory_rss_bytes: usage.memory_rss_bytes,
    }
}
