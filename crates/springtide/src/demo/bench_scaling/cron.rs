//! 10,000 CronHPA jobs, each with an object of its own: what waiting for them costs, and how late they scale.
//!
//! Timed is each run from its due second to its written scale, as a watch of the workloads tells of it: runs that are
//! spread over time, which the limit is for, and a thousand that are due in the same second. CPU time is that of the
//! whole process, API server and measuring included, from the last preparation to the last outcome on record.

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
use crate::demo::bench::{Measured, NO_LIMIT};
use crate::demo::bench_virtual_node::{cpu_seconds, measured};

const OBJECTS: usize = 10_000;
/// Of these runs are due, all in one second.
const BURST: usize = 1_000;
/// Of these runs are due spread over time, so many in each second.
const SPREAD: usize = 200;
const SPREAD_PER_SECOND: usize = 20;
/// How long nothing is due while CPU time is counted.
const WATCHED: Duration = Duration::from_secs(20);
/// From now to the second for which runs are planned, so that all objects are changed before; besides a second for so many.
const AHEAD_SECONDS: i64 = 10;
const PLANNED_PER_SECOND: usize = 25;
/// All objects are taken up in this time.
const TAKE_UP_TIMEOUT: Duration = Duration::from_secs(900);
/// On objects of which runs are due.
const FIRING: &str = "bench=firing";
/// The size in front of a run.
const SMALL: u32 = 1;

impl World {
    pub(super) async fn cron(self) -> anyhow::Result<Vec<Measured>> {
        install_definitions(&self.client).await?;
        let names: Vec<String> = (0..OBJECTS).map(|index| format!("c{index}")).collect();
        stream::iter(names.iter().enumerate())
            .map(|(index, name)| self.create_schedule(name, index < BURST))
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<()>()
            .await?;
        let controller = tokio::spawn(run_cron_horizontal_pod_autoscaler(
            self.client.clone(),
            CronHorizontalPodAutoscalerConfig::default(),
            self.shutdown.clone(),
        ));
        self.until_taken_up(&ListParams::default()).await?;
        let process = std::process::id();
        let before = cpu_seconds(process)?;
        tokio::time::sleep(WATCHED).await;
        let used = cpu_seconds(process)? - before;
        let percent = used / WATCHED.as_secs_f64() * CORE_PERCENT;
        let spread = self
            .fire(&names[..SPREAD], 2, |index| index / SPREAD_PER_SECOND)
            .await?;
        let burst = self.fire(&names[..BURST], 3, |_| 0).await?;
        self.stop(controller).await?;
        Ok(rows(percent, &spread, &burst))
    }

    fn schedules(&self) -> Api<CronHorizontalPodAutoscaler> {
        Api::namespaced(self.client.clone(), NAMESPACE)
    }

