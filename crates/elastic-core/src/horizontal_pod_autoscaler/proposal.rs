//! One metric's replica proposal: groups the pods by readiness, fills in what is missing on the cautious side and
//! turns the usage ratio into a count. Refuses to guess: a missing request or no usable sample is an error.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;

use super::decide::Flags;
use super::requests::{requests_by_container, requests_of_the_whole};

pub use super::requests::Requests;

/// What the calculation needs to know of one pod.
#[derive(Clone, Debug, Default)]
pub struct PodView {
    /// The pod's name.
    pub name: String,
    /// `status.phase`.
    pub phase: String,
    /// Whether a deletion timestamp is set.
    pub deleting: bool,
    /// `status.startTime`.
    pub start_time: Option<Timestamp>,
    /// The Ready condition, when there is one.
    pub ready: Option<ReadyView>,
    /// Requests in thousandths by resource, by container; restartable init containers included.
    pub containers: Vec<(String, Requests)>,
    /// What the pod as a whole requests, when it says so itself; then the containers do not count one by one.
    pub whole: Option<Requests>,
    /// The pod's labels, by which autoscalers find out whether they share it.
    pub labels: Option<BTreeMap<String, String>>,
}

/// A pod's Ready condition.
#[derive(Clone, Copy, Debug)]
pub struct ReadyView {
    /// Whether its status is `True`.
    pub is_ready: bool,
    /// Whether its status is `False` (it may also be `Unknown`).
    pub is_unready: bool,
    /// Its last transition.
    pub since: Timestamp,
}

impl From<&Pod> for PodView {
    fn from(pod: &Pod) -> Self {
        let status = pod.status.as_ref();
        let ready = status
            .and_then(|status| status.conditions.as_ref())
            .and_then(|conditions| {
                conditions
                    .iter()
                    .find(|condition| condition.type_ == "Ready")
            })
            .map(|condition| ReadyView {
                is_ready: condition.status == "True",
                is_unready: condition.status == "False",
                since: condition
                    .last_transition_time
                    .as_ref()
                    .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
            });
        PodView {
            name: pod.metadata.name.clone().unwrap_or_default(),
            phase: status
                .and_then(|status| status.phase.clone())
                .unwrap_or_default(),
            deleting: pod.metadata.deletion_timestamp.is_some(),
            start_time: status
                .and_then(|status| status.start_time.as_ref())
                .map(|time| time.0),
            ready,
            containers: pod
                .spec
                .as_ref()
                .map(requests_by_container)
                .unwrap_or_default(),
            whole: pod.spec.as_ref().and_then(requests_of_the_whole),
            labels: pod.metadata.labels.clone(),
        }
    }
}

impl PodView {
    /// Whether it runs and is ready, which is what Object and External values are multiplied with.
    pub(super) fn is_running_and_ready(&self) -> bool {
        self.phase == "Running" && self.ready.is_some_and(|ready| ready.is_ready)
    }
}

/// One pod's value of a metric.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// The value in thousandths.
    pub milli: i64,
    /// When it was taken.
    pub timestamp: Timestamp,
    /// The window over which it was averaged.
    pub window: SignedDuration,
}

/// The samples of one metric by pod name.
pub type Samples = BTreeMap<String, Sample>;

/// How far the ratio may be off in each direction before anything happens.
#[derive(Clone, Copy, Debug)]
pub struct Tolerances {
    /// Below 1.
    pub down: f64,
    /// Above 1.
    pub up: f64,
}

impl Tolerances {
    pub(super) fn is_within(&self, ratio: f64) -> bool {
        (1.0 - self.down..=1.0 + self.up).contains(&ratio)
    }
}

/// What a proposal compares the samples with.
#[derive(Clone, Copy, Debug)]
pub enum Wanted {
    /// Percent of the pods' requests.
    UtilizationPercent(i32),
    /// An average in thousandths.
    AverageMilli(i64),
}

/// The resource a metric measures: decides whether start-up readiness counts, and whose requests are meant.
#[derive(Clone, Copy, Debug)]
pub struct Measured<'a> {
    /// `cpu`, `memory`, …; empty for metrics that are no resource.
    pub resource: &'a str,
    /// The one container that counts, or all.
    pub container: Option<&'a str>,
}

