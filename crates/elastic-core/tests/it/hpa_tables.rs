//! The autoscaler's rules that no recorded case covers, as tables, and what holds whatever comes.

use std::collections::BTreeMap;

use elastic_core::horizontal_pod_autoscaler::{
    Decision, Flags, Memory, Observed, Outcome, PodView, Reading, ReadyView, Sample, SelectorFault,
    Selectors, decide, is_scaled_to_zero, next_status,
};
use elastic_core::label_query::LabelQuery;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn now() -> Timestamp {
    "2026-11-21T11:00:00Z".parse().unwrap()
}

fn pods(count: usize) -> Vec<PodView> {
    let old = now() - SignedDuration::from_secs(7_200);
    let pod = |index| PodView {
        name: format!("p{index}"),
        phase: "Running".to_owned(),
        start_time: Some(old),
        ready: Some(ReadyView {
            is_ready: true,
            is_unready: false,
            since: old,
        }),
        containers: vec![("app".to_owned(), BTreeMap::from([("cpu".to_owned(), 100)]))],
        ..PodView::default()
    };
    (0..count).map(pod).collect()
}

fn spec(min: i32, max: i32, metrics: Value) -> HorizontalPodAutoscalerSpec {
    serde_json::from_value(json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "minReplicas": min, "maxReplicas": max, "metrics": metrics,
    }))
    .unwrap()
}

fn external(target: Value, selector: Value) -> Value {
    json!([{"type": "External", "external": {"metric": {"name": "queue", "selector": selector}, "target": target}}])
}

fn object(target: Value) -> Value {
    json!([{"type": "Object", "object": {"describedObject": {"kind": "Service", "name": "svc"},
        "metric": {"name": "hits"}, "target": target}}])
}

fn average(value: &str) -> Value {
    json!({"type": "AverageValue", "averageValue": value})
}

fn value(value: &str) -> Value {
    json!({"type": "Value", "value": value})
}

struct Scene {
    spec: HorizontalPodAutoscalerSpec,
    size: i32,
    pods: Vec<PodView>,
    status: HorizontalPodAutoscalerStatus,
}

impl Scene {
    fn new(spec: HorizontalPodAutoscalerSpec, size: i32) -> Self {
        Scene {
            spec,
            size,
            pods: pods(usize::try_from(size).unwrap()),
            status: HorizontalPodAutoscalerStatus::default(),
        }
    }

    fn decide(&self, readings: Vec<Result<Reading, String>>) -> Decision {
        let observed = Observed {
            namespace: "shop",
            spec_replicas: self.size,
            status_replicas: self.size,
            is_scaled_to_zero: is_scaled_to_zero(&self.status),
            selector: Ok(()),
            pods: &self.pods,
            readings,
        };
        decide(
            &self.spec,
            &observed,
            &mut Memory::default(),
            &Flags::default(),
            now(),
        )
    }

    /// The count that one value leads to.
    fn size_for(&self, milli: i64) -> i32 {
        let decision = self.decide(vec![Ok(Reading::Whole(milli))]);
        decision
            .rescale
            .map_or(self.size, |rescale| rescale.replicas)
    }
}

fn message<'a>(decision: &'a Decision, kind: &str) -> &'a str {
    let mut found = decision.conditions.iter().filter(|one| one.kind == kind);
    found.next_back().map_or("", |one| one.message.as_str())
}

fn current(decision: &Decision) -> Value {
    let status = serde_json::to_value(&decision.metrics.as_ref().unwrap()[0]).unwrap();
    let parts = ["object", "external", "resource", "pods"];
    parts
        .iter()
        .map(|part| status[*part]["current"].clone())
        .find(|one| !one.is_null())
        .unwrap()
}

#[test]
fn values_for_the_whole_target_lead_to_these_counts() {
    let of = |metrics: Value, size| Scene::new(spec(1, 100, metrics), size);
    for (metrics, size, milli, wanted) in [
        (external(average("30"), Value::Null), 3, 200_000, 6),
        (external(average("30"), Value::Null), 4, 200_000, 7),
        (external(average("30"), Value::Null), 3, 98_000, 3),
        (external(value("100"), Value::Null), 3, 150_000, 5),
        (external(value("100"), Value::Null), 3, 109_000, 3),
        (object(value("100")), 4, 150_000, 6),
        (object(average("50")), 4, 390_000, 8),
        (object(average("50")), 4, 219_000, 4),
    ] {
        let scene = of(metrics.clone(), size);
        assert_eq!(
            scene.size_for(milli),
            wanted,
            "{metrics} at {size} with {milli}"
        );
    }
}

