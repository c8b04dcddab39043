//! Metrics that others push by Prometheus' remote-write protocol: read, kept for a short while, told to who waits for them.
//!
//! Only the newest sample of a series is kept, in memory, and only while it is fresh. What is too old, or no number, is an
//! error with a reason and never a value. Neither histograms nor exemplars are taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use tokio::sync::broadcast;

mod board;
mod intake;
mod message;
mod relay;
mod snappy;
mod writing;

use board::Board;
pub(crate) use board::{Found, NAMESPACE_LABEL, Questioned};
pub(crate) use intake::{PUSHED, PUSHED_RESOURCE, PUSHED_VERSION, accept, place_of};
pub use relay::RelayOptions;
pub(crate) use relay::{Fleet, Relay, Sender};
pub use writing::write_request;

/// Tells the names of metrics of which a pushed value has changed.
pub type Pushes = broadcast::Sender<Arc<BTreeSet<String>>>;

/// Messages that a slow listener may be behind; it takes a gap for a change of everything.
const PUSHES_KEPT: usize = 64;

/// What was pushed, and who is told of it. It outlives the server that takes it.
#[derive(Clone)]
pub struct PushedMetrics(Arc<Shared>);

struct Shared {
    board: Board,
    pushes: Pushes,
}

impl Default for PushedMetrics {
    fn default() -> Self {
        Self(Arc::new(Shared {
            board: Board::default(),
            pushes: Pushes::new(PUSHES_KEPT),
        }))
    }
}

impl std::fmt::Debug for PushedMetrics {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What was pushed may be long, and is nobody's business in a log.
        out.debug_struct("PushedMetrics").finish_non_exhaustive()
    }
}

impl PushedMetrics {
    /// For who waits for changes.
    pub fn pushes(&self) -> Pushes {
        self.0.pushes.clone()
    }

    pub(crate) fn board(&self) -> &Board {
        &self.0.board
    }

    pub(crate) fn tell(&self, changed: BTreeSet<String>) {
        // There may be nobody who waits.
        let _ = self.0.pushes.send(Arc::new(changed));
    }
}
