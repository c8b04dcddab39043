//! The whole gateway: services in an API, pods in namespaces, clients on the machine and in pods.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use local_gateway::{
    FIRST_REQUEST_REASON, Gateway, GatewayConfig, GatewayError, Reports,
    SUBSTITUTE_PORTS_ANNOTATION,
};
use local_network::{ClusterNetwork, DnsConfig, NetworkConfig, PodNetwork, SocketFactory};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::fake_api::FakeApi;

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Cluster {
    id: String,
    api: FakeApi,
    network: ClusterNetwork,
    reports: Reports,
    shutdown: CancellationToken,
    running: Option<JoinHandle<Result<(), GatewayError>>>,
}

impl Cluster {
    async fn new() -> Self {
        Self::start(Self::unique_id(), FakeApi::new()).await
    }

    /// A cluster with another API.
    pub(crate) async fn with_client(client: kube::Client) -> Self {
        Self::start_with(Self::unique_id(), FakeApi::new(), client).await
    }

    /// Only the network, for tests that balance themselves.
    pub(crate) async fn without_gateway() -> Self {
        let mut cluster = Self::new().await;
        cluster.stop().await;
        cluster
    }

    pub(crate) fn network(&self) -> &ClusterNetwork {
        &self.network
    }

    fn unique_id() -> String {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes network namespaces and needs root"
        );
        format!(
            "gwtest-{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        )
    }

    async fn start(id: String, api: FakeApi) -> Self {
        let client = api.client();
        Self::start_with(id, api, client).await
    }

    async fn start_with(id: String, api: FakeApi, client: kube::Client) -> Self {
        let network = ClusterNetwork::open(NetworkConfig {
            cluster_id: id.clone(),
        })
        .await
        .unwrap();
        let config = GatewayConfig {
            cluster_id: id.clone(),
            dns: DnsConfig::default(),
        };
        let gateway = Gateway::new(client, network.clone(), config);
        let (reports, shutdown) = (gateway.reports(), CancellationToken::new());
        let running = Some(tokio::spawn(gateway.run(shutdown.clone())));
        Self {
            id,
            api,
            network,
            reports,
            shutdown,
            running,
        }
    }

    async fn restart(mut self) -> Self {
        self.stop().await;
        Self::start(self.id.clone(), self.api.clone()).await
    }

    async fn stop(&mut self) {
        self.shutdown.cancel();
        let ended = timeout(Duration::from_secs(10), self.running.take().unwrap()).await;
        ended.expect("the gateway ends").unwrap().unwrap();
    }

    pub(crate) async fn pod(&self, n: u8) -> PodNetwork {
        self.network
            .attach(&format!("pod-{n}"), Ipv4Addr::new(10, 30, 1, n))
            .await
            .unwrap()
    }

    /// The address in the service's status, once it is there.
    async fn address(&self, service: &str) -> Ipv4Addr {
        let status = self.eventually(|| {
            let object = self.api.service(service)?;
            object["status"]["loadBalancer"]["ingress"][0]["ip"]
                .as_str()
                .map(str::to_owned)
        });
        status.await.parse().unwrap()
    }

    pub(crate) async fn eventually_async<T>(&self, mut check: impl AsyncFnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(result) = check().await {
                return result;
            }
            assert!(
                Instant::now() < deadline,
                "gave up waiting; last state: {:?}",
                self.reports.snapshot()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn eventually<T>(&self, mut check: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            if let Some(result) = check() {
                return result;
            }
            let state = || {
                (
                    self.reports.snapshot(),
                    self.api.service("shop"),
                    self.api.events(),
                )
            };
            assert!(
                Instant::now() < deadline,
                "gave up waiting; last state: {:?}",
                state()
            );
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.shutdown.cancel();
        let id = self.id.clone();
        let removal = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(ClusterNetwork::destroy(&id))
        });
        if let Err(error) = removal.join().unwrap() {
            eprintln!("network {} could not be removed: {error}", self.id);
        }
    }
}

