//! How the balancer reaches backends: inside a cluster's network in the product, on the machine's own in tests.

use std::{io, net::SocketAddr, sync::Arc};

use futures::future::BoxFuture;
use local_network::SocketFactory;
use tokio::net::TcpStream;

type Connect = dyn Fn(SocketAddr) -> BoxFuture<'static, io::Result<TcpStream>> + Send + Sync;

/// Makes connections to backends. Cloning is cheap.
#[derive(Clone)]
pub struct Dialer(Arc<Connect>);

impl Dialer {
    /// Dials inside a cluster's network.
    pub fn cluster(sockets: SocketFactory) -> Self {
        Self(Arc::new(move |address| {
            let sockets = sockets.clone();
            Box::pin(async move { sockets.tcp_connect(address).await })
        }))
    }

    /// Dials in the network of this process.
    pub fn host() -> Self {
        Self(Arc::new(|address| {
            Box::pin(async move {
                let stream = TcpStream::connect(address).await?;
                stream.set_nodelay(true)?;
                Ok(stream)
            })
        }))
    }

    pub(crate) async fn dial(&self, address: SocketAddr) -> io::Result<TcpStream> {
        (self.0)(address).await
    }
}
