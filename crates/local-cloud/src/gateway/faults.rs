//! Faults on demand: the next calls of an action are refused, or answered and the answer lost.

use super::refusal::Refusal;
use std::sync::{Mutex, PoisonError};

/// What goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
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
}

/// Most faults that wait at the same time.
const MAX_FAULTS: usize = 1_000;

#[derive(Debug, Default)]
pub(crate) struct Faults {
    /// Action, fault, calls that it still hits.
    waiting: Mutex<Vec<(String, Fault, u32)>>,
}

impl Faults {
    /// Arranges for a fault; beyond the bound the oldest is forgotten.
    pub(crate) fn arrange(&self, action: &str, fault: Fault, calls: u32) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() == MAX_FAULTS {
            waiting.remove(0);
        }
        waiting.push((action.to_owned(), fault, calls));
    }

    /// The fault that hits this call.
    pub(super) fn next(&self, action: &str) -> Option<Fault> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let position = waiting
            .iter()
            .position(|(name, _, calls)| name == action && *calls > 0)?;
        let (_, fault, calls) = &mut waiting[position];
        let fault = fault.clone();
        *calls -= 1;
        if *calls == 0 {
            waiting.remove(position);
        }
        Some(fault)
    }
}

impl Fault {
    /// The refusal, when it is one.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refuse { code, http_status } => Some(Refusal::new(
                *http_status,
                code.clone(),
                "This fault was asked for.",
            )),
            Self::LoseAnswer => None,
        }
    }
}
