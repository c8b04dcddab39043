use serde_json::{Value, json};

use super::*;

fn service(name: &str, spec: Value) -> Arc<ApiService> {
    let object = json!({"metadata": {"namespace": "default", "name": name}, "spec": spec});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn slice(service: &str, ports: Value, endpoints: Value) -> Arc<EndpointSlice> {
    let labels = json!({"kubernetes.io/service-name": service});
    let metadata =
        json!({"namespace": "default", "name": format!("{service}-x"), "labels": labels});
    let object = json!({"metadata": metadata, "addressType": "IPv4", "ports": ports, "endpoints": endpoints});
    Arc::new(serde_json::from_value(object).unwrap())
}

fn endpoint(n: u8, conditions: Value) -> Value {
    json!({"addresses": [format!("10.30.1.{n}")], "conditions": conditions})
}

fn only(table: ServiceTable) -> Service {
    assert_eq!(table.services.len(), 1, "{table:?}");
    table.services.into_values().next().unwrap()
}

#[test]
fn named_ports_get_the_numbers_of_their_slices_and_endpoints_their_state() {
    let shop = service(
        "shop",
        json!({"clusterIP": "10.96.0.20", "ports": [
            {"name": "web", "port": 80, "targetPort": "http", "appProtocol": "http"},
            {"name": "db", "port": 5432},
        ]}),
    );
    let conditions = [
        json!({"ready": true, "serving": true, "terminating": false}),
        json!({"ready": false, "serving": true, "terminating": true}),
        json!({"ready": false, "serving": false, "terminating": false}),
        json!({}),
    ];
    let endpoints: Vec<_> = (1..)
        .zip(conditions)
        .map(|(n, conditions)| endpoint(n, conditions))
        .collect();
    let ports =
        json!([{"name": "web", "port": 8080}, {"name": "db", "port": 5433, "protocol": "UDP"}]);
    let entry = only(build(&[shop], &[slice("shop", ports, json!(endpoints))]));
    assert_eq!(entry.cluster_ip, Some(Ipv4Addr::new(10, 96, 0, 20)));
    let [web, db] = entry.ports.as_slice() else {
        panic!("two ports")
    };
    assert_eq!(
        (web.port, web.protocol, web.balancing),
        (80, Protocol::Tcp, Balancing::PerRequest)
    );
    use BackendState::{NotReady, Ready, Terminating};
    let states: Vec<_> = web
        .backends
        .iter()
        .map(|backend| (backend.address.port(), backend.state))
        .collect();
    assert_eq!(
        states,
        [
            (8080, Ready),
            (8080, Terminating),
            (8080, NotReady),
            (8080, Ready)
        ]
    );
    assert!(
        db.backends.is_empty(),
        "the slice has that name for another protocol"
    );
    assert_eq!(db.balancing, Balancing::PerConnection);
}

#[test]
fn an_endpoint_in_two_slices_counts_once_with_the_better_news() {
    let shop = service(
        "shop",
        json!({"clusterIP": "10.96.0.20", "ports": [{"port": 80}]}),
    );
    let ports = json!([{"port": 8080}]);
    let one = slice(
        "shop",
        ports.clone(),
        json!([endpoint(1, json!({"ready": false}))]),
    );
    let two = slice("shop", ports, json!([endpoint(1, json!({"ready": true}))]));
    let entry = only(build(&[shop], &[one, two]));
    assert_eq!(entry.ports[0].backends.len(), 1);
    assert_eq!(entry.ports[0].backends[0].state, BackendState::Ready);
    assert_eq!(entry.hosts.len(), 1);
    assert!(entry.hosts[0].ready);
}

#[test]
fn headless_and_external_services_have_names_only() {
    let peers = service("peers", json!({"clusterIP": "None"}));
    let mut named = endpoint(1, json!({}));
    named["hostname"] = json!("db-0");
    let entry = only(build(
        &[peers],
        &[slice("peers", Value::Null, json!([named]))],
    ));
    assert_eq!(entry.cluster_ip, None);
    assert_eq!(entry.hosts[0].hostname.as_deref(), Some("db-0"));
    let outside = service(
        "outside",
        json!({"type": "ExternalName", "externalName": "example.com"}),
    );
    assert_eq!(
        only(build(&[outside], &[])).external_name.as_deref(),
        Some("example.com")
    );
}

#[test]
fn affinity_has_its_time_or_the_usual_one() {
    let spec = |config: Value| json!({"clusterIP": "10.96.0.20", "sessionAffinity": "ClientIP", "sessionAffinityConfig": config});
    let configured = service("shop", spec(json!({"clientIP": {"timeoutSeconds": 60}})));
    assert_eq!(
        only(build(&[configured], &[])).client_affinity,
        Some(Duration::from_secs(60))
    );
    let usual = service("shop", spec(Value::Null));
    assert_eq!(
        only(build(&[usual], &[])).client_affinity,
        Some(Duration::from_secs(10_800))
    );
}

#[test]
fn what_is_unfinished_or_of_another_kind_is_left_out() {
    let unassigned = service("new", json!({"ports": [{"port": 80}]}));
    assert!(build(&[unassigned], &[]).services.is_empty());
    let sctp = service(
        "sctp",
        json!({"clusterIP": "10.96.0.20", "ports": [{"port": 80, "protocol": "SCTP"}]}),
    );
    assert!(only(build(&[sctp], &[])).ports.is_empty());
}

#[test]
fn only_plain_http_is_taken_apart() {
    for name in ["http", "HTTP", "kubernetes.io/ws"] {
        assert_eq!(balancing(Some(name)), Balancing::PerRequest, "{name}");
    }
    for name in [
        None,
        Some("https"),
        Some("kubernetes.io/h2c"),
        Some("kubernetes.io/wss"),
        Some("grpc"),
    ] {
        assert_eq!(balancing(name), Balancing::PerConnection, "{name:?}");
    }
}
