//! Outgoing requests, to Prometheus and to pods: bounded in time and size, through a dialer that may live in another network.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme, WantsVerifier};
use tokio::net::TcpStream;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
const IDLE_CONNECTIONS: usize = 16;

/// Finds and reaches addresses.
#[async_trait]
pub trait Dialer: Send + Sync {
    /// Addresses of a host.
    async fn resolve(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        Ok(tokio::net::lookup_host((host, port)).await?.collect())
    }

    /// Connects.
    async fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        TcpStream::connect(address).await
    }
}

/// The network this process is in.
#[derive(Clone, Copy, Debug, Default)]
pub struct OwnNetwork;

#[async_trait]
impl Dialer for OwnNetwork {}

/// A request that brought no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("{}", causes(.0.as_ref()))]
    Connection(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
}

/// What lies beneath says more than hyper's own "client error".
fn causes(error: &(dyn std::error::Error + Send + Sync + 'static)) -> String {
    let mut last: &dyn std::error::Error = error;
    while let Some(cause) = last.source() {
        last = cause;
    }
    last.to_string()
}

/// Sends requests over kept connections.
#[derive(Clone)]
pub(crate) struct Fetcher {
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file of authorities.
    #[error("read the authorities in {path}")]
    File {
        /// Which.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Its contents.
    #[error("use the authorities in {0}; certificates as PEM are expected")]
    Pem(String),
    /// The library.
    #[error("set up TLS for outgoing requests")]
    Tls(#[from] rustls::Error),
}

impl Fetcher {
    /// Trusts `authority_file`, or the machine's authorities.
    pub(crate) fn new(
        dialer: Arc<dyn Dialer>,
        authority_file: Option<&Path>,
    ) -> Result<Self, TrustError> {
        let roots = roots(authority_file)?;
        let tls = tls()?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self::with(dialer, tls))
    }

    /// Trusts these authorities only.
    pub(crate) fn trusting(
        dialer: Arc<dyn Dialer>,
        authority_pem: &str,
    ) -> Result<Self, TrustError> {
        let roots = parse_roots(authority_pem.as_bytes(), "the replicas' certificate")?;
        let tls = tls()?.with_root_certificates(roots).with_no_client_auth();
        Ok(Self::with(dialer, tls))
    }

    /// Believes whoever answers, because nobody vouches for them; for an operator who asks for exactly this.
    pub(crate) fn trusting_anybody(dialer: Arc<dyn Dialer>) -> Result<Self, TrustError> {
        let tls = tls()?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody(provider())))
            .with_no_client_auth();
        Ok(Self::with(dialer, tls))
    }

    fn with(dialer: Arc<dyn Dialer>, tls: rustls::ClientConfig) -> Self {
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connector(dialer));
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self { client }
    }

    /// The whole answer, when it comes in time and is not too long.
    pub(crate) async fn send(
        &self,
        request: Request<Full<Bytes>>,
        limit: usize,
        timeout: Duration,
    ) -> Result<(StatusCode, Bytes), FetchError> {
        let exchange = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| FetchError::Connection(Box::new(error)))?;
            let (head, body) = answer.into_parts();
            match Limited::new(body, limit).collect().await {
                Ok(body) => Ok((head.status, body.to_bytes())),
                Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                    Err(FetchError::TooLong(limit))
                }
                Err(error) => Err(FetchError::Connection(error)),
            }
        };
        let answered = tokio::time::timeout(timeout, exchange).await;
        answered.unwrap_or(Err(FetchError::Timeout(timeout)))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn tls() -> Result<ConfigBuilder<rustls::ClientConfig, WantsVerifier>, TrustError> {
    let builder = rustls::ClientConfig::builder_with_provider(provider());
    Ok(builder.with_safe_default_protocol_versions()?)
}

/// Takes every certificate, but not a peer that lacks the certificate's key.
#[derive(Debug)]
struct Anybody(Arc<CryptoProvider>);

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

fn roots(authority_file: Option<&Path>) -> Result<RootCertStore, TrustError> {
    let Some(path) = authority_file else {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        return Ok(roots);
    };
    let shown = path.display().to_string();
    let text = std::fs::read(path).map_err(|source| TrustError::File {
        path: shown.clone(),
        source,
    })?;
    parse_roots(&text, &shown)
}

fn parse_roots(text: &[u8], shown: &str) -> Result<RootCertStore, TrustError> {
    let mut roots = RootCertStore::empty();
    let certificates: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    let certificates = certificates.map_err(|_| TrustError::Pem(shown.to_owned()))?;
    if certificates.is_empty() {
        return Err(TrustError::Pem(shown.to_owned()));
    }
    for certificate in certificates {
        roots.add(certificate)?;
    }
    Ok(roots)
}

/// The dialer as hyper wants it.
#[derive(Clone)]
struct Connector(Arc<dyn Dialer>);

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let dialer = self.0.clone();
        Box::pin(async move {
            let connected =
                tokio::time::timeout(CONNECT_TIMEOUT, connect(dialer.as_ref(), &uri)).await;
            let stream = connected.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))?;
            let _ = stream.set_nodelay(true);
            Ok(TokioIo::new(stream))
        })
    }
}

async fn connect(dialer: &dyn Dialer, uri: &Uri) -> io::Result<TcpStream> {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    let usual = if uri.scheme_str() == Some("https") {
        443
    } else {
        80
    };
    let port = uri.port_u16().unwrap_or(usual);
    let addresses = match host.parse() {
        Ok(address) => vec![SocketAddr::new(address, port)],
        Err(_) => dialer.resolve(host, port).await?,
    };
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address"));
    for address in addresses {
        match dialer.connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}
