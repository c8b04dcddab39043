//! 10,000 CronHPA jobs: what waiting for them costs, and how late they scale.
//!
//! A run is decided (and its claim dated), the claim is written, the scale is read and written; then the outcome goes
//! into the status and into an event. Timed from the job's second are the claim's date and the written scale, as a watch
//! of the workloads tells of it. The last of all that are due in one second counts.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context, bail};
use elastic_controllers::{
    CronHorizontalPodAutoscalerConfig, install_definitions, run_cron_horizontal_pod_autoscaler,
};
use elastic_core::CronHorizontalPodAutoscaler;
use futures::future::ready;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{ListParams, Patch, PatchParams, PostParams};
use kube::runtime::watcher;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::{CORE_PERCENT, IN_FLIGHT, NAMESPACE, TIMEOUT, World, size_of};
use crate::demo::bench::Measured;
use crate::demo::bench_virtual_node::{cpu_seconds, measured};

const OBJECTS: usize = 1_000;
const JOBS_OF_EACH: usize = 10;
/// How long nothing is due while CPU time is counted.
const WATCHED: Duration = Duration::from_secs(20);
/// From now to the second for which runs are planned, so that all objects are changed before.
const AHEAD_SECONDS: i64 = 8;
/// The size in front of a run.
const SMALL: u32 = 1;

impl World {
    pub(super) async fn cron(self) -> anyhow::Result<Vec<Measured>> {
        install_definitions(&self.client).await?;
        let names: Vec<String> = (0..OBJECTS).map(|index| format!("c{index}")).collect();
        stream::iter(&names)
            .map(|name| self.create_schedule(name))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        let controller = tokio::spawn(run_cron_horizontal_pod_autoscaler(
            self.client.clone(),
            CronHorizontalPodAutoscalerConfig::default(),
            self.shutdown.clone(),
        ));
        self.until_taken_up().await?;
        let process = std::process::id();
        let before = cpu_seconds(process)?;
        tokio::time::sleep(WATCHED).await;
        let used = cpu_seconds(process)? - before;
        let percent = used / WATCHED.as_secs_f64() * CORE_PERCENT;
        let few = self.fire(&names[..1], 2).await?;
        let many = self.fire(&names[..100], 3).await?;
        let all = self.fire(&names, 4).await?;
        self.stop(controller).await?;
        let between = "10,000 CronHPA jobs between runs, API server included, of a core";
        Ok(vec![
            measured(between, "%", 1.0, percent),
            measured("1 of 10,000 jobs due: decided", "ms", 100.0, few.decided),
            measured(
                "1 of 10,000 jobs due: /scale written",
                "ms",
                100.0,
                few.written,
            ),
            measured(
                "100 jobs due in one second: last decided",
                "ms",
                100.0,
                many.decided,
            ),
            measured(
                "100 jobs due in one second: last /scale written",
                "ms",
                100.0,
                many.written,
            ),
            measured(
                "1,000 jobs due in one second: last decided",
                "ms",
                100.0,
                all.decided,
            ),
            measured(
                "1,000 jobs due in one second: last /scale written",
                "ms",
                100.0,
                all.written,
            ),
        ])
    }

