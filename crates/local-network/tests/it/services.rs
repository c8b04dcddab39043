//! Service addresses: connections and datagrams from pods reach balanced backends, and changes do not break them.

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use local_network::{
    Backend, BackendState, Balancing, PodNetwork, Protocol, Service, ServiceKey, ServicePort,
    ServiceProxy, ServiceTable, SocketFactory,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use crate::support::{TestNetwork, bind_udp_in, eventually, listen_in};

const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 20);
const PORT: u16 = 80;

struct Proxied {
    test: TestNetwork,
    table: watch::Sender<Arc<ServiceTable>>,
    shutdown: CancellationToken,
    proxy: Option<JoinHandle<()>>,
    client: PodNetwork,
}

impl Proxied {
    async fn new() -> Self {
        let test = TestNetwork::new().await;
        let (table, receiver) = watch::channel(Arc::default());
        let shutdown = CancellationToken::new();
        let proxy = ServiceProxy::new(test.network.sockets(), receiver, []);
        let proxy = Some(tokio::spawn(proxy.run(shutdown.clone())));
        let client = test
            .network
            .attach("client", Ipv4Addr::new(10, 30, 2, 1))
            .await
            .unwrap();
        Self {
            test,
            table,
            shutdown,
            proxy,
            client,
        }
    }

    async fn pod(&self, n: u8) -> PodNetwork {
        self.test
            .network
            .attach(&format!("pod-{n}"), Ipv4Addr::new(10, 30, 1, n))
            .await
            .unwrap()
    }

    fn publish(
        &self,
        protocol: Protocol,
        backends: &[(SocketAddr, BackendState)],
        affinity: Option<Duration>,
    ) {
        let backend = |(address, state): &(SocketAddr, BackendState)| match address {
            SocketAddr::V4(address) => Backend {
                address: *address,
                state: *state,
            },
            SocketAddr::V6(_) => panic!("the cluster is IPv4 only"),
        };
        let backends = backends.iter().map(backend).collect();
        let balancing = Balancing::PerConnection;
        let port = ServicePort {
            name: String::new(),
            protocol,
            port: PORT,
            balancing,
            backends,
        };
        let service = Service {
            cluster_ip: Some(SERVICE),
            client_affinity: affinity,
            ports: vec![port],
            ..Service::default()
        };
        let services = [(ServiceKey::new("default", "shop"), service)].into();
        self.table.send_replace(Arc::new(ServiceTable { services }));
    }

    async fn connect(&self) -> std::io::Result<TcpStream> {
        SocketFactory::tcp_connect_in(
            &self.client.netns_path,
            SocketAddrV4::new(SERVICE, PORT).into(),
        )
        .await
    }

    /// Sends something, ends that direction, and returns what came back.
    async fn exchange(&self, text: &str) -> std::io::Result<String> {
        let mut stream = self.connect().await?;
        stream.write_all(text.as_bytes()).await?;
        stream.shutdown().await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok(answer)
    }

    async fn wait_until_served(&self) {
        eventually(|| async {
            match self.exchange("").await {
                Ok(answer) if !answer.is_empty() => Ok(()),
                other => Err(other),
            }
        })
        .await;
    }
}

/// Says its name, reads to the end, then repeats what it read: works only when half-closing does.
fn serve_echo(pod: &PodNetwork) -> SocketAddr {
    let listener = listen_in(pod, 0);
    let (address, name) = (listener.local_addr().unwrap(), pod.name.clone());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let name = name.clone();
            tokio::spawn(async move {
                stream
                    .write_all(format!("{name}:").as_bytes())
                    .await
                    .unwrap();
                let mut text = Vec::new();
                stream.read_to_end(&mut text).await.unwrap();
                stream.write_all(&text).await.unwrap();
            });
        }
    });
    address
}

#[tokio::test]
async fn connections_are_spread_over_ready_backends_and_half_closes_pass() {
    let cluster = Proxied::new().await;
    let (one, two) = (cluster.pod(1).await, cluster.pod(2).await);
    let unready = SocketAddr::from((Ipv4Addr::new(10, 30, 1, 3), 80));
    let (first, second) = (serve_echo(&one), serve_echo(&two));
    use BackendState::{NotReady, Ready};
    cluster.publish(
        Protocol::Tcp,
        &[(first, Ready), (second, Ready), (unready, NotReady)],
        None,
    );
    cluster.wait_until_served().await;
    let mut seen = BTreeSet::new();
    for _ in 0..6 {
        seen.insert(cluster.exchange("hello").await.unwrap());
    }
    assert_eq!(
        seen,
        ["pod-1:hello".to_owned(), "pod-2:hello".to_owned()].into()
    );
}

