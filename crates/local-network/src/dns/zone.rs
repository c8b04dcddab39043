//! What the cluster's own names mean: services, hosts behind headless services, named ports, pods by address, and the
//! way back from addresses to names.
//!
//! Pure: a table in, records out. Names outside the cluster are somebody else's.

use std::{
    collections::{HashMap, HashSet},
    net::Ipv4Addr,
    sync::Arc,
};

use hickory_proto::rr::{
    Name, RData, Record, RecordType,
    rdata::{A, CNAME, PTR, SOA, SRV, TXT},
};

use crate::{Host, Protocol, Service, ServiceKey, ServiceTable};

/// How long clients may keep an answer. Short: endpoints come and go.
const TIME_TO_LIVE_SECONDS: u32 = 5;
/// The version of the naming rules these names follow.
const NAMING_VERSION: &str = "1.1.0";

/// The names of one state of the table.
pub(super) struct Zone {
    table: Arc<ServiceTable>,
    namespaces: HashSet<String>,
    names: HashMap<Ipv4Addr, Name>,
    origin: Name,
}

/// What a zone has to say about a question.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Answer {
    /// The name exists; records of the type asked for, perhaps none, and addresses of names in them.
    Found {
        /// The answer proper.
        records: Vec<Record>,
        /// What the client would ask for next.
        additional: Vec<Record>,
    },
    /// The name stands for another one, which is outside the cluster.
    Alias {
        /// The record that says so.
        record: Box<Record>,
        /// The other name.
        target: Name,
    },
    /// There is no such name in the cluster.
    NoSuchName,
    /// The cluster does not know about this name.
    Elsewhere,
}

impl Zone {
    /// Indexes a table.
    pub(super) fn new(table: Arc<ServiceTable>) -> Self {
        let origin = name(&["cluster", "local"]).unwrap_or_else(Name::root);
        let namespaces = table
            .services
            .keys()
            .map(|key| key.namespace.to_ascii_lowercase())
            .collect();
        let mut names = HashMap::new();
        for (key, service) in &table.services {
            if let (Some(ip), Some(name)) = (service.cluster_ip, service_name(key, &[])) {
                names.insert(ip, name);
            }
            if is_headless(service) {
                let named = service
                    .hosts
                    .iter()
                    .filter_map(|host| Some((host.ip, service_name(key, &[&label(host)])?)));
                for (ip, name) in named {
                    names.entry(ip).or_insert(name);
                }
            }
        }
        Self {
            table,
            namespaces,
            names,
            origin,
        }
    }

    /// Answers one question.
    pub(super) fn answer(&self, question: &Name, kind: RecordType) -> Answer {
        let labels: Option<Vec<String>> = question
            .iter()
            .map(|label| Some(std::str::from_utf8(label).ok()?.to_ascii_lowercase()))
            .collect();
        let Some(labels) = labels else {
            return Answer::NoSuchName;
        };
        let labels: Vec<&str> = labels.iter().map(String::as_str).collect();
        let found = match labels.as_slice() {
            [d, c, b, a, "in-addr", "arpa"] => match self.reverse([a, b, c, d]) {
                Some(found) => found,
                None => return Answer::Elsewhere,
            },
            [inner @ .., "cluster", "local"] => self.inside(inner),
            _ => return Answer::Elsewhere,
        };
        let Some(data) = found else {
            return Answer::NoSuchName;
        };
        if let [RData::CNAME(target)] = data.as_slice() {
            let target = target.0.clone();
            let record = Box::new(record(question, RData::CNAME(CNAME(target.clone()))));
            return Answer::Alias { record, target };
        }
        let wanted = data
            .into_iter()
            .filter(|data| kind == RecordType::ANY || data.record_type() == kind);
        let records: Vec<_> = wanted.map(|data| record(question, data)).collect();
        let additional = self.addresses_of_targets(&records);
        Answer::Found {
            records,
            additional,
        }
    }

    /// The record that tells how long the absence of a name may be remembered.
    pub(super) fn authority(&self) -> Record {
        let server = name(&["ns", "dns", "cluster", "local"]).unwrap_or_else(Name::root);
        let contact = name(&["hostmaster", "cluster", "local"]).unwrap_or_else(Name::root);
        record(
            &self.origin,
            RData::SOA(SOA::new(
                server,
                contact,
                1,
                7200,
                1800,
                86_400,
                TIME_TO_LIVE_SECONDS,
            )),
        )
    }

