//! A reactive autoscaler over a load that is known: the real decision, cycle by cycle, with replicas that take time to
//! start. Load and forecast are external metrics, as they are in a cluster. Refuses nothing; slots without a value are
//! skipped.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    ExternalMetricSource, HorizontalPodAutoscalerSpec, MetricIdentifier, MetricSpec, MetricTarget,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::grid::Grid;
use super::plan::replicas_for;
use super::publish::{REPLICAS_METRIC, quantity};
use crate::horizontal_pod_autoscaler::{Flags, Memory, Observed, Reading, decide};

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

/// Runs over some slots of a load. `forecast` says for each slot of the whole load how many replicas the forecast asks
/// for; without it the autoscaler has the load alone.
pub fn simulate(
    load: &Grid,
    slots: std::ops::Range<usize>,
    forecast: Option<&dyn Fn(usize) -> i32>,
    policy: &SimulationPolicy,
) -> Simulation {
    let mut run = Run::new(policy, forecast.is_some());
    let mut result = Simulation::default();
    let step = load.step_seconds();
    for slot in slots {
        let Some(here) = load.values()[slot] else {
            continue;
        };
        let next = load.values().get(slot + 1).copied().flatten();
        let rise = next.unwrap_or(here) - here;
        let begin = load.time_of(slot);
        let mut passed = 0;
        while passed < step {
            let length = policy.sync_seconds.min(step - passed);
            let value = (here + rise * passed as f64 / step as f64).max(0.0);
            let now = begin + SignedDuration::from_secs(passed);
            run.cycle(
                value,
                forecast.map(|forecast| forecast(slot)),
                now,
                &mut result,
            );
            run.account(value, length, step, &mut result);
            passed += length;
        }
    }
    result
}

struct Run<'a> {
    policy: &'a SimulationPolicy,
    /// What the autoscaler wants a replica to carry.
    target: f64,
    spec: HorizontalPodAutoscalerSpec,
    flags: Flags,
    memory: Memory,
    /// From when on each replica serves, oldest first.
    serving_from: Vec<Timestamp>,
    ready: usize,
}

impl<'a> Run<'a> {
    fn new(policy: &'a SimulationPolicy, has_forecast: bool) -> Self {
        let target = (policy.capacity_per_replica * policy.target_percent / 100.0).max(0.001);
        let mut metrics = vec![external("load", &quantity(target))];
        if has_forecast {
            metrics.push(external(REPLICAS_METRIC, "1"));
        }
        Run {
            policy,
            target,
            spec: HorizontalPodAutoscalerSpec {
                min_replicas: Some(policy.min_replicas),
                max_replicas: policy.max_replicas,
                metrics: Some(metrics),
                ..HorizontalPodAutoscalerSpec::default()
            },
            flags: Flags::default(),
            memory: Memory::default(),
            serving_from: Vec::new(),
            ready: 0,
        }
    }

    /// One look of the autoscaler. It begins with as many replicas as the load needs, all of them serving.
    fn cycle(&mut self, load: f64, forecast: Option<i32>, now: Timestamp, result: &mut Simulation) {
        if self.serving_from.is_empty() {
            let first = replicas_for(load, self.target);
            let bounded = first.clamp(self.policy.min_replicas.max(1), self.policy.max_replicas);
            self.resize(bounded, now);
        }
        self.ready = self
            .serving_from
            .iter()
            .filter(|from| **from <= now)
            .count();
        let current = i32::try_from(self.serving_from.len()).unwrap_or(i32::MAX);
        let mut readings = vec![Ok(Reading::Whole((load * 1000.0).round() as i64))];
        readings.extend(forecast.map(|wanted| Ok(Reading::Whole(i64::from(wanted) * 1000))));
        let observed = Observed {
            namespace: "",
            spec_replicas: current,
            status_replicas: current,
            is_scaled_to_zero: false,
            selector: Ok(()),
            pods: &[],
            readings,
        };
        let decision = decide(&self.spec, &observed, &mut self.memory, &self.flags, now);
        if let Some(rescale) = decision.rescale {
            self.memory.rescaled(None, current, rescale.replicas, now);
            let serving_from = now + SignedDuration::from_secs(self.policy.startup_seconds);
            self.resize(rescale.replicas, serving_from);
            self.ready = self
                .serving_from
                .iter()
                .filter(|from| **from <= now)
                .count();
            result.rescales += 1;
        }
    }

    /// The youngest go first.
    fn resize(&mut self, replicas: i32, serving_from: Timestamp) {
        let wanted = usize::try_from(replicas).unwrap_or(0);
        self.serving_from.resize(wanted, serving_from);
    }

    fn account(&self, load: f64, seconds: i64, step_seconds: i64, result: &mut Simulation) {
        let (share, seconds) = (seconds as f64 / step_seconds as f64, seconds as f64);
        let unmet = (load - self.ready as f64 * self.policy.capacity_per_replica).max(0.0);
        let needed = replicas_for(load, self.policy.capacity_per_replica);
        let idle = i64::try_from(self.ready).unwrap_or(i64::MAX) - i64::from(needed);
        result.replica_hours += self.serving_from.len() as f64 * seconds / 3600.0;
        result.demand += load * share;
        result.unmet_demand += unmet * share;
        if unmet > 0.0 {
            result.under_provisioned_minutes += seconds / 60.0;
        }
        result.over_provisioned_replica_minutes += idle.max(0) as f64 * seconds / 60.0;
    }
}

/// An external metric that may reach that value for each replica.
fn external(name: &str, average_value: &str) -> MetricSpec {
    let source = ExternalMetricSource {
        metric: MetricIdentifier {
            name: name.to_owned(),
            selector: None,
        },
        target: MetricTarget {
            type_: "AverageValue".to_owned(),
            average_value: Some(Quantity(average_value.to_owned())),
            ..MetricTarget::default()
        },
    };
    MetricSpec {
        type_: "External".to_owned(),
        external: Some(source),
        ..MetricSpec::default()
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
            &jiff::tz::TimeZone::UTC,
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
        let result = simulate(&load(&[400.0; 12]), 0..12, None, &policy());
        assert_eq!((result.unmet_demand, result.rescales), (0.0, 0));
        assert!((result.replica_hours - 10.0).abs() < 1e-9);
        assert!((result.demand - 4800.0).abs() < 1e-6);
    }

    #[test]
    fn a_jump_is_unmet_until_replicas_have_started_unless_they_were_there() {
        let mut values = vec![200.0; 6];
        values.extend([1600.0; 6]);
        let reactive = simulate(&load(&values), 0..12, None, &policy());
        assert!(reactive.unmet_demand > 0.0 && reactive.rescales >= 1);
        let prepared = simulate(
            &load(&values),
            0..12,
            Some(&|slot| if slot >= 4 { 17 } else { 0 }),
            &policy(),
        );
        assert_eq!(prepared.unmet_demand, 0.0);
        assert!(prepared.replica_hours > reactive.replica_hours);
    }
}
