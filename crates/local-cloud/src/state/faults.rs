//! Faults on demand: what goes wrong, for whom, how often and until when. They survive the process like all else.

use super::State;
use super::resources::Resource;
use crate::gateway::refusal::Refusal;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Most faults at the same time.
pub(crate) const MAX_FAULTS: usize = 1_000;
/// Longest delay of a call, below the time after which clients give up by themselves.
pub(crate) const LONGEST_DELAY_MS: u64 = 300_000;

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(
    tag = "kind",
    rename_all = "kebab-case",
    rename_all_fields = "camelCase"
)]
pub enum Fault {
    /// The call is refused and has no effect.
    Refuse {
        /// The error code.
        code: String,
        /// The HTTP status.
        http_status: u16,
    },
    /// The call takes effect, but its answer never arrives.
    LoseAnswer,
    /// The call is refused for being one too many.
    Throttle,
    /// The call waits.
    Latency {
        /// How long.
        delay_ms: u64,
    },
    /// Nothing answers: every call is refused as unavailable.
    Down,
    /// There is no stock.
    NoStock {
        /// Only in this zone.
        zone: Option<String>,
        /// Only of this machine type, or of this size as `2-4Gi`.
        spec: Option<String>,
    },
    /// There are no addresses.
    NoAddresses {
        /// Only in this zone.
        zone: Option<String>,
        /// Only in this vSwitch.
        v_switch: Option<String>,
    },
    /// Groups end `Failed`: the one named at once, else those that are created from now on.
    InstanceFailure {
        /// This group.
        group: Option<String>,
        /// Only new groups in this zone.
        zone: Option<String>,
    },
    /// Spot groups are taken away: the one named, else all there are now.
    SpotReclaim {
        /// This group.
        group: Option<String>,
        /// Only groups in this zone.
        zone: Option<String>,
    },
    /// A security group does not fit.
    SecurityGroup {
        /// Only this one.
        id: Option<String>,
    },
}

/// A fault with its bounds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultOrder {
    /// What goes wrong.
    #[serde(flatten)]
    pub fault: Fault,
    /// Only calls of this action; for faults of calls.
    #[serde(default)]
    pub action: Option<String>,
    /// How often; without end when unset.
    #[serde(default)]
    pub times: Option<u64>,
    /// For so long; without end when unset.
    #[serde(default)]
    pub seconds: Option<u64>,
}

/// A fault that waits for its calls.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct FaultRecord {
    /// What was ordered.
    #[serde(flatten)]
    pub order: FaultOrder,
    /// How often it still hits.
    pub left: Option<u64>,
    /// Until when it hits.
    pub until: Option<Timestamp>,
    /// How often it has hit.
    pub hits: u64,
}

/// What the faults have in store for one call.
#[derive(Debug, Default)]
pub(crate) struct CallFaults {
    pub(crate) delay: Duration,
    pub(crate) refusal: Option<Refusal>,
    pub(crate) lose_answer: bool,
}

fn fits(wanted: &Option<String>, value: &str) -> bool {
    wanted.as_deref().is_none_or(|wanted| wanted == value)
}

impl FaultRecord {
    pub(crate) fn new(order: FaultOrder, now: Timestamp) -> Self {
        let seconds = order
            .seconds
            .and_then(|seconds| i64::try_from(seconds).ok());
        let until =
            seconds.and_then(|seconds| now.checked_add(SignedDuration::from_secs(seconds)).ok());
        Self {
            left: order.times,
            until,
            hits: 0,
            order,
        }
    }

    /// Whether it hits nothing any more.
    pub(crate) fn is_spent(&self, now: Timestamp) -> bool {
        self.left == Some(0) || self.until.is_some_and(|until| until <= now)
    }
}

impl State {
    /// The first fault that fits; that is one hit of it.
    pub(crate) fn hit(
        &mut self,
        now: Timestamp,
        is_meant: impl Fn(&FaultOrder) -> bool,
    ) -> Option<Fault> {
        let meant = |(_, record): &(&String, &FaultRecord)| {
            !record.is_spent(now) && is_meant(&record.order)
        };
        let (id, record) = FaultRecord::table(&self.resources).iter().find(meant)?;
        let (id, mut record) = (id.clone(), record.clone());
        record.hits += 1;
        record.left = record.left.map(|left| left - 1);
        let fault = record.order.fault.clone();
        self.put(&id, record);
        Some(fault)
    }

    /// Ends all faults; says how many there were.
    pub(crate) fn clear_faults(&mut self) -> usize {
        let ids: Vec<String> = self.resources.faults.keys().cloned().collect();
        let cleared = ids.iter().filter_map(|id| self.take_row::<FaultRecord>(id));
        cleared.count()
    }

    /// What hits a call of this action.
    pub(crate) fn hit_call(&mut self, action: &str, now: Timestamp) -> CallFaults {
        let mut hit = |is_meant: fn(&Fault) -> bool| {
            self.hit(now, |order| {
                is_meant(&order.fault) && fits(&order.action, action)
            })
        };
        let delay = match hit(|fault| matches!(fault, Fault::Latency { .. })) {
            Some(Fault::Latency { delay_ms }) => {
                Duration::from_millis(delay_ms.min(LONGEST_DELAY_MS))
            }
            _ => Duration::ZERO,
        };
        let refused =
            hit(|fault| matches!(fault, Fault::Down | Fault::Throttle | Fault::Refuse { .. }));
        let refusal = refused.map(|fault| match fault {
            Fault::Throttle => Refusal::new(400, "Throttling", "This fault was asked for."),
            Fault::Refuse { code, http_status } => {
                Refusal::new(http_status, code, "This fault was asked for.")
            }
            _ => Refusal::new(503, "ServiceUnavailable", "This fault was asked for."),
        });
        let lose_answer = refusal.is_none() && hit(|fault| *fault == Fault::LoseAnswer).is_some();
        CallFaults {
            delay,
            refusal,
            lose_answer,
        }
    }

