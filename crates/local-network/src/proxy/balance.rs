//! Which backend gets the next connection: the one with the fewest open ones among those that are ready, in turns when
//! they are equal, or the one a client had before when the service asks for that.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddrV4},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use crate::{Backend, BackendState};

/// Clients whose backend is remembered. When full, expired ones go, then all: they are balanced anew.
const REMEMBERED_CLIENTS: usize = 16 * 1024;

/// The backends of one port, shared by everything that balances over them.
#[derive(Default)]
pub struct Backends {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    backends: Vec<(BackendState, Arc<Tracked>)>,
    turn: usize,
    affinity: Option<Duration>,
    clients: HashMap<IpAddr, (SocketAddrV4, Instant)>,
}

struct Tracked {
    address: SocketAddrV4,
    open: AtomicUsize,
    gone: CancellationToken,
}

/// One connection's place at a backend; dropping it gives the place back.
pub struct Lease {
    tracked: Arc<Tracked>,
}

impl Lease {
    /// The backend's address.
    pub fn address(&self) -> SocketAddrV4 {
        self.tracked.address
    }

    /// Completes when the backend has left the table.
    pub async fn gone(&self) {
        self.tracked.gone.cancelled().await;
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.tracked.open.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Backends {
    /// Takes over a new set. Backends that stay keep their connections and counts.
    pub fn update(&self, backends: &[Backend], affinity: Option<Duration>) {
        let mut state = self.lock();
        let mut before: HashMap<_, _> = state
            .backends
            .drain(..)
            .map(|(_, tracked)| (tracked.address, tracked))
            .collect();
        let fresh = |address| {
            Arc::new(Tracked {
                address,
                open: AtomicUsize::new(0),
                gone: CancellationToken::new(),
            })
        };
        let after = backends.iter().map(|backend| {
            (
                backend.state,
                before
                    .remove(&backend.address)
                    .unwrap_or_else(|| fresh(backend.address)),
            )
        });
        state.backends = after.collect();
        for removed in before.values() {
            removed.gone.cancel();
        }
        state.affinity = affinity;
        if affinity.is_none() {
            state.clients.clear();
        }
    }

    /// Chooses a backend for a client, leaving out those that failed just now.
    pub fn pick(&self, client: IpAddr, failed: &[SocketAddrV4], now: Instant) -> Option<Lease> {
        let mut state = self.lock();
        let best_state = state.candidates(failed).map(|(state, _)| *state).min()?;
        let pinned = state.pinned(client, now);
        let turn = state.turn;
        let count = state.backends.len();
        let chosen = {
            let usable = || {
                let indexed = state.backends.iter().enumerate();
                indexed.filter(|(_, (s, tracked))| {
                    *s == best_state && !failed.contains(&tracked.address)
                })
            };
            let remembered = usable().find(|(_, (_, tracked))| Some(tracked.address) == pinned);
            let least = || {
                usable().min_by_key(|(index, (_, tracked))| {
                    (
                        tracked.open.load(Ordering::Relaxed),
                        (index + count - turn % count) % count,
                    )
                })
            };
            let (index, (_, tracked)) = remembered.or_else(least)?;
            (index, tracked.clone())
        };
        state.turn = (chosen.0 + 1) % count;
        state.remember(client, chosen.1.address, now);
        chosen.1.open.fetch_add(1, Ordering::Relaxed);
        Some(Lease { tracked: chosen.1 })
    }

    /// True while the backend may still get work: it is in the table and not unready.
    pub fn is_usable(&self, address: SocketAddrV4) -> bool {
        self.lock()
            .backends
            .iter()
            .any(|(s, tracked)| tracked.address == address && *s != BackendState::NotReady)
    }

    /// The open connections of each backend in the table.
    pub fn open_connections(&self) -> Vec<(SocketAddrV4, usize)> {
        let state = self.lock();
        state
            .backends
            .iter()
            .map(|(_, t)| (t.address, t.open.load(Ordering::Relaxed)))
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change to the state is complete before anything can panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn candidates(
        &self,
        failed: &[SocketAddrV4],
    ) -> impl Iterator<Item = &(BackendState, Arc<Tracked>)> {
        self.backends
            .iter()
            .filter(|(s, t)| *s != BackendState::NotReady && !failed.contains(&t.address))
    }

    fn pinned(&self, client: IpAddr, now: Instant) -> Option<SocketAddrV4> {
        let (address, until) = self.clients.get(&client)?;
        (*until > now).then_some(*address)
    }

    fn remember(&mut self, client: IpAddr, address: SocketAddrV4, now: Instant) {
        let Some(affinity) = self.affinity else {
            return;
        };
        if self.clients.len() >= REMEMBERED_CLIENTS {
            self.clients.retain(|_, (_, until)| *until > now);
        }
        if self.clients.len() >= REMEMBERED_CLIENTS {
            self.clients.clear();
        }
        self.clients.insert(client, (address, now + affinity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn address(n: u8) -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(10, 30, 1, n), 80)
    }

    fn client(n: u8) -> IpAddr {
        Ipv4Addr::new(10, 30, 2, n).into()
    }

    fn set(states: &[BackendState]) -> Vec<Backend> {
        (1..)
            .zip(states)
            .map(|(n, state)| Backend {
                address: address(n),
                state: *state,
            })
            .collect()
    }

    #[test]
    fn connections_go_to_the_backend_with_the_fewest() {
        let backends = Backends::default();
        backends.update(&set(&[BackendState::Ready; 3]), None);
        let held: Vec<_> = (0..9)
            .map(|_| backends.pick(client(1), &[], Instant::now()).unwrap())
            .collect();
        assert!(
            backends
                .open_connections()
                .iter()
                .all(|(_, open)| *open == 3)
        );
        drop(held);
        assert!(
            backends
                .open_connections()
                .iter()
                .all(|(_, open)| *open == 0)
        );
    }

    #[test]
    fn equal_backends_take_turns() {
        let backends = Backends::default();
        backends.update(&set(&[BackendState::Ready; 3]), None);
        let picked: Vec<_> = (0..4)
            .map(|_| {
                backends
                    .pick(client(1), &[], Instant::now())
                    .unwrap()
                    .address()
            })
            .collect();
        assert_eq!(picked, [address(1), address(2), address(3), address(1)]);
    }

    #[test]
    fn terminating_backends_serve_only_while_nothing_is_ready_and_unready_ones_never() {
        use BackendState::{NotReady, Ready, Terminating};
        let backends = Backends::default();
        let picks = |backends: &Backends| {
            backends
                .pick(client(1), &[], Instant::now())
                .map(|lease| lease.address())
        };
        backends.update(&set(&[NotReady, Terminating, Ready]), None);
        assert_eq!(picks(&backends), Some(address(3)));
        backends.update(&set(&[NotReady, Terminating]), None);
        assert_eq!(picks(&backends), Some(address(2)));
        backends.update(&set(&[NotReady]), None);
        assert_eq!(picks(&backends), None);
    }

    #[test]
    fn a_client_keeps_its_backend_until_the_affinity_ends_or_the_backend_does() {
        let backends = Backends::default();
        let affinity = Duration::from_secs(10);
        backends.update(&set(&[BackendState::Ready; 3]), Some(affinity));
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let first = backends.pick(client(1), &[], start).unwrap().address();
        backends.pick(client(2), &[], start).unwrap();
        for second in [1, 9, 18] {
            assert_eq!(
                backends.pick(client(1), &[], at(second)).unwrap().address(),
                first
            );
        }
        assert_ne!(
            backends.pick(client(1), &[], at(40)).unwrap().address(),
            first
        );
        let pinned = backends.pick(client(1), &[], at(41)).unwrap().address();
        assert_ne!(
            backends
                .pick(client(1), &[pinned], at(41))
                .unwrap()
                .address(),
            pinned
        );
    }

    #[tokio::test]
    async fn a_lease_learns_that_its_backend_left() {
        let backends = Backends::default();
        backends.update(&set(&[BackendState::Ready; 2]), None);
        let lease = backends.pick(client(1), &[], Instant::now()).unwrap();
        backends.update(&set(&[BackendState::NotReady; 2]), None);
        assert!(!backends.is_usable(lease.address()));
        backends.update(&[], None);
        tokio::time::timeout(Duration::from_secs(5), lease.gone())
            .await
            .unwrap();
    }

    proptest! {
        #[test]
        fn a_pick_is_always_usable_not_excluded_and_among_the_best(
            states in prop::collection::vec(0u8..3, 0..12),
            failed in prop::collection::vec(1u8..12, 0..4),
        ) {
            use BackendState::{NotReady, Ready, Terminating};
            let states: Vec<_> = states.into_iter().map(|s| [Ready, Terminating, NotReady][usize::from(s)]).collect();
            let failed: Vec<_> = failed.into_iter().map(address).collect();
            let all = set(&states);
            let backends = Backends::default();
            backends.update(&all, None);
            let best = all.iter().filter(|b| !failed.contains(&b.address) && b.state != NotReady).map(|b| b.state).min();
            let picked = backends.pick(client(1), &failed, Instant::now()).map(|lease| lease.address());
            let picked_state = picked.map(|p| all.iter().find(|b| b.address == p).unwrap().state);
            prop_assert_eq!(picked_state, best);
            prop_assert!(picked.is_none_or(|p| !failed.contains(&p)));
        }
    }
}
