//! Why a place has what it has, in one sentence for the person who looks at the status.

use jiff::SignedDuration;

use super::ConditionStatus;
use super::rollout::{HeldBy, RolloutStep};
use super::shortage::Shortage;

/// What is known about one place at the end of a pass.
#[derive(Clone, Debug, PartialEq)]
pub struct PlaceFacts<'a> {
    /// What it should have.
    pub share: u32,
    /// What it has been asked for.
    pub asked: u32,
    /// Pods that exist.
    pub pods: u32,
    /// Of these, the ready ones.
    pub ready: u32,
    /// Serverless pods that must go before this place is lowered.
    pub held_by_serverless: Option<u32>,
    /// Its shortage, if it has or had one.
    pub shortage: Option<&'a Shortage>,
    /// When a short place is tried again.
    pub recover_after: Option<SignedDuration>,
    /// What its rollout does.
    pub rollout: RolloutStep,
}

/// Status, reason and message of the condition `Ready` of a place; `names` are the units' names, for who waits for whom.
pub fn explain(facts: &PlaceFacts<'_>, names: &[&str]) -> (ConditionStatus, &'static str, String) {
    let PlaceFacts {
        share,
        asked,
        pods,
        ready,
        ..
    } = *facts;
    let numbers = format!("wanted {share}, asked for {asked}, has {pods}, ready {ready}");
    let (holds, reason, why) = cause(facts, names);
    let message = if why.is_empty() {
        numbers
    } else {
        format!("{numbers}: {why}")
    };
    (ConditionStatus::from(holds), reason, message)
}

fn cause(facts: &PlaceFacts<'_>, names: &[&str]) -> (bool, &'static str, String) {
    if let Some(short) = facts.shortage.filter(|shortage| shortage.limit().is_some()) {
        return (false, "NoCapacity", no_capacity(short, facts.recover_after));
    }
    if facts.asked > facts.share {
        return match facts.held_by_serverless {
            Some(pods) => (
                true,
                "WaitingForServerless",
                format!("keeps its replicas until {pods} serverless pods are gone"),
            ),
            None => {
                let kept = facts.asked - facts.share;
                (
                    true,
                    "WaitingForReady",
                    format!("keeps {kept} replicas until others are ready in their place"),
                )
            }
        };
    }
    match facts.rollout {
        RolloutStep::Hold(by) => (
            facts.ready >= facts.asked,
            "RolloutHeld",
            format!("keeps the old template until {}", until(by, names)),
        ),
        RolloutStep::Pause(by) => (
            facts.ready >= facts.asked,
            "RolloutHeld",
            format!("its rollout stands still until {}", until(by, names)),
        ),
        _ if facts.ready < facts.asked => {
            let missing = facts.asked - facts.ready;
            (
                false,
                "Progressing",
                format!("{missing} replicas are not ready yet"),
            )
        }
        _ => (true, "AsWanted", String::new()),
    }
}

fn no_capacity(short: &Shortage, recover_after: Option<SignedDuration>) -> String {
    let capacity = short.capacity;
    let since = short.since.as_ref().map(|at| at.0);
    let mut text = format!("can get {capacity} only ({})", short.reason);
    if let Some(since) = since {
        text += &format!(" since {since:.0}");
    }
    if let Some(at) = since
        .zip(recover_after)
        .and_then(|(since, after)| since.checked_add(after).ok())
    {
        text += &format!(", tried again at {at:.0}");
    }
    text
}

/// Who or what a rollout waits for.
pub fn until(by: HeldBy, names: &[&str]) -> String {
    match by {
        HeldBy::Source => "the source has rolled out".to_owned(),
        HeldBy::Unit(index) => format!(
            "unit {} has rolled out",
            names.get(index).copied().unwrap_or_default()
        ),
        HeldBy::Budget => {
            "enough pods elsewhere are available again; the source's maxUnavailable is used up"
                .to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

    use super::*;

    fn facts() -> PlaceFacts<'static> {
        PlaceFacts {
            share: 4,
            asked: 4,
            pods: 4,
            ready: 4,
            held_by_serverless: None,
            shortage: None,
            recover_after: Some(SignedDuration::from_mins(5)),
            rollout: RolloutStep::Leave,
        }
    }

    type Case<'a> = (PlaceFacts<'a>, &'static str, &'static str, &'static str);

    fn cases(short: &Shortage) -> Vec<Case<'_>> {
        vec![
            (
                facts(),
                "True",
                "AsWanted",
                "wanted 4, asked for 4, has 4, ready 4",
            ),
            (
                PlaceFacts {
                    ready: 1,
                    ..facts()
                },
                "False",
                "Progressing",
                "wanted 4, asked for 4, has 4, ready 1: 3 replicas are not ready yet",
            ),
            (
                PlaceFacts {
                    share: 2,
                    asked: 2,
                    pods: 2,
                    ready: 2,
                    shortage: Some(short),
                    ..facts()
                },
                "False",
                "NoCapacity",
                "wanted 2, asked for 2, has 2, ready 2: can get 2 only (NoStock) since 1970-01-01T00:00:00Z, tried again at 1970-01-01T00:05:00Z",
            ),
            (
                PlaceFacts {
                    share: 2,
                    held_by_serverless: Some(3),
                    ..facts()
                },
                "True",
                "WaitingForServerless",
                "wanted 2, asked for 4, has 4, ready 4: keeps its replicas until 3 serverless pods are gone",
            ),
            (
                PlaceFacts {
                    share: 2,
                    ..facts()
                },
                "True",
                "WaitingForReady",
                "wanted 2, asked for 4, has 4, ready 4: keeps 2 replicas until others are ready in their place",
            ),
            (
                PlaceFacts {
                    rollout: RolloutStep::Hold(HeldBy::Unit(1)),
                    ..facts()
                },
                "True",
                "RolloutHeld",
                "wanted 4, asked for 4, has 4, ready 4: keeps the old template until unit b has rolled out",
            ),
        ]
    }

    #[test]
    fn every_state_says_what_was_wanted_what_is_and_why() {
        let short = Shortage {
            since: Some(Time(Timestamp::from_second(0).unwrap())),
            capacity: 2,
            reason: "NoStock".into(),
            recovered: None,
        };
        for (facts, status, reason, message) in cases(&short) {
            let (found, why, text) = explain(&facts, &["a", "b"]);
            assert_eq!(
                (found.text(), why, text.as_str()),
                (status, reason, message)
            );
        }
    }
}
