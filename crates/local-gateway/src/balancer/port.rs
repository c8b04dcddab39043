//! One listening port of a load balancer: on the address and number it should have, or, when another program is there, on
//! a number the system chooses.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use local_network::{
    Backends, Balancing, Protocol, Service, ServiceKey, ServicePort, SocketFactory, TcpRelay,
    UdpRelay,
};
use tokio::{
    net::{TcpListener, TcpSocket, UdpSocket},
    sync::mpsc,
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{Dialer, FirstServed, HttpBalancer, HttpReport};

const LISTEN_BACKLOG: u32 = 1024;
/// Our own listener of a moment ago may still be closing: it is waited for before the port counts as taken.
const OWN_PREDECESSOR_TRIES: usize = 5;
const OWN_PREDECESSOR_PAUSE: Duration = Duration::from_millis(20);

/// What every port's balancer needs.
#[derive(Clone)]
pub(crate) struct PortContext {
    pub(crate) sockets: SocketFactory,
    pub(crate) tasks: TaskTracker,
    pub(crate) abort: CancellationToken,
    pub(crate) first_served: mpsc::Sender<FirstServed>,
}

/// A port that is being served.
pub(crate) struct OpenPort {
    /// Where clients reach it.
    pub(crate) address: SocketAddr,
    /// False when the number is not the one it should be.
    pub(crate) as_wanted: bool,
    balancing: Balancing,
    balancer: Balancer,
    stop: CancellationToken,
}

enum Balancer {
    Requests(HttpBalancer),
    Connections(Arc<Backends>),
}

enum Socket {
    Tcp(TcpListener),
    Udp(UdpSocket),
}

impl OpenPort {
    /// Listens and starts to serve. `fallback` is the number used instead the last time.
    pub(crate) async fn open(
        context: &PortContext,
        service: &ServiceKey,
        ip: Ipv4Addr,
        port: &ServicePort,
        affinity: bool,
        fallback: Option<u16>,
    ) -> io::Result<Self> {
        let (socket, address) = listen_somewhere(ip, port, fallback).await?;
        let balancing = effective(port, affinity);
        let stop = context.abort.child_token();
        let (backends, sockets) = (Arc::<Backends>::default(), context.sockets.clone());
        let balancer = match socket {
            Socket::Tcp(listener) if balancing == Balancing::PerRequest => {
                let (name, dialer) = (format!("{service}:{}", port.port), Dialer::cluster(sockets));
                let balancer = HttpBalancer::new(
                    name,
                    dialer,
                    context.abort.clone(),
                    Some(context.first_served.clone()),
                );
                context
                    .tasks
                    .spawn(balancer.clone().serve(listener, stop.clone()));
                Balancer::Requests(balancer)
            }
            Socket::Tcp(listener) => {
                let (stop, abort) = (stop.clone(), context.abort.clone());
                context.tasks.spawn(
                    TcpRelay {
                        backends: backends.clone(),
                        sockets,
                        stop,
                        abort,
                    }
                    .serve(listener),
                );
                Balancer::Connections(backends)
            }
            Socket::Udp(socket) => {
                let stop = stop.clone();
                context.tasks.spawn(
                    UdpRelay {
                        backends: backends.clone(),
                        sockets,
                        stop,
                    }
                    .serve(socket),
                );
                Balancer::Connections(backends)
            }
        };
        Ok(Self {
            address,
            as_wanted: address.port() == port.port,
            balancing,
            balancer,
            stop,
        })
    }

    /// True when the port can go on serving what is wanted now.
    pub(crate) fn suits(&self, ip: Ipv4Addr, port: &ServicePort, service: &Service) -> bool {
        self.address.ip() == ip
            && self.balancing == effective(port, service.client_affinity.is_some())
    }

    pub(crate) fn update(&self, port: &ServicePort, service: &Service) {
        match &self.balancer {
            Balancer::Requests(balancer) => balancer.update(&port.backends),
            Balancer::Connections(backends) => {
                backends.update(&port.backends, service.client_affinity)
            }
        }
    }

    /// What has been served, for ports balanced by request.
    pub(crate) fn report(&self) -> Option<HttpReport> {
        match &self.balancer {
            Balancer::Requests(balancer) => Some(balancer.report()),
            Balancer::Connections(_) => None,
        }
    }
}

impl Drop for OpenPort {
    /// The listener closes; what is under way drains.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// A client that is to stay with its backend needs its connections balanced, not its requests.
fn effective(port: &ServicePort, affinity: bool) -> Balancing {
    if affinity {
        Balancing::PerConnection
    } else {
        port.balancing
    }
}

async fn listen_somewhere(
    ip: Ipv4Addr,
    port: &ServicePort,
    fallback: Option<u16>,
) -> io::Result<(Socket, SocketAddr)> {
    let mut result = listen(ip, port.port, port.protocol).await;
    for _ in 0..OWN_PREDECESSOR_TRIES {
        match &result {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                sleep(OWN_PREDECESSOR_PAUSE).await
            }
            _ => break,
        }
        result = listen(ip, port.port, port.protocol).await;
    }
    for number in fallback.into_iter().chain([0]) {
        if result.is_ok() {
            break;
        }
        result = listen(ip, number, port.protocol).await;
    }
    result
}

/// True when the port's own number could be listened on.
pub(crate) async fn is_free(ip: Ipv4Addr, port: &ServicePort) -> bool {
    listen(ip, port.port, port.protocol).await.is_ok()
}

async fn listen(ip: Ipv4Addr, number: u16, protocol: Protocol) -> io::Result<(Socket, SocketAddr)> {
    let address = SocketAddr::from((ip, number));
    match protocol {
        Protocol::Tcp => {
            let socket = TcpSocket::new_v4()?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            let listener = socket.listen(LISTEN_BACKLOG)?;
            let address = listener.local_addr()?;
            Ok((Socket::Tcp(listener), address))
        }
        Protocol::Udp => {
            let socket = UdpSocket::bind(address).await?;
            let address = socket.local_addr()?;
            Ok((Socket::Udp(socket), address))
        }
    }
}
