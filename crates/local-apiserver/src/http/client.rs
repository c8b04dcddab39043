//! Outgoing requests: to kubelets, aggregated API servers and webhooks, through the dialer, with upgrades tunnelled.

use super::body::{BoxError, RequestBody, ResponseBody};
use async_trait::async_trait;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

const CONNECT: Duration = Duration::from_secs(5);

/// Opens connections inside the cluster's network.
#[async_trait]
pub trait Dialer: Send + Sync + 'static {
    /// Connects to an address.
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream>;
}

/// Connects from the host.
pub struct HostDialer;

#[async_trait]
impl Dialer for HostDialer {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// Where a request goes.
pub struct Target<'a> {
    /// The address to connect to.
    pub address: SocketAddr,
    /// TLS and the name the certificate must have; `None` = plain HTTP.
    pub tls: Option<(Arc<ClientConfig>, String)>,
    /// How to connect.
    pub dialer: &'a dyn Dialer,
}

/// Upgraded connections that are passed through, byte by byte, until either side or the server ends.
#[derive(Default)]
pub struct Tunnels {
    /// Ends them all.
    pub stop: CancellationToken,
    /// Waits for their end.
    pub tasks: TaskTracker,
}

/// Sends a request on a connection of its own; an upgrade is tunnelled between both sides.
pub async fn send(
    target: &Target<'_>,
    mut request: Request<RequestBody>,
    tunnels: &Tunnels,
) -> Result<Response<ResponseBody>, BoxError> {
    let upgrading = request.headers().contains_key(header::UPGRADE);
    let client_side = upgrading.then(|| hyper::upgrade::on(&mut request));
    let mut sender = connect(target).await?;
    let mut response = sender.send_request(request).await?;
    if response.status() == http::StatusCode::SWITCHING_PROTOCOLS
        && let Some(client_side) = client_side
    {
        let server_side = hyper::upgrade::on(&mut response);
        let stop = tunnels.stop.clone();
        tunnels.tasks.spawn(async move {
            let carrying = async {
                if let (Ok(client), Ok(server)) = (client_side.await, server_side.await) {
                    let (mut client, mut server) = (TokioIo::new(client), TokioIo::new(server));
                    let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => {}
                () = carrying => {}
            }
        });
        let (parts, _) = response.into_parts();
        return Ok(Response::from_parts(
            parts,
            super::body::full(bytes::Bytes::new()),
        ));
    }
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}

/// A fresh connection.
pub async fn connect(target: &Target<'_>) -> Result<SendRequest<RequestBody>, BoxError> {
    let stream = tokio::time::timeout(CONNECT, target.dialer.connect(target.address)).await??;
    let _ = stream.set_nodelay(true);
    let Some((config, name)) = &target.tls else {
        return handshake(stream).await;
    };
    let name = ServerName::try_from(name.clone())?;
    let connector = tokio_rustls::TlsConnector::from(config.clone());
    let tls = tokio::time::timeout(CONNECT, connector.connect(name, stream)).await??;
    handshake(tls).await
}

async fn handshake<S>(stream: S) -> Result<SendRequest<RequestBody>, BoxError>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends when the response body and the sender are gone.
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    Ok(sender)
}
