//! A measurement, run by hand: `cargo test --release -p local-gateway --test it throughput -- --ignored --nocapture`.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::client::Running;
use local_network::{Backend, BackendState};

const CLIENTS: usize = 64;
const ENDPOINTS: usize = 6;
const PERIOD: Duration = Duration::from_secs(5);
const REQUEST: &[u8] = b"GET /buy?item=7 HTTP/1.1\r\nhost: shop\r\naccept: */*\r\n\r\n";
const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 12\r\n\r\nhello world\n";

/// Answers every read with one fixed answer: as little work as a server can have.
async fn endpoint() -> Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!("bound to IPv4")
    };
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 2048];
                while stream
                    .read(&mut buffer)
                    .await
                    .is_ok_and(|length| length > 0)
                {
                    stream.write_all(ANSWER).await.unwrap();
                }
            });
        }
    });
    Backend {
        address,
        state: BackendState::Ready,
    }
}

async fn ask_for_ever(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = [0; 4096];
    loop {
        stream.write_all(REQUEST).await.unwrap();
        let mut length = 0;
        while !buffer[..length].ends_with(b"hello world\n") {
            length += stream.read(&mut buffer[length..]).await.unwrap();
        }
    }
}

/// The processor time this thread has used.
fn processor_time() -> Duration {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split_whitespace().next().unwrap().parse().unwrap())
}

#[test]
#[ignore = "a measurement, not a test"]
fn throughput_of_small_requests_per_second_of_the_balancers_processor_time() {
    let endpoints = std::thread::spawn(|| {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let endpoints = runtime.block_on(async {
            futures::future::join_all((0..ENDPOINTS).map(|_| endpoint())).await
        });
        (runtime, endpoints)
    });
    let (others, endpoints) = endpoints.join().unwrap();
    // The balancer has this thread for itself.
    let own = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    own.block_on(async {
        let running = Running::new(&endpoints).await;
        for _ in 0..CLIENTS {
            others.spawn(ask_for_ever(running.address));
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
        let (before, used, started) = (
            running.balancer.report().requests,
            processor_time(),
            Instant::now(),
        );
        tokio::time::sleep(PERIOD).await;
        let requests = (running.balancer.report().requests - before) as f64;
        let (wall, used) = (
            started.elapsed().as_secs_f64(),
            (processor_time() - used).as_secs_f64(),
        );
        eprintln!(
            "{:.0} requests/s; {:.0} per second of processor time",
            requests / wall,
            requests / used
        );
    });
    others.shutdown_background();
}