    /// All records of a name below `cluster.local`; `None` when there is no such name.
    fn inside(&self, labels: &[&str]) -> Option<Vec<RData>> {
        match labels {
            [] => Some(vec![self.authority().data]),
            ["svc"] | ["pod"] => Some(Vec::new()),
            ["dns-version"] => Some(vec![RData::TXT(TXT::new(vec![NAMING_VERSION.to_owned()]))]),
            [namespace, "svc" | "pod"] => self.namespaces.contains(*namespace).then(Vec::new),
            [service, namespace, "svc"] => self
                .service(service, namespace)
                .map(|(_, service)| service_data(service)),
            ["_tcp" | "_udp", service, namespace, "svc"] => {
                self.service(service, namespace).map(|_| Vec::new())
            }
            [host, service, namespace, "svc"] => {
                let (_, service) = self.service(service, namespace)?;
                let hosts = service
                    .hosts
                    .iter()
                    .filter(|known| is_headless(service) && label(known) == *host);
                Some(hosts.map(|host| RData::A(A(host.ip))).collect::<Vec<_>>())
                    .filter(|data| !data.is_empty())
            }
            [port, protocol, service, namespace, "svc"] => {
                let (key, service) = self.service(service, namespace)?;
                let data = port_data(
                    key,
                    service,
                    port.strip_prefix('_')?,
                    protocol.strip_prefix('_')?,
                );
                Some(data).filter(|data| !data.is_empty())
            }
            [dashed, namespace, "pod"] if self.namespaces.contains(*namespace) => {
                Some(vec![RData::A(A(dashed.replace('-', ".").parse().ok()?))])
            }
            _ => None,
        }
    }

    fn service(&self, service: &str, namespace: &str) -> Option<(&ServiceKey, &Service)> {
        self.table
            .services
            .get_key_value(&ServiceKey::new(namespace, service))
    }

    /// The name of an address, when it has one. Private addresses without one have none anywhere; about public ones
    /// (`None`) somebody else knows.
    fn reverse(&self, octets: [&str; 4]) -> Option<Option<Vec<RData>>> {
        let Ok(ip) = octets.join(".").parse::<Ipv4Addr>() else {
            return Some(None);
        };
        match self.names.get(&ip) {
            Some(name) => Some(Some(vec![RData::PTR(PTR(name.clone()))])),
            None => (ip.is_private() || ip.is_link_local() || ip.is_loopback()).then_some(None),
        }
    }

    fn addresses_of_targets(&self, records: &[Record]) -> Vec<Record> {
        let targets = records.iter().filter_map(|record| match &record.data {
            RData::SRV(service) => Some(&service.target),
            _ => None,
        });
        let addresses = targets.flat_map(|target| match self.answer(target, RecordType::A) {
            Answer::Found { records, .. } => records,
            _ => Vec::new(),
        });
        addresses.collect()
    }
}

fn is_headless(service: &Service) -> bool {
    service.cluster_ip.is_none() && service.external_name.is_none()
}

fn service_data(service: &Service) -> Vec<RData> {
    if let Some(target) = service
        .external_name
        .as_deref()
        .and_then(|target| Name::from_ascii(target).ok())
    {
        return vec![RData::CNAME(CNAME(absolute(target)))];
    }
    match service.cluster_ip {
        Some(ip) => vec![RData::A(A(ip))],
        None => service
            .hosts
            .iter()
            .filter(|host| host.ready)
            .map(|host| RData::A(A(host.ip)))
            .collect(),
    }
}

/// Where a named port is: the service itself, or each ready host of a headless one.
fn port_data(key: &ServiceKey, service: &Service, port: &str, protocol: &str) -> Vec<RData> {
    let named = service.ports.iter().find(|known| {
        let known_protocol = match known.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
        };
        known.name.eq_ignore_ascii_case(port) && known_protocol == protocol
    });
    let Some(named) = named else {
        return Vec::new();
    };
    if !is_headless(service) {
        let target = service_name(key, &[]);
        return target
            .map(|target| RData::SRV(SRV::new(0, 100, named.port, target)))
            .into_iter()
            .collect();
    }
    let ready = service.hosts.iter().filter(|host| host.ready);
    let data = ready.filter_map(|host| {
        let backend = named
            .backends
            .iter()
            .find(|backend| *backend.address.ip() == host.ip)?;
        let target = service_name(key, &[&label(host)])?;
        Some(RData::SRV(SRV::new(0, 100, backend.address.port(), target)))
    });
    data.collect()
}

/// A host's own label: its name, or its address with dashes.
fn label(host: &Host) -> String {
    match &host.hostname {
        Some(name) => name.to_ascii_lowercase(),
        None => host.ip.to_string().replace('.', "-"),
    }
}

fn service_name(key: &ServiceKey, below: &[&str]) -> Option<Name> {
    let mut labels = below.to_vec();
    labels.extend([
        key.name.as_str(),
        key.namespace.as_str(),
        "svc",
        "cluster",
        "local",
    ]);
    name(&labels)
}

fn name(labels: &[&str]) -> Option<Name> {
    let labels = labels.iter().map(|label| label.as_bytes());
    Name::from_labels(labels).ok().map(absolute)
}

fn absolute(mut name: Name) -> Name {
    name.set_fqdn(true);
    name
}

fn record(owner: &Name, data: RData) -> Record {
    Record::from_rdata(owner.clone(), TIME_TO_LIVE_SECONDS, data)
}

#[cfg(test)]
mod tests;
