//! An HTTP server that stands for a pod: it can drain as a well-behaved server does, or die.

use std::{
    convert::Infallible,
    net::{SocketAddr, SocketAddrV4},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use local_network::{Backend as TableBackend, BackendState};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) struct Backend {
    pub(crate) address: SocketAddrV4,
    pub(crate) served: Arc<AtomicUsize>,
    pub(crate) connections: Arc<AtomicUsize>,
    drain: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
}

impl Backend {
    pub(crate) async fn start() -> Self {
        Self::start_with_delay(Duration::ZERO).await
    }

    /// Answers each request after a delay.
    pub(crate) async fn start_with_delay(delay: Duration) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), delay)
    }

    /// Serves a listener that may be in another network namespace.
    pub(crate) fn start_on(listener: TcpListener, delay: Duration) -> Self {
        let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
            panic!("bound to IPv4")
        };
        let backend = Self {
            address,
            served: Arc::default(),
            connections: Arc::default(),
            drain: CancellationToken::new(),
            kill: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        backend.tasks.spawn(backend.accept(listener, delay));
        backend
    }

    pub(crate) fn ready(&self) -> TableBackend {
        TableBackend {
            address: self.address,
            state: BackendState::Ready,
        }
    }

    /// Closes the listener and idle connections, finishes what is under way, and is gone.
    pub(crate) async fn drain(self) {
        self.drain.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Drops everything at once.
    pub(crate) async fn kill(self) {
        self.kill.cancel();
        self.drain().await;
    }

    fn accept(&self, listener: TcpListener, delay: Duration) -> impl Future<Output = ()> + use<> {
        let (served, connections) = (self.served.clone(), self.connections.clone());
        let (drain, kill, tasks) = (self.drain.clone(), self.kill.clone(), self.tasks.clone());
        let name = self.address.to_string();
        async move {
            while let Some(Ok((stream, _))) = drain.run_until_cancelled(listener.accept()).await {
                stream.set_nodelay(true).unwrap();
                connections.fetch_add(1, Ordering::Relaxed);
                let (served, name, drain, kill) =
                    (served.clone(), name.clone(), drain.clone(), kill.clone());
                tasks.spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, name.clone(), served.clone(), delay)
                    });
                    let connection =
                        http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                    let mut connection = std::pin::pin!(connection.with_upgrades());
                    let serving = async {
                        tokio::select! {
                            _ = connection.as_mut() => return,
                            () = drain.cancelled() => connection.as_mut().graceful_shutdown(),
                        }
                        drop(connection.await);
                    };
                    kill.run_until_cancelled(serving).await;
                });
            }
        }
    }
}

async fn answer(
    mut request: Request<Incoming>,
    name: String,
    served: Arc<AtomicUsize>,
    delay: Duration,
) -> Result<Response<Full<Bytes>>, Infallible> {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    served.fetch_add(1, Ordering::Relaxed);
    let text = |text: String| Ok(Response::new(Full::new(Bytes::from(text))));
    match request.uri().path() {
        "/headers" => {
            let mut lines: Vec<_> = request
                .headers()
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort();
            text(lines.join("\n"))
        }
        "/echo" => {
            let body = request
                .into_body()
                .collect()
                .await
                .map(|body| body.to_bytes())
                .unwrap_or_default();
            Ok(Response::new(Full::new(body)))
        }
        "/large" => Ok(Response::new(Full::new(Bytes::from(vec![b'x'; 8 << 20])))),
        "/upgrade" => {
            let upgraded = hyper::upgrade::on(&mut request);
            tokio::spawn(async move {
                let mut stream = TokioIo::new(upgraded.await.unwrap());
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await.unwrap();
                stream.write_all(&text).await.unwrap();
                stream.shutdown().await.unwrap();
            });
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            answer
                .headers_mut()
                .insert("connection", "upgrade".parse().unwrap());
            answer
                .headers_mut()
                .insert("upgrade", "echo".parse().unwrap());
            Ok(answer)
        }
        _ => text(name),
    }
}
