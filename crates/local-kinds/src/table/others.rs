//! Rows of the small groups: events, networking, storage, scheduling, leases and endpoint slices. Only data: rules live in the kinds' own modules.

use super::{ROW, status};
use crate::rules::KindRow;

/// `events.k8s.io`, resources in discovery order.
pub const EVENTS: &[KindRow] = &[KindRow {
    group: "events.k8s.io",
    kind: "Event",
    plural: "events",
    singular: "event",
    short_names: &["ev"],
    stored_under: Some(""),
    storage_version_hash: "r2yiGXH7wu8=",
    rules: &crate::core::event::EventsGroupRules,
    ..ROW
}];

/// `networking.k8s.io`, resources in discovery order.
pub const NETWORKING: &[KindRow] = &[
    KindRow {
        group: "networking.k8s.io",
        kind: "IngressClass",
        plural: "ingressclasses",
        singular: "ingressclass",
        namespaced: false,
        storage_version_hash: "l/iqIbDgFyQ=",
        rules: &crate::networking::ingress::IngressClassRules,
        ..ROW
    },
    KindRow {
        group: "networking.k8s.io",
        kind: "Ingress",
        plural: "ingresses",
        singular: "ingress",
        short_names: &["ing"],
        subresources: &[status("Ingress")],
        storage_version_hash: "39NQlfNR+bo=",
        rules: &crate::networking::ingress::IngressRules,
        ..ROW
    },
    KindRow {
        group: "networking.k8s.io",
        kind: "NetworkPolicy",
        plural: "networkpolicies",
        singular: "networkpolicy",
        short_names: &["netpol"],
        storage_version_hash: "YpfwF18m1G8=",
        rules: &crate::networking::network_policy::NetworkPolicyRules,
        ..ROW
    },
];

/// `storage.k8s.io`, resources in discovery order.
pub const STORAGE: &[KindRow] = &[KindRow {
    group: "storage.k8s.io",
    kind: "StorageClass",
    plural: "storageclasses",
    singular: "storageclass",
    namespaced: false,
    short_names: &["sc"],
    storage_version_hash: "K+m6uJwbjGY=",
    rules: &crate::policy::classes::StorageClassRules,
    ..ROW
}];

/// `scheduling.k8s.io`, resources in discovery order.
pub const SCHEDULING: &[KindRow] = &[KindRow {
    group: "scheduling.k8s.io",
    kind: "PriorityClass",
    plural: "priorityclasses",
    singular: "priorityclass",
    namespaced: false,
    short_names: &["pc"],
    storage_version_hash: "1QwjyaZjj3Y=",
    rules: &crate::policy::classes::PriorityClassRules,
    ..ROW
}];

/// `coordination.k8s.io`, resources in discovery order.
pub const COORDINATION: &[KindRow] = &[KindRow {
    group: "coordination.k8s.io",
    kind: "Lease",
    plural: "leases",
    singular: "lease",
    storage_version_hash: "gqkMMb/YqFM=",
    rules: &crate::lease::LeaseRules,
    ..ROW
}];

/// `discovery.k8s.io`, resources in discovery order.
pub const DISCOVERY: &[KindRow] = &[KindRow {
    group: "discovery.k8s.io",
    kind: "EndpointSlice",
    plural: "endpointslices",
    singular: "endpointslice",
    storage_version_hash: "qgS0xkrxYAI=",
    rules: &crate::endpoint_slice::EndpointSliceRules,
    ..ROW
}];