fn inside<T: Send + 'static>(netns: &Path, work: impl FnOnce() -> T + Send + 'static) -> T {
    let netns = netns.to_owned();
    let thread = std::thread::spawn(move || {
        let namespace = std::fs::File::open(netns).unwrap();
        nix::sched::setns(namespace, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        work()
    });
    thread.join().unwrap()
}

/// Listens inside a pod.
pub(crate) fn listen_in(pod: &PodNetwork) -> TcpListener {
    let ip = pod.ip;
    let listener = inside(&pod.netns_path, move || {
        StdListener::bind((ip, 8080)).unwrap()
    });
    listener.set_nonblocking(true).unwrap();
    TcpListener::from_std(listener).unwrap()
}

/// A web server in a pod that says which pod it is, and closes the connection.
pub(crate) fn serve(pod: &PodNetwork) {
    let (listener, name) = (listen_in(pod), pod.name.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let name = name.clone();
            tokio::spawn(async move {
                let mut request = [0; 2048];
                if stream
                    .read(&mut request)
                    .await
                    .is_ok_and(|length| length > 0)
                {
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        name.len()
                    );
                    stream
                        .write_all(format!("{head}{name}").as_bytes())
                        .await
                        .unwrap();
                }
            });
        }
    });
}

fn shop(port: u16, app_protocol: &str) -> Value {
    let port =
        json!({"port": port, "targetPort": 8080, "protocol": "TCP", "appProtocol": app_protocol});
    json!({"type": "LoadBalancer", "clusterIP": "10.96.0.20", "ports": [port]})
}

pub(crate) async fn ask(mut stream: TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer.rsplit("\r\n").next().unwrap().to_owned()
}

