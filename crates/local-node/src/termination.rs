//! Ending a pod's containers: preStop hooks, the stop signal, the kill, and freeing what the pod held.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, LifecycleHandler, Pod};
use local_network::ClusterNetwork;
use local_runtime::{ContainerId, ContainerState, Runtime};
use tokio::time::Instant;

use crate::http_get;

/// A container always gets this long after a hook that used up its grace (upstream `minimumGracePeriodInSeconds`).
const GRACE_MIN: Duration = Duration::from_secs(2);

/// Runs one lifecycle hook; `Err` is the sentence of the event.
pub(crate) async fn run_hook(
    hook: &LifecycleHandler,
    container: &Container,
    id: &ContainerId,
    ip: Ipv4Addr,
    runtime: &Runtime,
    network: &ClusterNetwork,
    limit: Duration,
) -> Result<(), String> {
    if let Some(sleep) = &hook.sleep {
        let seconds = u64::try_from(sleep.seconds).unwrap_or(0);
        tokio::time::sleep(Duration::from_secs(seconds).min(limit)).await;
        return Ok(());
    }
    if let Some(exec) = &hook.exec {
        let command = exec.command.clone().unwrap_or_default();
        let output = runtime
            .exec_sync(id, command, limit)
            .await
            .map_err(|error| error.to_string())?;
        return match output.exit_code {
            0 => Ok(()),
            code => Err(format!("the hook's command ended with exit code {code}")),
        };
    }
    if let Some(action) = &hook.http_get {
        let port = http_get::port_number(&action.port, container)
            .ok_or("the hook names no port of the container")?;
        let address = SocketAddr::from((ip, port));
        return tokio::time::timeout(limit, http_get::get(&network.sockets(), address, action))
            .await
            .unwrap_or_else(|_| Err("the hook timed out".to_string()));
    }
    Ok(())
}

/// Stops every running container of the pod within `grace`; hooks count against it.
pub(crate) async fn stop_containers(
    pod: &Pod,
    sandbox: &str,
    ip: Option<Ipv4Addr>,
    runtime: &Runtime,
    network: &ClusterNetwork,
    grace: Duration,
) {
    let until = Instant::now() + grace;
    let specs = pod.spec.iter().flat_map(|spec| {
        spec.init_containers
            .iter()
            .flatten()
            .chain(&spec.containers)
    });
    let specs: Vec<&Container> = specs.collect();
    let running = runtime.containers(sandbox).await;
    let stops = running
        .into_iter()
        .filter(|one| one.state != ContainerState::Exited)
        .map(|one| {
            let spec = specs.iter().find(|spec| spec.name == one.name).copied();
            async move {
                let hook = spec.and_then(|spec| spec.lifecycle.as_ref()?.pre_stop.as_ref());
                if let (Some(hook), Some(spec), Some(ip), false) = (hook, spec, ip, grace.is_zero())
                    && let Err(reason) =
                        run_hook(hook, spec, &one.id, ip, runtime, network, grace).await
                {
                    tracing::warn!(container = %one.id, reason, "preStop hook failed");
                }
                let left = until.saturating_duration_since(Instant::now());
                let left = if grace.is_zero() {
                    left
                } else {
                    left.max(GRACE_MIN)
                };
                if let Err(error) = runtime.stop_container(&one.id, left).await {
                    tracing::warn!(container = %one.id, %error, "container was not stopped");
                }
            }
        });
    futures::future::join_all(stops).await;
}

/// Frees sandbox, network and volumes. Goes on after failures and gives them back; what is gone already is fine.
pub(crate) async fn release(
    sandbox: &str,
    volumes: &Path,
    runtime: &Runtime,
    network: &ClusterNetwork,
) -> Vec<String> {
    let mut failures = Vec::new();
    if let Err(error) = runtime.remove_sandbox(sandbox).await {
        failures.push(format!("remove sandbox {sandbox}: {error}"));
    }
    if let Err(error) = network.detach(sandbox).await {
        failures.push(format!("detach {sandbox} from the network: {error}"));
    }
    match std::fs::remove_dir_all(volumes) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            failures.push(format!("remove {}: {error}", volumes.display()));
        }
        _ => {}
    }
    failures
}
