//! TLS of a kubelet server. A client may show a certificate of the cluster's authority; what it may do is decided later.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;

use crate::server::ServeError;

/// Keys and trust of one kubelet server, as PEM.
#[derive(Clone)]
pub struct ServerTls {
    /// Serving certificate, leaf first.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// Authority that signs client certificates; clients without one need a bearer token.
    pub client_ca_pem: String,
}

impl ServerTls {
    /// The rustls configuration: TLS 1.2 and 1.3, HTTP/1.1 only because sessions are upgrades,
    /// a client certificate is checked when there is one.
    pub(crate) fn server_config(&self) -> Result<Arc<rustls::ServerConfig>, ServeError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&self.client_ca_pem)? {
            roots.add(certificate).map_err(ServeError::Tls)?;
        }
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .allow_unauthenticated()
                .build()
                .map_err(|source| ServeError::ClientAuthority {
                    source: Box::new(source),
                })?;
        let key = PrivateKeyDer::from_pem_slice(self.key_pem.as_bytes())
            .map_err(|source| ServeError::Pem { source })?;
        let mut config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(ServeError::Tls)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(&self.certificate_pem)?, key)
            .map_err(ServeError::Tls)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

fn certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, ServeError> {
    CertificateDer::pem_slice_iter(pem.as_bytes())
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| ServeError::Pem { source })
}