#[tokio::test]
async fn a_backend_that_refuses_is_passed_over() {
    let cluster = Proxied::new().await;
    let (one, two) = (cluster.pod(1).await, cluster.pod(2).await);
    let refusing = SocketAddr::from((one.ip, 9));
    cluster.publish(
        Protocol::Tcp,
        &[
            (refusing, BackendState::Ready),
            (serve_echo(&two), BackendState::Ready),
        ],
        None,
    );
    cluster.wait_until_served().await;
    for _ in 0..4 {
        assert_eq!(cluster.exchange("x").await.unwrap(), "pod-2:x");
    }
}

#[tokio::test]
async fn live_connections_outlast_table_changes_and_their_backends_removal() {
    let cluster = Proxied::new().await;
    let (one, two) = (cluster.pod(1).await, cluster.pod(2).await);
    let (first, second) = (serve_echo(&one), serve_echo(&two));
    cluster.publish(Protocol::Tcp, &[(first, BackendState::Ready)], None);
    cluster.wait_until_served().await;
    let mut old = cluster.connect().await.unwrap();
    let mut greeting = [0; 6];
    old.read_exact(&mut greeting).await.unwrap();
    old.write_all(b"still ").await.unwrap();

    cluster.publish(Protocol::Tcp, &[(second, BackendState::Ready)], None);
    eventually(|| async {
        match cluster.exchange("new").await.unwrap() {
            answer if answer == "pod-2:new" => Ok(()),
            other => Err(other),
        }
    })
    .await;
    // The whole service goes away too.
    cluster.table.send_replace(Arc::default());
    eventually(|| async {
        cluster
            .connect()
            .await
            .map_or(Ok(()), |_| Err("the service still accepts"))
    })
    .await;

    old.write_all(b"here").await.unwrap();
    old.shutdown().await.unwrap();
    let mut answer = String::new();
    old.read_to_string(&mut answer).await.unwrap();
    assert_eq!(
        (&greeting[..], answer.as_str()),
        (&b"pod-1:"[..], "still here")
    );
}

#[tokio::test]
async fn a_client_with_affinity_stays_with_its_backend() {
    let cluster = Proxied::new().await;
    let (one, two) = (cluster.pod(1).await, cluster.pod(2).await);
    let both = [
        (serve_echo(&one), BackendState::Ready),
        (serve_echo(&two), BackendState::Ready),
    ];
    cluster.publish(Protocol::Tcp, &both, Some(Duration::from_secs(600)));
    cluster.wait_until_served().await;
    let first = cluster.exchange("x").await.unwrap();
    for _ in 0..5 {
        assert_eq!(cluster.exchange("x").await.unwrap(), first);
    }
}

#[tokio::test]
async fn shutdown_ends_listeners_and_connections() {
    let mut cluster = Proxied::new().await;
    let pod = cluster.pod(1).await;
    cluster.publish(
        Protocol::Tcp,
        &[(serve_echo(&pod), BackendState::Ready)],
        None,
    );
    cluster.wait_until_served().await;
    let mut open = cluster.connect().await.unwrap();
    cluster.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(5), cluster.proxy.take().unwrap())
        .await
        .unwrap()
        .unwrap();
    let mut rest = Vec::new();
    assert!(open.read_to_end(&mut rest).await.is_err() || rest.is_empty());
    assert!(cluster.connect().await.is_err());
}

#[tokio::test]
async fn datagrams_go_there_and_back_and_move_to_another_backend_when_theirs_leaves() {
    let cluster = Proxied::new().await;
    let mut addresses = Vec::new();
    for n in [1, 2] {
        let pod = cluster.pod(n).await;
        let socket = bind_udp_in(&pod, 0);
        addresses.push((socket.local_addr().unwrap(), BackendState::Ready));
        tokio::spawn(async move {
            let mut buffer = [0; 64];
            while let Ok((_, peer)) = socket.recv_from(&mut buffer).await {
                socket.send_to(pod.name.as_bytes(), peer).await.unwrap();
            }
        });
    }
    cluster.publish(Protocol::Udp, &addresses[..1], None);
    let client = bind_udp_in(&cluster.client, 0);
    client
        .connect(SocketAddrV4::new(SERVICE, PORT))
        .await
        .unwrap();
    let ask = || async {
        let mut buffer = [0; 64];
        client.send(b"?").await.map_err(|e| e.to_string())?;
        let answer =
            tokio::time::timeout(Duration::from_millis(200), client.recv(&mut buffer)).await;
        let length = answer
            .map_err(|e| e.to_string())?
            .map_err(|e| e.to_string())?;
        Ok::<_, String>(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let expect = async |name: &str| {
        eventually(|| async {
            match ask().await {
                Ok(answer) if answer == name => Ok(()),
                other => Err(other),
            }
        })
        .await;
    };
    expect("pod-1").await;
    cluster.publish(Protocol::Udp, &addresses[1..], None);
    expect("pod-2").await;
}
