//! Checks over the network: connections come from the cluster's router, as a machine's own agent would make them.

use crate::backend::BackendError;
use bytes::Bytes;
use cloud_api::model::create::{HttpGetAction, ProbeSpec};
use http::{Request, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use local_network::SocketFactory;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, ring, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;

fn unhealthy(error: impl std::fmt::Display) -> BackendError {
    BackendError::new("Unhealthy", error.to_string())
}

/// One check by TCP or HTTP. The caller bounds its time.
pub(super) async fn over_network(
    sockets: &SocketFactory,
    address: Ipv4Addr,
    probe: &ProbeSpec,
) -> Result<(), BackendError> {
    let port = probe
        .http_get
        .as_ref()
        .map(|get| get.port)
        .or(probe.tcp_socket.as_ref().map(|tcp| tcp.port));
    let Some(port) = port else { return Ok(()) };
    let target = SocketAddr::from((address, port));
    let stream = sockets
        .tcp_connect(target)
        .await
        .map_err(|error| unhealthy(format!("{target}: {error}")))?;
    match &probe.http_get {
        None => Ok(()),
        Some(get) if get.scheme.as_deref() == Some("HTTPS") => {
            let connector = TlsConnector::from(Arc::new(trusting_config().map_err(unhealthy)?));
            let stream = connector
                .connect(ServerName::IpAddress(IpAddr::V4(address).into()), stream)
                .await;
            http_get(stream.map_err(unhealthy)?, target, get).await
        }
        Some(get) => http_get(stream, target, get).await,
    }
}

async fn http_get<S>(stream: S, target: SocketAddr, get: &HttpGetAction) -> Result<(), BackendError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(unhealthy)?;
    let path = get
        .path
        .as_deref()
        .filter(|path| path.starts_with('/'))
        .unwrap_or("/");
    let uri: Uri = path.parse().map_err(unhealthy)?;
    let request = Request::get(uri)
        .header("host", target.to_string())
        .header("user-agent", "eci-probe")
        .header("connection", "close")
        .body(Empty::<Bytes>::new())
        .map_err(unhealthy)?;
    let answer = async { sender.send_request(request).await };
    tokio::pin!(answer, connection);
    let answer = tokio::select! {
        answer = &mut answer => answer,
        ended = &mut connection => {
            ended.map_err(unhealthy)?;
            answer.await
        }
    };
    let status = answer.map_err(unhealthy)?.status().as_u16();
    if (200..400).contains(&status) {
        Ok(())
    } else {
        Err(unhealthy(format!("HTTP status {status}")))
    }
}

/// A check asks whether a server answers, not who it is; certificates are not judged, as kubelets do not.
#[derive(Debug)]
struct Trusting(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

fn trusting_config() -> Result<ClientConfig, Error> {
    let provider: CryptoProvider = ring::default_provider();
    let verifier = Arc::new(Trusting(provider.signature_verification_algorithms));
    let builder = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()?;
    Ok(builder
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth())
}