#[test]
fn an_average_is_shown_for_each_replica_and_rounded_up() {
    for metrics in [external(average("30"), Value::Null), object(average("30"))] {
        let scene = Scene::new(spec(1, 10, metrics), 3);
        let decision = scene.decide(vec![Ok(Reading::Whole(200_000))]);
        assert_eq!(current(&decision), json!({"averageValue": "66667m"}));
    }
    let scene = Scene::new(spec(1, 10, object(value("100"))), 3);
    let decision = scene.decide(vec![Ok(Reading::Whole(1_500_000))]);
    assert_eq!(current(&decision), json!({"value": "1500"}));
}

#[test]
fn a_metric_is_named_with_its_selector_as_upstream_prints_it() {
    let selector = json!({"matchLabels": {"q": "a", "b": "c"},
        "matchExpressions": [{"key": "k", "operator": "In", "values": ["x", "y"]}]});
    let printed = "&LabelSelector{MatchLabels:map[string]string{b: c,q: a,},MatchExpressions:\
                   []LabelSelectorRequirement{LabelSelectorRequirement{Key:k,Operator:In,Values:[x y],},},}";
    let scene = Scene::new(spec(1, 10, external(average("30"), selector)), 3);
    let found = scene.decide(vec![Ok(Reading::Whole(90_000))]);
    assert_eq!(
        message(&found, "ScalingActive"),
        format!(
            "the HPA was able to successfully calculate a replica count from external metric queue({printed})"
        )
    );
    let lost = scene.decide(vec![Err(
        "no metrics returned from external metrics API".to_owned()
    )]);
    assert_eq!(
        message(&lost, "ScalingActive"),
        format!(
            "the HPA was unable to compute the replica count: unable to get external metric shop/queue/{printed}: \
                 no metrics returned from external metrics API"
        )
    );
    // Upstream calls an Object's average an external metric.
    let scene = Scene::new(spec(1, 10, object(average("30"))), 3);
    let found = scene.decide(vec![Ok(Reading::Whole(90_000))]);
    assert!(message(&found, "ScalingActive").ends_with("from external metric hits(nil)"));
}

#[test]
fn failures_are_told_in_the_words_of_their_kind() {
    let failed = "invalid metrics (1 invalid out of 1), first error is: failed to get";
    for (metrics, event, whole) in [
        (
            object(average("30")),
            "unable to get metric hits: Service on shop svc/gone",
            "object metric value: failed to get hits object metric: unable to get metric hits: Service on shop svc/gone",
        ),
        (
            object(json!({"type": "Value"})),
            "invalid object metric source: neither a value target nor an average value target was set",
            "object metric value: invalid object metric source: neither a value target nor an average value target was set",
        ),
        (
            external(value("30"), Value::Null),
            "unable to get external metric shop/queue/nil: gone",
            "queue external metric value: failed to get external metric queue: unable to get external metric shop/queue/nil: gone",
        ),
        (
            json!([{"type": "Resource", "resource": {"name": "cpu", "target": average("1")}}]),
            "failed to get cpu usage: unable to get metrics for resource cpu: gone",
            "cpu resource metric value: failed to get cpu usage: unable to get metrics for resource cpu: gone",
        ),
    ] {
        let scene = Scene::new(spec(1, 10, metrics), 3);
        let decision = scene.decide(vec![Err("gone".to_owned())]);
        let messages: Vec<&str> = decision
            .events
            .iter()
            .map(|one| one.message.as_str())
            .collect();
        assert_eq!(messages, [event, &format!("{failed} {whole}")]);
        assert!(decision.has_failed && decision.rescale.is_none());
    }
    let scene = Scene::new(spec(1, 10, json!([{"type": "Oracle"}])), 3);
    let decision = scene.decide(Vec::new());
    let messages: Vec<&str> = decision
        .events
        .iter()
        .map(|one| one.message.as_str())
        .collect();
    let unknown = "unknown metric source type \"Oracle\"";
    let whole = format!("invalid metrics (1 invalid out of 1), first error is: {unknown}");
    assert_eq!(messages, [unknown, &whole]);
}

#[test]
fn tolerances_hold_in_their_own_direction() {
    let with = |behavior: Value, milli| {
        let mut spec = spec(1, 200, external(value("100"), Value::Null));
        spec.behavior = Some(serde_json::from_value(behavior).unwrap());
        Scene::new(spec, 100).size_for(milli)
    };
    let up = || json!({"scaleUp": {"tolerance": "50m"}, "scaleDown": {"tolerance": "0.3", "stabilizationWindowSeconds": 0}});
    assert_eq!(with(up(), 105_000), 100, "exactly at the edge");
    assert_eq!(with(up(), 75_000), 100);
    assert_eq!(with(up(), 69_000), 69);
    assert_eq!(
        with(
            json!({"scaleDown": {"stabilizationWindowSeconds": 0}}),
            75_000
        ),
        75
    );
}

