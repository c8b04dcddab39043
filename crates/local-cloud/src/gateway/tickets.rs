//! Tickets for exec sessions: handed out by ExecContainerCommand, good once and for thirty seconds.

use jiff::Timestamp;
use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

/// How long a ticket is good.
const GOOD_SECONDS: i64 = 30;
/// Most tickets outstanding.
const MAX_TICKETS: usize = 1_000;

/// What a session is to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) group_id: String,
    pub(crate) container: String,
    pub(crate) command: Vec<String>,
    pub(crate) tty: bool,
    pub(crate) stdin: bool,
    pub(crate) issued_at: Timestamp,
}

#[derive(Default)]
pub(crate) struct Tickets {
    outstanding: Mutex<HashMap<String, Ticket>>,
}

impl Tickets {
    /// Hands a ticket out; `None` when too many are outstanding.
    pub(crate) fn issue(&self, ticket: Ticket) -> Option<String> {
        let now = ticket.issued_at.as_second();
        let mut outstanding = self
            .outstanding
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        outstanding.retain(|_, ticket| now - ticket.issued_at.as_second() <= GOOD_SECONDS);
        if outstanding.len() >= MAX_TICKETS {
            return None;
        }
        let key = uuid::Uuid::new_v4().simple().to_string();
        outstanding.insert(key.clone(), ticket);
        Some(key)
    }

    /// Takes a ticket, which ends it.
    pub(crate) fn redeem(&self, key: &str, now: Timestamp) -> Option<Ticket> {
        let ticket = self
            .outstanding
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(key)?;
        (now.as_second() - ticket.issued_at.as_second() <= GOOD_SECONDS).then_some(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticket(second: i64) -> Ticket {
        Ticket {
            group_id: "eci-a".to_owned(),
            container: "main".to_owned(),
            command: vec!["sh".to_owned()],
            tty: false,
            stdin: true,
            issued_at: Timestamp::from_second(second).unwrap(),
        }
    }

    #[test]
    fn a_ticket_is_good_once_and_for_thirty_seconds() {
        let tickets = Tickets::default();
        let at = |second| Timestamp::from_second(second).unwrap();
        let key = tickets.issue(ticket(0)).unwrap();
        assert_eq!(tickets.redeem(&key, at(30)), Some(ticket(0)));
        assert_eq!(tickets.redeem(&key, at(30)), None);
        let key = tickets.issue(ticket(0)).unwrap();
        assert_eq!(tickets.redeem(&key, at(31)), None);
    }

    #[test]
    fn tickets_are_bounded_until_they_expire() {
        let tickets = Tickets::default();
        for _ in 0..MAX_TICKETS {
            assert!(tickets.issue(ticket(0)).is_some());
        }
        assert!(tickets.issue(ticket(1)).is_none());
        assert!(tickets.issue(ticket(60)).is_some());
    }
}
