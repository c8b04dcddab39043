//! The server as others use it.

use crate::admission::Allocator;
use crate::aggregation;
use crate::auth::User;
use crate::auth::pki::{Pki, PkiError};
use crate::auth::token::Tokens;
use crate::bootstrap;
use crate::certificates;
use crate::core::Core;
use crate::crd;
use crate::expiry;
use crate::http::client::{Dialer, HostDialer, Tunnels};
use crate::http::transport::InProcess;
use crate::http::{listen, tls};
use crate::registry::{Catalogs, Resource};
use crate::store::{Store, StoreError, StoreOwner};
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How a server runs.
#[derive(Clone)]
pub struct ApiServerConfig {
    /// Where objects and keys are kept.
    pub data_dir: PathBuf,
    /// Name of the cluster, for people.
    pub cluster_name: String,
    /// Connections to nodes, aggregated servers and webhook services.
    pub dialer: Arc<dyn Dialer>,
    /// Addresses of Services: the network and its prefix length.
    pub service_cidr: (Ipv4Addr, u8),
    /// Further addresses in the serving certificate.
    pub extra_addresses: Vec<IpAddr>,
    /// `host:port` that discovery documents name.
    pub advertise: String,
    /// Further static tokens with their users.
    pub static_tokens: HashMap<String, (String, String, Vec<String>)>,
}

impl ApiServerConfig {
    /// Everything but the directory at its default.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            cluster_name: "springtide".into(),
            dialer: Arc::new(HostDialer),
            service_cidr: (Ipv4Addr::new(10, 96, 0, 0), 16),
            extra_addresses: Vec::new(),
            advertise: "10.10.0.1:6443".into(),
            static_tokens: HashMap::new(),
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The store refused.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The keys refused.
    #[error(transparent)]
    Pki(#[from] PkiError),
    /// The token key in the data directory is no key.
    #[error("the service-account key in {0} cannot be read; remove the file to get a new one")]
    TokenKey(PathBuf),
    /// The listener's settings refused.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
    /// A first object could not be written.
    #[error("cannot create {object} at start: {reason}")]
    Bootstrap {
        /// Which object.
        object: String,
        /// Why.
        reason: String,
    },
}

/// What a client needs to be the administrator.
#[derive(Clone)]
pub struct Credentials {
    /// The cluster's authority.
    pub ca_pem: String,
    /// Client certificate of `system:masters`.
    pub admin_certificate_pem: String,
    /// Its key.
    pub admin_key_pem: String,
    /// Static token of the same user.
    pub admin_token: String,
}

/// A running API server.
pub struct ApiServer {
    core: Arc<Core>,
    store: Option<StoreOwner>,
    acceptor: tokio_rustls::TlsAcceptor,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// Names in the serving certificate.
const NAMES: &[&str] = &[
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
    "localhost",
];

impl ApiServer {
    /// Opens the store and the keys, and makes the first objects.
    pub async fn start(config: ApiServerConfig) -> Result<Self, StartError> {
        let directory = config.data_dir.clone();
        let (store, owner) = Store::open(&directory)?;
        let keys = directory.join("pki");
        let pki = Pki::open(&keys)?;
        let tokens = Tokens::new(&pki.token_key)
            .ok_or_else(|| StartError::TokenKey(keys.join("service-account.key")))?;
        let acceptor = acceptor(&pki, &config)?;
        let built_in = local_kinds::kinds()
            .iter()
            .map(|row| Arc::new(Resource::from_row(row)))
            .collect();
        let static_tokens = config
            .static_tokens
            .iter()
            .map(|(token, (name, uid, groups))| {
                let user = User {
                    name: name.clone(),
                    uid: uid.clone(),
                    groups: groups.clone(),
                    extra: Vec::new(),
                };
                (token.clone(), user)
            })
            .collect();
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let core = Arc::new(Core {
            catalogs: Catalogs::new(built_in, store.changes(crd::controller::DEFINITIONS)),
            store,
            pki,
            tokens,
            static_tokens,
            dialer: config.dialer.clone(),
            advertise: config.advertise.clone(),
            kubelet_tls: Default::default(),
            documents: Default::default(),
            pool: Default::default(),
            tunnels: Tunnels {
                stop: stop.clone(),
                tasks: tasks.clone(),
            },
            remotes: Default::default(),
            allocator: Arc::new(Allocator::new(config.service_cidr.0, config.service_cidr.1)),
        });
        bootstrap::run(&core, config.service_cidr.0).await?;
        tasks.spawn(crd::controller::run(core.clone(), stop.clone()));
        tasks.spawn(aggregation::run(core.clone(), stop.clone()));
        tasks.spawn(expiry::run(core.clone(), stop.clone()));
        tasks.spawn(certificates::run(core.clone(), stop.clone()));
        Ok(Self {
            core,
            store: Some(owner),
            acceptor,
            stop,
            tasks,
        })
    }