#[test]
fn a_queue_puts_its_workers_to_sleep_and_wakes_them() {
    let mut scene = Scene::new(spec(0, 10, external(average("30"), Value::Null)), 2);
    let asleep = scene.decide(vec![Ok(Reading::Whole(0))]);
    // The first recommendation of two replicas holds for the window.
    assert_eq!(asleep.rescale, None);
    scene.spec.behavior = Some(
        serde_json::from_value(json!({"scaleDown": {"stabilizationWindowSeconds": 0}})).unwrap(),
    );
    let asleep = scene.decide(vec![Ok(Reading::Whole(0))]);
    assert_eq!(asleep.rescale.as_ref().unwrap().replicas, 0);
    scene.status = next_status(&scene.status, 2, &asleep, &Outcome::Scaled, now());
    assert!(is_scaled_to_zero(&scene.status));
    let condition = |status: &HorizontalPodAutoscalerStatus| {
        let conditions = status.conditions.clone().unwrap();
        let ours = conditions
            .into_iter()
            .find(|one| one.type_ == "ScaledToZero")
            .unwrap();
        (ours.status, ours.reason.unwrap(), ours.message.unwrap())
    };
    let text =
        |one: &str, two: &str, three: &str| (one.to_owned(), two.to_owned(), three.to_owned());
    assert_eq!(
        condition(&scene.status),
        text(
            "True",
            "ScaledToZero",
            "the HPA controller scaled the workload to zero"
        )
    );
    (scene.size, scene.pods) = (0, Vec::new());
    let awake = scene.decide(vec![Ok(Reading::Whole(61_000))]);
    assert_eq!(awake.rescale.as_ref().unwrap().replicas, 3);
    scene.status = next_status(&scene.status, 0, &awake, &Outcome::Scaled, now());
    assert_eq!(
        condition(&scene.status),
        text(
            "False",
            "ScaledFromZero",
            "the HPA controller scaled the workload from zero"
        )
    );
}

#[test]
fn a_target_asleep_wakes_with_a_new_minimum_and_one_set_to_zero_by_hand_stays() {
    let mut scene = Scene::new(spec(2, 10, external(average("30"), Value::Null)), 0);
    let by_hand = scene.decide(Vec::new());
    assert_eq!(by_hand.rescale, None);
    assert_eq!(
        message(&by_hand, "ScalingActive"),
        "scaling is disabled since the replica count of the target is zero"
    );
    scene.status = serde_json::from_value(json!({"desiredReplicas": 0, "conditions": [
        {"type": "ScaledToZero", "status": "True", "reason": "ScaledToZero"}]}))
    .unwrap();
    let asleep = scene.decide(Vec::new());
    assert_eq!(asleep.rescale.unwrap().replicas, 2);
}

#[test]
fn the_pod_as_a_whole_is_measured_against_its_own_requests() {
    let target = json!({"type": "Utilization", "averageUtilization": 50});
    let metrics = json!([{"type": "Resource", "resource": {"name": "cpu", "target": target}}]);
    let mut scene = Scene::new(spec(1, 10, metrics), 2);
    let sample = Sample {
        milli: 100,
        timestamp: now(),
        window: SignedDuration::from_secs(10),
    };
    let samples = || scene_samples(2, sample);
    let decision = scene.decide(vec![samples()]);
    assert_eq!(decision.rescale.unwrap().replicas, 4);
    for pod in &mut scene.pods {
        pod.whole = Some(BTreeMap::from([("cpu".to_owned(), 200)]));
    }
    let decision = scene.decide(vec![samples()]);
    assert_eq!(decision.rescale, None, "half of 200m");
    scene.pods[1].whole = Some(BTreeMap::from([("memory".to_owned(), 200)]));
    let decision = scene.decide(vec![samples()]);
    let wanted = "failed to get cpu utilization: missing pod-level request for cpu in Pod p1";
    assert_eq!(decision.events[0].message, wanted);
}

fn scene_samples(count: usize, sample: Sample) -> Result<Reading, String> {
    let rows = (0..count).map(|index| (format!("p{index}"), sample));
    Ok(Reading::PerPod(rows.collect()))
}

