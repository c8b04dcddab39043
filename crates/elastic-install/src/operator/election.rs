//! One replica leads: whoever holds the Lease.
//!
//! The Lease is compatible with upstream's leader election. Its age is measured by our own clock from the moment a change
//! was seen, never by the times written in it, so clocks of different machines need not agree; because changes are
//! watched, the next replica takes over one lease duration after the leader's last sign of life, not later.

use std::pin::pin;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{Api, PostParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Client, ResourceExt};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::names::{CONTROLLER, NAMESPACE, UNINSTALLING};

/// Upstream's clock.
#[derive(Clone, Copy, Debug)]
pub struct ElectionTiming {
    /// How long a leader that shows no sign of life still leads.
    pub lease: Duration,
    /// A leader that could not renew for this long stops by itself, before the lease ends.
    pub renew: Duration,
    /// Between two tries.
    pub retry: Duration,
}

impl Default for ElectionTiming {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(15),
            renew: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// A replica that wants to lead.
pub struct Candidate {
    leases: Api<Lease>,
    identity: String,
    timing: ElectionTiming,
    leading: watch::Sender<bool>,
}

/// What is known of the Lease: the newest form seen, and when it was first seen so.
#[derive(Clone, Debug)]
struct Seen {
    lease: Option<Lease>,
    since: Instant,
}

/// How the wait for the Lease ended.
enum Won {
    Lease(Box<Lease>),
    Shutdown,
    Uninstalled,
}

/// How leading ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    /// Told to stop; the Lease is still ours.
    Shutdown,
    /// The add-on is being removed; the Lease is still ours.
    Uninstalled,
    /// Somebody else may lead already.
    Lost,
}

/// What a replica that does not lead may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Create,
    Take,
    WaitUntil(Instant),
    /// The add-on is being removed.
    StandAside,
}

/// Decides from what was seen. Pure.
fn step(seen: &Seen, identity: &str, lease: Duration, now: Instant) -> Step {
    let Some(current) = &seen.lease else {
        return Step::Create;
    };
    if current.annotations().contains_key(UNINSTALLING) {
        return Step::StandAside;
    }
    let spec = current.spec.as_ref();
    let holder = spec
        .and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default();
    if holder.is_empty() || holder == identity {
        return Step::Take;
    }
    let written = spec
        .and_then(|spec| spec.lease_duration_seconds)
        .and_then(|seconds| u64::try_from(seconds).ok())
        .map_or(lease, Duration::from_secs);
    let ends = seen.since + written;
    if now >= ends {
        Step::Take
    } else {
        Step::WaitUntil(ends)
    }
}

impl Candidate {
    /// `identity` must differ from replica to replica.
    pub fn new(client: Client, identity: String, timing: ElectionTiming) -> Self {
        Self {
            leases: Api::namespaced(client, NAMESPACE),
            identity,
            timing,
            leading: watch::Sender::new(false),
        }
    }

