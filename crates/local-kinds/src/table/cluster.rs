//! Rows of what configures the API itself: extensions, aggregation, admission, access and reviews. Only data: rules live in the kinds' own modules.

use super::{CHANGE_VERBS, ROW, status};
use crate::rules::{KindRow, Subresource};

/// `apiregistration.k8s.io`, resources in discovery order.
pub const APIREGISTRATION: &[KindRow] = &[KindRow {
    group: "apiregistration.k8s.io",
    kind: "APIService",
    plural: "apiservices",
    singular: "apiservice",
    namespaced: false,
    categories: &["api-extensions"],
    subresources: &[status("APIService")],
    storage_version_hash: "InPBPD7+PqM=",
    rules: &crate::extensions::aggregation::ApiServiceRules,
    ..ROW
}];

/// `authentication.k8s.io`, resources in discovery order.
pub const AUTHENTICATION: &[KindRow] = &[
    KindRow {
        group: "authentication.k8s.io",
        kind: "SelfSubjectReview",
        plural: "selfsubjectreviews",
        singular: "selfsubjectreview",
        namespaced: false,
        verbs: &["create"],
        ..ROW
    },
    KindRow {
        group: "authentication.k8s.io",
        kind: "TokenReview",
        plural: "tokenreviews",
        singular: "tokenreview",
        namespaced: false,
        verbs: &["create"],
        ..ROW
    },
];

/// `authorization.k8s.io`, resources in discovery order.
pub const AUTHORIZATION: &[KindRow] = &[
    KindRow {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        singular: "localsubjectaccessreview",
        verbs: &["create"],
        ..ROW
    },
    KindRow {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        singular: "selfsubjectaccessreview",
        namespaced: false,
        verbs: &["create"],
        ..ROW
    },
    KindRow {
        group: "authorization.k8s.io",
        kind: "SelfSubjectRulesReview",
        plural: "selfsubjectrulesreviews",
        singular: "selfsubjectrulesreview",
        namespaced: false,
        verbs: &["create"],
        ..ROW
    },
    KindRow {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        singular: "subjectaccessreview",
        namespaced: false,
        verbs: &["create"],
        ..ROW
    },
];

/// `certificates.k8s.io`, resources in discovery order.
pub const CERTIFICATES: &[KindRow] = &[KindRow {
    group: "certificates.k8s.io",
    kind: "CertificateSigningRequest",
    plural: "certificatesigningrequests",
    singular: "certificatesigningrequest",
    namespaced: false,
    short_names: &["csr"],
    subresources: &[
        Subresource::own("approval", "CertificateSigningRequest", CHANGE_VERBS),
        status("CertificateSigningRequest"),
    ],
    storage_version_hash: "95fRKMXA+00=",
    rules: &crate::certificates::SigningRequestRules,
    ..ROW
}];

/// `rbac.authorization.k8s.io`, resources in discovery order.
pub const RBAC: &[KindRow] = &[
    KindRow {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        singular: "clusterrolebinding",
        namespaced: false,
        storage_version_hash: "48tpQ8gZHFc=",
        rules: &crate::extensions::access::CLUSTER_BINDING,
        ..ROW
    },
    KindRow {
        group: "rbac.authorization.k8s.io",
        kind: "ClusterRole",
        plural: "clusterroles",
        singular: "clusterrole",
        namespaced: false,
        storage_version_hash: "bYE5ZWDrJ44=",
        rules: &crate::extensions::access::CLUSTER_ROLE,
        ..ROW
    },
    KindRow {
        group: "rbac.authorization.k8s.io",
        kind: "RoleBinding",
        plural: "rolebindings",
        singular: "rolebinding",
        storage_version_hash: "eGsCzGH6b1g=",
        rules: &crate::extensions::access::BINDING,
        ..ROW
    },
    KindRow {
        group: "rbac.authorization.k8s.io",
        kind: "Role",
        plural: "roles",
        singular: "role",
        storage_version_hash: "7FuwZcIIItM=",
        rules: &crate::extensions::access::ROLE,
        ..ROW
    },
];

/// `admissionregistration.k8s.io`, resources in discovery order.
pub const ADMISSIONREGISTRATION: &[KindRow] = &[
    KindRow {
        group: "admissionregistration.k8s.io",
        kind: "MutatingWebhookConfiguration",
        plural: "mutatingwebhookconfigurations",
        singular: "mutatingwebhookconfiguration",
        namespaced: false,
        categories: &["api-extensions"],
        storage_version_hash: "Sqi0GUgDaX0=",
        rules: &crate::extensions::webhooks::MUTATING,
        ..ROW
    },
    KindRow {
        group: "admissionregistration.k8s.io",
        kind: "ValidatingWebhookConfiguration",
        plural: "validatingwebhookconfigurations",
        singular: "validatingwebhookconfiguration",
        namespaced: false,
        categories: &["api-extensions"],
        storage_version_hash: "B0wHjQmsGNk=",
        rules: &crate::extensions::webhooks::VALIDATING,
        ..ROW
    },
];

/// `apiextensions.k8s.io`, resources in discovery order.
pub const APIEXTENSIONS: &[KindRow] = &[KindRow {
    group: "apiextensions.k8s.io",
    kind: "CustomResourceDefinition",
    plural: "customresourcedefinitions",
    singular: "customresourcedefinition",
    namespaced: false,
    short_names: &["crd", "crds"],
    categories: &["api-extensions"],
    subresources: &[status("CustomResourceDefinition")],
    storage_version_hash: "jfWCUB31mvA=",
    rules: &crate::extensions::definition::DefinitionRules,
    ..ROW
}];
