//! The HTTP balancer: accepts HTTP/1 clients on one port and balances every single request over the endpoints, so that
//! new pods get load at once, however long clients keep their connections.

mod connection;
mod endpoints;
mod forward;
mod headers;
mod tunnel;

use std::{
    convert::Infallible,
    net::{SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::Request;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use jiff::Timestamp;
use local_network::Backend;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc},
    time::{MissedTickBehavior, interval, sleep},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::Dialer;
pub use endpoints::EndpointReport;
use endpoints::Endpoints;

/// Clients connected to one port at once; more wait in the listener's backlog.
const CLIENTS: usize = 16 * 1024;
/// A client that sends no request for this long is let go.
const CLIENT_IDLE: Duration = Duration::from_secs(300);
/// How long requests under way may take after the port is closed.
const DRAIN_BOUND: Duration = Duration::from_secs(60);
/// The wait after a failed accept, which mostly means that the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const HOUSEKEEPING_PERIOD: Duration = Duration::from_secs(1);

/// Balances the requests to one port. Cloning is cheap; all clones are the same balancer.
#[derive(Clone)]
pub struct HttpBalancer {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    name: String,
    endpoints: Endpoints,
    dialer: Dialer,
    counters: Counters,
    tunnels: TaskTracker,
    abort: CancellationToken,
    first_served: Option<mpsc::Sender<FirstServed>>,
}

/// An endpoint's first answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstServed {
    /// The endpoint.
    pub address: SocketAddrV4,
    /// When it answered.
    pub at: Timestamp,
    /// The balancer's name.
    pub port: String,
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    retries: AtomicU64,
    failures: AtomicU64,
}

impl Counters {
    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    fn count_retry(&self) {
        self.retries.fetch_add(1, Ordering::Relaxed);
    }

    fn count_failure(&self) {
        self.failures.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a balancer has done so far.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpReport {
    /// Requests that came.
    pub requests: u64,
    /// Further tries that were needed.
    pub retries: u64,
    /// Requests that got no endpoint's answer.
    pub failures: u64,
    /// The endpoints there are now.
    pub endpoints: Vec<EndpointReport>,
}

impl HttpBalancer {
    /// A balancer without endpoints. `name` says which port it is in answers and logs; everything ends with `abort`.
    /// `first_served` is told about each endpoint's first answer.
    pub fn new(
        name: impl Into<String>,
        dialer: Dialer,
        abort: CancellationToken,
        first_served: Option<mpsc::Sender<FirstServed>>,
    ) -> Self {
        let (endpoints, counters, tunnels) = (
            Endpoints::default(),
            Counters::default(),
            TaskTracker::new(),
        );
        let name = name.into();
        Self {
            shared: Arc::new(Shared {
                name,
                endpoints,
                dialer,
                counters,
                tunnels,
                abort,
                first_served,
            }),
        }
    }

    /// Takes over a new set of endpoints. Requests under way go on wherever they are.
    pub fn update(&self, backends: &[Backend]) {
        self.shared.endpoints.update(backends);
    }

    /// What has been done so far.
    pub fn report(&self) -> HttpReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let counters = &self.shared.counters;
        HttpReport {
            requests: read(&counters.requests),
            retries: read(&counters.retries),
            failures: read(&counters.failures),
            endpoints: self.shared.endpoints.report(),
        }
    }

    /// Serves a listener until told to stop, then finishes the requests under way.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) {
        let permits = Arc::new(Semaphore::new(CLIENTS));
        let clients = TaskTracker::new();
        let mut housekeeping = interval(HOUSEKEEPING_PERIOD);
        housekeeping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let next = async {
                let permit = permits.clone().acquire_owned().await;
                (permit, listener.accept().await)
            };
            let (permit, accepted) = tokio::select! {
                next = next => next,
                _ = housekeeping.tick() => {
                    self.shared.endpoints.close_old_connections();
                    continue;
                }
                () = stop.cancelled() => break,
                () = self.shared.abort.cancelled() => break,
            };
            match accepted {
                Ok((stream, client)) => {
                    let (shared, stop) = (self.shared.clone(), stop.clone());
                    clients.spawn(async move {
                        shared.serve_client(stream, client, stop).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(port = %self.shared.name, %error, "accepting a connection failed");
                    sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        drop(listener);
        clients.close();
        clients.wait().await;
        self.shared.tunnels.close();
        self.shared.tunnels.wait().await;
    }
}

impl Shared {
    async fn serve_client(
        self: Arc<Self>,
        stream: TcpStream,
        client: SocketAddr,
        stop: CancellationToken,
    ) {
        if let Err(error) = stream.set_nodelay(true) {
            return tracing::debug!(%client, %error, "client connection is unusable");
        }
        let shared = self.clone();
        let service = service_fn(move |request: Request<Incoming>| {
            let shared = shared.clone();
            async move { Ok::<_, Infallible>(shared.forward(request, client.ip()).await) }
        });
        let mut builder = http1::Builder::new();
        builder
            .timer(TokioTimer::new())
            .header_read_timeout(CLIENT_IDLE);
        let connection = builder
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        let mut connection = std::pin::pin!(connection);
        let serving = async {
            tokio::select! {
                result = connection.as_mut() => return result,
                () = stop.cancelled() => connection.as_mut().graceful_shutdown(),
            }
            tokio::time::timeout(DRAIN_BOUND, connection)
                .await
                .unwrap_or(Ok(()))
        };
        if let Some(Err(error)) = self.abort.run_until_cancelled(serving).await {
            tracing::debug!(%client, %error, "client connection ended early");
        }
    }
}
