//! The gateway against the real API server: what it watches and writes is what that server accepts.

use std::net::{Ipv4Addr, SocketAddr};

use k8s_openapi::api::{
    core::v1::{Event, Service},
    discovery::v1::EndpointSlice,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use local_apiserver::testing::TestServer;
use serde_json::json;
use tokio::net::TcpStream;

use crate::gateway::{Cluster, ask, serve};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_balancer_created_through_the_api_serves_its_pods() {
    let api = TestServer::start().await;
    let client = api.client();
    let cluster = Cluster::with_client(client.clone()).await;
    serve(&cluster.pod(1).await);

    let services: Api<Service> = Api::namespaced(client.clone(), "default");
    let service = json!({
        "metadata": {"name": "shop"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "shop"},
                 "ports": [{"port": 80, "targetPort": 8080, "appProtocol": "http"}]},
    });
    let created = services
        .create(
            &PostParams::default(),
            &serde_json::from_value(service).unwrap(),
        )
        .await
        .unwrap();
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), "default");
    let slice = json!({
        "metadata": {"name": "shop-1", "labels": {"kubernetes.io/service-name": "shop"}},
        "addressType": "IPv4", "ports": [{"port": 8080, "protocol": "TCP"}],
        "endpoints": [{"addresses": ["10.30.1.1"], "conditions": {"ready": true}}],
    });
    slices
        .create(
            &PostParams::default(),
            &serde_json::from_value(slice).unwrap(),
        )
        .await
        .unwrap();

    let address = cluster
        .eventually_async(async || {
            let status = services.get("shop").await.unwrap().status?;
            status.load_balancer?.ingress?.first()?.ip.clone()
        })
        .await;
    let address = SocketAddr::new(address.parse().unwrap(), 80);
    assert_eq!(
        ask(TcpStream::connect(address).await.unwrap()).await,
        "pod-1"
    );

    let cluster_ip: Ipv4Addr = created.spec.unwrap().cluster_ip.unwrap().parse().unwrap();
    let sockets = cluster.network().sockets();
    let connect = async || sockets.tcp_connect((cluster_ip, 80).into()).await.ok();
    let stream = cluster.eventually_async(connect).await;
    assert_eq!(ask(stream).await, "pod-1");

    let events: Api<Event> = Api::namespaced(client, "default");
    cluster
        .eventually_async(async || {
            let events = events.list(&ListParams::default()).await.unwrap();
            events
                .items
                .iter()
                .any(|event| event.reason.as_deref() == Some("EnsuredLoadBalancer"))
                .then_some(())
        })
        .await;
}
