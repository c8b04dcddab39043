//! Relays UDP datagrams: each client address is one flow to one backend until it has been silent for a while.

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tokio::{net::UdpSocket, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::balance::{Backends, Lease};
use crate::SocketFactory;

/// Flows of one listener. Datagrams of further clients are dropped, as UDP allows.
const FLOWS: usize = 4096;
/// A flow without a datagram from the backend for this long is forgotten.
const FLOW_IDLE: Duration = Duration::from_secs(30);
const DATAGRAM_MAX_BYTES: usize = 65_535;

/// Everything one listener's flows share.
#[derive(Clone)]
pub struct UdpRelay {
    /// Where datagrams go.
    pub backends: Arc<Backends>,
    /// What reaches the backends.
    pub sockets: SocketFactory,
    /// Ends the relay; datagrams have nothing to drain.
    pub stop: CancellationToken,
}

struct Flow {
    upstream: UdpSocket,
    lease: Lease,
    ended: CancellationToken,
}

type Flows = Arc<Mutex<HashMap<SocketAddr, Arc<Flow>>>>;

impl UdpRelay {
    /// Relays until told to stop.
    pub async fn serve(self, listener: UdpSocket) {
        let listener = Arc::new(listener);
        let flows = Flows::default();
        let tasks = TaskTracker::new();
        let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
        loop {
            let received = tokio::select! {
                received = listener.recv_from(&mut buffer) => received,
                () = self.stop.cancelled() => break,
            };
            // An error here reports an earlier datagram that could not be delivered; the socket goes on.
            let Ok((length, client)) = received else {
                continue;
            };
            match self.flow(&flows, client, &listener, &tasks).await {
                Ok(flow) => drop(flow.upstream.send(&buffer[..length]).await),
                Err(error) => tracing::debug!(%client, %error, "datagram dropped"),
            }
        }
        tasks.close();
        tasks.wait().await;
    }

    /// The client's flow; a new one when it has none or its backend must not be used any more.
    async fn flow(
        &self,
        flows: &Flows,
        client: SocketAddr,
        listener: &Arc<UdpSocket>,
        tasks: &TaskTracker,
    ) -> io::Result<Arc<Flow>> {
        let existing = lock(flows).get(&client).cloned();
        if let Some(flow) = existing {
            if self.backends.is_usable(flow.lease.address()) && !flow.ended.is_cancelled() {
                return Ok(flow);
            }
            flow.ended.cancel();
        }
        if lock(flows).len() >= FLOWS {
            return Err(io::Error::other("too many clients at once"));
        }
        let lease = self.backends.pick(client.ip(), &[], Instant::now());
        let lease = lease.ok_or_else(|| io::Error::other("no backend is ready"))?;
        let upstream = self
            .sockets
            .udp_bind((Ipv4Addr::UNSPECIFIED, 0).into())
            .await?;
        upstream.connect(SocketAddr::from(lease.address())).await?;
        let flow = Arc::new(Flow {
            upstream,
            lease,
            ended: self.stop.child_token(),
        });
        lock(flows).insert(client, flow.clone());
        let (answering, flows, listener) = (flow.clone(), flows.clone(), listener.clone());
        tasks.spawn(async move {
            return_answers(&answering, client, &listener).await;
            answering.ended.cancel();
            let mut flows = lock(&flows);
            // A newer flow of the same client may have taken the place already.
            if flows
                .get(&client)
                .is_some_and(|current| Arc::ptr_eq(current, &answering))
            {
                flows.remove(&client);
            }
        });
        Ok(flow)
    }
}

async fn return_answers(flow: &Flow, client: SocketAddr, listener: &UdpSocket) {
    loop {
        let readable = tokio::select! {
            readable = timeout(FLOW_IDLE, flow.upstream.readable()) => readable,
            () = flow.ended.cancelled() => return,
        };
        if !matches!(readable, Ok(Ok(()))) {
            return;
        }
        match receive(&flow.upstream) {
            Ok(answer) => drop(listener.send_to(&answer, client).await),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // Refused: nobody listens there now; the client's next datagram starts over.
            Err(_) => return,
        }
    }
}

/// Receives into a buffer that lives only now: thousands of silent flows must not hold thousands of buffers.
fn receive(socket: &UdpSocket) -> io::Result<Vec<u8>> {
    let mut buffer = [0; DATAGRAM_MAX_BYTES];
    let length = socket.try_recv(&mut buffer)?;
    Ok(buffer[..length].to_vec())
}

fn lock(flows: &Flows) -> std::sync::MutexGuard<'_, HashMap<SocketAddr, Arc<Flow>>> {
    flows.lock().unwrap_or_else(PoisonError::into_inner)
}
