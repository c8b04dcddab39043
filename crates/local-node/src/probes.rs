//! Asks running containers how they are, and says so to the pod's worker.
//!
//! Until a container first reports ready it is asked more often than its period (50 ms, doubling), so that a pod
//! serves as soon as it can; failures before the first success never count against the threshold faster than the period.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, Pod, Probe};
use local_network::SocketFactory;
use local_runtime::{ContainerId, Runtime};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::events::EventSink;
use crate::http_get;
use crate::observed::ProbeResults;

/// First wait while a container has never been ready.
const EAGER_PERIOD: Duration = Duration::from_millis(50);

type Results = Arc<Mutex<BTreeMap<String, (u32, ProbeResults)>>>;

/// The probes of one pod.
pub(crate) struct ProbeSet {
    runtime: Runtime,
    sockets: SocketFactory,
    events: EventSink,
    results: Results,
    wake: Arc<Notify>,
    tasks: BTreeMap<String, (u32, JoinSet<()>)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Startup,
    Liveness,
    Readiness,
}

impl Kind {
    fn title(self) -> &'static str {
        match self {
            Self::Startup => "Startup",
            Self::Liveness => "Liveness",
            Self::Readiness => "Readiness",
        }
    }
}

/// Everything one container's probing needs.
#[derive(Clone)]
struct Prober {
    runtime: Runtime,
    sockets: SocketFactory,
    events: EventSink,
    results: Results,
    wake: Arc<Notify>,
    pod: Arc<Pod>,
    container: Arc<Container>,
    id: ContainerId,
    ip: Ipv4Addr,
}

impl ProbeSet {
    pub(crate) fn new(
        runtime: Runtime,
        sockets: SocketFactory,
        events: EventSink,
        wake: Arc<Notify>,
    ) -> Self {
        Self {
            runtime,
            sockets,
            events,
            results: Results::default(),
            wake,
            tasks: BTreeMap::new(),
        }
    }

    /// Sees to it that exactly the running attempts are probed.
    pub(crate) fn track(
        &mut self,
        pod: &Arc<Pod>,
        ip: Ipv4Addr,
        running: &BTreeMap<String, ContainerId>,
    ) {
        self.tasks.retain(|name, (attempt, _)| {
            running.get(name).is_some_and(|id| id.attempt() == *attempt)
        });
        if let Ok(mut results) = self.results.lock() {
            results.retain(|name, (attempt, _)| {
                running.get(name).is_some_and(|id| id.attempt() == *attempt)
            });
        }
        for (name, id) in running {
            if self.tasks.contains_key(name) {
                continue;
            }
            let spec = pod.spec.as_ref();
            let containers = spec.iter().flat_map(|spec| {
                spec.init_containers
                    .iter()
                    .flatten()
                    .chain(&spec.containers)
            });
            let Some(container) = containers.into_iter().find(|one| one.name == *name) else {
                continue;
            };
            let first = ProbeResults {
                started: container.startup_probe.is_none(),
                ready: container.startup_probe.is_none() && container.readiness_probe.is_none(),
                must_restart: false,
            };
            if let Ok(mut results) = self.results.lock() {
                results.insert(name.clone(), (id.attempt(), first));
            }
            let prober = Prober {
                runtime: self.runtime.clone(),
                sockets: self.sockets.clone(),
                events: self.events.clone(),
                results: self.results.clone(),
                wake: self.wake.clone(),
                pod: pod.clone(),
                container: Arc::new(container.clone()),
                id: id.clone(),
                ip,
            };
            let mut tasks = JoinSet::new();
            tasks.spawn(prober.run());
            self.tasks.insert(name.clone(), (id.attempt(), tasks));
        }
    }

    /// What probes have said so far, by container.
    pub(crate) fn results(&self) -> BTreeMap<String, ProbeResults> {
        self.results
            .lock()
            .map(|results| {
                results
                    .iter()
                    .map(|(name, (_, result))| (name.clone(), *result))
                    .collect()
            })
            .unwrap_or_default()
    }
}

impl Prober {
    async fn run(self) {
        if let Some(probe) = self.container.startup_probe.clone() {
            if !self.until_success(&probe).await {
                self.set(|result| result.must_restart = true);
                return;
            }
            let has_readiness = self.container.readiness_probe.is_some();
            self.set(|result| {
                result.started = true;
                result.ready = !has_readiness;
            });
        }
        let liveness = self.container.liveness_probe.clone();
        let readiness = self.container.readiness_probe.clone();
        tokio::join!(
            async {
                if let Some(probe) = liveness {
                    self.watch_liveness(&probe).await;
                }
            },
            async {
                if let Some(probe) = readiness {
                    self.watch_readiness(&probe).await;
                }
            }
        );
    }

