//! The DNS server as pods see it, over both transports, and what it passes on.

use std::{
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
    sync::Arc,
    time::Duration,
};

use hickory_proto::{
    op::{Edns, Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::A},
};
use local_network::{
    DnsConfig, DnsServer, Host, PodNetwork, Service, ServiceKey, ServiceTable, SocketFactory,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UdpSocket,
    sync::watch,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::support::{TestNetwork, bind_udp_in, eventually};

const SERVER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 96, 0, 10), 53);
const SHOP: &str = "shop.default.svc.cluster.local.";

struct Names {
    _test: TestNetwork,
    table: watch::Sender<Arc<ServiceTable>>,
    client: PodNetwork,
    shutdown: CancellationToken,
}

impl Names {
    async fn new(upstreams: Vec<SocketAddr>) -> Self {
        let test = TestNetwork::new().await;
        let (table, receiver) = watch::channel(table(3));
        let config = DnsConfig {
            upstreams,
            ..DnsConfig::default()
        };
        let server = DnsServer::bind(&test.network.sockets(), config, receiver)
            .await
            .unwrap();
        let shutdown = CancellationToken::new();
        tokio::spawn(server.run(shutdown.clone()));
        let client = test
            .network
            .attach("client", Ipv4Addr::new(10, 30, 2, 1))
            .await
            .unwrap();
        Self {
            _test: test,
            table,
            client,
            shutdown,
        }
    }

    /// Asks again like any resolver, because a busy machine may lose a datagram.
    async fn raw(&self, question: &[u8]) -> Option<Vec<u8>> {
        let socket = bind_udp_in(&self.client, 0);
        socket.connect(SERVER).await.unwrap();
        let mut buffer = vec![0; 4096];
        for _ in 0..6 {
            socket.send(question).await.unwrap();
            let answer = timeout(Duration::from_secs(5), socket.recv(&mut buffer)).await;
            if let Ok(Ok(length)) = answer {
                buffer.truncate(length);
                return Some(buffer);
            }
        }
        None
    }

    async fn ask(&self, name: &str, kind: RecordType) -> Message {
        let question = question(name, kind);
        let answer =
            Message::from_vec(&self.raw(&question.to_vec().unwrap()).await.unwrap()).unwrap();
        assert_eq!(answer.metadata.id, question.metadata.id);
        assert_eq!(answer.queries, question.queries);
        answer
    }

    async fn ask_over_tcp(&self, name: &str, kind: RecordType) -> Message {
        let mut stream = SocketFactory::tcp_connect_in(&self.client.netns_path, SERVER.into())
            .await
            .unwrap();
        let bytes = question(name, kind).to_vec().unwrap();
        stream.write_u16(bytes.len() as u16).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        let mut answer = vec![0; stream.read_u16().await.unwrap().into()];
        stream.read_exact(&mut answer).await.unwrap();
        Message::from_vec(&answer).unwrap()
    }
}

impl Drop for Names {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

/// A service with an address, and one with many hosts.
fn table(hosts: u8) -> Arc<ServiceTable> {
    let shop = Service {
        cluster_ip: Some(Ipv4Addr::new(10, 96, 0, 20)),
        ..Service::default()
    };
    let hosts = (1..=hosts).map(|n| Host {
        ip: Ipv4Addr::new(10, 30, 1, n),
        hostname: None,
        ready: true,
    });
    let many = Service {
        hosts: hosts.collect(),
        ..Service::default()
    };
    let outside = Service {
        external_name: Some("shop.example.com".to_owned()),
        ..Service::default()
    };
    let services = [("shop", shop), ("many", many), ("outside", outside)];
    let services = services
        .into_iter()
        .map(|(name, service)| (ServiceKey::new("default", name), service));
    Arc::new(ServiceTable {
        services: services.collect(),
    })
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(4711, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(Name::from_ascii(name).unwrap(), kind));
    message
}

fn addresses(message: &Message) -> Vec<Ipv4Addr> {
    let data = message
        .answers
        .iter()
        .filter_map(|record| match &record.data {
            RData::A(address) => Some(address.0),
            _ => None,
        });
    data.collect()
}

/// A resolver that knows one address for every name.
async fn upstream() -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 512];
        while let Ok((length, peer)) = socket.recv_from(&mut buffer).await {
            let mut message = Message::from_vec(&buffer[..length]).unwrap();
            message.metadata.message_type = MessageType::Response;
            let name = message.queries[0].name().clone();
            message.add_answer(Record::from_rdata(
                name,
                60,
                RData::A(A(Ipv4Addr::new(192, 0, 2, 1))),
            ));
            socket
                .send_to(&message.to_vec().unwrap(), peer)
                .await
                .unwrap();
        }
    });
    address
}

