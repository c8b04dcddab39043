//! Whether the promises were kept: plain functions over what was recorded.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::demo::record::{Moment, Step, Tier};

/// Success of all requests from first to last has to reach this.
pub const SUCCESS_RATE_MIN: f64 = 0.999;

/// One promise and whether it was kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Promise {
    pub name: String,
    pub kept: bool,
    /// The numbers it was judged by.
    pub detail: String,
}

impl Promise {
    fn new(name: &str, kept: bool, detail: String) -> Self {
        Self {
            name: name.to_string(),
            kept,
            detail,
        }
    }
}

/// `requests` and how many succeeded.
pub fn success(requests: u64, successes: u64) -> Promise {
    let rate = if requests == 0 {
        0.0
    } else {
        successes as f64 / requests as f64
    };
    Promise::new(
        "at least 99.9 % of all requests succeed",
        rate >= SUCCESS_RATE_MIN,
        format!("{successes} of {requests} ({:.4} %)", rate * 100.0),
    )
}

/// No serverless pod is created while fewer owned ones exist than the source may have.
pub fn owned_first(moments: &[Moment], source_max: u32) -> Promise {
    let mut owned = 0u32;
    let mut early = Vec::new();
    for moment in moments {
        match (moment.tier, moment.step) {
            (Tier::Owned, Step::Created) => owned += 1,
            (Tier::Owned, Step::Deleting) => owned = owned.saturating_sub(1),
            (Tier::Serverless, Step::Created) if owned < source_max => {
                early.push(moment.pod.clone())
            }
            _ => {}
        }
    }
    let detail = if early.is_empty() {
        format!("every serverless pod came when {source_max} owned ones were there")
    } else {
        format!("too early: {}", early.join(", "))
    };
    Promise::new("own nodes first", early.is_empty(), detail)
}

/// No owned pod goes while a serverless one lives.
pub fn serverless_first_out(moments: &[Moment]) -> Promise {
    let mut serverless = 0u32;
    let mut early = Vec::new();
    for moment in moments {
        match (moment.tier, moment.step) {
            (Tier::Serverless, Step::Created) => serverless += 1,
            (Tier::Serverless, Step::Gone) => serverless = serverless.saturating_sub(1),
            (Tier::Owned, Step::Deleting) if serverless > 0 => early.push(moment.pod.clone()),
            _ => {}
        }
    }
    let detail = if early.is_empty() {
        "no owned pod went while a serverless one lived".to_string()
    } else {
        format!("too early: {}", early.join(", "))
    };
    Promise::new("serverless goes first", early.is_empty(), detail)
}

/// The load was worth the name: something overflowed.
pub fn overflowed(moments: &[Moment]) -> Promise {
    let ready: BTreeSet<&str> = moments
        .iter()
        .filter(|moment| moment.tier == Tier::Serverless && moment.step == Step::Ready)
        .map(|moment| moment.pod.as_str())
        .collect();
    let ready = ready.len();
    Promise::new(
        "the peak overflowed on to serverless containers",
        ready > 0,
        format!("{ready} serverless pods served"),
    )
}

/// Nothing that costs money is left.
pub fn nothing_billed(groups_left: usize) -> Promise {
    Promise::new(
        "afterwards no container group is left",
        groups_left == 0,
        format!("{groups_left} left"),
    )
}

/// The ledger's total is what can be recomputed from its entries, to the last unit.
pub fn ledger_adds_up(total: u128, recomputed: u128) -> Promise {
    Promise::new(
        "the ledger adds up to the last unit",
        total == recomputed,
        format!("total {total}, recomputed {recomputed} (10⁻⁹ of the currency)"),
    )
}

/// Nothing of the cluster is left on the machine.
pub fn nothing_left(leftovers: &[String]) -> Promise {
    let detail = if leftovers.is_empty() {
        "no process, mount, cgroup or namespace".to_string()
    } else {
        leftovers.join(", ")
    };
    Promise::new(
        "nothing is left on this machine",
        leftovers.is_empty(),
        detail,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::Timestamp;

    fn moments(text: &str) -> Vec<Moment> {
        // `o+` owned created, `s*` serverless ready, `o-` deleting, `s.` gone
        let one = |word: &str| Moment {
            at: Timestamp::UNIX_EPOCH,
            pod: word.to_string(),
            tier: if word.starts_with('o') {
                Tier::Owned
            } else {
                Tier::Serverless
            },
            step: match &word[1..2] {
                "+" => Step::Created,
                "*" => Step::Ready,
                "-" => Step::Deleting,
                _ => Step::Gone,
            },
        };
        text.split_whitespace().map(one).collect()
    }

    #[test]
    fn a_serverless_pod_before_the_source_is_full_breaks_the_promise() {
        assert!(owned_first(&moments("o+ o+ s+"), 2).kept);
        assert!(!owned_first(&moments("o+ s+ o+"), 2).kept);
        assert!(!owned_first(&moments("o+ o+ o- s+"), 2).kept);
    }

    #[test]
    fn an_owned_pod_may_go_only_when_no_serverless_one_lives() {
        assert!(serverless_first_out(&moments("o+ s+ s- s. o-")).kept);
        assert!(!serverless_first_out(&moments("o+ s+ s- o- s.")).kept);
    }

    #[test]
    fn rates_totals_and_leftovers_are_judged_exactly() {
        assert!(success(1000, 999).kept);
        assert!(!success(1000, 998).kept);
        assert!(!success(0, 0).kept);
        assert!(ledger_adds_up(5, 5).kept && !ledger_adds_up(5, 4).kept);
        assert!(!nothing_billed(1).kept && !nothing_left(&["mount".to_string()]).kept);
        assert!(overflowed(&moments("s+ s*")).kept && !overflowed(&moments("s+")).kept);
    }
}
