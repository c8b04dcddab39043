//! Rows of workloads and their scaling: `apps`, `autoscaling`, `batch` and `policy`. Only data: rules live in the kinds' own modules.

use super::{ROW, SCALE, status};
use crate::rules::KindRow;

/// `apps`, resources in discovery order.
pub const APPS: &[KindRow] = &[
    KindRow {
        group: "apps",
        kind: "ControllerRevision",
        plural: "controllerrevisions",
        singular: "controllerrevision",
        storage_version_hash: "85nkx63pcBU=",
        rules: &crate::apps::controller_revision::ControllerRevisionRules,
        ..ROW
    },
    KindRow {
        group: "apps",
        kind: "DaemonSet",
        plural: "daemonsets",
        singular: "daemonset",
        short_names: &["ds"],
        categories: &["all"],
        subresources: &[status("DaemonSet")],
        storage_version_hash: "dd7pWHUlMKQ=",
        rules: &crate::apps::daemon_set::DaemonSetRules,
        ..ROW
    },
    KindRow {
        group: "apps",
        kind: "Deployment",
        plural: "deployments",
        singular: "deployment",
        short_names: &["deploy"],
        categories: &["all"],
        subresources: &[SCALE, status("Deployment")],
        storage_version_hash: "8aSe+NMegvE=",
        rules: &crate::apps::deployment::DeploymentRules,
        ..ROW
    },
    KindRow {
        group: "apps",
        kind: "ReplicaSet",
        plural: "replicasets",
        singular: "replicaset",
        short_names: &["rs"],
        categories: &["all"],
        subresources: &[SCALE, status("ReplicaSet")],
        storage_version_hash: "P1RzHs8/mWQ=",
        rules: &crate::apps::replica_set::ReplicaSetRules,
        ..ROW
    },
    KindRow {
        group: "apps",
        kind: "StatefulSet",
        plural: "statefulsets",
        singular: "statefulset",
        short_names: &["sts"],
        categories: &["all"],
        subresources: &[SCALE, status("StatefulSet")],
        storage_version_hash: "H+vl74LkKdo=",
        rules: &crate::apps::stateful_set::StatefulSetRules,
        ..ROW
    },
];

/// `autoscaling`, resources in discovery order.
pub const AUTOSCALING: &[KindRow] = &[KindRow {
    group: "autoscaling",
    versions: &["v2", "v1"],
    storage_version: "v2",
    kind: "HorizontalPodAutoscaler",
    plural: "horizontalpodautoscalers",
    singular: "horizontalpodautoscaler",
    short_names: &["hpa"],
    categories: &["all"],
    subresources: &[status("HorizontalPodAutoscaler")],
    storage_version_hash: "qwQve8ut294=",
    rules: &crate::autoscaling::AutoscalerRules,
    ..ROW
}];

/// `batch`, resources in discovery order.
pub const BATCH: &[KindRow] = &[
    KindRow {
        group: "batch",
        kind: "CronJob",
        plural: "cronjobs",
        singular: "cronjob",
        short_names: &["cj"],
        categories: &["all"],
        subresources: &[status("CronJob")],
        storage_version_hash: "sd5LIXh4Fjs=",
        rules: &crate::batch::cron_job::CronJobRules,
        ..ROW
    },
    KindRow {
        group: "batch",
        kind: "Job",
        plural: "jobs",
        singular: "job",
        categories: &["all"],
        subresources: &[status("Job")],
        storage_version_hash: "mudhfqk/qZY=",
        rules: &crate::batch::job::JobRules,
        ..ROW
    },
];

/// `policy`, resources in discovery order.
pub const POLICY: &[KindRow] = &[KindRow {
    group: "policy",
    kind: "PodDisruptionBudget",
    plural: "poddisruptionbudgets",
    singular: "poddisruptionbudget",
    short_names: &["pdb"],
    subresources: &[status("PodDisruptionBudget")],
    storage_version_hash: "EVWiDmWqyJw=",
    rules: &crate::policy::disruption::DisruptionBudgetRules,
    ..ROW
}];
