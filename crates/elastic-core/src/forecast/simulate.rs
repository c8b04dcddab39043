//! A reactive autoscaler over a load that is known: the real decision, cycle by cycle, with replicas that take time to
//! start. Refuses nothing; slots without a value are skipped.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerSpec, MetricSpec, MetricTarget, ResourceMetricSource,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::grid::Grid;
use super::plan::replicas_for;
use super::publish::quantity;
use crate::horizontal_pod_autoscaler::{
    Flags, Memory, Observed, PodView, ReadyView, Sample, Samples, decide,
};

const RESOURCE: &str = "cpu";

/// The autoscaler and the replicas.
#[derive(Clone, Copy, Debug)]
pub struct SimulationPolicy {
    /// What one replica carries at most.
    pub capacity_per_replica: f64,
    /// What the autoscaler wants a replica to carry, in percent of that.
    pub target_percent: f64,
    /// How long a new replica takes until it serves.
    pub startup_seconds: i64,
    /// The autoscaler's period.
    pub sync_seconds: i64,
    /// Its bounds.
    pub min_replicas: i32,
    /// Its bounds.
    pub max_replicas: i32,
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Simulation {
    /// Replicas times hours, starting ones included.
    pub replica_hours: f64,
    /// All load, in the unit of the load times slots.
    pub demand: f64,
    /// The part of it that found no ready replica with room.
    pub unmet_demand: f64,
    /// For how long there was such a part.
    pub under_provisioned_minutes: f64,
    /// Ready replicas beyond those the load needed, times minutes.
    pub over_provisioned_replica_minutes: f64,
    /// How often the number was changed.
    pub rescales: u32,
}

/// Runs over some slots of a load. `floor` says for each slot of the whole load how many replicas are to be there at
/// least, beyond what the autoscaler wants.
pub fn simulate(
    load: &Grid,
    slots: std::ops::Range<usize>,
    floor: &dyn Fn(usize) -> i32,
    policy: &SimulationPolicy,
) -> Simulation {
    let mut run = Run::new(policy);
    let mut result = Simulation::default();
    let step = load.step_seconds();
    for slot in slots {
        let Some(here) = load.values()[slot] else {
            continue;
        };
        let next = load
            .values()
            .get(slot + 1)
            .copied()
            .flatten()
            .unwrap_or(here);
        let begin = load.time_of(slot);
        let mut passed = 0;
        while passed < step {
            let length = policy.sync_seconds.min(step - passed);
            let share = passed as f64 / step as f64;
            let value = (here + (next - here) * share).max(0.0);
            let now = begin + SignedDuration::from_secs(passed);
            run.cycle(value, floor(slot), now, &mut result);
            run.account(value, length, step, now, &mut result);
            passed += length;
        }
    }
    result
}

struct Run<'a> {
    policy: &'a SimulationPolicy,
    spec: HorizontalPodAutoscalerSpec,
    flags: Flags,
    memory: Memory,
    /// Oldest first.
    pods: Vec<PodView>,
    made: usize,
}

impl<'a> Run<'a> {
    fn new(policy: &'a SimulationPolicy) -> Self {
        let target = policy.capacity_per_replica * policy.target_percent / 100.0;
        let resource = ResourceMetricSource {
            name: RESOURCE.to_owned(),
            target: MetricTarget {
                type_: "AverageValue".to_owned(),
                average_value: Some(Quantity(quantity(target.max(0.001)))),
                ..MetricTarget::default()
            },
        };
        let metric = MetricSpec {
            type_: "Resource".to_owned(),
            resource: Some(resource),
            ..MetricSpec::default()
        };
        Run {
            policy,
            spec: HorizontalPodAutoscalerSpec {
                min_replicas: Some(policy.min_replicas),
                max_replicas: policy.max_replicas,
                metrics: Some(vec![metric]),
                ..HorizontalPodAutoscalerSpec::default()
            },
            flags: Flags::default(),
            memory: Memory::default(),
            pods: Vec::new(),
            made: 0,
        }
    }

    /// One look of the autoscaler.
    fn cycle(&mut self, load: f64, floor: i32, now: Timestamp, result: &mut Simulation) {
        let policy = self.policy;
        if self.pods.is_empty() {
            let fitting = replicas_for(
                load,
                policy.capacity_per_replica * policy.target_percent / 100.0,
            );
            let started = now - SignedDuration::from_secs(policy.startup_seconds + 3600);
            let first = fitting
                .max(floor)
                .clamp(policy.min_replicas.max(1), policy.max_replicas);
            self.resize(first, started);
        }
        self.wake(now);
        let current = i32::try_from(self.pods.len()).unwrap_or(i32::MAX);
        self.spec.min_replicas = Some(
            floor
                .max(policy.min_replicas)
                .min(policy.max_replicas)
                .max(1),
        );
        let observed = Observed {
            spec_replicas: current,
            selector: Ok(()),
            pods: &self.pods,
            readings: vec![Ok(self.samples(load, now))],
        };
        let decision = decide(&self.spec, &observed, &mut self.memory, &self.flags, now);
        if let Some(rescale) = decision.rescale {
            self.memory.rescaled(None, current, rescale.replicas, now);
            self.resize(rescale.replicas, now);
            result.rescales += 1;
        }
    }

