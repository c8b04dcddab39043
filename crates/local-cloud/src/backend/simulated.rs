//! Containers on paper: they start after a settable delay, run for ever (or as long as their environment says), and
//! use a modelled amount of CPU and memory. For tests of scale; wherever such a group shows, it says "simulated".
//!
//! A container's environment steers it: `SIMULATED_EXIT=<code>@<seconds>` ends each of its runs, and
//! `SIMULATED_CPU=<vCPU>` sets what it uses (default a tenth).

use super::{
    BackendError, CommandOutput, CommandSession, ContainerExit, ContainerUsage, GroupBackend,
    GroupPlan, InterfaceUsage, LogQuery, PulledImage, Run,
};
use async_trait::async_trait;
use cloud_api::model::create::{ContainerSpec, ProbeSpec};
use jiff::Timestamp;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// The exit code of a run that was stopped.
const STOPPED: i32 = 143;
const GIB: f64 = 1_073_741_824.0;

/// How long things take on paper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StartDelay {
    /// From the group's acceptance to its network being there.
    pub prepare: Duration,
    /// Per image.
    pub pull: Duration,
    /// Per container.
    pub start: Duration,
}

/// One run on paper.
struct PaperRun {
    started_at: Timestamp,
    stopped: watch::Sender<Option<Timestamp>>,
}

/// The runs of one group: by container, then by number, the newest last.
type GroupRuns = HashMap<String, BTreeMap<u32, PaperRun>>;

/// Runs groups on paper.
pub struct SimulatedBackend {
    delay: StartDelay,
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// By group.
    runs: Mutex<HashMap<String, GroupRuns>>,
}

impl SimulatedBackend {
    /// With its delays and its clock.
    pub fn new(delay: StartDelay, now: Arc<dyn Fn() -> Timestamp + Send + Sync>) -> Self {
        Self {
            delay,
            now,
            runs: Mutex::default(),
        }
    }

    fn runs(&self) -> std::sync::MutexGuard<'_, HashMap<String, GroupRuns>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn started(&self, plan: &GroupPlan, run: Run<'_>) -> Option<Timestamp> {
        find(&self.runs(), plan, run).map(|run| run.started_at)
    }
}

fn find<'a>(
    runs: &'a HashMap<String, GroupRuns>,
    plan: &GroupPlan,
    run: Run<'_>,
) -> Option<&'a PaperRun> {
    runs.get(&plan.id)?
        .get(&run.container.name)?
        .get(&run.attempt)
}

impl PaperRun {
    fn stop(&self, now: Timestamp) {
        self.stopped
            .send_if_modified(|stopped| stopped.is_none() && stopped.replace(now).is_none());
    }
}

fn setting<'a>(container: &'a ContainerSpec, name: &str) -> Option<&'a str> {
    let variable = container
        .environment_var
        .iter()
        .find(|variable| variable.key == name)?;
    variable.value.as_deref()
}

/// `<code>@<seconds>`.
fn planned_exit(container: &ContainerSpec) -> Option<(i32, Duration)> {
    let (code, seconds) = setting(container, "SIMULATED_EXIT")?.split_once('@')?;
    let seconds = seconds
        .parse::<f64>()
        .ok()
        .filter(|seconds| (0.0..1e9).contains(seconds))?;
    Some((code.parse().ok()?, Duration::from_secs_f64(seconds)))
}

/// Zero is no wait at all, not even a turn of the timer wheel.
async fn pause(duration: Duration) {
    if !duration.is_zero() {
        tokio::time::sleep(duration).await;
    }
}

#[async_trait]
impl GroupBackend for SimulatedBackend {
    fn is_simulated(&self) -> bool {
        true
    }

    async fn prepare(&self, _plan: &GroupPlan) -> Result<(), BackendError> {
        pause(self.delay.prepare).await;
        Ok(())
    }

    async fn pull(
        &self,
        plan: &GroupPlan,
        container: &ContainerSpec,
    ) -> Result<PulledImage, BackendError> {
        let id = format!("simulated:{}", container.image);
        let is_cached = plan.cached_images.contains(&container.image);
        let took = if is_cached {
            Duration::ZERO
        } else {
            self.delay.pull
        };
        pause(took).await;
        Ok(PulledImage {
            id,
            was_present: took.is_zero(),
            took,
        })
    }

    async fn start(&self, plan: &GroupPlan, run: Run<'_>) -> Result<Timestamp, BackendError> {
        if let Some(started_at) = self.started(plan, run) {
            return Ok(started_at);
        }
        pause(self.delay.start).await;
        let started_at = (self.now)();
        let fresh = PaperRun {
            started_at,
            stopped: watch::Sender::new(None),
        };
        Ok(self
            .runs()
            .entry(plan.id.clone())
            .or_default()
            .entry(run.container.name.clone())
            .or_default()
            .entry(run.attempt)
            .or_insert(fresh)
            .started_at)
    }

