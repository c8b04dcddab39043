//! The hooks of a container: a command, an HTTP request or a connection, after its start and before its stop.

use crate::backend::{BackendError, GroupPlan, Run};
use crate::shared::Shared;
use cloud_api::model::create::{HttpGetAction, ProbeSpec, TcpSocketAction};
use std::time::Duration;

/// What a hook does, whichever of the two it is.
struct Hook<'a> {
    command: &'a [String],
    path: &'a Option<String>,
    http_port: Option<u16>,
    scheme: &'a Option<String>,
    tcp_port: Option<u16>,
}

pub(super) async fn post_start(
    shared: &Shared,
    plan: &GroupPlan,
    run: Run<'_>,
    longest: Duration,
) -> Result<(), BackendError> {
    let container = run.container;
    let hook = Hook {
        command: &container.lifecycle_post_start_handler_exec,
        path: &container.lifecycle_post_start_handler_http_get_path,
        http_port: container.lifecycle_post_start_handler_http_get_port,
        scheme: &container.lifecycle_post_start_handler_http_get_scheme,
        tcp_port: container.lifecycle_post_start_handler_tcp_socket_port,
    };
    hook.run(shared, plan, run, longest).await
}

pub(super) async fn pre_stop(
    shared: &Shared,
    plan: &GroupPlan,
    run: Run<'_>,
    longest: Duration,
) -> Result<(), BackendError> {
    let container = run.container;
    let hook = Hook {
        command: &container.lifecycle_pre_stop_handler_exec,
        path: &container.lifecycle_pre_stop_handler_http_get_path,
        http_port: container.lifecycle_pre_stop_handler_http_get_port,
        scheme: &container.lifecycle_pre_stop_handler_http_get_scheme,
        tcp_port: container.lifecycle_pre_stop_handler_tcp_socket_port,
    };
    hook.run(shared, plan, run, longest).await
}

impl Hook<'_> {
    async fn run(
        &self,
        shared: &Shared,
        plan: &GroupPlan,
        run: Run<'_>,
        longest: Duration,
    ) -> Result<(), BackendError> {
        let backend = &shared.backend;
        if !self.command.is_empty() {
            let command = self.command.to_vec();
            let output = backend.exec_sync(plan, run, command, longest).await?;
            if output.exit_code != 0 {
                let message = format!("exit code {}", output.exit_code);
                return Err(BackendError::new("HookFailed", message));
            }
        }
        let http_get = self.http_port.map(|port| HttpGetAction {
            path: self.path.clone(),
            port,
            scheme: self.scheme.clone(),
        });
        let tcp_socket = self
            .tcp_port
            .map(|port| TcpSocketAction { host: None, port });
        if http_get.is_none() && tcp_socket.is_none() {
            return Ok(());
        }
        // A request of a hook is made as a probe's is, and only once.
        let asked = ProbeSpec {
            http_get,
            tcp_socket,
            ..Default::default()
        };
        let answer = tokio::time::timeout(longest, backend.probe(plan, run, &asked)).await;
        answer.unwrap_or_else(|_| Err(BackendError::new("HookFailed", "no answer in time")))
    }
}