proptest! {
    /// Whatever is read, a size that is set lies between minimum and maximum, a failing metric never shrinks, and
    /// every event has a message.
    #[test]
    fn no_reading_leads_out_of_bounds(
        size in 1_i32..30, min in 0_i32..5, room in 0_i32..40, running in 0_usize..30,
        one in proptest::option::of(0_i64..10_000_000), other in proptest::option::of(-5_000_i64..10_000_000),
    ) {
        let mut metrics = external(average("30"), Value::Null);
        let more = object(value("100"));
        metrics.as_array_mut().unwrap().push(more[0].clone());
        let max = (min + room).max(1);
        let mut scene = Scene::new(spec(min, max, metrics), size);
        scene.pods = pods(running);
        let reading = |milli: Option<i64>| milli.map(Reading::Whole).ok_or_else(|| "gone".to_owned());
        let decision = scene.decide(vec![reading(one), reading(other)]);
        if let Some(rescale) = &decision.rescale {
            prop_assert!((min..=max).contains(&rescale.replicas));
            let is_inside = (min..=max).contains(&size);
            if is_inside && (one.is_none() || other.is_none()) {
                prop_assert!(rescale.replicas > size);
            }
        }
        prop_assert!(decision.events.iter().all(|event| !event.message.is_empty()));
    }

    /// Asleep is what the autoscaler itself put to sleep: zero only where the minimum allows it, never on a failing
    /// metric, told by the condition, and woken by the first work.
    #[test]
    fn sleep_is_what_the_condition_says_and_work_ends_it(
        queue in prop::collection::vec(prop::option::weighted(0.8, 0_i64..400), 1..30), min in 0_i32..3,
    ) {
        let mut scene = Scene::new(spec(min, 10, external(average("30"), Value::Null)), 2);
        let at_once = json!({"scaleDown": {"stabilizationWindowSeconds": 0}});
        scene.spec.behavior = Some(serde_json::from_value(at_once).unwrap());
        for work in queue {
            let before = scene.size;
            let reading = work.map(|work| Reading::Whole(1_000 * work));
            let decision = scene.decide(vec![reading.ok_or_else(|| "gone".to_owned())]);
            let outcome = match &decision.rescale {
                Some(_) => Outcome::Scaled,
                None => Outcome::Unneeded,
            };
            scene.status = next_status(&scene.status, before, &decision, &outcome, now());
            scene.size = decision.rescale.as_ref().map_or(before, |rescale| rescale.replicas);
            scene.pods = pods(usize::try_from(scene.size).unwrap());
            prop_assert!(scene.size >= min);
            prop_assert_eq!(is_scaled_to_zero(&scene.status), scene.size == 0);
            match work {
                None => prop_assert_eq!(scene.size, before, "nothing is known"),
                Some(0) => prop_assert_eq!(scene.size, min),
                Some(_) => prop_assert!(scene.size > 0),
            }
        }
    }

    /// Pods that two autoscalers select stop exactly those two, in whichever order they come, until one is gone.
    #[test]
    fn shared_pods_stop_exactly_those_who_share_them(
        labels in prop::collection::vec(0_usize..3, 2..5), gone in 0_usize..5,
    ) {
        let query = |label: usize| LabelQuery::parse(&format!("app=a{label}")).unwrap();
        let of = |label: usize| {
            let mut pod = pods(1).remove(0);
            pod.labels = Some(BTreeMap::from([("app".to_owned(), format!("a{label}"))]));
            vec![pod]
        };
        let mut known = Selectors::default();
        for (index, label) in labels.iter().enumerate().rev() {
            known.note("shop", &format!("h{index}"), query(*label));
        }
        let gone = gone % labels.len();
        for is_gone in [false, true] {
            for (index, label) in labels.iter().enumerate().filter(|(index, _)| !is_gone || *index != gone) {
                let sharers: Vec<String> = (0..labels.len())
                    .filter(|other| labels[*other] == *label && (!is_gone || *other != gone))
                    .map(|other| format!("shop/h{other}"))
                    .collect();
                let found = known.check("shop", &format!("app=a{label}"), &of(*label));
                match found {
                    Ok(()) => prop_assert_eq!(sharers.len(), 1, "h{} of {:?}", index, labels),
                    Err(SelectorFault::Ambiguous(message)) => {
                        let wanted = format!("pods by selector app=a{label} are controlled by multiple HPAs: [{}]", sharers.join(" "));
                        prop_assert_eq!(message, wanted);
                    }
                    Err(other) => prop_assert!(false, "{:?}", other),
                }
                prop_assert!(known.check("other", "app=a0", &of(*label)).is_ok(), "namespaces are apart");
            }
            known.forget("shop", &format!("h{gone}"));
        }
    }
}
