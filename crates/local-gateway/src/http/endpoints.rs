//! The endpoints of one port and the choice among them: the fewest outstanding requests, only ready ones, those on their
//! way out only when nothing is ready, those that refused a connection just now last.

use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddrV4,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, RwLock,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use jiff::Timestamp;
use local_network::{Backend, BackendState};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connection::{Reuse, Sender};

/// Idle connections kept to one endpoint; further ones are closed after their request.
const IDLE_CONNECTIONS: usize = 128;
/// Shorter than what common servers wait (5 s and more) before they close an idle connection from their side, so that a
/// request hardly ever meets a connection that is being closed.
const IDLE_LIMIT: Duration = Duration::from_secs(4);
/// How long an endpoint that refused a connection is only used when nothing else is left.
const SUSPICION: Duration = Duration::from_millis(500);

/// One endpoint with its connections.
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddrV4,
    outstanding: AtomicUsize,
    served: AtomicU64,
    first_served: OnceLock<Timestamp>,
    idle: Mutex<VecDeque<(Sender, Instant)>>,
    suspect_until: Mutex<Option<Instant>>,
    leaving: CancellationToken,
    gone: CancellationToken,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddrV4) -> Self {
        Self {
            address,
            outstanding: AtomicUsize::new(0),
            served: AtomicU64::new(0),
            first_served: OnceLock::new(),
            idle: Mutex::default(),
            suspect_until: Mutex::default(),
            leaving: CancellationToken::new(),
            gone: CancellationToken::new(),
        }
    }

    /// An open connection that waits for a request, the one used last first.
    pub(crate) fn take_idle(&self, reuse: Reuse) -> Option<Sender> {
        if reuse == Reuse::Never {
            return None;
        }
        let mut idle = lock(&self.idle);
        let now = Instant::now();
        loop {
            let ready = idle
                .iter()
                .rposition(|(sender, since)| sender.is_ready() && now - *since < IDLE_LIMIT)?;
            let (sender, _) = idle.remove(ready)?;
            if reuse == Reuse::Any || sender.is_alive() {
                return Some(sender);
            }
        }
    }

    /// Takes a connection back after a complete answer.
    pub(crate) fn give_back(&self, sender: Sender) {
        if self.leaving.is_cancelled() || sender.is_closed() {
            return;
        }
        let mut idle = lock(&self.idle);
        if idle.len() < IDLE_CONNECTIONS {
            idle.push_back((sender, Instant::now()));
        }
    }

    /// Closes connections that have waited too long or that the endpoint has closed.
    fn close_old(&self, now: Instant) {
        lock(&self.idle).retain(|(sender, since)| !sender.is_closed() && now - *since < IDLE_LIMIT);
    }

    pub(crate) fn suspect(&self) {
        *lock(&self.suspect_until) = Some(Instant::now() + SUSPICION);
    }

    fn is_suspect(&self, now: Instant) -> bool {
        lock(&self.suspect_until).is_some_and(|until| until > now)
    }

    /// Counts an answer; for the first one it says when that was.
    pub(crate) fn count_served(&self, now: impl FnOnce() -> Timestamp) -> Option<Timestamp> {
        let first = self.served.fetch_add(1, Ordering::Relaxed) == 0;
        first.then(|| *self.first_served.get_or_init(now))
    }

    /// Completes when the endpoint has left the table altogether.
    pub(crate) async fn gone(&self) {
        self.gone.cancelled().await;
    }

    /// No new requests: idle connections close, requests under way go on.
    fn leave(&self) {
        self.leaving.cancel();
        lock(&self.idle).clear();
    }
}

/// What is known about one endpoint's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointReport {
    /// Where it is.
    pub address: SocketAddrV4,
    /// Requests it is working on.
    pub outstanding: usize,
    /// Requests it has answered through this balancer.
    pub served: u64,
    /// When it answered the first one.
    pub first_served: Option<Timestamp>,
}

/// A request's place at an endpoint; dropping it gives the place back.
pub(crate) struct Place(pub(crate) Arc<Endpoint>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.outstanding.fetch_sub(1, Ordering::Relaxed);
    }
}

type Entry = (BackendState, Arc<Endpoint>);

/// The endpoints of one port.
pub(crate) struct Endpoints {
    current: RwLock<Arc<[Entry]>>,
    turn: AtomicUsize,
    changes: watch::Sender<()>,
}

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            current: RwLock::new(Arc::from([])),
            turn: AtomicUsize::new(0),
            changes: watch::Sender::new(()),
        }
    }
}