#[tokio::test]
async fn pods_resolve_services_over_both_transports_and_follow_the_table() {
    let names = Names::new(Vec::new()).await;
    let answer = names.ask(SHOP, RecordType::A).await;
    assert_eq!(addresses(&answer), [Ipv4Addr::new(10, 96, 0, 20)]);
    assert!(answer.metadata.authoritative && answer.metadata.recursion_available);
    assert_eq!(
        addresses(&names.ask_over_tcp(SHOP, RecordType::A).await),
        [Ipv4Addr::new(10, 96, 0, 20)]
    );

    let missing = names
        .ask("absent.default.svc.cluster.local.", RecordType::A)
        .await;
    assert_eq!(missing.metadata.response_code, ResponseCode::NXDomain);
    assert_eq!(missing.authorities.len(), 1);
    let other_family = names.ask(SHOP, RecordType::AAAA).await;
    assert_eq!(other_family.metadata.response_code, ResponseCode::NoError);
    assert!(other_family.answers.is_empty());

    names.table.send_replace(Arc::default());
    eventually(|| async {
        match names.ask(SHOP, RecordType::A).await.metadata.response_code {
            ResponseCode::NXDomain => Ok(()),
            other => Err(other),
        }
    })
    .await;
}

#[tokio::test]
async fn long_answers_are_cut_for_datagrams_and_whole_over_tcp() {
    let names = Names::new(Vec::new()).await;
    names.table.send_replace(table(200));
    let many = "many.default.svc.cluster.local.";
    eventually(|| async {
        match addresses(&names.ask_over_tcp(many, RecordType::A).await).len() {
            200 => Ok(()),
            other => Err(other),
        }
    })
    .await;
    let cut = names.ask(many, RecordType::A).await;
    assert!(cut.metadata.truncation && !cut.answers.is_empty());
    let mut with_edns = question(many, RecordType::A);
    let mut edns = Edns::new();
    edns.set_max_payload(4096);
    with_edns.set_edns(edns);
    let longer = names.raw(&with_edns.to_vec().unwrap()).await.unwrap();
    assert!(
        longer.len() > 512 && longer.len() <= 1232,
        "{}",
        longer.len()
    );
    assert!(Message::from_vec(&longer).unwrap().edns.is_some());
}

#[tokio::test]
async fn other_names_go_to_the_resolvers_and_fail_when_there_are_none() {
    // The first one is silent or refuses; the second answers.
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let names = Names::new(vec![silent.local_addr().unwrap(), upstream().await]).await;
    let answer = names.ask("example.com.", RecordType::A).await;
    assert_eq!(addresses(&answer), [Ipv4Addr::new(192, 0, 2, 1)]);
    let alias = names
        .ask("outside.default.svc.cluster.local.", RecordType::A)
        .await;
    assert!(
        matches!(&alias.answers[0].data, RData::CNAME(target) if target.0.to_ascii() == "shop.example.com.")
    );
    assert_eq!(addresses(&alias), [Ipv4Addr::new(192, 0, 2, 1)]);

    let alone = Names::new(Vec::new()).await;
    let answer = alone.ask("example.com.", RecordType::A).await;
    assert_eq!(answer.metadata.response_code, ResponseCode::ServFail);
}

#[tokio::test]
async fn questions_that_make_no_sense_are_refused_or_passed_over() {
    let names = Names::new(Vec::new()).await;
    let notify = names
        .raw(
            &[
                &[0x12, 0x34, 0x20, 0, 0, 1, 0, 0, 0, 0, 0, 0][..],
                &question_tail(),
            ]
            .concat(),
        )
        .await;
    assert_eq!(
        Message::from_vec(&notify.unwrap())
            .unwrap()
            .metadata
            .response_code,
        ResponseCode::NotImp
    );
    let garbage = names
        .raw(&[0x12, 0x34, 1, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xff])
        .await
        .unwrap();
    let garbage = Message::from_vec(&garbage).unwrap();
    assert_eq!(
        (garbage.metadata.id, garbage.metadata.response_code),
        (0x1234, ResponseCode::FormErr)
    );
    // Too short for an id, and an answer instead of a question: silence, and the server lives on.
    let socket = bind_udp_in(&names.client, 0);
    socket.send_to(&[1, 2, 3], SERVER).await.unwrap();
    socket
        .send_to(&[0x12, 0x34, 0x81, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0xff], SERVER)
        .await
        .unwrap();
    assert_eq!(names.ask(SHOP, RecordType::A).await.answers.len(), 1);
}

/// The question section of a question for the root's address.
fn question_tail() -> [u8; 5] {
    [0, 0, 1, 0, 1]
}