    /// Replicas whose start is over serve.
    fn wake(&mut self, now: Timestamp) {
        for pod in &mut self.pods {
            let started = pod.start_time.unwrap_or(now);
            let ready_at = started + SignedDuration::from_secs(self.policy.startup_seconds);
            let is_waiting = pod.ready.as_ref().is_some_and(|ready| !ready.is_ready);
            if is_waiting && ready_at <= now {
                pod.ready = Some(ReadyView {
                    is_ready: true,
                    is_unready: false,
                    since: ready_at,
                });
            }
        }
    }

    /// What the ready replicas report: the load, shared equally.
    fn samples(&self, load: f64, now: Timestamp) -> Samples {
        let ready = self.ready();
        let milli = (load * 1000.0 / ready.max(1) as f64).round() as i64;
        let sample = Sample {
            milli,
            timestamp: now,
            window: SignedDuration::from_secs(self.policy.sync_seconds),
        };
        let is_ready = |pod: &&PodView| pod.ready.as_ref().is_some_and(|ready| ready.is_ready);
        let ready_pods = self.pods.iter().filter(is_ready);
        ready_pods
            .map(|pod| (pod.name.clone(), sample.clone()))
            .collect()
    }

    fn ready(&self) -> usize {
        let is_ready = |pod: &&PodView| pod.ready.as_ref().is_some_and(|ready| ready.is_ready);
        self.pods.iter().filter(is_ready).count()
    }

    /// The youngest go first.
    fn resize(&mut self, replicas: i32, now: Timestamp) {
        let wanted = usize::try_from(replicas).unwrap_or(0);
        self.pods.truncate(wanted);
        while self.pods.len() < wanted {
            self.made += 1;
            self.pods.push(PodView {
                name: format!("replica-{}", self.made),
                phase: "Running".to_owned(),
                deleting: false,
                start_time: Some(now),
                ready: Some(ReadyView {
                    is_ready: false,
                    is_unready: true,
                    since: now,
                }),
                containers: vec![("main".to_owned(), BTreeMap::new())],
            });
        }
    }

    fn account(
        &mut self,
        load: f64,
        seconds: i64,
        step_seconds: i64,
        now: Timestamp,
        result: &mut Simulation,
    ) {
        self.wake(now);
        let seconds = seconds as f64;
        let ready = self.ready();
        let unmet = (load - ready as f64 * self.policy.capacity_per_replica).max(0.0);
        let needed = replicas_for(load, self.policy.capacity_per_replica);
        let idle = i64::try_from(ready).unwrap_or(i64::MAX) - i64::from(needed);
        result.replica_hours += self.pods.len() as f64 * seconds / 3600.0;
        result.demand += load * seconds / step_seconds as f64;
        result.unmet_demand += unmet * seconds / step_seconds as f64;
        if unmet > 0.0 {
            result.under_provisioned_minutes += seconds / 60.0;
        }
        result.over_provisioned_replica_minutes += idle.max(0) as f64 * seconds / 60.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forecast::grid::Sample as Point;

    fn load(values: &[f64]) -> Grid {
        let point = |(index, value): (usize, &f64)| Point {
            at: Timestamp::from_second(index as i64 * 600).unwrap(),
            value: *value,
        };
        Grid::from_samples(
            &values.iter().enumerate().map(point).collect::<Vec<_>>(),
            600,
        )
        .unwrap()
    }

    fn policy() -> SimulationPolicy {
        SimulationPolicy {
            capacity_per_replica: 100.0,
            target_percent: 80.0,
            startup_seconds: 120,
            sync_seconds: 15,
            min_replicas: 1,
            max_replicas: 50,
        }
    }

    #[test]
    fn a_steady_load_is_met_with_the_replicas_it_needs() {
        let result = simulate(&load(&[400.0; 12]), 0..12, &|_| 0, &policy());
        assert_eq!((result.unmet_demand, result.rescales), (0.0, 0));
        assert!((result.replica_hours - 10.0).abs() < 1e-9);
        assert!((result.demand - 4800.0).abs() < 1e-6);
    }

    #[test]
    fn a_jump_is_unmet_until_replicas_have_started_unless_they_were_there() {
        let mut values = vec![200.0; 6];
        values.extend([1600.0; 6]);
        let reactive = simulate(&load(&values), 0..12, &|_| 0, &policy());
        assert!(reactive.unmet_demand > 0.0 && reactive.rescales >= 1);
        let prepared = simulate(
            &load(&values),
            0..12,
            &|slot| if slot >= 4 { 17 } else { 0 },
            &policy(),
        );
        assert_eq!(prepared.unmet_demand, 0.0);
        assert!(prepared.replica_hours > reactive.replica_hours);
    }
}
