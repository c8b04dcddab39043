//! Rows of the core group. Only data: rules live in the kinds' own modules.

use super::{PROXY_VERBS, ROW, SCALE, foreign, status};
use crate::rules::{KindRow, Subresource};

/// `v1`, resources in discovery order.
pub const CORE: &[KindRow] = &[
    KindRow {
        kind: "Binding",
        plural: "bindings",
        singular: "binding",
        verbs: &["create"],
        ..ROW
    },
    KindRow {
        kind: "ConfigMap",
        plural: "configmaps",
        singular: "configmap",
        short_names: &["cm"],
        storage_version_hash: "qFsyl6wFWjQ=",
        rules: &crate::core::config::ConfigMapRules,
        ..ROW
    },
    KindRow {
        kind: "Endpoints",
        plural: "endpoints",
        singular: "endpoints",
        short_names: &["ep"],
        storage_version_hash: "fWeeMqaN/OA=",
        deprecation: "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice",
        rules: &crate::core::endpoints::EndpointsRules,
        ..ROW
    },
    KindRow {
        kind: "Event",
        plural: "events",
        singular: "event",
        short_names: &["ev"],
        storage_version_hash: "r2yiGXH7wu8=",
        rules: &crate::core::event::EventRules,
        ..ROW
    },
    KindRow {
        kind: "LimitRange",
        plural: "limitranges",
        singular: "limitrange",
        short_names: &["limits"],
        storage_version_hash: "EBKMFVe6cwo=",
        rules: &crate::policy::limits::LimitRangeRules,
        ..ROW
    },
    KindRow {
        kind: "Namespace",
        plural: "namespaces",
        singular: "namespace",
        namespaced: false,
        short_names: &["ns"],
        verbs: &[
            "create", "delete", "get", "list", "patch", "update", "watch",
        ],
        subresources: &[
            Subresource::own("finalize", "Namespace", &["update"]),
            status("Namespace"),
        ],
        storage_version_hash: "Q3oi5N2YM8M=",
        rules: &crate::core::namespace::NamespaceRules,
        ..ROW
    },
    KindRow {
        kind: "Node",
        plural: "nodes",
        singular: "node",
        namespaced: false,
        short_names: &["no"],
        subresources: &[
            Subresource::own("proxy", "NodeProxyOptions", PROXY_VERBS),
            status("Node"),
        ],
        storage_version_hash: "XwShjMxG9Fs=",
        rules: &crate::core::node::NodeRules,
        ..ROW
    },
    KindRow {
        kind: "PersistentVolumeClaim",
        plural: "persistentvolumeclaims",
        singular: "persistentvolumeclaim",
        short_names: &["pvc"],
        subresources: &[status("PersistentVolumeClaim")],
        storage_version_hash: "QWTyNDq0dC4=",
        rules: &crate::storage::claim::ClaimRules,
        ..ROW
    },
    KindRow {
        kind: "PersistentVolume",
        plural: "persistentvolumes",
        singular: "persistentvolume",
        namespaced: false,
        short_names: &["pv"],
        subresources: &[status("PersistentVolume")],
        storage_version_hash: "HN/zwEC+JgM=",
        rules: &crate::storage::volume::VolumeRules,
        ..ROW
    },
    KindRow {
        kind: "Pod",
        plural: "pods",
        singular: "pod",
        short_names: &["po"],
        categories: &["all"],
        subresources: &[
            Subresource::own("attach", "PodAttachOptions", &["create", "get"]),
            Subresource::own("binding", "Binding", &["create"]),
            Subresource::own("ephemeralcontainers", "Pod", &["get", "patch", "update"]),
            foreign("eviction", "policy", "v1", "Eviction", &["create"]),
            Subresource::own("exec", "PodExecOptions", &["create", "get"]),
            Subresource::own("log", "Pod", &["get"]),
            Subresource::own("portforward", "PodPortForwardOptions", &["create", "get"]),
            Subresource::own("proxy", "PodProxyOptions", PROXY_VERBS),
            Subresource::own("resize", "Pod", &["get", "patch", "update"]),
            status("Pod"),
        ],
        storage_version_hash: "xPOwRZ+Yhw8=",
        rules: &crate::core::pod::PodRules,
        ..ROW
    },
    KindRow {
        kind: "PodTemplate",
        plural: "podtemplates",
        singular: "podtemplate",
        storage_version_hash: "LIXB2x4IFpk=",
        ..ROW
    },
    KindRow {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        singular: "replicationcontroller",
        short_names: &["rc"],
        categories: &["all"],
        subresources: &[SCALE, status("ReplicationController")],
        storage_version_hash: "Jond2If31h0=",
        rules: &crate::core::replication_controller::ReplicationControllerRules,
        ..ROW
    },
    KindRow {
        kind: "ResourceQuota",
        plural: "resourcequotas",
        singular: "resourcequota",
        short_names: &["quota"],
        subresources: &[status("ResourceQuota")],
        storage_version_hash: "8uhSgffRX6w=",
        rules: &crate::policy::quota::QuotaRules,
        ..ROW
    },
    KindRow {
        kind: "Secret",
        plural: "secrets",
        singular: "secret",
        storage_version_hash: "S6u1pOWzb84=",
        rules: &crate::core::config::SecretRules,
        ..ROW
    },
    KindRow {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        singular: "serviceaccount",
        short_names: &["sa"],
        subresources: &[foreign(
            "token",
            "authentication.k8s.io",
            "v1",
            "TokenRequest",
            &["create"],
        )],
        storage_version_hash: "pbx9ZvyFpBE=",
        rules: &crate::core::service_account::ServiceAccountRules,
        ..ROW
    },
    KindRow {
        kind: "Service",
        plural: "services",
        singular: "service",
        short_names: &["svc"],
        categories: &["all"],
        subresources: &[
            Subresource::own("proxy", "ServiceProxyOptions", PROXY_VERBS),
            status("Service"),
        ],
        storage_version_hash: "0/CO1lhkEBI=",
        rules: &crate::core::service::ServiceRules,
        ..ROW
    },
];