#[tokio::test]
async fn a_load_balancer_serves_ready_pods_by_request_and_by_connection() {
    let cluster = Cluster::new().await;
    let (one, two) = (cluster.pod(1).await, cluster.pod(2).await);
    serve(&one);
    serve(&two);
    for protocol in ["http", "tcp"] {
        cluster.api.put_service("shop", shop(80, protocol));
        cluster.api.put_endpoints(
            "shop",
            8080,
            &[("10.30.1.1".into(), true), ("10.30.1.2".into(), false)],
        );
        let address = SocketAddr::from((cluster.address("shop").await, 80));
        let requests = protocol == "http";
        cluster
            .eventually(|| {
                cluster
                    .reports
                    .snapshot()
                    .iter()
                    .find(|r| r.http.is_some() == requests)
                    .map(drop)
            })
            .await;
        assert_eq!(
            ask(TcpStream::connect(address).await.unwrap()).await,
            "pod-1"
        );
        cluster.api.put_endpoints(
            "shop",
            8080,
            &[("10.30.1.1".into(), false), ("10.30.1.2".into(), true)],
        );
        let deadline = Instant::now() + Duration::from_secs(5);
        while ask(TcpStream::connect(address).await.unwrap()).await != "pod-2" {
            assert!(Instant::now() < deadline, "the change does not arrive");
        }
    }
    assert!(
        cluster
            .api
            .events()
            .iter()
            .any(|event| event.starts_with("EnsuredLoadBalancer")),
        "{:?}",
        cluster.api.events()
    );
    for pod in ["pod-10.30.1.1", "pod-10.30.1.2"] {
        let told = || {
            cluster
                .api
                .events_of(pod)
                .iter()
                .any(|reason| reason == FIRST_REQUEST_REASON)
                .then_some(())
        };
        cluster.eventually(told).await;
    }
    assert!(
        !cluster
            .api
            .events()
            .iter()
            .any(|event| event.starts_with("PortInUse")),
        "{:?}",
        cluster.api.events()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pods_reach_services_by_address_and_by_name() {
    let cluster = Cluster::new().await;
    let pod = cluster.pod(1).await;
    serve(&pod);
    cluster.api.put_service("shop", shop(80, "http"));
    cluster
        .api
        .put_endpoints("shop", 8080, &[("10.30.1.1".into(), true)]);
    cluster.address("shop").await;
    let client = cluster.pod(2).await;
    let service = SocketAddr::from((Ipv4Addr::new(10, 96, 0, 20), 80));
    let stream = SocketFactory::tcp_connect_in(&client.netns_path, service)
        .await
        .unwrap();
    assert_eq!(ask(stream).await, "pod-1");

    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x04shop\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";
    let answer = inside(&client.netns_path, move || {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        socket
            .send_to(question, (Ipv4Addr::new(10, 96, 0, 10), 53))
            .unwrap();
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).unwrap();
        buffer[..length].to_vec()
    });
    assert!(answer.ends_with(&[10, 96, 0, 20]), "{answer:?}");
}

#[tokio::test]
async fn a_port_in_use_is_replaced_and_taken_back_when_it_is_free() {
    let other = StdListener::bind("0.0.0.0:0").unwrap();
    let port = other.local_addr().unwrap().port();
    let cluster = Cluster::new().await;
    let pod = cluster.pod(1).await;
    serve(&pod);
    cluster.api.put_service("shop", shop(port, "http"));
    cluster
        .api
        .put_endpoints("shop", 8080, &[("10.30.1.1".into(), true)]);
    let ip = cluster.address("shop").await;
    let annotation = || {
        let annotations = cluster.api.service("shop")?["metadata"]["annotations"].clone();
        annotations[SUBSTITUTE_PORTS_ANNOTATION]
            .as_str()
            .map(str::to_owned)
    };
    let instead = cluster.eventually(annotation).await;
    let instead: u16 = instead
        .strip_prefix(&format!("{port}/TCP="))
        .unwrap()
        .parse()
        .unwrap();
    assert_eq!(
        ask(TcpStream::connect((ip, instead)).await.unwrap()).await,
        "pod-1"
    );
    let warned = || {
        cluster
            .api
            .events()
            .into_iter()
            .find(|event| event.starts_with("PortInUse"))
    };
    let event = cluster.eventually(warned).await;
    assert!(event.contains(&format!("{ip}:{instead}")), "{event}");

    drop(other);
    cluster
        .api
        .put_endpoints("shop", 8080, &[("10.30.1.1".into(), true)]);
    cluster
        .eventually(|| annotation().is_none().then_some(()))
        .await;
    assert_eq!(
        ask(TcpStream::connect((ip, port)).await.unwrap()).await,
        "pod-1"
    );
}

#[tokio::test]
async fn addresses_survive_a_restart_and_differ_between_clusters() {
    let cluster = Cluster::new().await;
    cluster.api.put_service("first", shop(80, "http"));
    let first = cluster.address("first").await;
    cluster.api.put_service("second", shop(80, "tcp"));
    let second = cluster.address("second").await;
    assert_ne!(first, second);
    cluster.api.delete_service("first");
    let other = Cluster::new().await;
    other.api.put_service("shop", shop(80, "http"));
    assert_ne!(other.address("shop").await.octets()[2], second.octets()[2]);

    let cluster = cluster.restart().await;
    cluster
        .eventually(|| (cluster.reports.snapshot().len() == 1).then_some(()))
        .await;
    assert_eq!(cluster.reports.snapshot()[0].address, (second, 80).into());
}

#[tokio::test]
async fn a_service_that_is_no_load_balancer_any_more_loses_address_and_port() {
    let mut cluster = Cluster::new().await;
    cluster.api.put_service("shop", shop(80, "http"));
    let ip = cluster.address("shop").await;
    let mut spec = shop(80, "http");
    spec["type"] = json!("ClusterIP");
    cluster.api.put_service("shop", spec);
    let cleared = || {
        let service = cluster.api.service("shop")?;
        service["status"]["loadBalancer"]["ingress"]
            .is_null()
            .then_some(())
    };
    cluster.eventually(cleared).await;
    cluster
        .eventually(|| {
            std::net::TcpStream::connect((ip, 80))
                .is_err()
                .then_some(())
        })
        .await;
    cluster.stop().await;
}
