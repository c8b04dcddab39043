//! The cluster's DNS server: answers for the cluster's own names from the service table, over UDP and TCP, and passes
//! other names to the machine's resolvers.

mod respond;
mod upstream;
mod zone;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream, UdpSocket},
    sync::{Semaphore, watch},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{ServiceTable, SocketFactory};
use respond::{MESSAGE_MAX_BYTES, Responder, Response};
use upstream::Upstreams;
use zone::Zone;

/// Clients over TCP at once; more wait.
const TCP_CLIENTS: usize = 256;
/// A TCP client that asks nothing for this long is let go.
const TCP_IDLE: Duration = Duration::from_secs(10);
/// The pause after a failed accept, which mostly means that the process has too many files open.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Where the DNS server listens and whom it asks.
#[derive(Debug, Clone)]
pub struct DnsConfig {
    /// The address inside the cluster.
    pub listen: SocketAddrV4,
    /// Resolvers for other names, reached from the machine's own network. None: other names fail at once.
    pub upstreams: Vec<SocketAddr>,
}

impl Default for DnsConfig {
    /// The address pods are told about, and no resolvers.
    fn default() -> Self {
        Self {
            listen: SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 53),
            upstreams: Vec::new(),
        }
    }
}

impl DnsConfig {
    /// Asks the machine's own resolvers about other names.
    pub fn with_host_resolvers(mut self) -> Self {
        self.upstreams = upstream::read_resolvers(Path::new("/etc/resolv.conf"));
        self
    }
}

/// A DNS server that is listening.
pub struct DnsServer {
    udp: Arc<UdpSocket>,
    tcp: TcpListener,
    table: watch::Receiver<Arc<ServiceTable>>,
    responder: Arc<Responder>,
}

impl DnsServer {
    /// Listens inside the cluster's network. Questions are answered once [`DnsServer::run`] runs.
    pub async fn bind(
        sockets: &SocketFactory,
        config: DnsConfig,
        table: watch::Receiver<Arc<ServiceTable>>,
    ) -> io::Result<Self> {
        let address = SocketAddr::from(config.listen);
        let udp = Arc::new(sockets.udp_bind(address).await?);
        let tcp = sockets.tcp_listen(udp.local_addr()?).await?;
        let responder = Arc::new(Responder::new(
            Zone::new(table.borrow().clone()),
            Upstreams::new(config.upstreams),
        ));
        Ok(Self {
            udp,
            tcp,
            table,
            responder,
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.udp.local_addr()
    }

    /// Answers until shutdown.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self {
            udp,
            tcp,
            mut table,
            responder,
        } = self;
        let tasks = TaskTracker::new();
        tasks.spawn(serve_tcp(tcp, responder.clone(), shutdown.clone()));
        let mut buffer = vec![0; MESSAGE_MAX_BYTES];
        let mut followed = true;
        loop {
            tokio::select! {
                changed = table.changed(), if followed => match changed {
                    Ok(()) => responder.use_zone(Zone::new(table.borrow_and_update().clone())),
                    Err(_) => followed = false,
                },
                received = udp.recv_from(&mut buffer) => {
                    // An error here reports an earlier answer that could not be delivered.
                    let Ok((length, client)) = received else { continue };
                    answer_datagram(&udp, &responder, &buffer[..length], client, &tasks).await;
                }
                () = shutdown.cancelled() => break,
            }
        }
        tasks.close();
        tasks.wait().await;
    }
}

async fn answer_datagram(
    udp: &Arc<UdpSocket>,
    responder: &Arc<Responder>,
    question: &[u8],
    client: SocketAddr,
    tasks: &TaskTracker,
) {
    match responder.respond(question, false) {
        Response::Ready(answer) => drop(udp.send_to(&answer, client).await),
        Response::Ask(pending) => {
            // Bounded by the number of questions the upstreams accept at once, and each by its patience.
            let (responder, udp) = (responder.clone(), udp.clone());
            tasks.spawn(async move {
                udp.send_to(&responder.finish(pending, false).await, client)
                    .await
            });
        }
        Response::Nothing => {}
    }
}

async fn serve_tcp(listener: TcpListener, responder: Arc<Responder>, shutdown: CancellationToken) {
    let permits = Arc::new(Semaphore::new(TCP_CLIENTS));
    let clients = TaskTracker::new();
    while let Some(accepted) = shutdown.run_until_cancelled(listener.accept()).await {
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Ok(permit) = permits.clone().acquire_owned().await else {
            break;
        };
        let (responder, shutdown) = (responder.clone(), shutdown.clone());
        clients.spawn(async move {
            shutdown
                .run_until_cancelled(serve_client(stream, &responder))
                .await;
            drop(permit);
        });
    }
    clients.close();
    clients.wait().await;
}

async fn serve_client(mut stream: TcpStream, responder: &Responder) -> io::Result<()> {
    loop {
        let reading = async {
            let length = stream.read_u16().await?;
            let mut question = vec![0; usize::from(length)];
            stream.read_exact(&mut question).await?;
            io::Result::Ok(question)
        };
        let question = timeout(TCP_IDLE, reading).await??;
        let answer = match responder.respond(&question, true) {
            Response::Ready(answer) => answer,
            Response::Ask(pending) => responder.finish(pending, true).await,
            Response::Nothing => return Ok(()),
        };
        let length = u16::try_from(answer.len()).map_err(io::Error::other)?;
        stream
            .write_all(&[&length.to_be_bytes()[..], &answer].concat())
            .await?;
    }
}