/// What one metric proposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proposal {
    /// The count.
    pub replicas: i32,
    /// Percent of the requests used, for utilization targets.
    pub utilization_percent: Option<i32>,
    /// The mean value in thousandths.
    pub average_milli: i64,
}

/// The circumstances that all metrics of one cycle share.
#[derive(Clone, Copy, Debug)]
pub struct Circumstances<'a> {
    /// The namespace of autoscaler and target.
    pub namespace: &'a str,
    /// The target's `spec.replicas`.
    pub current_replicas: i32,
    /// The target's `status.replicas`.
    pub status_replicas: i32,
    /// The pods that the target's selector matches.
    pub pods: &'a [PodView],
    /// How far the ratio may be off.
    pub tolerances: Tolerances,
    /// The controller's flags.
    pub flags: &'a Flags,
    /// The time of the decision.
    pub now: Timestamp,
}

struct Groups<'a> {
    ready_count: usize,
    unready: BTreeSet<&'a str>,
    missing: BTreeSet<&'a str>,
    ignored: BTreeSet<&'a str>,
}

/// Computes what one per-pod metric proposes.
///
/// # Errors
/// The sentence that the HPA's condition and event show.
pub fn propose(
    measured: Measured<'_>,
    wanted: Wanted,
    samples: &Samples,
    around: Circumstances<'_>,
) -> Result<Proposal, String> {
    if around.pods.is_empty() {
        return Err("no pods returned by selector while calculating replica count".to_owned());
    }
    let groups = group(measured.resource, samples, around);
    let mut usable: BTreeMap<&str, i64> = samples
        .iter()
        .map(|(name, sample)| (name.as_str(), sample.milli))
        .filter(|(name, _)| !groups.ignored.contains(name) && !groups.unready.contains(name))
        .collect();
    if usable.is_empty() {
        return Err("did not receive metrics for targeted pods (pods might be unready)".to_owned());
    }
    let requests = match wanted {
        Wanted::UtilizationPercent(_) => requests_by_pod(measured, around.pods)?,
        Wanted::AverageMilli(_) => BTreeMap::new(),
    };
    let (ratio, utilization_percent, average_milli) = usage_ratio(&usable, &requests, wanted)?;
    let answer = |replicas| {
        Ok(Proposal {
            replicas,
            utilization_percent,
            average_milli,
        })
    };

    let fills_unready = !groups.unready.is_empty() && ratio > 1.0;
    if !fills_unready && groups.missing.is_empty() {
        if around.tolerances.is_within(ratio) {
            return answer(around.current_replicas);
        }
        return answer(ceil_count(ratio, groups.ready_count));
    }
    fill_in(
        &mut usable,
        &groups,
        &requests,
        wanted,
        ratio,
        fills_unready,
    );
    let (filled_ratio, _, _) = usage_ratio(&usable, &requests, wanted)?;
    let crossed = (ratio < 1.0 && filled_ratio > 1.0) || (ratio > 1.0 && filled_ratio < 1.0);
    if around.tolerances.is_within(filled_ratio) || crossed {
        return answer(around.current_replicas);
    }
    let replicas = ceil_count(filled_ratio, usable.len());
    let against = (filled_ratio < 1.0 && replicas > around.current_replicas)
        || (filled_ratio > 1.0 && replicas < around.current_replicas);
    answer(if against {
        around.current_replicas
    } else {
        replicas
    })
}

fn ceil_count(ratio: f64, pods: usize) -> i32 {
    ceil(ratio * pods as f64)
}

/// Rounded up and kept within what a count can be.
pub(super) fn ceil(count: f64) -> i32 {
    // A cast saturates, and what is not a number becomes nothing.
    count.ceil() as i32
}

