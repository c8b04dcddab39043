//! The HTTPS server around `review`.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::review::{self, Asked};
use super::{AdmissionIdentity, BURST_PATH, NAMESPACE_PATH, POD_PATH, POLICY_PATH, SELECTOR_PATH};
use crate::desk::Desk;
use crate::routing::RoutingView;

/// What answers depend on.
pub(super) type Knowledge = (RoutingView, Arc<Desk>);

/// A pod is at most 1.5 MiB in etcd; a review holds little more than one.
const MAX_BODY_BYTES: usize = 3 << 20;
/// Connections served at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why the webhook cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum AdmissionError {
    /// The PEM texts hold no usable certificate or key.
    #[error("read the webhook's certificate and key")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// They do not fit together.
    #[error("configure TLS of the webhook")]
    Tls(#[source] rustls::Error),
}

/// Serves reviews until `shutdown`; requests under way are finished. A new identity is shown to new connections; one that
/// cannot be used is told in the log, and the last good one stays in use.
pub(super) async fn serve(
    listener: TcpListener,
    mut identity: watch::Receiver<AdmissionIdentity>,
    knowledge: Knowledge,
    shutdown: CancellationToken,
) -> Result<(), AdmissionError> {
    let mut acceptor = TlsAcceptor::from(Arc::new(tls(&identity.borrow_and_update())?));
    let connections = TaskTracker::new();
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let place = tokio::select! {
            () = shutdown.cancelled() => break,
            place = places.clone().acquire_owned() => place,
        };
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "webhook could not accept a connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        if identity.has_changed().unwrap_or(false) {
            match tls(&identity.borrow_and_update()) {
                Ok(config) => acceptor = TlsAcceptor::from(Arc::new(config)),
                Err(error) => tracing::warn!(
                    %error,
                    "new webhook certificate cannot be used, the last one stays in use"
                ),
            }
        }
        let (acceptor, knowledge, shutdown) =
            (acceptor.clone(), knowledge.clone(), shutdown.clone());
        connections.spawn(async move {
            serve_connection(stream, acceptor, knowledge, shutdown).await;
            drop(place);
        });
    }
    connections.close();
    connections.wait().await;
    Ok(())
}

fn tls(identity: &AdmissionIdentity) -> Result<ServerConfig, AdmissionError> {
    let chain = CertificateDer::pem_slice_iter(identity.certificate_pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(AdmissionError::Pem)?;
    let key = PrivateKeyDer::from_pem_slice(identity.private_key_pem.as_bytes())
        .map_err(AdmissionError::Pem)?;
    let mut config =
        ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(AdmissionError::Tls)?
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .map_err(AdmissionError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn serve_connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    knowledge: Knowledge,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream));
    let Ok(Ok(stream)) = handshake.await else {
        return;
    };
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(
        TokioIo::new(stream),
        service_fn(|request| handle(request, knowledge.clone())),
    );
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "webhook connection ended with an error");
    }
}

async fn handle(
    request: Request<Incoming>,
    (view, desk): Knowledge,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let asked = match (request.method(), request.uri().path()) {
        (&Method::POST, POD_PATH) => Some(Asked::PodLabel),
        (&Method::POST, NAMESPACE_PATH) => Some(Asked::NamespaceLabel),
        (&Method::POST, BURST_PATH) => Some(Asked::BurstAnnotation),
        (&Method::POST, SELECTOR_PATH) => Some(Asked::Selector),
        (&Method::POST, POLICY_PATH) => None,
        (&Method::GET, "/healthz") => return Ok(text(StatusCode::OK, "ok".to_owned())),
        _ => return Ok(text(StatusCode::NOT_FOUND, "no such path".to_owned())),
    };
    let body = match Limited::new(request.into_body(), MAX_BODY_BYTES)
        .collect()
        .await
    {
        Ok(body) => body.to_bytes(),
        Err(error) => {
            return Ok(text(
                StatusCode::PAYLOAD_TOO_LARGE,
                format!("read the review: {error}"),
            ));
        }
    };
    let namespace = |name: &str| view.namespace_labels(name);
    let answer = match asked {
        Some(asked) => review::answer(&body, asked, namespace, &view.profile()),
        None => match review::newcomer(&body) {
            Ok(newcomer) => {
                let (uid, before) = (newcomer.uid.clone(), newcomer.pod.clone());
                Ok(review::admitted(&uid, &before, desk.admit(newcomer).await))
            }
            Err(error) => Err(error),
        },
    };
    Ok(match answer {
        Ok(answer) => {
            let mut response = Response::new(Full::from(answer.to_string()));
            response.headers_mut().insert(
                header::CONTENT_TYPE,
                header::HeaderValue::from_static("application/json"),
            );
            response
        }
        Err(error) => text(StatusCode::BAD_REQUEST, error.to_string()),
    })
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
