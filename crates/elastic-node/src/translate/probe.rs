//! Probes. Container groups have no startup probe; its time is added to the liveness probe's first wait, so that a slow
//! start is not mistaken for a failure, and a container without a readiness probe is ready when its startup check holds.

use cloud_api::model::create::{ExecAction, HttpGetAction, ProbeSpec, TcpSocketAction};
use k8s_openapi::api::core::v1::{Container, Probe};

use super::TranslateError;
use super::container::port_number;

const DEFAULT_PERIOD_SECONDS: i64 = 10;
const DEFAULT_FAILURES: i64 = 3;

pub(super) fn readiness(container: &Container) -> Result<Option<ProbeSpec>, TranslateError> {
    let probe = container.readiness_probe.as_ref();
    probe
        .or(container.startup_probe.as_ref())
        .map(|probe| translate(container, probe))
        .transpose()
}

pub(super) fn liveness(container: &Container) -> Result<Option<ProbeSpec>, TranslateError> {
    let Some(liveness) = &container.liveness_probe else {
        return Ok(None);
    };
    let mut spec = translate(container, liveness)?;
    if let Some(startup) = &container.startup_probe {
        let period = startup
            .period_seconds
            .map_or(DEFAULT_PERIOD_SECONDS, i64::from);
        let failures = startup
            .failure_threshold
            .map_or(DEFAULT_FAILURES, i64::from);
        let start = startup.initial_delay_seconds.map_or(0, i64::from) + period * failures;
        spec.initial_delay_seconds = Some(spec.initial_delay_seconds.unwrap_or(0) + start);
    }
    Ok(Some(spec))
}

fn translate(container: &Container, probe: &Probe) -> Result<ProbeSpec, TranslateError> {
    let http_get = match &probe.http_get {
        Some(http) => Some(HttpGetAction {
            path: http.path.clone(),
            port: port_number(container, &http.port)?,
            scheme: http.scheme.clone(),
        }),
        None => None,
    };
    let tcp_socket = match &probe.tcp_socket {
        Some(tcp) => Some(TcpSocketAction {
            host: tcp.host.clone(),
            port: port_number(container, &tcp.port)?,
        }),
        None => None,
    };
    let exec = probe.exec.as_ref().map(|exec| ExecAction {
        command: exec.command.clone().unwrap_or_default(),
    });
    Ok(ProbeSpec {
        http_get,
        tcp_socket,
        exec,
        initial_delay_seconds: probe.initial_delay_seconds.map(i64::from),
        period_seconds: probe.period_seconds.map(i64::from),
        timeout_seconds: probe.timeout_seconds.map(i64::from),
        // The cloud takes one success only; waiting for more is the readiness probe's luxury.
        success_threshold: probe.success_threshold.map(|_| 1),
        failure_threshold: probe.failure_threshold.map(i64::from),
    })
}
