use std::net::SocketAddrV4;

use super::*;
use crate::{Backend, BackendState, Balancing, ServicePort};

fn ip(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 30, 1, n)
}

fn port(name: &str, protocol: Protocol, port: u16, backends: &[Ipv4Addr]) -> ServicePort {
    let backend = |ip: &Ipv4Addr| Backend {
        address: SocketAddrV4::new(*ip, 8080),
        state: BackendState::Ready,
    };
    let backends = backends.iter().map(backend).collect();
    ServicePort {
        name: name.to_owned(),
        protocol,
        port,
        balancing: Balancing::PerConnection,
        backends,
    }
}

fn host(n: u8, hostname: Option<&str>, ready: bool) -> Host {
    Host {
        ip: ip(n),
        hostname: hostname.map(str::to_owned),
        ready,
    }
}

fn zone() -> Zone {
    let shop = Service {
        cluster_ip: Some(Ipv4Addr::new(10, 96, 0, 20)),
        ports: vec![port("http", Protocol::Tcp, 80, &[ip(1)])],
        hosts: vec![host(1, None, true)],
        ..Service::default()
    };
    let peers = Service {
        ports: vec![port("raft", Protocol::Tcp, 7000, &[ip(1), ip(2)])],
        hosts: vec![
            host(1, Some("db-0"), true),
            host(2, None, true),
            host(3, Some("db-2"), false),
        ],
        ..Service::default()
    };
    let outside = Service {
        external_name: Some("shop.example.com".to_owned()),
        ..Service::default()
    };
    let services = [("shop", shop), ("peers", peers), ("outside", outside)];
    let services = services
        .into_iter()
        .map(|(name, service)| (ServiceKey::new("default", name), service))
        .collect();
    Zone::new(Arc::new(ServiceTable { services }))
}

/// The answer in short: the data of each record, or what was said instead.
fn ask(question: &str, kind: RecordType) -> String {
    match zone().answer(&Name::from_ascii(question).unwrap(), kind) {
        Answer::Found { records, .. } if records.is_empty() => "nothing".to_owned(),
        Answer::Found { records, .. } => records
            .iter()
            .map(|record| record.data.to_string())
            .collect::<Vec<_>>()
            .join(" | "),
        Answer::Alias { target, .. } => format!("alias {target}"),
        Answer::NoSuchName => "no such name".to_owned(),
        Answer::Elsewhere => "elsewhere".to_owned(),
    }
}

#[test]
fn services_have_their_address_and_headless_ones_those_of_ready_hosts() {
    assert_eq!(
        ask("shop.default.svc.cluster.local.", RecordType::A),
        "10.96.0.20"
    );
    assert_eq!(
        ask("SHOP.Default.svc.cluster.LOCAL.", RecordType::A),
        "10.96.0.20"
    );
    assert_eq!(
        ask("peers.default.svc.cluster.local.", RecordType::A),
        "10.30.1.1 | 10.30.1.2"
    );
}

#[test]
fn the_other_address_family_is_empty_and_not_an_error() {
    assert_eq!(
        ask("shop.default.svc.cluster.local.", RecordType::AAAA),
        "nothing"
    );
    assert_eq!(ask("default.svc.cluster.local.", RecordType::A), "nothing");
    assert_eq!(ask("svc.cluster.local.", RecordType::A), "nothing");
}

#[test]
fn hosts_behind_headless_services_have_names_ready_or_not() {
    assert_eq!(
        ask("db-0.peers.default.svc.cluster.local.", RecordType::A),
        "10.30.1.1"
    );
    assert_eq!(
        ask("db-2.peers.default.svc.cluster.local.", RecordType::A),
        "10.30.1.3"
    );
    assert_eq!(
        ask("10-30-1-2.peers.default.svc.cluster.local.", RecordType::A),
        "10.30.1.2"
    );
    assert_eq!(
        ask("10-30-1-1.shop.default.svc.cluster.local.", RecordType::A),
        "no such name"
    );
}

#[test]
fn named_ports_say_where_they_are() {
    let service = ask(
        "_http._tcp.shop.default.svc.cluster.local.",
        RecordType::SRV,
    );
    assert_eq!(service, "0 100 80 shop.default.svc.cluster.local.");
    let hosts = ask(
        "_raft._tcp.peers.default.svc.cluster.local.",
        RecordType::SRV,
    );
    assert!(
        hosts.contains("8080 db-0.peers.default") && hosts.contains("8080 10-30-1-2.peers.default"),
        "{hosts}"
    );
    assert_eq!(
        ask(
            "_http._udp.shop.default.svc.cluster.local.",
            RecordType::SRV
        ),
        "no such name"
    );
    let question = Name::from_ascii("_http._tcp.shop.default.svc.cluster.local.").unwrap();
    let Answer::Found { additional, .. } = zone().answer(&question, RecordType::SRV) else {
        panic!()
    };
    assert_eq!(
        additional[0].data,
        RData::A(A(Ipv4Addr::new(10, 96, 0, 20)))
    );
}

#[test]
fn external_names_are_aliases() {
    assert_eq!(
        ask("outside.default.svc.cluster.local.", RecordType::A),
        "alias shop.example.com."
    );
}

#[test]
fn addresses_lead_back_to_names() {
    assert_eq!(
        ask("20.0.96.10.in-addr.arpa.", RecordType::PTR),
        "shop.default.svc.cluster.local."
    );
    assert_eq!(
        ask("1.1.30.10.in-addr.arpa.", RecordType::PTR),
        "db-0.peers.default.svc.cluster.local."
    );
    assert_eq!(
        ask("9.9.30.10.in-addr.arpa.", RecordType::PTR),
        "no such name"
    );
    assert_eq!(ask("8.8.8.8.in-addr.arpa.", RecordType::PTR), "elsewhere");
    assert_eq!(
        ask("x.8.8.8.in-addr.arpa.", RecordType::PTR),
        "no such name"
    );
}

#[test]
fn pods_have_names_made_of_their_address() {
    assert_eq!(
        ask("10-30-1-9.default.pod.cluster.local.", RecordType::A),
        "10.30.1.9"
    );
    assert_eq!(
        ask("10-30-1.default.pod.cluster.local.", RecordType::A),
        "no such name"
    );
}

#[test]
fn search_paths_end_here_and_other_names_elsewhere() {
    for question in [
        "example.com.default.svc.cluster.local.",
        "example.com.svc.cluster.local.",
        "example.com.cluster.local.",
        "shop.default.svc.cluster.local.cluster.local.",
        "absent.default.svc.cluster.local.",
        "shop.absent.svc.cluster.local.",
    ] {
        assert_eq!(ask(question, RecordType::A), "no such name", "{question}");
    }
    assert_eq!(ask("example.com.", RecordType::A), "elsewhere");
    assert_eq!(ask(".", RecordType::A), "elsewhere");
}
