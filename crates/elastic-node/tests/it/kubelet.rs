//! Logs, commands and figures through the API server, as kubectl asks for them.

use std::net::IpAddr;

use elastic_node::NodeEndpoint;
use kube::api::{AttachParams, LogParams};
use kubelet_api::ServerTls;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use crate::support::{Scene, ZONES, eventually, node};

/// A scene whose first node serves its kubelet API.
async fn served() -> Scene {
    let mut scene = Scene::without_nodes().await;
    let address: IpAddr = "127.0.0.1".parse().unwrap();
    let server = &scene.server.server;
    let (certificate_pem, key_pem) = server
        .issue_serving_certificate(&[node(ZONES[0])], &[address])
        .unwrap();
    let tls = ServerTls {
        certificate_pem,
        key_pem,
        client_ca_pem: server.credentials().ca_pem,
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let zone = ZONES[0].to_owned();
    scene.start_nodes_at(vec![NodeEndpoint {
        zone,
        address,
        port,
        listener: Some((listener, kubelet_api::fixed(tls))),
    }]);
    scene
        .create_pod("web-1", |pod| {
            pod["spec"]["containers"][0]["env"] =
                json!([{"name": "SIMULATED_CPU", "value": "0.5"}]);
        })
        .await;
    scene.runs("web-1").await;
    scene
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn logs_come_from_the_group() {
    let scene = served().await;
    let log = scene
        .pods
        .logs("web-1", &LogParams::default())
        .await
        .unwrap();
    assert!(log.starts_with("simulated container web of eci-"), "{log}");
    let tail = LogParams {
        tail_lines: Some(0),
        ..LogParams::default()
    };
    assert_eq!(scene.pods.logs("web-1", &tail).await.unwrap(), "");
    let wrong = LogParams {
        container: Some("none".to_owned()),
        ..LogParams::default()
    };
    assert!(scene.pods.logs("web-1", &wrong).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_runs_in_the_group_and_its_output_comes_back() {
    let scene = served().await;
    let params = AttachParams::default().stdout(true).stderr(false);
    let mut session = scene
        .pods
        .exec("web-1", ["echo", "hello"], &params)
        .await
        .unwrap();
    let mut output = String::new();
    session
        .stdout()
        .unwrap()
        .read_to_string(&mut output)
        .await
        .unwrap();
    assert_eq!(output, "simulated: echo hello\n");
    let status = session.take_status().unwrap().await.unwrap();
    assert_eq!(status.status.as_deref(), Some("Success"), "{status:?}");
    session.join().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn figures_of_running_pods_are_served_for_the_metrics_server() {
    let scene = served().await;
    let path = format!("/api/v1/nodes/{}/proxy/metrics/resource", node(ZONES[0]));
    let read = async || {
        let request = http::Request::get(&path).body(Vec::new()).unwrap();
        scene.client.request_text(request).await.unwrap()
    };
    let wanted =
        "container_cpu_usage_seconds_total{container=\"web\",namespace=\"default\",pod=\"web-1\"}";
    eventually("figures", read, |text| {
        text.contains(wanted) && text.contains("node_cpu_usage_seconds_total")
    })
    .await;
}
