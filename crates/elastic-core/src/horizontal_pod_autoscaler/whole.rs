//! Proposals from one value for the whole target: Object and External metrics.

use super::proposal::{Circumstances, ceil};

/// From a value that may grow to `target_milli` in all: as many times the ready pods as the value is of its target.
///
/// # Errors
/// The sentence why the ready pods cannot be counted.
pub(super) fn by_value(
    value_milli: i64,
    target_milli: i64,
    around: Circumstances<'_>,
) -> Result<i32, String> {
    let ratio = value_milli as f64 / target_milli as f64;
    if around.current_replicas == 0 {
        return Ok(ceil(ratio));
    }
    if around.tolerances.is_within(ratio) {
        return Ok(around.current_replicas);
    }
    if around.pods.is_empty() {
        return Err("unable to calculate ready pods: no pods returned by selector while calculating replica count".to_owned());
    }
    let ready = around.pods.iter().filter(|pod| pod.is_running_and_ready());
    Ok(ceil(ratio * ready.count() as f64))
}

/// From a value that may be `target_milli` for each replica: the count, and the value for each replica there is.
pub(super) fn by_average(
    value_milli: i64,
    target_milli: i64,
    around: Circumstances<'_>,
) -> (i32, i64) {
    let replicas = around.status_replicas;
    let (value, target) = (value_milli as f64, target_milli as f64);
    let ratio = value / (target * f64::from(replicas));
    let proposed = if around.tolerances.is_within(ratio) {
        replicas
    } else {
        ceil(value / target)
    };
    // Without a replica there is no average; the value itself says more than a division by zero.
    let average = match replicas {
        0 => value_milli,
        _ => (value / f64::from(replicas)).ceil() as i64,
    };
    (proposed, average)
}
