//! What clients and endpoints see of the HTTP balancer, request by request.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use hyper_util::rt::TokioIo;
use local_network::BackendState;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use crate::{
    backend::Backend,
    client::{Client, Running, get},
};

#[tokio::test]
async fn requests_on_one_client_connection_are_spread_over_all_endpoints_and_connections_are_reused()
 {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let running = Running::new(&[one.ready(), two.ready()]).await;
    let mut client = running.client().await;
    let mut seen = BTreeMap::new();
    for _ in 0..40 {
        let answer = client.send(get("/")).await.unwrap();
        *seen.entry(answer.into_body()).or_insert(0) += 1;
    }
    assert_eq!(seen.into_values().collect::<Vec<_>>(), [20, 20]);
    assert!(one.connections.load(Ordering::Relaxed) + two.connections.load(Ordering::Relaxed) <= 4);
    let report = running.balancer.report();
    assert_eq!((report.requests, report.failures), (40, 0));
    assert!(
        report
            .endpoints
            .iter()
            .all(|e| e.served == 20 && e.first_served.is_some() && e.outstanding == 0)
    );
}

#[tokio::test]
async fn a_new_endpoint_gets_requests_at_once_and_a_leaving_one_no_more() {
    let (one, two) = (Backend::start().await, Backend::start().await);
    let running = Running::new(&[one.ready()]).await;
    let mut client = running.client().await;
    client.send(get("/")).await.unwrap();
    running.balancer.update(&[one.ready(), two.ready()]);
    for _ in 0..4 {
        client.send(get("/")).await.unwrap();
    }
    assert_eq!(two.served.load(Ordering::Relaxed), 2);
    let leaving = local_network::Backend {
        state: BackendState::Terminating,
        ..one.ready()
    };
    running.balancer.update(&[leaving, two.ready()]);
    let before = one.served.load(Ordering::Relaxed);
    for _ in 0..4 {
        client.send(get("/")).await.unwrap();
    }
    assert_eq!(one.served.load(Ordering::Relaxed), before);
}

#[tokio::test]
async fn a_request_under_way_is_finished_by_an_endpoint_that_left() {
    let slow = Backend::start_with_delay(Duration::from_millis(200)).await;
    let running = Running::new(&[slow.ready()]).await;
    let mut client = running.client().await;
    let asking = tokio::spawn(async move { client.send(get("/")).await });
    while running
        .balancer
        .report()
        .endpoints
        .iter()
        .all(|e| e.outstanding == 0)
    {
        tokio::task::yield_now().await;
    }
    running.balancer.update(&[]);
    let answer = asking.await.unwrap().unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body(), slow.address.to_string());
}

#[tokio::test]
async fn a_request_waits_a_moment_for_the_first_endpoint_and_is_refused_when_none_comes() {
    let running = Running::new(&[]).await;
    let mut client = running.client().await;
    let waiting = tokio::spawn(async move { client.send(get("/")).await });
    while running.balancer.report().requests == 0 {
        tokio::task::yield_now().await;
    }
    let backend = Backend::start().await;
    running.balancer.update(&[backend.ready()]);
    assert_eq!(waiting.await.unwrap().unwrap().status(), StatusCode::OK);

    running.balancer.update(&[]);
    let refused = running.client().await.send(get("/")).await.unwrap();
    assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(refused.headers().contains_key("retry-after"));
    assert_eq!(
        refused.into_body(),
        "default/shop:80: no endpoint is ready\n"
    );
    assert_eq!(running.balancer.report().failures, 1);
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_costs_nothing_but_a_retry() {
    let good = Backend::start().await;
    let gone = Backend::start().await;
    let stale = gone.ready();
    gone.drain().await;
    let running = Running::new(&[stale, good.ready()]).await;
    let mut client = running.client().await;
    for n in 0..20 {
        let body = Full::new(Bytes::from(format!("order {n}")));
        let request = Request::post("/echo")
            .header("host", "shop")
            .body(body)
            .unwrap();
        let answer = client.send(request).await.unwrap();
        assert_eq!(answer.into_body(), format!("order {n}"));
    }
    let report = running.balancer.report();
    assert!(report.failures == 0 && report.retries >= 1, "{report:?}");
}

/// Reads a request, or nothing, and hangs up without an answer.
async fn hangs_up() -> local_network::Backend {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!()
    };
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.read_u8().await.unwrap();
        }
    });
    local_network::Backend {
        address,
        state: BackendState::Ready,
    }
}