    /// Whether a fault takes the stock of this away.
    pub(crate) fn is_sold_out(&mut self, zone: &str, specs: &[String], now: Timestamp) -> bool {
        let hit = self.hit(now, |order| match &order.fault {
            Fault::NoStock { zone: of, spec } => {
                fits(of, zone) && spec.as_ref().is_none_or(|spec| specs.contains(spec))
            }
            _ => false,
        });
        hit.is_some()
    }

    /// Whether a fault takes the addresses of this away.
    pub(crate) fn is_used_up(&mut self, zone: &str, v_switch: &str, now: Timestamp) -> bool {
        let hit = self.hit(now, |order| match &order.fault {
            Fault::NoAddresses {
                zone: of,
                v_switch: wanted,
            } => fits(of, zone) && fits(wanted, v_switch),
            _ => false,
        });
        hit.is_some()
    }

    /// Whether a fault lets a new group of this zone fail.
    pub(crate) fn is_doomed(&mut self, zone: &str, now: Timestamp) -> bool {
        let hit = self.hit(now, |order| match &order.fault {
            Fault::InstanceFailure {
                group: None,
                zone: of,
            } => fits(of, zone),
            _ => false,
        });
        hit.is_some()
    }

    /// Whether a fault lets this security group not fit.
    pub(crate) fn is_misfit(&mut self, security_group: &str, now: Timestamp) -> bool {
        let hit = self.hit(now, |order| match &order.fault {
            Fault::SecurityGroup { id } => fits(id, security_group),
            _ => false,
        });
        hit.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::LocalCloudConfig;
    use crate::state::pools::Pools;
    use crate::state::record::tests::at;
    use proptest::prelude::*;

    fn state() -> State {
        let credentials = cloud_api::Credentials::new("a", "b");
        let config = LocalCloudConfig::new(std::path::PathBuf::new(), credentials);
        let pools = Pools::new(&config).unwrap();
        State::new(
            pools,
            Default::default(),
            Default::default(),
            Default::default(),
            1,
        )
    }

    fn order(fault: Fault) -> FaultOrder {
        FaultOrder {
            fault,
            action: None,
            times: None,
            seconds: None,
        }
    }

    #[test]
    fn a_fault_hits_as_often_and_as_long_as_it_was_told() {
        let mut state = state();
        let twice = FaultOrder {
            times: Some(2),
            action: Some("A".to_owned()),
            ..order(Fault::Throttle)
        };
        state.put("f1", FaultRecord::new(twice, at(0)));
        let short = FaultOrder {
            seconds: Some(10),
            ..order(Fault::Down)
        };
        state.put("f2", FaultRecord::new(short, at(0)));
        let code = |state: &mut State, action, second| {
            let refusal = state.hit_call(action, at(second)).refusal;
            refusal.map(|refusal| refusal.code)
        };
        assert_eq!(code(&mut state, "A", 1).as_deref(), Some("Throttling"));
        assert_eq!(
            code(&mut state, "B", 1).as_deref(),
            Some("ServiceUnavailable")
        );
        assert_eq!(code(&mut state, "A", 11).as_deref(), Some("Throttling"));
        assert_eq!(code(&mut state, "A", 11), None);
        assert_eq!(state.resources.faults["f1"].hits, 2);
    }

    #[test]
    fn stock_goes_by_zone_and_by_spec() {
        let mut state = state();
        let fault = Fault::NoStock {
            zone: Some("h".to_owned()),
            spec: Some("2-4Gi".to_owned()),
        };
        state.put("f", FaultRecord::new(order(fault), at(0)));
        let specs = ["2-4Gi".to_owned()];
        assert!(state.is_sold_out("h", &specs, at(1)));
        assert!(!state.is_sold_out("i", &specs, at(1)));
        assert!(!state.is_sold_out("h", &["4-8Gi".to_owned()], at(1)));
    }

    #[test]
    fn an_order_is_read_as_it_is_written() {
        let text = r#"{"kind":"no-stock","zone":"h","times":3}"#;
        let read: FaultOrder = serde_json::from_str(text).unwrap();
        assert_eq!(read.times, Some(3));
        assert_eq!(
            read.fault,
            Fault::NoStock {
                zone: Some("h".to_owned()),
                spec: None
            }
        );
        let text = r#"{"kind":"refuse","code":"X","httpStatus":400}"#;
        let read: FaultOrder = serde_json::from_str(text).unwrap();
        let again = serde_json::to_string(&FaultRecord::new(read.clone(), at(0))).unwrap();
        let record: FaultRecord = serde_json::from_str(&again).unwrap();
        assert_eq!(record.order, read);
        assert!(serde_json::from_str::<FaultOrder>(r#"{"kind":"coffee"}"#).is_err());
    }

    proptest! {
        #[test]
        fn no_fault_hits_more_often_than_it_may(times in 0u64..20, calls in 0u64..40) {
            let mut state = state();
            let bounded = FaultOrder { times: Some(times), ..order(Fault::LoseAnswer) };
            state.put("f", FaultRecord::new(bounded, at(0)));
            let hits = (0..calls).filter(|_| state.hit_call("A", at(1)).lose_answer).count();
            prop_assert_eq!(hits as u64, times.min(calls));
        }
    }
}
