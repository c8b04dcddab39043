//! The in-process transport: a `kube` client whose requests never leave the process.

use super::body::{BoxError, RequestBody, ResponseBody};
use super::dispatch;
use crate::auth::User;
use crate::core::Core;
use http::{Request, Response};
use http_body_util::BodyExt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

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
        Box::pin(async move { Ok(dispatch::handle(core, user, request).await) })
    }
}
