//! The kubelet API of a virtual node: logs, commands and figures come from the cloud.

mod exec;
mod logs;
mod metrics;
mod ports;

use std::sync::Arc;

use async_trait::async_trait;
use elastic_core::names::INSTANCE_ID;
use futures::TryStreamExt;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kubelet_api::{
    AttachRequest, BackendError, ByteReader, ByteStream, ByteWriter, ExecRequest, ExecSession,
    LogOptions, NodeBackend, PodUsage,
};
use tokio_util::io::StreamReader;

pub use ports::{DirectDialer, PodDialer};

use crate::engine::{PodRecord, Shared};

/// One virtual node as its kubelet API sees it.
pub(crate) struct GroupBackend {
    shared: Arc<Shared>,
    node: usize,
    metrics: metrics::MetricsCache,
}

impl GroupBackend {
    pub(crate) fn new(shared: Arc<Shared>, node: usize) -> Self {
        Self {
            shared,
            node,
            metrics: metrics::MetricsCache::default(),
        }
    }

    fn own_pods(&self) -> Vec<Arc<Pod>> {
        let state = self.shared.state();
        let own = state
            .pods
            .values()
            .filter(|record| record.node == self.node);
        own.map(PodRecord::pod).collect()
    }

    fn find(&self, namespace: &str, pod: &str) -> Result<Arc<Pod>, BackendError> {
        let state = self.shared.state();
        let mut own = state
            .pods
            .values()
            .filter(|record| record.node == self.node);
        let found = own.find(|record| *record.namespace == *namespace && *record.name == *pod);
        found
            .map(PodRecord::pod)
            .ok_or_else(|| BackendError::NotFound {
                message: format!("pod {namespace}/{pod} is not on this node"),
            })
    }

    /// The group and the container's name, or why there is none.
    fn target(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
    ) -> Result<(String, String), BackendError> {
        let not_found = |message: String| BackendError::NotFound { message };
        let found = self.find(namespace, pod)?;
        if let Some(refusal) = BackendError::of_ephemeral_container(&found, container) {
            return Err(refusal);
        }
        let spec = found.spec.as_ref();
        let names = spec.iter().flat_map(|spec| {
            spec.containers
                .iter()
                .chain(spec.init_containers.iter().flatten())
        });
        let mut names = names.map(|container| container.name.as_str());
        let name = if container.is_empty() {
            names.next()
        } else {
            names.find(|name| *name == container)
        };
        let name = name.ok_or_else(|| {
            not_found(format!(
                "pod {namespace}/{pod} has no container {container:?}"
            ))
        })?;
        let uid = found.uid().unwrap_or_default();
        let group = self
            .shared
            .state()
            .shown_group(&uid)
            .map(|(id, _)| id.clone());
        let group = group.or_else(|| found.annotations().get(INSTANCE_ID).cloned());
        let group = group.ok_or_else(|| BackendError::BadRequest {
            message: format!(
                "container {name:?} in pod {pod:?} is waiting to start: no container group yet"
            ),
        })?;
        Ok((group, name.to_owned()))
    }
}

/// A failed call to the cloud about one container.
fn cloud_error(attempted: String, error: cloud_api::EciError) -> BackendError {
    if error.is_not_found() {
        return BackendError::NotFound {
            message: format!("{attempted}: the container group is gone"),
        };
    }
    BackendError::Internal {
        attempted,
        source: Box::new(error),
    }
}

#[async_trait]
impl NodeBackend for GroupBackend {
    async fn pods(&self) -> Vec<Pod> {
        self.own_pods().iter().map(|pod| Pod::clone(pod)).collect()
    }

    async fn container_logs(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, BackendError> {
        let (group, container) = self.target(namespace, pod, container)?;
        logs::stream(self.shared.clone(), group, container, options).await
    }

    async fn exec(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: ExecRequest,
    ) -> Result<ExecSession, BackendError> {
        let (group, container) = self.target(namespace, pod, container)?;
        exec::session(&self.shared, group, container, request).await
    }

    /// The cloud has no such action: what the container writes from now on is shown by following its log.
    async fn attach(
        &self,
        namespace: &str,
        pod: &str,
        container: &str,
        request: AttachRequest,
    ) -> Result<ExecSession, BackendError> {
        if request.stdin {
            return Err(BackendError::Unsupported {
                message: "the input of a container group's own process cannot be reached: attach without -i to see its output, or use exec".to_owned(),
            });
        }
        let (group, container) = self.target(namespace, pod, container)?;
        let options = LogOptions {
            follow: true,
            tail_lines: Some(0),
            ..LogOptions::default()
        };
        let lines = logs::stream(self.shared.clone(), group, container, options).await?;
        let output = StreamReader::new(lines.map_err(std::io::Error::other));
        Ok(ExecSession {
            stdin: None,
            stdout: Some(Box::new(output)),
            stderr: None,
            resize: None,
            // The session lasts as long as its output.
            exit: Box::pin(std::future::ready(Ok(0))),
        })
    }

    async fn check_pod(&self, namespace: &str, pod: &str) -> Result<(), BackendError> {
        ports::address(self.find(namespace, pod)?.as_ref()).map(drop)
    }

    async fn port_forward(
        &self,
        namespace: &str,
        pod: &str,
        port: u16,
    ) -> Result<(ByteReader, ByteWriter), BackendError> {
        let pod = self.find(namespace, pod)?;
        ports::connect(self.shared.pod_dialer.as_ref(), &pod, port).await
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, BackendError> {
        Ok(self.metrics.read(&self.shared, self.node).await)
    }
}