    /// A client inside the process, as `system:masters`.
    pub fn client(&self) -> kube::Client {
        self.client_as(
            "kubernetes-admin",
            &["system:masters", "system:authenticated"],
        )
    }

    /// A client inside the process, as some user.
    pub fn client_as(&self, user: &str, groups: &[&str]) -> kube::Client {
        InProcess::client(self.core.clone(), User::new(user, groups))
    }

    /// Serves TLS on a listener until shutdown; may be called several times.
    pub fn serve(&self, listener: TcpListener) {
        let accepting = listen::accept(
            self.core.clone(),
            listener,
            self.acceptor.clone(),
            self.stop.clone(),
        );
        self.tasks.spawn(accepting);
    }

    /// What a client needs to be the administrator.
    pub fn credentials(&self) -> Credentials {
        let pki = &self.core.pki;
        Credentials {
            ca_pem: pki.ca_pem.clone(),
            admin_certificate_pem: pki.admin.certificate_pem.clone(),
            admin_key_pem: pki.admin.key_pem.clone(),
            admin_token: pki.admin_token.clone(),
        }
    }

    /// A TLS server certificate and key (PEM) of the cluster's authority.
    pub fn issue_serving_certificate(
        &self,
        names: &[String],
        addresses: &[IpAddr],
    ) -> Result<(String, String), PkiError> {
        let pair = self.core.pki.issue_serving(names, addresses)?;
        Ok((pair.certificate_pem, pair.key_pem))
    }

    /// A TLS client certificate and key (PEM) of the cluster's authority.
    pub fn issue_client_certificate(
        &self,
        common_name: &str,
        organizations: &[&str],
    ) -> Result<(String, String), PkiError> {
        let pair = self.core.pki.issue_client(common_name, organizations)?;
        Ok((pair.certificate_pem, pair.key_pem))
    }

    /// Forgets the history of all changes, as an etcd compaction does (watches from older revisions get 410).
    pub fn compact(&self) {
        self.core.store.compact();
    }

    /// Stops; everything acknowledged stays.
    pub async fn shutdown(mut self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        if let Some(store) = self.store.take() {
            store.close().await;
        }
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn acceptor(pki: &Pki, config: &ApiServerConfig) -> Result<tokio_rustls::TlsAcceptor, StartError> {
    let names: Vec<String> = NAMES.iter().map(|name| name.to_string()).collect();
    let first_service = Ipv4Addr::from_bits(config.service_cidr.0.to_bits() + 1);
    let mut addresses: Vec<IpAddr> = vec![
        Ipv4Addr::LOCALHOST.into(),
        first_service.into(),
        Ipv4Addr::new(10, 10, 0, 1).into(),
    ];
    addresses.extend(&config.extra_addresses);
    let pair = pki.issue_serving(&names, &addresses)?;
    let settings = tls::server(&pair, &pki.ca_pem)?;
    Ok(tokio_rustls::TlsAcceptor::from(Arc::new(settings)))
}
