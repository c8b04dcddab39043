//! One virtual user's HTTP/1.1 connection: kept alive, made anew when the server closed it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::record::Outcome;

/// What every user asks for.
pub(crate) struct RequestShape {
    pub addresses: Vec<SocketAddr>,
    pub authority: String,
    pub path: Uri,
    pub count_header: Option<String>,
    pub timeout: Duration,
}

/// What came back.
pub(crate) struct Answer {
    pub outcome: Outcome,
    pub bytes: u64,
    pub header: Option<String>,
}

impl Answer {
    fn failed(outcome: Outcome) -> Self {
        Self {
            outcome,
            bytes: 0,
            header: None,
        }
    }
}

struct Open {
    sender: SendRequest<Empty<Bytes>>,
    driver: JoinHandle<()>,
    used: bool,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// A user's connection, open or not.
#[derive(Default)]
pub(crate) struct Connection(Option<Open>);

impl Connection {
    /// Sends one GET and reads the whole answer. A kept-alive connection that turns out to be closed before it
    /// answered is replaced once, as every HTTP client does for idempotent requests; `retries` counts that.
    pub(crate) async fn get(&mut self, shape: &RequestShape, retries: &AtomicU64) -> Answer {
        let attempt = async {
            let reused = self.0.as_ref().is_some_and(|open| open.used);
            match self.exchange(shape).await {
                Err(Failure::BeforeAnswer) if reused => {
                    retries.fetch_add(1, Ordering::Relaxed);
                    self.exchange(shape).await
                }
                result => result,
            }
        };
        match tokio::time::timeout(shape.timeout, attempt).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(Failure::Connect)) => Answer::failed(Outcome::Connect),
            Ok(Err(Failure::BeforeAnswer | Failure::DuringAnswer)) => {
                Answer::failed(Outcome::Broken)
            }
            Err(_) => {
                // The answer may still arrive; it must not be taken for the next one.
                self.0 = None;
                Answer::failed(Outcome::Timeout)
            }
        }
    }

    async fn exchange(&mut self, shape: &RequestShape) -> Result<Answer, Failure> {
        let mut open = match self.0.take().filter(|open| !open.sender.is_closed()) {
            Some(open) => open,
            None => connect(shape).await?,
        };
        if open.sender.ready().await.is_err() {
            return Err(Failure::BeforeAnswer);
        }
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = shape.path.clone();
        if let Ok(host) = shape.authority.parse() {
            request.headers_mut().insert(http::header::HOST, host);
        }
        let response = open
            .sender
            .send_request(request)
            .await
            .map_err(|_| Failure::BeforeAnswer)?;
        let status = response.status().as_u16();
        let header = shape.count_header.as_ref().and_then(|name| {
            let value = response.headers().get(name)?.to_str().ok()?;
            Some(value.to_string())
        });
        let mut body = response.into_body();
        let mut bytes = 0;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Failure::DuringAnswer)?;
            bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
        }
        open.used = true;
        self.0 = Some(open);
        let outcome = if status < 400 {
            Outcome::Success
        } else {
            Outcome::Status(status)
        };
        Ok(Answer {
            outcome,
            bytes,
            header,
        })
    }
}

enum Failure {
    Connect,
    BeforeAnswer,
    DuringAnswer,
}

async fn connect(shape: &RequestShape) -> Result<Open, Failure> {
    let stream = TcpStream::connect(shape.addresses.as_slice())
        .await
        .map_err(|_| Failure::Connect)?;
    let _ = stream.set_nodelay(true);
    let (sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|_| Failure::Connect)?;
    let driver = tokio::spawn(async move {
        // Its errors reach the request that waits for it.
        let _ = connection.await;
    });
    Ok(Open {
        sender,
        driver,
        used: false,
    })
}
