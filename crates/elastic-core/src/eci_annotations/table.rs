//! Every annotation there is, and how it stands.

use std::collections::BTreeMap;

use crate::names::ECI_ANNOTATION_PREFIX;

/// Annotations that do what they say, without their prefix unless they have another one.
pub const HONOURED: &[&str] = &[
    "eci-use-specs",
    "eci-cpu",
    "eci-memory",
    "eci-compute-category",
    "eci-cpu-option-core",
    "eci-cpu-option-ht",
    "eci-gpu-driver-version",
    "eci-vswitch",
    "eci-schedule-strategy",
    "eci-security-group",
    "eci-resource-group-id",
    "eci-spot-strategy",
    "eci-spot-price-limit",
    "eci-spot-duration",
    "eci-spot-fallback",
    "eci-fail-strategy",
    "eci-reschedule-enable",
    "pod-fail-on-create-err",
    "eci-max-pending-minute",
    "eci-custom-tags",
    "eci-custom-hosts",
    "eci-custom-dnsconfig",
    "eci-ram-role-name",
    "eci-auto-imc",
    "eci-image-cache",
    "eci-imc-id",
    "eci-image-snapshot-id",
    "acr-instance-ids",
    "acr-instance-id",
    "acr-service-arns",
    "acr-user-arns",
    "plain-http-registry",
    "insecure-registry",
    "eci-data-cache-bucket",
    "eci-data-cache-pl",
    "eci-data-cache-provisionedIops",
    "eci-data-cache-burstingEnabled",
    "eci-with-eip",
    "eip-bandwidth",
    "eip-isp",
    "eip-common-bandwidth-package-id",
    "eci-eip-instanceid",
    "eci-enable-ipv6",
    "eci-ipv6-bandwidth-enable",
    "eci-ipv6-bandwidth",
    "eci-private-ip-address",
    "eci-fixed-ip",
    "eci-fixed-ip-retain-hour",
    "kubernetes.io/ingress-bandwidth",
    "kubernetes.io/egress-bandwidth",
    "eci-extra-ephemeral-storage",
    "eci-ntp-server",
    "eci-core-pattern",
];

/// Annotations that are refused, with what to do instead.
pub const REFUSED: &[(&str, &str)] = &[
    (
        "eci-instance-family",
        "the cloud's interface cannot choose families; list instance types in eci-use-specs",
    ),
    (
        "eci-instance-generation",
        "the cloud's interface cannot choose generations; list instance types in eci-use-specs",
    ),
    (
        "eci-privatepool-matchcriteria",
        "the cloud's interface has no capacity reservations; remove it",
    ),
    (
        "eci-privatepool-id",
        "the cloud's interface has no capacity reservations; remove it",
    ),
    (
        "imc-perfect-match",
        "the cloud decides which image cache fits; name one by eci-imc-id",
    ),
    (
        "imc-match-count-request",
        "the cloud decides which image cache fits; name one by eci-imc-id",
    ),
    (
        "eip-internet-charge-type",
        "a new public address has the cloud's default; bind one of your own by eci-eip-instanceid",
    ),
    (
        "eip-public-ip-address-pool-id",
        "a new public address comes from the cloud's pool; bind one of your own by eci-eip-instanceid",
    ),
    (
        "eci-ephemeral-storage-options",
        "the cloud's interface has no options for scratch space; remove it",
    ),
    (
        "eci-eviction-enable",
        "the cloud's interface cannot switch eviction; remove it",
    ),
    (
        "eci-sls-enable",
        "the virtual node collects no logs, so there is nothing to switch; remove it",
    ),
    (
        "eci-wait-clusterip-ready",
        "the cloud's interface cannot hold containers back; let them try again or use an init container",
    ),
];

/// Annotations written back to pods; users' copies of them are harmless.
const WRITTEN: &[&str] = &[
    "eci-instance-id",
    "eci-instance-spec",
    "eci-instance-cpu",
    "eci-instance-mem",
    "eci-instance-zone",
    "eci-instance-compute-category",
    "eci-request-id",
    "eci-client-token",
    "eci-created-by-template",
    "eci-vpc",
    "eci-matched-image-cache",
    "eci-kube-proxy-enabled",
    "eci-drop-apiserver-interactive-caps",
    "eci-schedule-result",
];

/// Annotations that look like ours and are none: most likely misspelt.
pub fn unknown(annotations: &BTreeMap<String, String>) -> Vec<&str> {
    let names = annotations
        .keys()
        .filter_map(|key| key.strip_prefix(ECI_ANNOTATION_PREFIX));
    names
        .filter(|name| name.starts_with("eci-") || name.starts_with("eip-"))
        .filter(|name| {
            !HONOURED.contains(name)
                && !WRITTEN.contains(name)
                && !REFUSED.iter().any(|(refused, _)| refused == name)
        })
        .collect()
}
