//! Sockets of another network namespace.
//!
//! A socket belongs to the namespace of the thread that created it. One thread per cluster lives in the router namespace,
//! creates sockets and hands them over; connecting, accepting and all traffic then happen in the caller's runtime.

use std::{
    fs::File,
    io, net,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread,
};

use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, listen, setsockopt, socket,
    sockopt,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::{mpsc, oneshot},
};

use crate::{NetworkError, netns};

/// Requests waiting for the thread; more wait in their callers.
const WAITING_REQUESTS: usize = 256;
/// Connections waiting to be accepted on one listener.
const LISTEN_BACKLOG: i32 = 1024;

type Job = Box<dyn FnOnce() + Send>;

/// Makes sockets inside a cluster's network. Cloning is cheap.
#[derive(Clone)]
pub struct SocketFactory {
    jobs: mpsc::Sender<Job>,
}

impl SocketFactory {
    /// Starts the thread; it ends when the last clone is dropped.
    pub(crate) fn start(namespace: Arc<File>) -> Result<Self, NetworkError> {
        let (jobs, mut waiting) = mpsc::channel::<Job>(WAITING_REQUESTS);
        let failed = |source| NetworkError::io("starting", "the socket thread", source);
        let (entered, result) = std::sync::mpsc::sync_channel(1);
        thread::Builder::new()
            .name("netns-sockets".to_owned())
            .spawn(move || {
                let outcome = netns::enter(&namespace);
                let usable = outcome.is_ok();
                drop(entered.send(outcome));
                while let Some(job) = usable.then(|| waiting.blocking_recv()).flatten() {
                    job();
                }
            })
            .map_err(failed)?;
        result
            .recv()
            .map_err(|_| NetworkError::Stopped {
                object: "the socket thread".to_owned(),
            })?
            .map_err(failed)?;
        Ok(Self { jobs })
    }

    /// Connects to an address inside the cluster.
    pub async fn tcp_connect(&self, addr: SocketAddr) -> io::Result<TcpStream> {
        let descriptor = self.run(move || stream_socket(addr)).await?;
        connect(descriptor, addr).await
    }

    /// Listens on a local address of the router namespace.
    pub async fn tcp_listen(&self, addr: SocketAddr) -> io::Result<TcpListener> {
        let descriptor = self.run(move || listening_socket(addr)).await?;
        TcpListener::from_std(net::TcpListener::from(descriptor))
    }

    /// Binds a datagram socket to a local address of the router namespace.
    pub async fn udp_bind(&self, addr: SocketAddr) -> io::Result<UdpSocket> {
        let descriptor = self
            .run(move || {
                let descriptor = socket(family(addr), SockType::Datagram, flags(), None)?;
                bind(descriptor.as_raw_fd(), &SockaddrStorage::from(addr))?;
                Ok(descriptor)
            })
            .await?;
        UdpSocket::from_std(net::UdpSocket::from(descriptor))
    }

    /// Connects from inside a pod's namespace, so that servers listening on its loopback address are reached too.
    pub async fn tcp_connect_in(netns_path: &Path, addr: SocketAddr) -> io::Result<TcpStream> {
        let path = netns_path.to_owned();
        let (answer, result) = oneshot::channel();
        thread::Builder::new()
            .name("netns-socket".to_owned())
            .spawn(move || {
                let made = File::open(path).and_then(|namespace| netns::enter(&namespace));
                drop(answer.send(made.and_then(|()| stream_socket(addr))));
            })?;
        connect(result.await.map_err(|_| stopped())??, addr).await
    }

    async fn run(
        &self,
        work: impl FnOnce() -> io::Result<OwnedFd> + Send + 'static,
    ) -> io::Result<OwnedFd> {
        let (answer, result) = oneshot::channel();
        self.jobs
            .send(Box::new(move || drop(answer.send(work()))))
            .await
            .map_err(|_| stopped())?;
        result.await.map_err(|_| stopped())?
    }
}

fn stopped() -> io::Error {
    io::Error::other("the cluster's socket thread has ended")
}

fn family(addr: SocketAddr) -> AddressFamily {
    if addr.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    }
}

fn flags() -> SockFlag {
    SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK
}

fn stream_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    Ok(socket(family(addr), SockType::Stream, flags(), None)?)
}

fn listening_socket(addr: SocketAddr) -> io::Result<OwnedFd> {
    let descriptor = stream_socket(addr)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    bind(descriptor.as_raw_fd(), &SockaddrStorage::from(addr))?;
    listen(&descriptor, Backlog::new(LISTEN_BACKLOG)?)?;
    Ok(descriptor)
}

async fn connect(descriptor: OwnedFd, addr: SocketAddr) -> io::Result<TcpStream> {
    // An unconnected socket in the standard library's type is what tokio takes one over from.
    let stream = TcpSocket::from_std_stream(net::TcpStream::from(descriptor))
        .connect(addr)
        .await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}
