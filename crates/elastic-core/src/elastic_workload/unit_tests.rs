//! Units of every kind, derived and compared.

use serde_json::{Value, json};

use super::super::rollout::HeldBy;
use super::*;

const STEP: RolloutStep = RolloutStep::Leave;
const SHARE: RolloutBudget = RolloutBudget {
    surge: 2,
    unavailable: 1,
};

fn workload(kind: SourceKind, unit: Value) -> ElasticWorkload {
    serde_json::from_value(json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticWorkload",
        "metadata": {"name": "web-ew", "namespace": "shop", "uid": "u-1"},
        "spec": {
            "replicas": 6,
            "sourceTarget": {"apiVersion": kind.api_version(), "kind": kind.kind(), "name": "web", "min": 2, "max": 4},
            "elasticUnit": [unit]
        }
    }))
    .unwrap()
}

fn plain_unit() -> Value {
    json!({"name": "vk", "labels": {"alibabacloud.com/eci": "true"}, "annotations": {"a": "b"}})
}

fn object_of(value: Value) -> DynamicObject {
    serde_json::from_value(value).unwrap()
}

fn source() -> DynamicObject {
    object_of(json!({
        "metadata": {"name": "web", "namespace": "shop",
            "labels": {"team": "a", "autoscaling.alibabacloud.com/elastic-source": "true"},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}"}},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "fieldOfALaterRelease": 7,
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [
                        {"name": "web", "image": "shop:1",
                         "env": [{"name": "TIER", "value": "owned"}, {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}}],
                         "resources": {"requests": {"cpu": "100m", "memory": "64Mi"}}},
                        {"name": "log", "image": "log:1"}
                    ],
                    "nodeSelector": {"disk": "ssd"}
                }
            }
        }
    }))
}

fn derive(
    kind: SourceKind,
    source: &DynamicObject,
    unit: Value,
) -> Result<DynamicObject, UnitError> {
    derive_unit(&workload(kind, unit), kind, source, 0)
}

fn derived(source: &DynamicObject) -> DynamicObject {
    derive(SourceKind::Deployment, source, plain_unit()).unwrap()
}

fn at<'a>(object: &'a DynamicObject, pointer: &str) -> &'a Value {
    object.data.pointer(pointer).unwrap_or(&Value::Null)
}

/// As the server would store it.
fn stored(derived: &DynamicObject, replicas: u32) -> DynamicObject {
    let write = unit_write(
        SourceKind::Deployment,
        &source(),
        None,
        derived,
        replicas,
        STEP,
    );
    let UnitWrite::Create(created) = write else {
        panic!("{write:?}");
    };
    let mut created = *created;
    created.data["spec"]["progressDeadlineSeconds"] = json!(600);
    created
}

fn with_image(image: &str) -> DynamicObject {
    let mut source = source();
    source.data["spec"]["template"]["spec"]["containers"][0]["image"] = json!(image);
    source
}

#[test]
fn a_unit_keeps_the_sources_labels_and_gets_its_own() {
    let unit = derived(&source());
    assert_eq!(unit.name_any(), "web-unit-vk");
    assert_eq!(unit.owner_references()[0].uid, "u-1");
    assert_eq!(unit.owner_references()[0].controller, Some(true));
    let labels = json!({"team": "a", WORKLOAD_LABEL: "web-ew", UNIT_LABEL: "vk"});
    assert_eq!(json!(unit.labels()), labels);
    assert_eq!(unit.annotations().len(), 1);
    let selector = json!({"app": "web", UNIT_LABEL: "vk"});
    assert_eq!(at(&unit, "/spec/selector/matchLabels"), &selector);
    assert_eq!(at(&unit, "/spec/replicas"), &Value::Null);
    assert_eq!(at(&unit, "/spec/fieldOfALaterRelease"), &json!(7));
    let labels = json!({"app": "web", "alibabacloud.com/eci": "true", UNIT_LABEL: "vk"});
    assert_eq!(at(&unit, "/spec/template/metadata/labels"), &labels);
    assert_eq!(
        at(&unit, "/spec/template/metadata/annotations"),
        &json!({"a": "b"})
    );
}

