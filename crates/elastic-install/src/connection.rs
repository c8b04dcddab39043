//! The replica's connection to the API server: one of HTTP/2 that all requests and watches share.
//!
//! Over HTTP/1 a burst of a thousand pods opens hundreds of connections, each with a handshake that costs more than the
//! request and with buffers that stay for minutes. A server that speaks HTTP/1 only is used as before, with few idle
//! connections kept.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{DefaultServerNameResolver, FixedServerNameResolver, HttpsConnector};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::client::retry::RetryPolicy;
use kube::client::{ClientBuilder, ConfigExt};
use kube::{Client, Config};
use rustls_pki_types::ServerName;
use tower::retry::RetryLayer;
use tower::{BoxError, ServiceBuilder};

/// Preferred first.
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// Connections kept without work, where the server speaks HTTP/1.
const IDLE_CONNECTIONS: usize = 16;
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// A connection is asked for a sign of life after this long without one, and given up when none comes; the times of
/// upstream's components.
const PING_AFTER: Duration = Duration::from_secs(30);
const PING_TIMEOUT: Duration = Duration::from_secs(15);
/// What the server may send ahead in one answer; answers are read at once, so there is no need for more.
const STREAM_WINDOW_BYTES: u32 = 256 << 10;
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The cluster's certificates or credentials cannot be used.
    #[error("prepare the connection to {server}")]
    Config {
        /// The API server.
        server: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// The name that its certificate must have is none.
    #[error("{name:?} is no name that a certificate of {server} could have")]
    ServerName {
        /// The API server.
        server: String,
        /// What was configured.
        name: String,
    },
}

/// A client of the cluster that `config` names.
pub fn connect(config: Config) -> Result<Client, ConnectionError> {
    let server = config.cluster_url.to_string();
    let failed = |source| ConnectionError::Config {
        server: server.clone(),
        source: Box::new(source),
    };
    let transport = hyper_util::client::legacy::Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(IDLE_CONNECTIONS)
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_AFTER)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .http2_keep_alive_while_idle(true)
        .build(connector(&config, &server)?);
    let retry = config
        .default_retry
        .then(|| RetryLayer::new(RetryPolicy::server_retry()));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(retry)
        .option_layer(config.auth_layer().map_err(failed)?)
        .layer(config.extra_headers_layer().map_err(failed)?)
        .map_err(BoxError::from)
        .service(transport);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

fn connector(
    config: &Config,
    server: &str,
) -> Result<HttpsConnector<HttpConnector>, ConnectionError> {
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    http.set_nodelay(true);
    http.set_connect_timeout(config.connect_timeout);
    http.set_keepalive(Some(PING_AFTER));
    let tls = config.rustls_client_config();
    let mut tls = tls.map_err(|source| ConnectionError::Config {
        server: server.to_owned(),
        source: Box::new(source),
    })?;
    tls.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    Ok(match &config.tls_server_name {
        None => {
            let resolver = Arc::new(DefaultServerNameResolver::default());
            HttpsConnector::new(http, tls, false, resolver)
        }
        Some(name) => {
            let fixed = ServerName::try_from(name.clone());
            let fixed = fixed.map_err(|_| ConnectionError::ServerName {
                server: server.to_owned(),
                name: name.clone(),
            })?;
            let resolver = Arc::new(FixedServerNameResolver::new(fixed));
            HttpsConnector::new(http, tls, false, resolver)
        }
    })
}
