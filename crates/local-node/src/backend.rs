//! The worker as its kubelet API sees it.

use std::sync::Arc;

use async_trait::async_trait;
use futures::{FutureExt, StreamExt, TryStreamExt};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kubelet_api::{
    AttachRequest, BackendError, ByteReader, ByteStream, ByteWriter, ExecRequest, ExecSession,
    LogOptions, NodeBackend, PodUsage, TerminalSize,
};
use local_runtime::{ContainerId, ContainerState, ExecSpec, RuntimeError};
use tokio::sync::mpsc;

use crate::metrics;
use crate::worker::Shared;

/// Terminal size changes waiting for the runtime.
const RESIZES_MAX: usize = 8;

pub(crate) struct WorkerBackend {
    shared: Arc<Shared>,
}

impl WorkerBackend {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn all(&self) -> Vec<(String, Arc<Pod>)> {
        let Ok(pods) = self.shared.pods.lock() else {
            return Vec::new();
        };
        pods.values()
            .filter_map(|handle| Some((handle.sandbox.clone(), handle.pod.borrow().clone()?)))
            .collect()
    }

    fn find(&self, namespace: &str, name: &str) -> Result<(String, Arc<Pod>), BackendError> {
        self.all()
            .into_iter()
            .find(|(_, pod)| {
                pod.metadata.name.as_deref() == Some(name)
                    && pod.metadata.namespace.as_deref() == Some(namespace)
            })
            .ok_or_else(|| BackendError::NotFound {
                message: format!(
                    "pod \"{name}\" not found on node {}",
                    self.shared.config.name
                ),
            })
    }

    /// The newest attempt of a container, or the one before it.
    async fn container(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        previous: bool,
    ) -> Result<(ContainerId, ContainerState), BackendError> {
        let (sandbox, found) = self.find(namespace, pod)?;
        if let Some(refusal) = BackendError::of_ephemeral_container(&found, container) {
            return Err(refusal);
        }
        let mut attempts: Vec<_> = self.shared.runtime.containers(&sandbox).await;
        attempts.retain(|one| one.name == container);
        attempts.sort_by_key(|one| one.attempt);
        let newest = attempts.pop();
        let wanted = if previous { attempts.pop() } else { newest };
        match wanted {
            Some(one) => Ok((one.id, one.state)),
            None if previous => Err(BackendError::BadRequest {
                message: format!(
                    "previous terminated container \"{container}\" in pod \"{pod}\" not found"
                ),
            }),
            None => Err(BackendError::BadRequest {
                message: format!(
                    "container \"{container}\" in pod \"{pod}\" is waiting to start: ContainerCreating"
                ),
            }),
        }
    }

    async fn running(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<ContainerId, BackendError> {
        match self.container(namespace, pod, container, false).await? {
            (id, ContainerState::Running) => Ok(id),
            _ => Err(BackendError::BadRequest {
                message: format!("container \"{container}\" in pod \"{pod}\" is not running"),
            }),
        }
    }
}

#[async_trait]
impl NodeBackend for WorkerBackend {
    async fn pods(&self) -> Vec<Pod> {
        self.all()
            .into_iter()
            .map(|(_, pod)| pod.as_ref().clone())
            .collect()
    }

    async fn container_logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, BackendError> {
        let (id, _) = self
            .container(namespace, pod, container, options.previous)
            .await?;
        let since_seconds = options
            .since_seconds
            .map(|seconds| Timestamp::now() - SignedDuration::from_secs(seconds));
        let wanted = local_runtime::logs::LogOptions {
            tail_lines: options.tail_lines,
            since: options.since_time.or(since_seconds),
            follow: options.follow,
            timestamps: options.timestamps,
            limit_bytes: options.limit_bytes,
        };
        let stream = self
            .shared
            .runtime
            .container_logs(&id, wanted)
            .await
            .map_err(|error| failed("read the log", &id, error))?;
        Ok(stream.map_err(BackendError::from).boxed())
    }

    async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, BackendError> {
        let id = self.running(namespace, pod, container).await?;
        let spec = ExecSpec {
            command: request.command,
            tty: request.tty,
            stdin: request.stdin,
        };
        let session = self
            .shared
            .runtime
            .exec(&id, spec)
            .await
            .map_err(|error| failed("run a command", &id, error))?;
        Ok(adapt(session, request.tty))
    }

    async fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: AttachRequest,
    ) -> Result<ExecSession, BackendError> {
        let id = self.running(namespace, pod, container).await?;
        let session = self
            .shared
            .runtime
            .attach(&id, request.stdin)
            .await
            .map_err(|error| failed("attach", &id, error))?;
        Ok(adapt(session, request.tty))
    }

    async fn check_pod(&self, namespace: &str, pod: &str) -> Result<(), BackendError> {
        let (_, found) = self.find(namespace, pod)?;
        let phase = found.status.as_ref().and_then(|one| one.phase.as_deref());
        match phase {
            Some(phase @ ("Succeeded" | "Failed")) => Err(BackendError::BadRequest {
                message: format!("pod \"{pod}\" has ended: its phase is {phase}"),
            }),
            _ => Ok(()),
        }
    }

    async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<(ByteReader, ByteWriter), BackendError> {
        let (sandbox, _) = self.find(namespace, pod)?;
        let status = self
            .shared
            .runtime
            .sandbox_status(&sandbox)
            .await
            .map_err(|_| BackendError::BadRequest {
                message: format!("pod \"{pod}\" is not running"),
            })?;
        let netns = status.netns_path.ok_or_else(|| BackendError::BadRequest {
            message: format!("pod \"{pod}\" has no network of its own"),
        })?;
        // Inside the pod's own namespace, so that servers bound to its loopback answer too.
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let stream = local_network::SocketFactory::tcp_connect_in(&netns, address)
            .await
            .map_err(|error| BackendError::BadRequest {
                message: format!("connect to port {port} of pod \"{pod}\": {error}"),
            })?;
        let (reader, writer) = stream.into_split();
        Ok((Box::new(reader), Box::new(writer)))
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, BackendError> {
        let mut pods = Vec::new();
        for (sandbox, pod) in self.all() {
            let runtime = &self.shared.runtime;
            let Ok(usage) = runtime.usage(&sandbox).await else {
                continue;
            };
            let containers = runtime.containers(&sandbox).await;
            let pid = containers.iter().find_map(|one| one.pid);
            let devices = metrics::devices(pid).await;
            pods.push(metrics::pod_usage(&pod, &usage, &devices));
        }
        Ok(pods)
    }
}

fn failed(attempted: &str, id: &ContainerId, source: RuntimeError) -> BackendError {
    BackendError::Internal {
        attempted: format!("{attempted} in container {id}"),
        source: Box::new(source),
    }
}

fn adapt(session: local_runtime::ExecSession, tty: bool) -> ExecSession {
    let (resize, mut sizes) = mpsc::channel::<TerminalSize>(RESIZES_MAX);
    let runtime_resize = session.resize;
    // Ends with the session: either end closing its channel ends the loop.
    tokio::spawn(async move {
        while let Some(size) = sizes.recv().await {
            if runtime_resize
                .send((size.width, size.height))
                .await
                .is_err()
            {
                return;
            }
        }
    });
    ExecSession {
        stdin: session.stdin,
        stdout: Some(session.stdout),
        stderr: (!tty).then_some(session.stderr),
        resize: tty.then_some(resize),
        exit: session
            .exit
            .map(|exit| exit.map_err(BackendError::from))
            .boxed(),
    }
}