fn group<'a>(resource: &str, samples: &Samples, around: Circumstances<'a>) -> Groups<'a> {
    let mut groups = Groups {
        ready_count: 0,
        unready: BTreeSet::new(),
        missing: BTreeSet::new(),
        ignored: BTreeSet::new(),
    };
    for pod in around.pods {
        let name = pod.name.as_str();
        if pod.deleting || pod.phase == "Failed" {
            groups.ignored.insert(name);
        } else if pod.phase == "Pending" {
            groups.unready.insert(name);
        } else {
            match samples.get(name) {
                None => {
                    groups.missing.insert(name);
                }
                Some(sample) if resource == "cpu" && is_starting(pod, sample, around) => {
                    groups.unready.insert(name);
                }
                Some(_) => groups.ready_count += 1,
            }
        }
    }
    groups
}

/// Whether a pod's CPU sample says more about its start than about its load.
fn is_starting(pod: &PodView, sample: &Sample, around: Circumstances<'_>) -> bool {
    let (Some(start), Some(ready)) = (pod.start_time, pod.ready) else {
        return true;
    };
    if start + around.flags.cpu_initialization_period > around.now {
        ready.is_unready || sample.timestamp < ready.since + sample.window
    } else {
        ready.is_unready && start + around.flags.initial_readiness_delay > ready.since
    }
}

fn requests_by_pod<'a>(
    measured: Measured<'_>,
    pods: &'a [PodView],
) -> Result<BTreeMap<&'a str, i64>, String> {
    let mut requests = BTreeMap::new();
    for pod in pods {
        if let (Some(whole), None) = (&pod.whole, measured.container) {
            let Some(milli) = whole.get(measured.resource) else {
                let (resource, name) = (measured.resource, &pod.name);
                return Err(format!(
                    "missing pod-level request for {resource} in Pod {name}"
                ));
            };
            requests.insert(pod.name.as_str(), *milli);
            continue;
        }
        let mut total = 0;
        for (container, by_resource) in &pod.containers {
            if measured.container.is_some_and(|only| only != container) {
                continue;
            }
            let Some(milli) = by_resource.get(measured.resource) else {
                let (resource, name) = (measured.resource, &pod.name);
                return Err(format!(
                    "missing request for {resource} in container {container} of Pod {name}"
                ));
            };
            total += milli;
        }
        requests.insert(pod.name.as_str(), total);
    }
    Ok(requests)
}

/// The ratio of used to wanted, the utilization in percent and the mean value.
fn usage_ratio(
    usable: &BTreeMap<&str, i64>,
    requests: &BTreeMap<&str, i64>,
    wanted: Wanted,
) -> Result<(f64, Option<i32>, i64), String> {
    match wanted {
        Wanted::AverageMilli(target) => {
            let total: i128 = usable.values().map(|milli| i128::from(*milli)).sum();
            let average = clamp(total / (usable.len().max(1) as i128));
            Ok((average as f64 / target as f64, None, average))
        }
        Wanted::UtilizationPercent(target) => {
            let (mut used, mut requested, mut entries) = (0_i128, 0_i128, 0_i128);
            for (name, milli) in usable {
                let Some(request) = requests.get(name) else {
                    continue;
                };
                used += i128::from(*milli);
                requested += i128::from(*request);
                entries += 1;
            }
            if requested == 0 {
                return Err("no metrics returned matched known pods".to_owned());
            }
            let percent = i32::try_from(used * 100 / requested).unwrap_or(i32::MAX);
            Ok((
                f64::from(percent) / f64::from(target),
                Some(percent),
                clamp(used / entries),
            ))
        }
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Adds the pods without a usable sample with the value that slows the change down.
fn fill_in<'a>(
    usable: &mut BTreeMap<&'a str, i64>,
    groups: &Groups<'a>,
    requests: &BTreeMap<&str, i64>,
    wanted: Wanted,
    ratio: f64,
    fills_unready: bool,
) {
    for name in &groups.missing {
        if ratio < 1.0 {
            let assumed = match wanted {
                Wanted::AverageMilli(target) => target,
                Wanted::UtilizationPercent(target) => {
                    requests.get(name).copied().unwrap_or_default() * i64::from(target.max(100))
                        / 100
                }
            };
            usable.insert(name, assumed);
        } else if ratio > 1.0 {
            usable.insert(name, 0);
        }
    }
    if fills_unready {
        for name in &groups.unready {
            usable.insert(name, 0);
        }
    }
}