#[test]
fn a_unit_labelled_for_serverless_goes_to_virtual_nodes_only() {
    let unit = derived(&source());
    assert_eq!(
        at(&unit, "/spec/template/spec/nodeSelector"),
        &json!({"type": "virtual-kubelet"})
    );
    assert_eq!(
        at(&unit, "/spec/template/spec/tolerations/0/key"),
        "virtual-kubelet.io/provider"
    );
}

#[test]
fn every_override_changes_what_it_names_and_nothing_else() {
    let unit = json!({
        "name": "vk", "nodeSelector": {"pool": "spot"}, "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}}, "image": "shop:1-serverless",
        "env": [{"name": "NODE", "value": "none"}, {"name": "NEW", "value": "1"}],
        "resources": {"requests": {"cpu": "2"}},
        "patch": {"spec": {"terminationGracePeriodSeconds": 5, "containers": [{"name": "log", "$patch": "delete"}]}}
    });
    let unit = derive(SourceKind::Deployment, &source(), unit).unwrap();
    let expected = json!({
        "containers": [{
            "name": "web", "image": "shop:1-serverless",
            "env": [{"name": "TIER", "value": "owned"}, {"name": "NODE", "value": "none"}, {"name": "NEW", "value": "1"}],
            "resources": {"requests": {"cpu": "2", "memory": "64Mi"}}
        }],
        "nodeSelector": {"pool": "spot"},
        "tolerations": [{"key": "spot", "operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "terminationGracePeriodSeconds": 5
    });
    assert_eq!(at(&unit, "/spec/template/spec"), &expected);
    let number = json!({"name": "vk", "resources": {"limits": {"cpu": 2}}, "patch": {"spec": {"containers": [{"name": "log", "resources": {"limits": {"cpu": 0.5}}}]}}});
    let unit = derive(SourceKind::Deployment, &source(), number).unwrap();
    assert_eq!(
        at(&unit, "/spec/template/spec/containers/0/resources/limits"),
        &json!({"cpu": "2"})
    );
    assert_eq!(
        at(&unit, "/spec/template/spec/containers/1/resources/limits"),
        &json!({"cpu": "0.5"})
    );
    let named = json!({"name": "vk", "container": "log", "image": "log:2"});
    let unit = derive(SourceKind::Deployment, &source(), named).unwrap();
    assert_eq!(at(&unit, "/spec/template/spec/containers/1/image"), "log:2");
    assert_eq!(
        at(&unit, "/spec/template/spec/containers/0/image"),
        "shop:1"
    );
}

#[test]
fn an_override_that_cannot_be_applied_names_its_field() {
    let cases = [
        (
            json!({"name": "vk", "labels": {"app": "other"}}),
            "spec.elasticUnit[0].labels: app is part of the source's selector and must stay \"web\"",
        ),
        (
            json!({"name": "vk", "patch": {"metadata": {"labels": {"app": null}}}}),
            "spec.elasticUnit[0].labels: app is part of the source's selector and must stay \"web\"",
        ),
        (
            json!({"name": "vk", "container": "db", "image": "x"}),
            "spec.elasticUnit[0].container: the source has no container \"db\"; it has web, log",
        ),
        (
            json!({"name": "vk", "patch": {"spec": {"$patch": "keep"}}}),
            "spec.elasticUnit[0].patch.spec.$patch: must be delete or replace",
        ),
    ];
    for (unit, expected) in cases {
        let error = derive(SourceKind::Deployment, &source(), unit).unwrap_err();
        assert_eq!(error.to_string(), expected);
    }
    for (unit, field) in [
        (
            json!({"name": "vk", "affinity": {"nodeAffinity": 5}}),
            "affinity: makes no",
        ),
        (
            json!({"name": "vk", "env": [{"name": "A", "valueFrom": {"fieldRef": "x"}}]}),
            "env and resources: makes no",
        ),
    ] {
        let error = derive(SourceKind::Deployment, &source(), unit).unwrap_err();
        let expected = format!("spec.elasticUnit[0].{field} pod template");
        assert!(error.to_string().starts_with(&expected), "{error}");
    }
    let wrong = json!({"name": "vk", "patch": {"spec": {"hostNetwork": true, "terminationGracePeriodSeconds": "soon"}}});
    let error = derive(SourceKind::Deployment, &source(), wrong)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with(
            "spec.elasticUnit[0].patch.spec.terminationGracePeriodSeconds: makes no pod template"
        ),
        "{error}"
    );
}

#[test]
fn what_the_server_adds_does_not_ask_for_a_write_but_every_change_of_the_source_does() {
    let unit = derived(&source());
    let kind = SourceKind::Deployment;
    let existing = stored(&unit, 7);
    let write = |derived: &DynamicObject, replicas, step| {
        unit_write(kind, &source(), Some(&existing), derived, replicas, step)
    };
    assert_eq!(write(&unit, 7, STEP), UnitWrite::Nothing);
    assert_eq!(write(&unit, 9, STEP), UnitWrite::Scale(9));
    let newer = derived(&with_image("shop:2"));
    let difference = unit_difference(kind, &existing, &newer);
    assert_eq!(
        difference,
        UnitDifference {
            template: true,
            ..UnitDifference::default()
        }
    );
    // Template, replicas and strategy in one write.
    let UnitWrite::Replace(next) = write(&newer, 9, RolloutStep::Follow(SHARE)) else {
        panic!("not replaced");
    };
    assert_eq!(
        at(&next, "/spec/template/spec/containers/0/image"),
        "shop:2"
    );
    assert_eq!(at(&next, "/spec/replicas"), 9);
    assert_eq!(
        at(&next, "/spec/strategy/rollingUpdate"),
        &json!({"maxSurge": 2, "maxUnavailable": 1})
    );
    assert_eq!(
        unit_write(kind, &source(), Some(&next), &newer, 9, STEP),
        UnitWrite::Nothing
    );
    // Taking something away is a change too, although the rest is still contained.
    let mut with_delay = source();
    with_delay.data["spec"]["minReadySeconds"] = json!(5);
    let existing = stored(&derived(&with_delay), 1);
    assert!(unit_difference(kind, &existing, &unit).rest);
}

#[test]
fn a_unit_that_has_to_wait_keeps_its_template_but_follows_in_everything_else() {
    let kind = SourceKind::Deployment;
    let existing = stored(&derived(&source()), 3);
    let mut newer = with_image("shop:2");
    newer.data["spec"]["minReadySeconds"] = json!(5);
    let newer = derived(&newer);
    let hold = RolloutStep::Hold(HeldBy::Source);
    let UnitWrite::Replace(next) = unit_write(kind, &source(), Some(&existing), &newer, 5, hold)
    else {
        panic!("not replaced");
    };
    assert_eq!(
        at(&next, "/spec/template/spec/containers/0/image"),
        "shop:1"
    );
    assert_eq!(
        (
            at(&next, "/spec/minReadySeconds"),
            at(&next, "/spec/replicas")
        ),
        (&json!(5), &json!(5))
    );
    // Written once; it still waits for its template.
    assert_eq!(
        unit_write(kind, &source(), Some(&next), &newer, 5, hold),
        UnitWrite::Nothing
    );
    assert!(unit_difference(kind, &next, &newer).template);
}

#[test]
fn a_rollout_is_stopped_and_goes_on() {
    let kind = SourceKind::Deployment;
    let existing = stored(&derived(&source()), 3);
    let pause = RolloutStep::Pause(HeldBy::Source);
    let UnitWrite::Replace(paused) = unit_write(
        kind,
        &source(),
        Some(&existing),
        &derived(&source()),
        3,
        pause,
    ) else {
        panic!("not replaced");
    };
    assert!(kind.rollout(&paused).paused);
    let UnitWrite::Replace(resumed) = unit_write(
        kind,
        &source(),
        Some(&paused),
        &derived(&source()),
        3,
        RolloutStep::Resume(SHARE),
    ) else {
        panic!("not replaced");
    };
    assert!(!kind.rollout(&resumed).paused);
}

#[test]
fn a_hand_edited_unit_is_put_right() {
    let unit = derived(&source());
    let mut edited = stored(&unit, 1);
    edited.data["spec"]["template"]["spec"]["containers"][0]["image"] = json!("other");
    assert!(unit_difference(SourceKind::Deployment, &edited, &unit).template);
    let mut reselected = stored(&unit, 1);
    reselected.data["spec"]["selector"]["matchLabels"]["app"] = json!("other");
    let write = unit_write(
        SourceKind::Deployment,
        &source(),
        Some(&reselected),
        &unit,
        1,
        STEP,
    );
    assert_eq!(write, UnitWrite::Remake);
}

#[test]
fn ordinals_of_a_statefulset_number_on() {
    let kind = SourceKind::StatefulSet;
    let mut source = source();
    source.data["spec"]["ordinals"] = json!({"start": 10});
    source.data["spec"]["serviceName"] = json!("web");
    let mut workload = workload(kind, json!({"name": "a", "max": 3}));
    workload
        .spec
        .elastic_unit
        .push(serde_json::from_value(json!({"name": "b"})).unwrap());
    let start = |index| {
        at(
            &derive_unit(&workload, kind, &source, index).unwrap(),
            "/spec/ordinals/start",
        )
        .clone()
    };
    assert_eq!((start(0), start(1)), (json!(14), json!(17)));
    let unit = derive_unit(&workload, kind, &source, 0).unwrap();
    let UnitWrite::Create(created) = unit_write(kind, &source, None, &unit, 2, STEP) else {
        panic!("not created");
    };
    assert_eq!(
        at(&created, "/spec/updateStrategy/rollingUpdate/partition"),
        0
    );
    assert_eq!(
        unit_write(kind, &source, Some(&created), &unit, 3, STEP),
        UnitWrite::Scale(3)
    );
    // The name of the Service cannot be changed, so the unit is made anew.
    source.data["spec"]["serviceName"] = json!("other");
    let moved = derive_unit(&workload, kind, &source, 0).unwrap();
    assert_eq!(
        unit_write(kind, &source, Some(&created), &moved, 3, STEP),
        UnitWrite::Remake
    );
}

fn job(spec: Value) -> DynamicObject {
    let mut job = object_of(
        json!({"metadata": {"name": "web", "labels": {"team": "a", "job-name": "web"}}, "spec": {
            "parallelism": 3,
            "selector": {"matchLabels": {"batch.kubernetes.io/controller-uid": "u"}},
            "template": {
                "metadata": {"labels": {"app": "crawl", "controller-uid": "u", "batch.kubernetes.io/controller-uid": "u", "job-name": "web", "batch.kubernetes.io/job-name": "web"}},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "work", "image": "crawl:1"}]}
            }
        }}),
    );
    for (name, value) in spec.as_object().unwrap() {
        job.data["spec"][name] = value.clone();
    }
    job
}

