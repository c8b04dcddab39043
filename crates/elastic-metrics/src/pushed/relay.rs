//! Passes what was pushed on to the other replicas: a sender reaches one of them, and each of them answers questions.
//!
//! A replica is a sender like others: it shows its service account's token, and the cluster's rules let it push. What was
//! passed on is not passed on again. One that cannot be reached does without; what it knows becomes too old, and it says so.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use futures::future::join_all;
use http::{HeaderMap, Request, header};
use http_body_util::Full;
use kube::Client;
use tokio::net::TcpStream;

use crate::elastic_metric::service_endpoints;
use crate::outgoing::{Dialer, Fetcher, TrustError};

/// Names the replica that passes a message on.
const RELAYED_BY: &str = "x-springtide-relayed-by";
/// The Service's port.
const PORT: u16 = 443;
/// How long the list of replicas holds.
const PEERS_HOLD: Duration = Duration::from_secs(5);
/// More replicas than this are not told.
const MAX_PEERS: usize = 8;
/// A replica that takes longer does without.
const TIMEOUT: Duration = Duration::from_secs(2);
const MAX_ANSWER_BYTES: usize = 64 * 1024;

/// How a replica reaches the others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelayOptions {
    /// Differs from replica to replica.
    pub identity: String,
    /// The token of the replicas' service account, read anew each time.
    pub token_file: PathBuf,
}

/// What all replicas have in common.
pub(crate) struct Fleet {
    pub(crate) client: Client,
    pub(crate) namespace: String,
    pub(crate) service: String,
    /// Vouches for the replicas' certificate.
    pub(crate) authority_pem: String,
    pub(crate) dialer: Arc<dyn Dialer>,
}

type Peers = Vec<(SocketAddr, Fetcher)>;

/// See the module.
pub(crate) struct Relay {
    options: RelayOptions,
    fleet: Fleet,
    peers: Mutex<Option<(Instant, Peers)>>,
    is_failing: AtomicBool,
}

/// Who sent a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sender {
    /// Somebody outside.
    Outside,
    /// Another replica.
    Replica,
    /// This one, by way of the Service's addresses.
    Itself,
}

/// Leads to one replica, whatever the name is.
struct ToPeer {
    address: SocketAddr,
    dialer: Arc<dyn Dialer>,
}

#[async_trait]
impl Dialer for ToPeer {
    async fn resolve(&self, _: &str, _: u16) -> std::io::Result<Vec<SocketAddr>> {
        Ok(vec![self.address])
    }

    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        self.dialer.connect(address).await
    }
}

impl Relay {
    pub(crate) fn new(options: RelayOptions, fleet: Fleet) -> Self {
        Self {
            options,
            fleet,
            peers: Mutex::default(),
            is_failing: AtomicBool::new(false),
        }
    }

    pub(crate) fn sender(&self, headers: &HeaderMap) -> Sender {
        match headers.get(RELAYED_BY) {
            None => Sender::Outside,
            Some(name) if name.as_bytes() == self.options.identity.as_bytes() => Sender::Itself,
            Some(_) => Sender::Replica,
        }
    }

    /// Sends a message on as it came. Returns when everybody has it or does without.
    pub(crate) async fn pass_on(&self, path: &str, packed: &Bytes) {
        let outcome = match self.everybody().await {
            Ok(peers) => {
                let sent = peers.iter().map(|peer| self.send(peer, path, packed));
                let outcomes = join_all(sent).await;
                outcomes.into_iter().collect()
            }
            Err(why) => Err(why),
        };
        let failed = outcome.is_err();
        if self.is_failing.swap(failed, Ordering::Relaxed) == failed {
            return;
        }
        match outcome {
            Err::<(), String>(why) => {
                tracing::warn!(why, "pushed metrics do not reach every replica");
            }
            Ok(()) => tracing::info!("pushed metrics reach every replica again"),
        }
    }

    async fn send(
        &self,
        (address, fetcher): &(SocketAddr, Fetcher),
        path: &str,
        packed: &Bytes,
    ) -> Result<(), String> {
        let RelayOptions {
            identity,
            token_file,
        } = &self.options;
        let token = tokio::fs::read_to_string(token_file).await;
        let token = token.map_err(|error| format!("read {}: {error}", token_file.display()))?;
        let name = format!("{}.{}.svc", self.fleet.service, self.fleet.namespace);
        let request = Request::post(format!("https://{name}{path}"))
            .header(RELAYED_BY, identity)
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(header::CONTENT_TYPE, "application/x-protobuf")
            .header(header::CONTENT_ENCODING, "snappy")
            .body(Full::new(packed.clone()))
            .map_err(|error| error.to_string())?;
        match fetcher.send(request, MAX_ANSWER_BYTES, TIMEOUT).await {
            Ok((status, _)) if status.is_success() => Ok(()),
            Ok((status, _)) => Err(format!("{address} answered {status}")),
            Err(error) => Err(format!("{address}: {error}")),
        }
    }

    /// The replicas that are ready, this one among them.
    async fn everybody(&self) -> Result<Peers, String> {
        let held = self.lock().clone();
        if let Some((at, peers)) = &held
            && at.elapsed() < PEERS_HOLD
        {
            return Ok(peers.clone());
        }
        let Fleet {
            client,
            namespace,
            service,
            ..
        } = &self.fleet;
        let mut addresses = service_endpoints(client, namespace, service, PORT).await?;
        addresses.truncate(MAX_PEERS);
        // Connections to those that were known are kept.
        let known: HashMap<SocketAddr, Fetcher> =
            held.into_iter().flat_map(|(_, peers)| peers).collect();
        let fetcher = |address: SocketAddr| match known.get(&address) {
            Some(fetcher) => Ok((address, fetcher.clone())),
            None => self.fetcher(address).map(|fetcher| (address, fetcher)),
        };
        let peers = addresses.into_iter().map(fetcher);
        let peers: Peers = peers
            .collect::<Result<_, TrustError>>()
            .map_err(|error| error.to_string())?;
        *self.lock() = Some((Instant::now(), peers.clone()));
        Ok(peers)
    }

    fn fetcher(&self, address: SocketAddr) -> Result<Fetcher, TrustError> {
        let dialer = self.fleet.dialer.clone();
        let peer = Arc::new(ToPeer { address, dialer });
        Fetcher::trusting(peer, &self.fleet.authority_pem)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Peers)>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