    /// The startup probe: true on success, false after `failureThreshold` periods of failures.
    async fn until_success(&self, probe: &Probe) -> bool {
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let give_up = Instant::now() + period(probe) * threshold(probe.failure_threshold, 3);
        let mut wait = EAGER_PERIOD;
        loop {
            match self.ask(probe).await {
                Ok(()) => return true,
                Err(message) if Instant::now() >= give_up => {
                    self.unhealthy(Kind::Startup, &message);
                    return false;
                }
                Err(_) => {}
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(period(probe));
        }
    }

    async fn watch_liveness(&self, probe: &Probe) {
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let mut failures = 0;
        loop {
            match self.ask(probe).await {
                Ok(()) => failures = 0,
                Err(message) => {
                    failures += 1;
                    self.unhealthy(Kind::Liveness, &message);
                }
            }
            if failures >= threshold(probe.failure_threshold, 3) {
                self.set(|result| result.must_restart = true);
                return;
            }
            tokio::time::sleep(period(probe)).await;
        }
    }

    async fn watch_readiness(&self, probe: &Probe) {
        tokio::time::sleep(seconds(probe.initial_delay_seconds, 0)).await;
        let (mut successes, mut failures, mut was_ready) = (0, 0, false);
        let mut wait = EAGER_PERIOD;
        loop {
            match self.ask(probe).await {
                Ok(()) => {
                    (successes, failures) = (successes + 1, 0);
                }
                Err(message) => {
                    (successes, failures) = (0, failures + 1);
                    if was_ready || wait >= period(probe) {
                        self.unhealthy(Kind::Readiness, &message);
                    }
                }
            }
            if successes >= threshold(probe.success_threshold, 1) {
                was_ready = true;
                self.set(|result| result.ready = true);
            } else if failures >= threshold(probe.failure_threshold, 3) {
                self.set(|result| result.ready = false);
            }
            let pause = if was_ready { period(probe) } else { wait };
            tokio::time::sleep(pause).await;
            wait = (wait * 2).min(period(probe));
        }
    }

    async fn ask(&self, probe: &Probe) -> Result<(), String> {
        let limit = seconds(probe.timeout_seconds, 1);
        match tokio::time::timeout(limit, self.ask_once(probe, limit)).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("probe timed out after {} s", limit.as_secs())),
        }
    }

    async fn ask_once(&self, probe: &Probe, limit: Duration) -> Result<(), String> {
        if let Some(exec) = &probe.exec {
            let command = exec.command.clone().unwrap_or_default();
            let output = self
                .runtime
                .exec_sync(&self.id, command, limit)
                .await
                .map_err(|error| error.to_string())?;
            return match output.exit_code {
                0 => Ok(()),
                _ => Err(String::from_utf8_lossy(&output.stdout).into_owned()
                    + &String::from_utf8_lossy(&output.stderr)),
            };
        }
        let address = |port, host: Option<&String>| {
            let port = http_get::port_number(port, &self.container)
                .ok_or("the probe names no port of the container")?;
            let ip = host.and_then(|host| host.parse().ok()).unwrap_or(self.ip);
            Ok::<_, String>(SocketAddr::from((ip, port)))
        };
        if let Some(action) = &probe.http_get {
            return http_get::get(
                &self.sockets,
                address(&action.port, action.host.as_ref())?,
                action,
            )
            .await;
        }
        if let Some(action) = &probe.tcp_socket {
            let address = address(&action.port, action.host.as_ref())?;
            return self
                .sockets
                .tcp_connect(address)
                .await
                .map(drop)
                .map_err(|error| format!("dial tcp {address}: {error}"));
        }
        Err(
            "gRPC probes are not supported by local workers; use httpGet, tcpSocket or exec"
                .to_string(),
        )
    }

    fn set(&self, change: impl FnOnce(&mut ProbeResults)) {
        let Ok(mut results) = self.results.lock() else {
            return;
        };
        let Some((attempt, result)) = results.get_mut(&self.container.name) else {
            return;
        };
        if *attempt != self.id.attempt() {
            return;
        }
        let before = *result;
        change(result);
        if before != *result {
            self.wake.notify_one();
        }
    }

    fn unhealthy(&self, kind: Kind, message: &str) {
        let note = format!("{} probe failed: {}", kind.title(), message.trim());
        self.events.warning(&self.pod, "Unhealthy", note);
    }
}

fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10).max(Duration::from_secs(1))
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|value| u64::try_from(value).ok())
            .filter(|value| *value > 0)
            .unwrap_or(default),
    )
}

fn threshold(value: Option<i32>, default: u32) -> u32 {
    value
        .and_then(|value| u32::try_from(value).ok())
        .filter(|value| *value > 0)
        .unwrap_or(default)
}
