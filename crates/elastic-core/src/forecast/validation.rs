//! What is wrong with a spec that the schema cannot see. Names the field and the remedy.

use jiff::tz::TimeZone;

use super::declared::declared_times;
use super::kind::ElasticForecastSpec;
use super::publish::parse_quantity;
use crate::cron::time_zone;

/// The first thing that is wrong.
///
/// # Errors
/// A sentence for the user.
pub fn validate(spec: &ElasticForecastSpec) -> Result<(), String> {
    if spec.source.prometheus.is_some() == spec.source.config_map.is_some() {
        return Err("spec.source: set exactly one of prometheus and configMap".to_owned());
    }
    let step = i64::from(spec.step_seconds);
    if step < 10 || 86_400 % step != 0 {
        return Err(format!(
            "spec.stepSeconds: {step} does not divide a day; use 60, 300, 600, 900, 1800 or 3600"
        ));
    }
    zone(spec)?;
    let capacity = parse_quantity(&spec.capacity_per_replica);
    if capacity.is_none_or(|capacity| capacity <= 0.0) {
        return Err("spec.capacityPerReplica: must be a quantity above 0, such as 3k".to_owned());
    }
    let is_upside_down =
        |min: Option<i32>, max: Option<i32>| min.zip(max).is_some_and(|(min, max)| min > max);
    if is_upside_down(spec.min_replicas, spec.max_replicas) {
        return Err("spec.minReplicas: must not be above spec.maxReplicas".to_owned());
    }
    for (index, window) in spec.bounds.iter().enumerate() {
        if is_upside_down(window.min_replicas, window.max_replicas) {
            return Err(format!(
                "spec.bounds[{index}].minReplicas: must not be above maxReplicas"
            ));
        }
    }
    declared_times(spec).map(drop)
}

/// The zone whose days and weeks the load follows.
///
/// # Errors
/// A sentence for the user, when there is no such zone.
pub fn zone(spec: &ElasticForecastSpec) -> Result<TimeZone, String> {
    let Some(name) = &spec.time_zone else {
        return Ok(TimeZone::UTC);
    };
    time_zone(name).map_err(|error| format!("spec.timeZone: {error}"))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn what_the_schema_cannot_see_is_refused_by_its_field() {
        let good = json!({"source": {"configMap": {"name": "demand"}}, "capacityPerReplica": "3k"});
        let refusal = |change: Value| {
            let mut spec = good.clone();
            for (key, value) in change.as_object().unwrap() {
                spec[key] = value.clone();
            }
            validate(&serde_json::from_value(spec).unwrap())
                .err()
                .unwrap_or_default()
        };
        assert_eq!(refusal(json!({})), "");
        for (change, field) in [
            (json!({"source": {}}), "spec.source"),
            (json!({"stepSeconds": 7000}), "spec.stepSeconds"),
            (json!({"timeZone": "Asia/Peking"}), "spec.timeZone"),
            (json!({"capacityPerReplica": 0}), "spec.capacityPerReplica"),
            (
                json!({"capacityPerReplica": "lots"}),
                "spec.capacityPerReplica",
            ),
            (
                json!({"minReplicas": 3, "maxReplicas": 2}),
                "spec.minReplicas",
            ),
            (
                json!({"bounds": [{"startTime": "2026-01-02T00:00:00Z", "endTime": "2026-01-01T00:00:00Z"}]}),
                "spec.bounds[0]: ",
            ),
            (
                json!({"bounds": [{"schedule": "0 0 9 * * *", "until": "noon"}]}),
                "spec.bounds[0].until: ",
            ),
        ] {
            assert!(
                refusal(change.clone()).starts_with(field),
                "{change}: {}",
                refusal(change.clone())
            );
        }
    }
}