#[test]
fn a_unit_of_a_job_is_a_job_of_its_own_on_the_same_queue() {
    let kind = SourceKind::Job;
    let unit = derive(kind, &job(json!({})), plain_unit()).unwrap();
    assert_eq!(at(&unit, "/spec/selector"), &Value::Null);
    let labels = json!({"app": "crawl", "alibabacloud.com/eci": "true", UNIT_LABEL: "vk"});
    assert_eq!(at(&unit, "/spec/template/metadata/labels"), &labels);
    assert!(!unit.labels().contains_key("job-name"));
    let UnitWrite::Create(created) = unit_write(kind, &job(json!({})), None, &unit, 5, STEP) else {
        panic!("not created");
    };
    assert_eq!(at(&created, "/spec/parallelism"), 5);
    let mut existing = *created;
    existing.data["spec"]["selector"] =
        json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "v"}});
    existing.data["spec"]["template"]["metadata"]["labels"]["job-name"] = json!("web-unit-vk");
    assert_eq!(
        unit_write(kind, &job(json!({})), Some(&existing), &unit, 2, STEP),
        UnitWrite::Scale(2)
    );
}

#[test]
fn jobs_that_count_completions_are_refused_by_field() {
    for (spec, field) in [
        (json!({"completions": 5}), "spec.completions"),
        (json!({"manualSelector": true}), "spec.manualSelector"),
    ] {
        let error = derive(SourceKind::Job, &job(spec), plain_unit())
            .unwrap_err()
            .to_string();
        assert!(error.contains(field), "{error}");
    }
}
