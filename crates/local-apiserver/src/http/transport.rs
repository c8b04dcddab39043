//! The in-process transport: a `kube` client whose requests never leave the process.

use super::body::{BoxError, RequestBody, ResponseBody};
use super::dispatch;
use crate::auth::User;
use crate::core::Core;
use http::{Request, Response, header};
use http_body_util::BodyExt;
use hyper_util::rt::TokioIo;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

/// Buffer of an upgraded connection inside the process.
const PIPE_BYTES: usize = 64 << 10;

/// A tower service that answers as a user.
#[derive(Clone)]
pub struct InProcess {
    core: Arc<Core>,
    user: User,
}

impl InProcess {
    /// A client of `core` as `user`.
    pub fn client(core: Arc<Core>, user: User) -> kube::Client {
        kube::Client::new(Self { core, user }, "default")
    }
}

impl tower::Service<Request<kube::client::Body>> for InProcess {
    type Response = Response<ResponseBody>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<kube::client::Body>) -> Self::Future {
        let (core, user) = (self.core.clone(), self.user.clone());
        let request =
            request.map(|body| -> RequestBody { body.map_err(Into::into).boxed_unsync() });
        Box::pin(async move {
            if request.headers().contains_key(header::UPGRADE) {
                return upgraded(core, user, request).await;
            }
            Ok(dispatch::handle(core, user, request).await)
        })
    }
}

/// Upgrades need a connection that can change its protocol: one inside the process, for this request alone.
async fn upgraded(
    core: Arc<Core>,
    user: User,
    request: Request<RequestBody>,
) -> Result<Response<ResponseBody>, BoxError> {
    let (client_end, server_end) = tokio::io::duplex(PIPE_BYTES);
    let service = hyper::service::service_fn(move |request: Request<hyper::body::Incoming>| {
        let (core, user) = (core.clone(), user.clone());
        let request =
            request.map(|body| -> RequestBody { body.map_err(Into::into).boxed_unsync() });
        async move { Ok::<_, std::convert::Infallible>(dispatch::handle(core, user, request).await) }
    });
    // Both ends end with the connection, which the response owns.
    tokio::spawn(async move {
        let _ = hyper::server::conn::http1::Builder::new()
            .serve_connection(TokioIo::new(server_end), service)
            .with_upgrades()
            .await;
    });
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(client_end)).await?;
    tokio::spawn(async move {
        let _ = connection.with_upgrades().await;
    });
    let response = sender.send_request(request).await?;
    Ok(response.map(|body| body.map_err(Into::into).boxed_unsync()))
}
