//! Conditions that change their time only when their status changes.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// `True`, `False` or `Unknown`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConditionStatus {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// It could not be found out.
    Unknown,
}

impl ConditionStatus {
    /// As in the API.
    pub fn text(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

impl From<bool> for ConditionStatus {
    fn from(holds: bool) -> Self {
        if holds { Self::True } else { Self::False }
    }
}

/// Puts a condition into `conditions`. Returns whether its status or reason changed, which is when an event is due.
pub fn set_condition(
    conditions: &mut Vec<Condition>,
    type_: &str,
    status: ConditionStatus,
    reason: &str,
    message: &str,
    generation: Option<i64>,
    now: Timestamp,
) -> bool {
    let mut fresh = Condition {
        type_: type_.to_owned(),
        status: status.text().to_owned(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        observed_generation: generation,
        last_transition_time: Time(now),
    };
    let Some(old) = conditions
        .iter_mut()
        .find(|condition| condition.type_ == type_)
    else {
        conditions.push(fresh);
        return true;
    };
    if old.status == fresh.status {
        fresh.last_transition_time = old.last_transition_time.clone();
    }
    let changed = old.status != fresh.status || old.reason != fresh.reason;
    *old = fresh;
    changed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_moves_only_with_the_status() {
        let early = Timestamp::from_second(1_000).unwrap();
        let late = Timestamp::from_second(2_000).unwrap();
        let mut conditions = Vec::new();
        assert!(set_condition(
            &mut conditions,
            "Ready",
            ConditionStatus::True,
            "A",
            "",
            Some(1),
            early
        ));
        assert!(!set_condition(
            &mut conditions,
            "Ready",
            ConditionStatus::True,
            "A",
            "other words",
            Some(2),
            late
        ));
        assert_eq!(conditions[0].last_transition_time.0, early);
        assert_eq!(conditions[0].message, "other words");
        assert!(set_condition(
            &mut conditions,
            "Ready",
            ConditionStatus::False,
            "B",
            "",
            Some(2),
            late
        ));
        assert_eq!(conditions[0].last_transition_time.0, late);
        assert_eq!(conditions.len(), 1);
    }
}