impl Endpoints {
    /// Takes over a new set. Endpoints that stay keep their connections and counts.
    pub(crate) fn update(&self, backends: &[Backend]) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let mut before: HashMap<_, _> = current
            .iter()
            .map(|(_, e)| (e.address, e.clone()))
            .collect();
        let mut after = Vec::with_capacity(backends.len());
        for backend in backends {
            let known = before.remove(&backend.address);
            // One that left and came back starts anew; what it still works on counts for the old one.
            let known = known
                .filter(|e| !(e.leaving.is_cancelled() && backend.state == BackendState::Ready));
            let endpoint = known.unwrap_or_else(|| Arc::new(Endpoint::new(backend.address)));
            if backend.state != BackendState::Ready {
                endpoint.leave();
            }
            after.push((backend.state, endpoint));
        }
        for removed in before.values() {
            removed.leave();
            removed.gone.cancel();
        }
        *current = after.into();
        drop(current);
        self.changes.send_replace(());
    }

    /// The best endpoint at this moment, leaving out those that failed this request already.
    pub(crate) fn choose(&self, failed: &[SocketAddrV4]) -> Option<Place> {
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let count = current.len();
        let now = Instant::now();
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let usable = current.iter().enumerate().filter(|(_, (state, e))| {
            *state != BackendState::NotReady && !failed.contains(&e.address)
        });
        let (_, (_, endpoint)) = usable.min_by_key(|(index, (state, e))| {
            let distance = (index + count - turn % count) % count;
            (
                *state,
                e.is_suspect(now),
                e.outstanding.load(Ordering::Relaxed),
                distance,
            )
        })?;
        endpoint.outstanding.fetch_add(1, Ordering::Relaxed);
        Some(Place(endpoint.clone()))
    }

    /// Tells of every later change of the set.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    pub(crate) fn close_old_connections(&self) {
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let now = Instant::now();
        current
            .iter()
            .for_each(|(_, endpoint)| endpoint.close_old(now));
    }

    pub(crate) fn report(&self) -> Vec<EndpointReport> {
        let current = self
            .current
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let report = current.iter().map(|(_, endpoint)| EndpointReport {
            address: endpoint.address,
            outstanding: endpoint.outstanding.load(Ordering::Relaxed),
            served: endpoint.served.load(Ordering::Relaxed),
            first_served: endpoint.first_served.get().copied(),
        });
        report.collect()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change under these locks is one step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn backend(n: u8, state: BackendState) -> Backend {
        Backend {
            address: SocketAddrV4::new(Ipv4Addr::new(10, 30, 1, n), 80),
            state,
        }
    }

    fn chosen(place: &Option<Place>) -> Option<u8> {
        place.as_ref().map(|place| place.0.address.ip().octets()[3])
    }

    #[test]
    fn the_endpoint_with_the_fewest_outstanding_requests_is_chosen() {
        let endpoints = Endpoints::default();
        endpoints.update(&[
            backend(1, BackendState::Ready),
            backend(2, BackendState::Ready),
        ]);
        let held: Vec<_> = (0..6).map(|_| endpoints.choose(&[])).collect();
        assert!(
            endpoints
                .report()
                .iter()
                .all(|report| report.outstanding == 3)
        );
        // A new one gets the load at once.
        endpoints.update(&[1, 2, 3].map(|n| backend(n, BackendState::Ready)));
        let next: Vec<_> = (0..3).map(|_| endpoints.choose(&[])).collect();
        assert!(next.iter().all(|place| chosen(place) == Some(3)));
        drop((held, next));
        assert!(
            endpoints
                .report()
                .iter()
                .all(|report| report.outstanding == 0)
        );
    }

    #[test]
    fn unready_endpoints_get_nothing_and_leaving_ones_only_when_nothing_is_ready() {
        use BackendState::{NotReady, Ready, Terminating};
        let endpoints = Endpoints::default();
        endpoints.update(&[
            backend(1, NotReady),
            backend(2, Terminating),
            backend(3, Ready),
        ]);
        let held: Vec<_> = (0..4).map(|_| endpoints.choose(&[])).collect();
        assert!(held.iter().all(|place| chosen(place) == Some(3)));
        endpoints.update(&[backend(1, NotReady), backend(2, Terminating)]);
        assert_eq!(chosen(&endpoints.choose(&[])), Some(2));
        endpoints.update(&[backend(1, NotReady)]);
        assert_eq!(chosen(&endpoints.choose(&[])), None);
    }

    #[test]
    fn an_endpoint_that_refused_is_the_last_choice_for_a_while() {
        let endpoints = Endpoints::default();
        endpoints.update(&[
            backend(1, BackendState::Ready),
            backend(2, BackendState::Ready),
        ]);
        let first = endpoints.choose(&[]).unwrap();
        let (suspect, other) = (
            first.0.address.ip().octets()[3],
            3 - first.0.address.ip().octets()[3],
        );
        first.0.suspect();
        drop(first);
        let held: Vec<_> = (0..3).map(|_| endpoints.choose(&[])).collect();
        assert!(held.iter().all(|place| chosen(place) == Some(other)));
        let failed = [backend(other, BackendState::Ready).address];
        assert_eq!(chosen(&endpoints.choose(&failed)), Some(suspect));
    }

    #[tokio::test]
    async fn changes_are_told_and_removed_endpoints_know_it() {
        let endpoints = Endpoints::default();
        endpoints.update(&[backend(1, BackendState::Ready)]);
        let mut changes = endpoints.changes();
        let place = endpoints.choose(&[]).unwrap();
        endpoints.update(&[]);
        changes.changed().await.unwrap();
        tokio::time::timeout(Duration::from_secs(5), place.0.gone())
            .await
            .unwrap();
        assert_eq!(place.0.outstanding.load(Ordering::Relaxed), 1);
    }
}
