//! The little HTTP that registries need: one GET or form POST on a connection of its own, with every wait bounded.

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Until the answer's first line, and between two pieces of its body.
const IDLE_LIMIT: Duration = Duration::from_secs(30);
const AGENT: &str = concat!("springtide/", env!("CARGO_PKG_VERSION"));
/// Where Linux distributions keep the certificate authorities they trust.
const CA_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// A failed exchange.
#[derive(Debug, thiserror::Error)]
pub(super) enum HttpError {
    /// Nobody answers there.
    #[error("{0}")]
    Connect(String),
    /// It answered and then failed; trying again may help.
    #[error("{0}")]
    Exchange(String),
}

/// Who may be spoken to without encryption, and whom we trust with it.
pub(super) struct Http {
    plain_hosts: Vec<String>,
    extra_ca_files: Vec<PathBuf>,
    tls: std::sync::OnceLock<Arc<ClientConfig>>,
}

pub(super) type Body = Response<Incoming>;

impl Http {
    pub(super) fn new(plain_hosts: Vec<String>, extra_ca_files: Vec<PathBuf>) -> Self {
        Self {
            plain_hosts,
            extra_ca_files,
            tls: std::sync::OnceLock::new(),
        }
    }

    /// Whether `host[:port]` may be spoken to without encryption.
    pub(super) fn allows_plain(&self, authority: &str) -> bool {
        self.plain_hosts.iter().any(|known| known == authority) || is_loopback(authority)
    }

    /// Sends one request and waits for the answer's head.
    pub(super) async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Body, HttpError> {
        let uri = request.uri().clone();
        let host = uri
            .host()
            .unwrap_or_default()
            .trim_matches(['[', ']'])
            .to_owned();
        let encrypted = uri.scheme_str() == Some("https");
        let authority = uri.authority().map(ToString::to_string).unwrap_or_default();
        if !encrypted && !self.allows_plain(&authority) {
            return Err(HttpError::Exchange(format!(
                "{authority} is not listed as a plain HTTP registry"
            )));
        }
        let port = uri.port_u16().unwrap_or(if encrypted { 443 } else { 80 });
        let stream = connect(&host, port).await?;
        let path = uri.path_and_query().map_or("/", |path| path.as_str());
        *request.uri_mut() = path
            .parse::<Uri>()
            .map_err(|error| HttpError::Exchange(error.to_string()))?;
        let headers = request.headers_mut();
        headers.insert(
            HOST,
            authority
                .parse()
                .map_err(|_| HttpError::Exchange("a host that no header can hold".into()))?,
        );
        headers.insert(USER_AGENT, http::HeaderValue::from_static(AGENT));
        if !encrypted {
            return exchange(stream, request).await;
        }
        let name =
            ServerName::try_from(host).map_err(|error| HttpError::Connect(error.to_string()))?;
        let connector = TlsConnector::from(self.tls()?);
        let handshake = timeout(CONNECT_LIMIT, connector.connect(name, stream)).await;
        let stream = handshake
            .map_err(|_| HttpError::Connect("the TLS handshake timed out".to_owned()))?
            .map_err(|error| HttpError::Connect(format!("TLS: {error}")))?;
        exchange(stream, request).await
    }

    fn tls(&self) -> Result<Arc<ClientConfig>, HttpError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone());
        }
        let config = tls_config(&self.extra_ca_files).map_err(HttpError::Connect)?;
        Ok(self.tls.get_or_init(|| Arc::new(config)).clone())
    }
}

fn is_loopback(authority: &str) -> bool {
    let host = match authority
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, _)) => host,
        None => authority.split(':').next().unwrap_or_default(),
    };
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

async fn connect(host: &str, port: u16) -> Result<TcpStream, HttpError> {
    match timeout(CONNECT_LIMIT, TcpStream::connect((host, port))).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(HttpError::Connect(error.to_string())),
        Err(_) => Err(HttpError::Connect("connecting timed out".to_owned())),
    }
}

async fn exchange(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Body, HttpError> {
    let failed = |error: hyper::Error| HttpError::Exchange(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends with the body it carries, or when that is dropped.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a registry connection ended");
        }
    });
    match timeout(IDLE_LIMIT, sender.send_request(request)).await {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(HttpError::Exchange("no answer in time".to_owned())),
    }
}

fn tls_config(extra: &[PathBuf]) -> Result<ClientConfig, String> {
    let mut roots = RootCertStore::empty();
    let from_environment = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let system = CA_BUNDLES
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    for path in from_environment.or(system).iter().chain(extra) {
        add_authorities(&mut roots, path)?;
    }
    if roots.is_empty() {
        return Err(
            "no certificate authorities are installed; install the package ca-certificates"
                .to_owned(),
        );
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

fn add_authorities(roots: &mut RootCertStore, path: &Path) -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| {
        format!("read certificate authorities {}: {error}", path.display())
    };
    for certificate in CertificateDer::pem_file_iter(path).map_err(|error| failed(&error))? {
        // A bundle may hold certificates that are of no use to us.
        let _ = roots.add(certificate.map_err(|error| failed(&error))?);
    }
    Ok(())
}

/// The next piece of a body; nothing at its end.
pub(super) async fn next_piece(body: &mut Incoming) -> io::Result<Option<Bytes>> {
    loop {
        match timeout(IDLE_LIMIT, body.frame()).await {
            Err(_) => {
                return Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the registry sends nothing any more",
                ));
            }
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(io::Error::other(error)),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// A whole body of limited length.
pub(super) async fn read_all(mut body: Incoming, limit: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(piece) = next_piece(&mut body).await? {
        if bytes.len() + piece.len() > limit {
            return Err(io::Error::other(format!(
                "the answer is longer than {limit} bytes"
            )));
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_and_listed_hosts_are_plain() {
        let http = Http::new(vec!["registry.lan:5000".to_owned()], Vec::new());
        for host in [
            "localhost",
            "localhost:5000",
            "127.0.0.1:1",
            "127.9.9.9",
            "[::1]:5000",
            "registry.lan:5000",
        ] {
            assert!(http.allows_plain(host), "{host}");
        }
        for host in [
            "registry.lan",
            "docker.io",
            "10.0.0.1:5000",
            "localhost.evil.com",
            "127.0.0.1.evil.com",
        ] {
            assert!(!http.allows_plain(host), "{host}");
        }
    }
}
