//! What every request shares.

use crate::admission::Allocator;
use crate::aggregation::Remotes;
use crate::auth::User;
use crate::auth::pki::Pki;
use crate::auth::token::Tokens;
use crate::crd::controller;
use crate::discovery::RemoteGroup;
use crate::http::client::{Dialer, Tunnels};
use crate::http::pool::Pool;
use crate::http::tls::{self, TlsError, Trust};
use crate::openapi::Documents;
use crate::registry::{Catalog, Catalogs};
use crate::store::Store;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::{Arc, OnceLock};

/// What every request shares.
pub struct Core {
    /// The objects.
    pub store: Store,
    /// What is served.
    pub catalogs: Catalogs,
    /// Keys and certificates.
    pub pki: Pki,
    /// Service-account tokens.
    pub tokens: Tokens,
    /// Further static tokens (tests).
    pub static_tokens: HashMap<String, User>,
    /// Connections inside the cluster.
    pub dialer: Arc<dyn Dialer>,
    /// Where clients reach the server, for discovery documents.
    pub advertise: String,
    /// Made at the first use.
    pub kubelet_tls: OnceLock<Arc<rustls::ClientConfig>>,
    /// Addresses and ports of Services.
    pub allocator: Arc<Allocator>,
    /// Connections to webhooks and aggregated servers.
    pub pool: Pool,
    /// Sessions that are passed through.
    pub tunnels: Tunnels,
    /// What aggregated servers serve.
    pub remotes: Remotes,
    /// OpenAPI v3.
    pub documents: Documents,
}

impl Core {
    /// What is served right now.
    pub fn catalog(&self) -> Arc<Catalog> {
        self.catalogs.now(|| controller::resources(&self.store))
    }

    /// TLS towards kubelets: our client certificate, their certificates from our authority.
    pub fn kubelet_tls(&self) -> Result<Arc<rustls::ClientConfig>, TlsError> {
        if let Some(config) = self.kubelet_tls.get() {
            return Ok(config.clone());
        }
        let trust = Trust::Authority(self.pki.ca_pem.as_bytes());
        let config = Arc::new(tls::client(&trust, Some(&self.pki.kubelet_client))?);
        Ok(self.kubelet_tls.get_or_init(|| config).clone())
    }

    /// Groups of aggregated API servers.
    pub fn remote_groups(&self) -> Vec<RemoteGroup> {
        self.remotes.groups()
    }

    /// Where clients reach the server.
    pub fn address(&self) -> String {
        self.advertise.clone()
    }

    /// Public keys of service-account tokens.
    pub fn key_set(&self) -> Value {
        self.tokens.key_set()
    }
}
