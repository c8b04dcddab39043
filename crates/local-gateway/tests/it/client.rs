//! A client that keeps its connection, as browsers and load testers do, and a balancer to talk to.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use local_gateway::{Dialer, HttpBalancer};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub(crate) struct Running {
    pub(crate) balancer: HttpBalancer,
    pub(crate) address: SocketAddr,
    pub(crate) stop: CancellationToken,
    pub(crate) abort: CancellationToken,
    pub(crate) served: Option<JoinHandle<()>>,
}

impl Running {
    pub(crate) async fn new(backends: &[local_network::Backend]) -> Self {
        Self::with_dialer(backends, Dialer::host()).await
    }

    pub(crate) async fn with_dialer(backends: &[local_network::Backend], dialer: Dialer) -> Self {
        let (stop, abort) = (CancellationToken::new(), CancellationToken::new());
        let balancer = HttpBalancer::new("default/shop:80", dialer, abort.clone(), None);
        balancer.update(backends);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Some(tokio::spawn(balancer.clone().serve(listener, stop.clone())));
        Self {
            balancer,
            address,
            stop,
            abort,
            served,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.address).await.unwrap()
    }

    /// One request on a connection of its own; the answer's text.
    pub(crate) async fn get(&self, path: &str) -> String {
        let answer = self.client().await.send(get(path)).await.unwrap();
        String::from_utf8(answer.into_body().to_vec()).unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.abort.cancel();
    }
}

pub(crate) struct Client(SendRequest<Full<Bytes>>);

pub(crate) fn get(path: &str) -> Request<Full<Bytes>> {
    Request::get(path)
        .header("host", "shop")
        .body(Full::default())
        .unwrap()
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Self, String> {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|e| e.to_string())?;
        stream.set_nodelay(true).map_err(|e| e.to_string())?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|e| e.to_string())?;
        tokio::spawn(connection.with_upgrades());
        Ok(Self(sender))
    }

    pub(crate) async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, String> {
        let (parts, body) = self.start(request).await?.into_parts();
        let body = body.collect().await.map_err(|e| e.to_string())?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    /// Sends, and returns as soon as the answer's head is there.
    pub(crate) async fn start(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<hyper::body::Incoming>, String> {
        self.0.ready().await.map_err(|e| e.to_string())?;
        self.0
            .send_request(request)
            .await
            .map_err(|e| e.to_string())
    }
}