    /// Tells whether this replica leads.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.leading.subscribe()
    }

    /// Waits to lead, does `work` while leading, and so on until `shutdown` or until the add-on is being removed. `work`
    /// gets a signal when it must stop; only after it has stopped is the Lease given up.
    pub async fn run<W>(&self, shutdown: CancellationToken, work: impl Fn(CancellationToken) -> W)
    where
        W: Future<Output = ()>,
    {
        while !shutdown.is_cancelled() {
            let lease = match self.win(&shutdown).await {
                Won::Lease(lease) => *lease,
                Won::Shutdown => return,
                Won::Uninstalled => {
                    tracing::info!("the add-on is being removed, this replica ends");
                    return;
                }
            };
            tracing::info!(identity = self.identity, "leading");
            self.leading.send_replace(true);
            let stop = CancellationToken::new();
            let mut work = pin!(work(stop.clone()));
            let ended = tokio::select! {
                ended = self.hold(lease, &shutdown) => ended,
                // Work that ends by itself makes way for another replica.
                () = &mut work => {
                    self.leading.send_replace(false);
                    self.release().await;
                    continue;
                }
            };
            stop.cancel();
            if ended == Ended::Lost {
                self.leading.send_replace(false);
                work.await;
            } else {
                // Still ours: nobody takes it while the work ends, as long as that takes less than the lease.
                work.await;
                self.leading.send_replace(false);
                self.release().await;
            }
            tracing::info!(identity = self.identity, ?ended, "no longer leading");
            if ended == Ended::Uninstalled {
                return;
            }
        }
    }

    /// Waits until the Lease is ours.
    async fn win(&self, shutdown: &CancellationToken) -> Won {
        let mut changes =
            pin!(watcher::watch_object(self.leases.clone(), CONTROLLER).default_backoff());
        let mut seen: Option<Seen> = None;
        loop {
            let now = Instant::now();
            let next = match &seen {
                None => now + self.timing.retry,
                Some(known) => match step(known, &self.identity, self.timing.lease, now) {
                    Step::WaitUntil(ends) => ends,
                    Step::StandAside => return Won::Uninstalled,
                    wanted => match self.take(known.lease.as_ref()).await {
                        Ok(lease) => return Won::Lease(Box::new(lease)),
                        Err(error) => {
                            // Somebody was faster, or the API is away; the watch brings what is true.
                            tracing::debug!(%error, ?wanted, "lease not taken");
                            now + self.timing.retry
                        }
                    },
                },
            };
            tokio::select! {
                () = shutdown.cancelled() => return Won::Shutdown,
                () = tokio::time::sleep_until(next) => {}
                change = changes.next() => match change {
                    Some(Ok(lease)) => note(&mut seen, lease),
                    Some(Err(error)) => tracing::debug!(%error, "watch of the lease failed, trying again"),
                    None => tokio::time::sleep(self.timing.retry).await,
                },
            }
        }
    }

    /// Renews until it must end.
    async fn hold(&self, mut lease: Lease, shutdown: &CancellationToken) -> Ended {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return Ended::Shutdown,
                () = tokio::time::sleep(self.timing.retry) => {}
            }
            let limit = self.timing.renew.saturating_sub(renewed.elapsed());
            match tokio::time::timeout(limit, self.renew(&lease)).await {
                Ok(Ok(next)) => {
                    if next.annotations().contains_key(UNINSTALLING) {
                        return Ended::Uninstalled;
                    }
                    lease = next;
                    renewed = Instant::now();
                }
                Ok(Err(RenewError::Taken(holder))) => {
                    tracing::warn!(holder, "another replica holds the lease");
                    return Ended::Lost;
                }
                Ok(Err(RenewError::Api(error))) => {
                    tracing::warn!(%error, "lease could not be renewed, trying again");
                }
                Err(_) => {}
            }
            if renewed.elapsed() >= self.timing.renew {
                tracing::warn!("lease could not be renewed in time, no longer leading");
                return Ended::Lost;
            }
        }
    }

    async fn renew(&self, lease: &Lease) -> Result<Lease, RenewError> {
        match self.replace(lease).await {
            // Somebody wrote something else into it, or took it.
            Err(kube::Error::Api(status)) if status.code == 409 || status.code == 404 => {
                let current = self.leases.get_opt(CONTROLLER).await?;
                let holder = current.as_ref().and_then(holder).unwrap_or_default();
                match current {
                    Some(current) if holder == self.identity => Ok(self.replace(&current).await?),
                    _ => Err(RenewError::Taken(holder.to_owned())),
                }
            }
            outcome => Ok(outcome?),
        }
    }

    async fn replace(&self, lease: &Lease) -> Result<Lease, kube::Error> {
        let mut next = lease.clone();
        let mut spec = next.spec.take().unwrap_or_default();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        next.spec = Some(spec);
        self.leases
            .replace(CONTROLLER, &PostParams::default(), &next)
            .await
    }

    async fn take(&self, current: Option<&Lease>) -> Result<Lease, kube::Error> {
        let now = Some(MicroTime(Timestamp::now()));
        let seconds = i32::try_from(self.timing.lease.as_secs().max(1)).unwrap_or(i32::MAX);
        let before = current.and_then(|lease| lease.spec.as_ref());
        let transitions = before.map_or(0, |spec| {
            let same = spec.holder_identity.as_deref() == Some(&self.identity);
            spec.lease_transitions.unwrap_or(0) + i32::from(!same)
        });
        let spec = LeaseSpec {
            holder_identity: Some(self.identity.clone()),
            acquire_time: now.clone(),
            renew_time: now,
            lease_duration_seconds: Some(seconds),
            lease_transitions: Some(transitions),
            ..LeaseSpec::default()
        };
        let mut lease = current.cloned().unwrap_or_default();
        lease.metadata.name = Some(CONTROLLER.to_owned());
        lease.spec = Some(spec);
        let parameters = PostParams::default();
        match current {
            None => self.leases.create(&parameters, &lease).await,
            Some(_) => self.leases.replace(CONTROLLER, &parameters, &lease).await,
        }
    }

    /// Lets the next replica in at once.
    async fn release(&self) {
        let released = async {
            let Some(mut lease) = self.leases.get_opt(CONTROLLER).await? else {
                return Ok(());
            };
            if holder(&lease) != Some(&self.identity) {
                return Ok(());
            }
            if let Some(spec) = &mut lease.spec {
                spec.holder_identity = Some(String::new());
                spec.lease_duration_seconds = Some(1);
            }
            let parameters = PostParams::default();
            let written = self.leases.replace(CONTROLLER, &parameters, &lease).await;
            written.map(drop)
        };
        match tokio::time::timeout(self.timing.retry, released).await {
            Ok(Ok(())) => tracing::info!(identity = self.identity, "lease released"),
            Ok(Err(error)) => {
                tracing::warn!(%error, "lease could not be released; it runs out by itself")
            }
            Err(_) => tracing::warn!("lease could not be released in time; it runs out by itself"),
        }
    }
}