    async fn wait(&self, plan: &GroupPlan, run: Run<'_>) -> Result<ContainerExit, BackendError> {
        let exit = |exit_code, finished_at| ContainerExit {
            exit_code,
            signal: (exit_code == STOPPED).then_some(15),
            out_of_memory: false,
            finished_at,
            message: None,
        };
        let (started_at, mut stopped) = match find(&self.runs(), plan, run) {
            Some(run) => (run.started_at, run.stopped.subscribe()),
            None => {
                return Err(BackendError::new(
                    "ContainerLost",
                    "there is no such run on paper",
                ));
            }
        };
        let planned = async {
            let Some((code, after)) = planned_exit(run.container) else {
                return std::future::pending().await;
            };
            let passed =
                Duration::try_from((self.now)().duration_since(started_at)).unwrap_or_default();
            pause(after.saturating_sub(passed)).await;
            exit(code, (self.now)())
        };
        tokio::select! {
            exit = planned => Ok(exit),
            stopped = stopped.wait_for(Option::is_some) => {
                let finished_at = stopped.ok().and_then(|at| *at).unwrap_or_else(|| (self.now)());
                Ok(exit(STOPPED, finished_at))
            }
        }
    }

    async fn stop(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        _grace: Duration,
    ) -> Result<(), BackendError> {
        let now = (self.now)();
        if let Some(run) = find(&self.runs(), plan, run) {
            run.stop(now);
        }
        Ok(())
    }

    async fn probe(
        &self,
        _plan: &GroupPlan,
        _run: Run<'_>,
        _probe: &ProbeSpec,
    ) -> Result<(), BackendError> {
        Ok(())
    }

    async fn exec_sync(
        &self,
        _plan: &GroupPlan,
        _run: Run<'_>,
        command: Vec<String>,
        _timeout: Duration,
    ) -> Result<CommandOutput, BackendError> {
        let output = format!("simulated: {}\n", command.join(" ")).into_bytes();
        Ok(CommandOutput {
            exit_code: 0,
            output,
        })
    }

    async fn exec(
        &self,
        _plan: &GroupPlan,
        _run: Run<'_>,
        command: Vec<String>,
        _tty: bool,
        stdin: bool,
    ) -> Result<CommandSession, BackendError> {
        let output = format!("simulated: {}\n", command.join(" ")).into_bytes();
        Ok(CommandSession {
            stdin: stdin.then(|| Box::new(tokio::io::sink()) as Box<_>),
            stdout: Box::new(std::io::Cursor::new(output)),
            stderr: Box::new(tokio::io::empty()),
            resize: None,
            exit: Box::pin(async { Ok(0) }),
        })
    }

    async fn logs(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        query: &LogQuery,
    ) -> Result<String, BackendError> {
        let Some(started_at) = self.started(plan, run) else {
            return Ok(String::new());
        };
        if query.tail == Some(0) || query.since.is_some_and(|since| since > started_at) {
            return Ok(String::new());
        }
        let time = if query.timestamps {
            format!("{started_at} ")
        } else {
            String::new()
        };
        let mut line = format!(
            "{time}simulated container {} of {}\n",
            run.container.name, plan.id
        );
        line.truncate(query.limit_bytes.unwrap_or(usize::MAX).min(line.len()));
        Ok(line)
    }

    async fn commit(
        &self,
        plan: &GroupPlan,
        run: Run<'_>,
        _reference: &str,
    ) -> Result<(), BackendError> {
        let lost = || BackendError::new("ContainerLost", "there is no such run on paper");
        self.started(plan, run).map(|_| ()).ok_or_else(lost)
    }

    async fn usage(&self, plan: &GroupPlan) -> Result<Vec<ContainerUsage>, BackendError> {
        let now = (self.now)();
        let memory = (plan.size.memory_gib() * GIB / 10.0) as u64;
        let runs = self.runs();
        // Only this group's own runs are looked at: with thousands of groups everything else is a scan for each.
        let own = runs.get(&plan.id);
        let usage = plan.request.container.iter().map(|container| {
            let newest = own
                .and_then(|own| own.get(&container.name))
                .and_then(BTreeMap::last_key_value);
            let seconds = newest.map_or(0.0, |(_, run)| {
                now.duration_since(run.started_at).as_secs_f64()
            });
            let vcpu = setting(container, "SIMULATED_CPU")
                .and_then(|vcpu| vcpu.parse().ok())
                .unwrap_or(0.1f64);
            ContainerUsage {
                name: container.name.clone(),
                cpu_nanos: (seconds.max(0.0) * vcpu.clamp(0.0, 64.0) * 1e9) as u64,
                working_set_bytes: memory,
                usage_bytes: memory,
                rss_bytes: memory,
            }
        });
        Ok(usage.collect())
    }

    async fn traffic(&self, _plan: &GroupPlan) -> Result<Vec<InterfaceUsage>, BackendError> {
        Ok(Vec::new())
    }

    async fn end(&self, plan: &GroupPlan) -> Result<(), BackendError> {
        let now = (self.now)();
        if let Some(own) = self.runs().get(&plan.id) {
            own.values()
                .flat_map(BTreeMap::values)
                .for_each(|run| run.stop(now));
        }
        Ok(())
    }

    async fn forget(&self, group_id: &str) -> Result<(), BackendError> {
        self.runs().remove(group_id);
        Ok(())
    }

    async fn known_groups(&self) -> Result<Vec<String>, BackendError> {
        Ok(self.runs().keys().cloned().collect())
    }
}
