//! The HTTPS server of aggregated APIs: who calls is settled by TLS, what is answered by an [`Answer`].

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::MetricsTls;
use crate::status::failure;

/// Connections served at the same time; more wait to be accepted.
const MAX_CONNECTIONS: usize = 128;
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Pause after `accept` failed, so that a lack of file descriptors does not spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Why metrics cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// A PEM text holds no usable certificate or key.
    #[error("read the metrics server's certificates")]
    Pem(#[source] rustls::pki_types::pem::Error),
    /// Certificate, key or authority do not fit.
    #[error("configure TLS of the metrics server")]
    Tls(#[source] rustls::Error),
    /// The clients' authority is unusable.
    #[error("configure the authority of the metrics server's clients")]
    Clients(#[source] rustls::server::VerifierBuilderError),
}

/// What came over a connection.
pub(crate) struct Asked<'a> {
    pub(crate) path: &'a str,
    pub(crate) query: &'a str,
    pub(crate) headers: &'a HeaderMap,
    /// Common name of the client's certificate, which the configured authority vouches for.
    pub(crate) peer: Option<&'a str>,
}

/// The body of an answer.
#[derive(Debug, PartialEq)]
pub(crate) enum Content {
    /// Something small; null is no body at all.
    Tree(Value),
    /// A list that may be long, written without a tree in between.
    Written(Vec<u8>),
}

impl From<Value> for Content {
    fn from(tree: Value) -> Self {
        Self::Tree(tree)
    }
}

impl Content {
    fn bytes(self) -> Bytes {
        match self {
            Self::Tree(Value::Null) => Bytes::new(),
            Self::Tree(tree) => Bytes::from(tree.to_string()),
            Self::Written(text) => Bytes::from(text),
        }
    }
}

/// Gives a status and a body.
#[async_trait]
pub(crate) trait Answer: Send + Sync {
    async fn answer(&self, asked: Asked<'_>) -> (StatusCode, Content);

    /// To a POST; nothing takes one unless it says so.
    async fn take(&self, _: Asked<'_>, _: Incoming) -> (StatusCode, Value) {
        only_read()
    }
}

/// Whether clients need a certificate, where an authority for them is configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Clients {
    HaveCertificates,
    /// Who has none is somebody whom the answers have to know by other means.
    MayHaveCertificates,
}

pub(crate) struct Server {
    acceptor: TlsAcceptor,
}

impl Server {
    pub(crate) fn new(tls: &MetricsTls, clients: Clients) -> Result<Self, ServeError> {
        Ok(Self {
            acceptor: TlsAcceptor::from(Arc::new(config(tls, clients)?)),
        })
    }

    pub(crate) async fn run(
        self,
        listener: TcpListener,
        answers: Arc<dyn Answer>,
        shutdown: CancellationToken,
    ) {
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
                        tracing::warn!(%error, "metrics server could not accept a connection");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                        continue;
                    }
                },
            };
            let (acceptor, answers, shutdown) =
                (self.acceptor.clone(), answers.clone(), shutdown.clone());
            connections.spawn(async move {
                connection(stream, acceptor, answers, shutdown).await;
                drop(place);
            });
        }
        connections.close();
        connections.wait().await;
    }
}

fn config(tls: &MetricsTls, clients: Clients) -> Result<ServerConfig, ServeError> {
    let certificates = |pem: &str| {
        CertificateDer::pem_slice_iter(pem.as_bytes())
            .collect::<Result<Vec<_>, _>>()
            .map_err(ServeError::Pem)
    };
    let key = PrivateKeyDer::from_pem_slice(tls.key_pem.as_bytes()).map_err(ServeError::Pem)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(ServeError::Tls)?;
    let builder = match &tls.client_authority_pem {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(authority)? {
                roots.add(certificate).map_err(ServeError::Tls)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            let verifier = match clients {
                Clients::HaveCertificates => verifier,
                Clients::MayHaveCertificates => verifier.allow_unauthenticated(),
            };
            builder.with_client_cert_verifier(verifier.build().map_err(ServeError::Clients)?)
        }
    };
    let mut config = builder
        .with_single_cert(certificates(&tls.certificate_pem)?, key)
        .map_err(ServeError::Tls)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn connection(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    answers: Arc<dyn Answer>,
    shutdown: CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await
    else {
        return;
    };
    let certificates = stream.get_ref().1.peer_certificates();
    let peer: Option<Arc<str>> = certificates
        .and_then(|certificates| common_name(certificates.first()?))
        .map(Arc::from);
    let service = service_fn(move |request| {
        let (answers, peer) = (answers.clone(), peer.clone());
        async move { Ok::<_, Infallible>(respond(answers.as_ref(), peer.as_deref(), request).await) }
    });
    let builder = auto::Builder::new(TokioExecutor::new());
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "metrics connection ended with an error");
    }
}

fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

fn only_read() -> (StatusCode, Value) {
    let message = "metrics can only be read";
    failure(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
}

async fn respond(
    answers: &dyn Answer,
    peer: Option<&str>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let path = head.uri.path();
    if matches!(path, "/healthz" | "/livez" | "/readyz") {
        return Response::new(Full::from("ok"));
    }
    let asked = Asked {
        path,
        query: head.uri.query().unwrap_or_default(),
        headers: &head.headers,
        peer,
    };
    let tree = |(code, tree): (StatusCode, Value)| (code, Content::from(tree));
    let (code, content) = match head.method {
        Method::GET => answers.answer(asked).await,
        Method::POST => tree(answers.take(asked, body).await),
        _ => tree(only_read()),
    };
    let mut response = Response::new(Full::from(content.bytes()));
    *response.status_mut() = code;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