enum RenewError {
    Taken(String),
    Api(kube::Error),
}

impl From<kube::Error> for RenewError {
    fn from(error: kube::Error) -> Self {
        Self::Api(error)
    }
}

/// Who holds it.
pub fn holder(lease: &Lease) -> Option<&str> {
    let holder = lease.spec.as_ref()?.holder_identity.as_deref();
    holder.filter(|holder| !holder.is_empty())
}

/// A form not seen before starts its time anew.
fn note(seen: &mut Option<Seen>, lease: Option<Lease>) {
    let version = |lease: &Option<Lease>| lease.as_ref().and_then(ResourceExt::resource_version);
    if seen
        .as_ref()
        .is_none_or(|known| version(&known.lease) != version(&lease))
    {
        *seen = Some(Seen {
            lease,
            since: Instant::now(),
        });
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LEASE: Duration = Duration::from_secs(15);

    fn seen(lease: serde_json::Value, since: Instant) -> Seen {
        Seen {
            lease: serde_json::from_value(lease).unwrap(),
            since,
        }
    }

    #[test]
    fn a_lease_is_taken_when_it_is_free_and_exactly_when_it_has_run_out() {
        let now = Instant::now();
        let nobody = Seen {
            lease: None,
            since: now,
        };
        assert_eq!(step(&nobody, "a", LEASE, now), Step::Create);
        let free = json!({"spec": {"holderIdentity": "", "leaseDurationSeconds": 1}});
        assert_eq!(step(&seen(free, now), "a", LEASE, now), Step::Take);
        let held = seen(
            json!({"spec": {"holderIdentity": "b", "leaseDurationSeconds": 15}}),
            now,
        );
        assert_eq!(
            step(&held, "a", LEASE, now + Duration::from_secs(14)),
            Step::WaitUntil(now + LEASE)
        );
        assert_eq!(step(&held, "a", LEASE, now + LEASE), Step::Take);
        assert_eq!(step(&held, "b", LEASE, now), Step::Take);
    }

    #[test]
    fn nobody_leads_while_the_add_on_is_being_removed() {
        let now = Instant::now();
        let marked = json!({"metadata": {"annotations": {UNINSTALLING: "true"}}, "spec": {}});
        assert_eq!(step(&seen(marked, now), "a", LEASE, now), Step::StandAside);
    }
}