    /// An object whose job is far away; of one that will fire the target exists.
    async fn create_schedule(&self, name: &str, fires: bool) -> anyhow::Result<()> {
        let (label, value) = FIRING.split_once('=').context("label")?;
        let mut labels = json!({});
        if fires {
            self.create_deployment(name, SMALL).await?;
            labels[label] = value.into();
        }
        let far = Timestamp::now().to_zoned(TimeZone::UTC).month() % 12 + 1;
        let object = serde_json::from_value(json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": name},
                "jobs": job(&format!("0 0 3 1 {far} *"), 9)},
        }))?;
        self.schedules()
            .create(&PostParams::default(), &object)
            .await
            .with_context(|| format!("create CronHorizontalPodAutoscaler {name}"))?;
        Ok(())
    }

    /// Waits until the controller has seen every object as it is now.
    async fn until_taken_up(&self, which: &ListParams) -> anyhow::Result<()> {
        let seen = |object: &CronHorizontalPodAutoscaler| {
            let status = object.status.as_ref();
            let observed = status.and_then(|status| status.observed_generation);
            observed == object.metadata.generation
        };
        self.until_all("take up all objects", which, seen).await
    }

    async fn until_all(
        &self,
        what: &str,
        which: &ListParams,
        done: impl Fn(&CronHorizontalPodAutoscaler) -> bool,
    ) -> anyhow::Result<()> {
        let until = tokio::time::Instant::now() + TAKE_UP_TIMEOUT;
        while !self.schedules().list(which).await?.items.iter().all(&done) {
            if tokio::time::Instant::now() > until {
                bail!("the controller did not {what} within {TAKE_UP_TIMEOUT:?}");
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Ok(())
    }

    /// Lets the job of each named object be due so many seconds after a moment to come.
    async fn fire(
        &self,
        names: &[String],
        size: u32,
        second: impl Fn(usize) -> usize,
    ) -> anyhow::Result<Late> {
        let (process, firing) = (std::process::id(), ListParams::default().labels(FIRING));
        let ahead = AHEAD_SECONDS + i64::try_from(names.len() / PLANNED_PER_SECOND)?;
        let first = Timestamp::from_second(Timestamp::now().as_second())?;
        let first = first.checked_add(ahead.seconds())?;
        let mut dues = HashMap::new();
        for (index, name) in names.iter().enumerate() {
            let later = i64::try_from(second(index))?;
            dues.insert(name.clone(), first.checked_add(later.seconds())?);
        }
        let (schedules, params) = (self.schedules(), PatchParams::default());
        stream::iter(&dues)
            .map(async |(name, due)| {
                let at = due.to_zoned(TimeZone::UTC);
                let when = format!("{} {} {} * * *", at.second(), at.minute(), at.hour());
                let change = Patch::Merge(json!({"spec": {"jobs": job(&when, size)}}));
                schedules.patch(name, &params, &change).await
            })
            .buffer_unordered(IN_FLIGHT)
            .try_collect::<Vec<_>>()
            .await
            .context("plan runs")?;
        self.until_taken_up(&firing).await?;
        if Timestamp::now() >= first {
            bail!("planning {} runs took longer than {ahead} s", names.len());
        }
        let before = cpu_seconds(process)?;
        let sizes = watcher(self.deployments(), watcher::Config::default());
        let mut sizes = sizes
            .try_filter_map(move |event| ready(Ok(written(event, size))))
            .boxed();
        let late = tokio::time::timeout(TIMEOUT, until_written(&mut sizes, &dues)).await;
        let millis = late.with_context(|| format!("{} runs within {TIMEOUT:?}", dues.len()))??;
        let recorded = |object: &CronHorizontalPodAutoscaler| {
            let mut conditions = object.status.iter().flat_map(|status| &status.conditions);
            conditions.all(|condition| condition.pending.is_none())
        };
        self.until_all("record all outcomes", &firing, recorded)
            .await?;
        let used = cpu_seconds(process)? - before;
        let cpu = used * 1_000.0 / names.len() as f64;
        Ok(Late { millis, cpu })
    }
}

/// How late runs were.
struct Late {
    /// Milliseconds from due to written, ascending.
    millis: Vec<f64>,
    /// Milliseconds of CPU time for one run.
    cpu: f64,
}

impl Late {
    /// The lateness that this share of all runs does not exceed.
    fn at(&self, share: f64) -> f64 {
        let place = (self.millis.len() as f64 * share).ceil() as usize;
        self.millis[place.clamp(1, self.millis.len()) - 1]
    }
}

fn rows(percent: f64, spread: &Late, burst: &Late) -> Vec<Measured> {
    let between = "10,000 CronHPA jobs between runs, server included, of a core";
    let limited = |name, share| measured(name, "ms", 100.0, spread.at(share));
    let shown = |name, value| measured(name, "ms", NO_LIMIT, value);
    vec![
        measured(between, "%", 1.0, percent),
        limited("20 jobs due a second: /scale written, median", 0.5),
        limited("20 jobs due a second: /scale written, 99 %", 0.99),
        limited("20 jobs due a second: /scale written, last", 1.0),
        shown("20 jobs due a second: CPU for one", spread.cpu),
        shown(
            "1,000 jobs due at once: /scale written, median",
            burst.at(0.5),
        ),
        shown(
            "1,000 jobs due at once: /scale written, 99 %",
            burst.at(0.99),
        ),
        shown(
            "1,000 jobs due at once: /scale written, last",
            burst.at(1.0),
        ),
        shown("1,000 jobs due at once: CPU for one", burst.cpu),
    ]
}

fn job(schedule: &str, size: u32) -> Value {
    json!([{"name": "job", "schedule": schedule, "targetSize": size, "timeZone": "UTC"}])
}

/// Which workload has got its new size.
fn written(event: watcher::Event<Deployment>, size: u32) -> Option<String> {
    match event {
        watcher::Event::Apply(one) if size_of(&one) == size => Some(one.name_any()),
        _ => None,
    }
}

type Names = stream::BoxStream<'static, Result<String, watcher::Error>>;

/// Waits until every run has written its scale.
async fn until_written(
    sizes: &mut Names,
    dues: &HashMap<String, Timestamp>,
) -> anyhow::Result<Vec<f64>> {
    let mut late = HashMap::new();
    while late.len() < dues.len() {
        let name = sizes.try_next().await?.context("the watch ended")?;
        let now = Timestamp::now();
        if let Some(due) = dues.get(&name) {
            let millis = now.duration_since(*due).as_secs_f64() * 1_000.0;
            late.entry(name).or_insert(millis);
        }
    }
    let mut millis: Vec<f64> = late.into_values().collect();
    millis.sort_by(f64::total_cmp);
    Ok(millis)
}
