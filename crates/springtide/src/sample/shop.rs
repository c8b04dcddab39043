//! The shop inside the container: each request burns a settable amount of CPU and says which pod served it.
//!
//! One thread, like many a real back end, so that CPU is what limits it. On SIGTERM it goes on answering for a moment
//! while load balancers take notice, asks clients to open new connections, then ends when nothing is left to answer.

use std::convert::Infallible;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use nix::time::{ClockId, clock_gettime};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// After SIGTERM the shop still answers for this long, so that nobody meets a closed door.
const DRAIN: Duration = Duration::from_millis(1500);
/// Then running requests get this long.
const FINISH: Duration = Duration::from_secs(3);

struct Shop {
    pod: String,
    cpu_per_request: Duration,
    stopping: CancellationToken,
}

/// Serves on `SHOP_PORT` (8080) until SIGTERM.
pub fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: start the shop: {error}");
            return ExitCode::FAILURE;
        }
    };
    let local = tokio::task::LocalSet::new();
    match local.block_on(&runtime, serve()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name)
        .ok()
        .and_then(|text| text.parse().ok())
        .unwrap_or(default)
}

async fn serve() -> std::io::Result<()> {
    let port = u16::try_from(number("SHOP_PORT", 8080)).unwrap_or(8080);
    let listener = TcpListener::bind(("0.0.0.0", port)).await?;
    let shop = Rc::new(Shop {
        pod: std::env::var("POD_NAME")
            .or_else(|_| std::env::var("HOSTNAME"))
            .unwrap_or_else(|_| "unknown".to_string()),
        cpu_per_request: Duration::from_micros(number("SHOP_CPU_MICROS_PER_REQUEST", 1000)),
        stopping: CancellationToken::new(),
    });
    eprintln!(
        "shop {} listens on port {port}, {} µs of CPU a request",
        shop.pod,
        shop.cpu_per_request.as_micros()
    );
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let graceful = Rc::new(hyper_util::server::graceful::GracefulShutdown::new());
    let mut drain_over: Option<tokio::time::Instant> = None;
    loop {
        let drained = async {
            match drain_over {
                Some(at) => tokio::time::sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = terminate.recv() => { shop.stopping.cancel(); drain_over = Some(tokio::time::Instant::now() + DRAIN); }
            _ = interrupt.recv() => { shop.stopping.cancel(); drain_over = Some(tokio::time::Instant::now() + DRAIN); }
            () = drained => break,
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                let _ = stream.set_nodelay(true);
                let shop = shop.clone();
                let service = service_fn(move |request| {
                    let shop = shop.clone();
                    async move { Ok::<_, Infallible>(shop.answer(&request)) }
                });
                let connection = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                let connection = graceful.watch(connection);
                tokio::task::spawn_local(async move {
                    let _ = connection.await;
                });
            }
        }
    }
    drop(listener);
    if let Ok(graceful) = Rc::try_unwrap(graceful) {
        let _ = tokio::time::timeout(FINISH, graceful.shutdown()).await;
    }
    eprintln!("shop {} has answered everything and ends", shop.pod);
    Ok(())
}

impl Shop {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let text = match request.uri().path() {
            "/healthz" if self.stopping.is_cancelled() => {
                let mut response = Response::new(Full::new(Bytes::from_static(b"stopping\n")));
                *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                return response;
            }
            "/healthz" => "ok\n".to_string(),
            _ => {
                burn(self.cpu_per_request);
                format!("{{\"servedBy\":\"{}\"}}\n", self.pod)
            }
        };
        let mut response = Response::new(Full::new(Bytes::from(text)));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Ok(pod) = HeaderValue::from_str(&self.pod) {
            headers.insert("x-served-by", pod);
        }
        if self.stopping.is_cancelled() {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Uses this much CPU time of this thread; time in which the kernel runs others does not count.
fn burn(cpu: Duration) {
    let used = || {
        clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)
            .map(Duration::from)
            .unwrap_or(cpu)
    };
    let until = used() + cpu;
    let mut value = 0u64;
    while used() < until {
        for step in 0..500u64 {
            value = std::hint::black_box(
                value
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(step),
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_burns_the_cpu_it_was_told_to() {
        let before = Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
        burn(Duration::from_millis(20));
        let used =
            Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap()) - before;
        assert!(
            (Duration::from_millis(20)..Duration::from_millis(200)).contains(&used),
            "{used:?}"
        );
    }
}