#[tokio::test]
async fn unanswered_requests_are_repeated_only_when_that_does_no_harm() {
    let good = Backend::start().await;
    let running = Running::new(&[hangs_up().await, good.ready()]).await;
    let mut statuses = BTreeMap::new();
    for method in [Method::GET, Method::DELETE, Method::POST] {
        let mut client = running.client().await;
        for _ in 0..4 {
            let request = Request::builder()
                .method(&method)
                .uri("/")
                .header("host", "shop");
            let answer = client
                .send(request.body(Full::default()).unwrap())
                .await
                .unwrap();
            *statuses
                .entry((method.to_string(), answer.status().as_u16()))
                .or_insert(0) += 1;
        }
    }
    assert_eq!(statuses.get(&("GET".to_owned(), 200)), Some(&4));
    assert_eq!(statuses.get(&("DELETE".to_owned(), 200)), Some(&4));
    assert_eq!(
        statuses.get(&("POST".to_owned(), 502)),
        Some(&2),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn the_endpoint_learns_the_client_and_not_the_connections_own_fields() {
    let backend = Backend::start().await;
    let running = Running::new(&[backend.ready()]).await;
    assert_eq!(
        running.get("/headers").await,
        "host: shop\nx-forwarded-for: 127.0.0.1\nx-forwarded-host: shop\nx-forwarded-proto: http"
    );
}

#[tokio::test]
async fn large_bodies_are_streamed_both_ways() {
    let backend = Backend::start().await;
    let running = Running::new(&[backend.ready()]).await;
    let mut client = running.client().await;
    let answer = client.send(get("/large")).await.unwrap();
    assert_eq!(answer.headers()["content-length"], "8388608");
    assert_eq!(answer.into_body().len(), 8 << 20);
    let body = Bytes::from(vec![b'y'; 4 << 20]);
    let request = Request::post("/echo")
        .header("host", "shop")
        .body(Full::new(body.clone()))
        .unwrap();
    assert_eq!(client.send(request).await.unwrap().into_body(), body);
    let head = Request::head("/large")
        .header("host", "shop")
        .body(Full::default())
        .unwrap();
    let answer = client.send(head).await.unwrap();
    assert_eq!(
        (
            answer.headers()["content-length"].to_str().unwrap(),
            answer.body().len()
        ),
        ("8388608", 0)
    );
    assert_eq!(
        client.send(get("/")).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_frees_its_place() {
    let backend = Backend::start().await;
    let running = Running::new(&[backend.ready()]).await;
    let mut client = running.client().await;
    let answer = client.start(get("/large")).await.unwrap();
    drop((answer, client));
    timeout(Duration::from_secs(5), async {
        while running.balancer.report().endpoints[0].outstanding != 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await
    .expect("the place is given back");
}

#[tokio::test]
async fn an_upgraded_connection_is_passed_through() {
    let backend = Backend::start().await;
    let running = Running::new(&[backend.ready()]).await;
    let mut client = running.client().await;
    let request = Request::get("/upgrade")
        .header("host", "shop")
        .header("connection", "upgrade");
    let request = request
        .header("upgrade", "echo")
        .body(Full::default())
        .unwrap();
    let answer = client.start(request).await.unwrap();
    assert_eq!(
        (answer.status(), &answer.headers()["upgrade"]),
        (StatusCode::SWITCHING_PROTOCOLS, &"echo".parse().unwrap())
    );
    let mut stream = TokioIo::new(hyper::upgrade::on(answer).await.unwrap());
    stream.write_all(b"there and back").await.unwrap();
    stream.shutdown().await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "there and back");
}

#[tokio::test]
async fn old_clients_and_absolute_targets_are_understood() {
    let backend = Backend::start().await;
    let running = Running::new(&[backend.ready()]).await;
    for request in [
        "GET / HTTP/1.0\r\n\r\n",
        "GET http://shop/ HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(running.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(
            answer.contains("200 OK") && answer.ends_with(&backend.address.to_string()),
            "{answer}"
        );
    }
}

#[tokio::test]
async fn stopping_finishes_requests_under_way_and_then_ends() {
    let slow = Backend::start_with_delay(Duration::from_millis(200)).await;
    let mut running = Running::new(&[slow.ready()]).await;
    let mut client = running.client().await;
    let idle = running.client().await;
    let asking = tokio::spawn(async move { client.send(get("/")).await });
    while running.balancer.report().requests == 0 {
        tokio::task::yield_now().await;
    }
    running.stop.cancel();
    assert_eq!(asking.await.unwrap().unwrap().status(), StatusCode::OK);
    timeout(Duration::from_secs(5), running.served.take().unwrap())
        .await
        .unwrap()
        .unwrap();
    drop(idle);
    assert!(Client::connect(running.address).await.is_err());
}

/// Answers one request on each connection as if it could take more, and then hangs up.
fn answers_once_and_hangs_up() -> local_network::Backend {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let std::net::SocketAddr::V4(address) = listener.local_addr().unwrap() else {
        panic!()
    };
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 2048];
            if std::io::Read::read(&mut stream, &mut request).is_ok_and(|length| length > 0) {
                std::io::Write::write_all(
                    &mut stream,
                    b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                )
                .unwrap();
            }
        }
    });
    local_network::Backend {
        address,
        state: BackendState::Ready,
    }
}

#[tokio::test]
async fn a_request_that_must_not_be_repeated_meets_no_connection_that_is_closed() {
    let running = Running::new(&[answers_once_and_hangs_up()]).await;
    let mut client = running.client().await;
    for _ in 0..50 {
        let request = Request::post("/")
            .header("host", "shop")
            .body(Full::new(Bytes::from("order")))
            .unwrap();
        assert_eq!(client.send(request).await.unwrap().status(), StatusCode::OK);
        // The endpoint's end of the connection reaches the kernel while this thread, and so the balancer, stands still.
        std::thread::sleep(Duration::from_millis(2));
    }
}