    fn schedules(&self) -> Api<CronHorizontalPodAutoscaler> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    async fn create_schedule(&self, name: &str) -> anyhow::Result<()> {
        self.create_deployment(name, SMALL).await?;
        let object = serde_json::from_value(json!({
            "metadata": {"name": name},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name}, "jobs": jobs(None)},
        }))?;
        self.schedules()
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("create CronHorizontalPodAutoscaler {name}"))?;
        Ok(())
    }

    /// Waits until the controller has seen every object as it is now.
    async fn until_taken_up(&self) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let all = self.schedules().list(&ListParams::default()).await?;
            let seen = |object: &CronHorizontalPodAutoscaler| {
                let observed = object
                    .status
                    .as_ref()
                    .and_then(|status| status.observed_generation);
                observed == object.metadata.generation
            };
            if all.items.iter().all(seen) {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                bail!("the controller did not take up {OBJECTS} objects within {TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Lets the first job of each named object be due in one second to come.
    async fn fire(&self, names: &[String], size: u32) -> anyhow::Result<Late> {
        let ahead = AHEAD_SECONDS + i64::try_from(names.len() / 50)?;
        let due =
            Timestamp::from_second(Timestamp::now().as_second())?.checked_add(ahead.seconds())?;
        let change = Patch::Merge(json!({"spec": {"jobs": jobs(Some((due, size)))}}));
        let (schedules, params) = (self.schedules(), PatchParams::default());
        stream::iter(names)
            .map(|name| schedules.patch(name, &params, &change))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<Vec<_>>()
            .await
            .context("plan runs")?;
        self.until_taken_up().await?;
        if Timestamp::now() >= due {
            bail!("planning {} runs took longer than {ahead} s", names.len());
        }
        let sizes = watcher(self.deployments(), watcher::Config::default());
        let sizes = sizes.try_filter_map(move |event| ready(Ok(written(event, size))));
        let claims = watcher(self.schedules(), watcher::Config::default());
        let claims = claims.try_filter_map(|event| ready(Ok(claimed(event))));
        let mut progresses = stream::select(sizes, claims).boxed();
        let late = until_done(&mut progresses, names.len(), due);
        let late = tokio::time::timeout(TIMEOUT, late).await;
        let late = late.with_context(|| format!("{} runs within {TIMEOUT:?}", names.len()))??;
        self.until_recorded().await?;
        Ok(late)
    }

    /// Waits until every outcome is on record, so that nothing is left to do.
    async fn until_recorded(&self) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + TIMEOUT;
        loop {
            let all = self.schedules().list(&ListParams::default()).await?;
            let conditions = all.items.iter().filter_map(|object| object.status.as_ref());
            let mut conditions = conditions.flat_map(|status| &status.conditions);
            if conditions.all(|condition| condition.pending.is_none()) {
                return Ok(());
            }
            if tokio::time::Instant::now() > until {
                bail!("outcomes are not on record within {TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

/// Milliseconds after the due second, of the last run.
struct Late {
    decided: f64,
    written: f64,
}

/// What a watch tells of one run.
enum Progress {
    /// The claim's date.
    Decided(String, Timestamp),
    Written(String),
}

/// Ten jobs, none of them soon; the first one may be given a second and a size.
fn jobs(first: Option<(Timestamp, u32)>) -> Value {
    let far = Timestamp::now().to_zoned(TimeZone::UTC).month() % 12 + 1;
    let job = |index: usize| match first {
        Some((due, size)) if index == 0 => {
            let at = due.to_zoned(TimeZone::UTC);
            let (second, minute, hour) = (at.second(), at.minute(), at.hour());
            json!({"name": "job-0", "schedule": format!("{second} {minute} {hour} * * *"), "targetSize": size, "timeZone": "UTC"})
        }
        _ => {
            let schedule = format!("0 {index} 3 1 {far} *");
            json!({"name": format!("job-{index}"), "schedule": schedule, "targetSize": 9, "timeZone": "UTC"})
        }
    };
    (0..JOBS_OF_EACH).map(job).collect()
}

fn written(event: watcher::Event<Deployment>, size: u32) -> Option<Progress> {
    match event {
        watcher::Event::Apply(one) if size_of(&one) == size => {
            Some(Progress::Written(one.name_any()))
        }
        _ => None,
    }
}

fn claimed(event: watcher::Event<CronHorizontalPodAutoscaler>) -> Option<Progress> {
    let watcher::Event::Apply(one) = event else {
        return None;
    };
    let condition = one.status.as_ref()?.conditions.first()?;
    let since = condition.pending.as_ref()?.since.0;
    Some(Progress::Decided(one.name_any(), since))
}

type Progresses = stream::BoxStream<'static, Result<Progress, watcher::Error>>;

/// Waits until so many runs have written their scale.
async fn until_done(
    progresses: &mut Progresses,
    runs: usize,
    due: Timestamp,
) -> anyhow::Result<Late> {
    let millis_late = |at: Timestamp| at.duration_since(due).as_secs_f64() * 1_000.0;
    let (mut decided, mut written) = (HashMap::new(), HashMap::new());
    while decided.len() < runs || written.len() < runs {
        let progress = progresses.try_next().await?;
        match progress.context("a watch ended")? {
            Progress::Decided(name, at) => drop(decided.insert(name, millis_late(at))),
            Progress::Written(name) => {
                written.entry(name).or_insert(millis_late(Timestamp::now()));
            }
        }
    }
    let last = |late: &HashMap<String, f64>| late.values().copied().fold(0.0, f64::max);
    Ok(Late {
        decided: last(&decided),
        written: last(&written),
    })
}
