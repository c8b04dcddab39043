//! Replays the recorded autoscaler cases (a real v1.34 controller, one cycle a second) on the pure functions:
//! the same sizes in the same order, the same status after each step, the same events.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Read as _;

use elastic_core::horizontal_pod_autoscaler::{
    Flags, Memory, Observed, Outcome, PodView, ReadyView, Sample, Samples, SelectorFault, decide,
    next_status, scale_outcome_events,
};
use elastic_core::quantity::millis;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use serde_json::Value;

/// Cases whose point lies outside of the pure functions: reading the scale, and what other autoscalers select.
const ADAPTER_CASES: [&str; 3] = ["ambiguous-selector", "bad-selector", "target-missing"];
/// The controller's cycle as recorded: a second of delay after each, plus the work.
const FIRST_CYCLE_MILLIS: i64 = 1050;
const CYCLE_MILLIS: i64 = 1030;
/// The recorder changed the stubbed metrics a little later than planned, and not by the same delay in each case.
const STEP_LAGS_MILLIS: [i64; 2] = [0, 100];

#[test]
fn recorded_cases_agree() {
    let cases = recorded();
    let (mut agreeing, mut concerned, mut differing) = (0, 0, Vec::new());
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        if ADAPTER_CASES.contains(&name) {
            continue;
        }
        concerned += 1;
        let runs = STEP_LAGS_MILLIS.map(|lag| Run::new(case, lag).compare());
        match runs.into_iter().reduce(Result::or).unwrap() {
            Ok(()) => agreeing += 1,
            Err(difference) => differing.push(format!("{name}: {difference}")),
        }
    }
    println!("recorded autoscaler cases: {agreeing} of {concerned} agree");
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn recorded() -> Vec<Value> {
    let packed = include_bytes!("../data/hpa-recorded.json.gz");
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_string(&mut text)
        .unwrap();
    serde_json::from_str(&text).unwrap()
}

struct Run<'a> {
    case: &'a Value,
    step_lag_millis: i64,
    spec: HorizontalPodAutoscalerSpec,
    flags: Flags,
    replicas: i32,
    status: HorizontalPodAutoscalerStatus,
    memory: Memory,
    sizes: Vec<i32>,
    desired: Vec<i32>,
    events: Vec<(bool, String, String)>,
}

fn start() -> Timestamp {
    "2026-11-21T11:00:00Z".parse().unwrap()
}

impl<'a> Run<'a> {
    fn new(case: &'a Value, step_lag_millis: i64) -> Self {
        let given = &case["given"];
        let replicas = given["targetSpecReplicas"]
            .as_i64()
            .or(given["deployment"]["spec"]["replicas"].as_i64());
        let replicas = replicas.unwrap() as i32;
        Run {
            case,
            step_lag_millis,
            spec: serde_json::from_value(given["hpa"].clone()).unwrap(),
            flags: flags(case),
            replicas,
            status: HorizontalPodAutoscalerStatus::default(),
            memory: Memory::default(),
            sizes: vec![replicas],
            desired: vec![0],
            events: Vec::new(),
        }
    }

    fn compare(mut self) -> Result<(), String> {
        let steps = self.steps();
        let mut cycle_at = FIRST_CYCLE_MILLIS;
        let mut step_end = 0;
        for (index, step) in steps.iter().enumerate() {
            step_end += (step["seconds"].as_f64().unwrap() * 1000.0) as i64;
            while cycle_at < step_end + self.step_lag_millis {
                self.cycle(step, cycle_at);
                cycle_at += CYCLE_MILLIS;
            }
            let before = self.status.clone();
            let mut after = None;
            if index + 1 == steps.len() {
                self.cycle(step, cycle_at);
                after = Some(self.status.clone());
            }
            self.compare_status(index, &before, after.as_ref())?;
        }
        self.compare_sequence()?;
        self.compare_events()
    }

    fn steps(&self) -> Vec<Value> {
        let given = &self.case["given"];
        let steps = if given["metrics"].is_array() {
            &given["metrics"]
        } else {
            &given["loadMilliCores"]
        };
        steps.as_array().unwrap().clone()
    }

    fn cycle(&mut self, step: &Value, at_millis: i64) {
        let now = start() + SignedDuration::from_millis(at_millis);
        let pods = self.pods(now);
        let readings = self.spec.metrics.clone().unwrap_or_default();
        let readings = readings
            .iter()
            .map(|metric| reading(metric, step, &pods, now))
            .collect();
        let selector = match self.case["given"]["targetSelector"].as_str() {
            Some("") => Err(SelectorFault::Missing),
            _ => Ok(()),
        };
        let views: Vec<PodView> = pods.into_iter().map(|(view, _)| view).collect();
        let observed = Observed {
            spec_replicas: self.replicas,
            selector,
            pods: &views,
            readings,
        };
        let decision = decide(&self.spec, &observed, &mut self.memory, &self.flags, now);
        let outcome = if decision.rescale.is_some() {
            Outcome::Scaled
        } else {
            Outcome::Unneeded
        };
        self.status = next_status(&self.status, self.replicas, &decision, &outcome, now);
        for event in decision
            .events
            .iter()
            .chain(&scale_outcome_events(&decision, &outcome))
        {
            self.events.push((
                event.is_warning,
                event.reason.to_owned(),
                event.message.clone(),
            ));
        }
        if let Some(rescale) = &decision.rescale {
            self.memory.rescaled(
                self.spec.behavior.as_ref(),
                self.replicas,
                rescale.replicas,
                now,
            );
            self.replicas = rescale.replicas;
        }
        push_changed(&mut self.sizes, self.replicas);
        push_changed(&mut self.desired, self.status.desired_replicas);
    }

    /// The pods with the recording's own description of each, or as many as the Deployment has.
    fn pods(&self, now: Timestamp) -> Vec<(PodView, Value)> {
        let given = &self.case["given"];
        if let Some(pods) = given["pods"].as_array() {
            return pods
                .iter()
                .map(|pod| (pod_view(pod), pod.clone()))
                .collect();
        }
        let view = |index| PodView {
            name: format!("web-{index}"),
            phase: "Running".to_owned(),
            start_time: Some(now - SignedDuration::from_secs(60)),
            ready: Some(ReadyView {
                is_ready: true,
                is_unready: false,
                since: now - SignedDuration::from_secs(59),
            }),
            containers: vec![("c".to_owned(), BTreeMap::from([("cpu".to_owned(), 100)]))],
            ..PodView::default()
        };
        (0..self.replicas)
            .map(|index| (view(index), Value::Null))
            .collect()
    }

    fn compare_status(
        &self,
        step: usize,
        before: &HorizontalPodAutoscalerStatus,
        after: Option<&HorizontalPodAutoscalerStatus>,
    ) -> Result<(), String> {
        let recorded = self.case["statuses"].as_array().unwrap();
        let Some(recorded) = recorded.iter().find(|entry| entry["step"] == step) else {
            return Ok(());
        };
        let wanted = masked(&recorded["status"]);
        let candidates = [Some(before), after].into_iter().flatten();
        let candidates: Vec<Value> = candidates
            .map(|status| masked(&serde_json::to_value(status).unwrap()))
            .collect();
        if candidates.contains(&wanted) {
            return Ok(());
        }
        Err(format!(
            "status of step {step}\n  recorded {wanted}\n  computed {}",
            candidates[0]
        ))
    }

    /// The recording may end one cycle earlier than the replay.
    fn compare_sequence(&self) -> Result<(), String> {
        let recorded = self.case["sequence"].as_array().unwrap();
        let (mut sizes, mut desired) = (Vec::new(), Vec::new());
        for entry in recorded {
            push_changed(&mut sizes, entry[1].as_i64().unwrap() as i32);
            push_changed(&mut desired, entry[3].as_i64().unwrap_or(0) as i32);
        }
        for (what, ours, theirs) in [
            ("sizes", &self.sizes, &sizes),
            ("desired", &self.desired, &desired),
        ] {
            if !ours.starts_with(theirs) || ours.len() > theirs.len() + 1 {
                return Err(format!("{what}: recorded {theirs:?}, computed {ours:?}"));
            }
        }
        Ok(())
    }

    fn compare_events(&self) -> Result<(), String> {
        let recorded: BTreeSet<(bool, String, String)> = self.case["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|event| {
                let text = |key: &str| event[key].as_str().unwrap().to_owned();
                (text("type") == "Warning", text("reason"), text("message"))
            })
            .collect();
        let ours: BTreeSet<_> = self.events.iter().cloned().collect();
        if recorded.is_subset(&ours) && ours.len() <= recorded.len() + 1 {
            return Ok(());
        }
        Err(format!("events: recorded {recorded:?}, computed {ours:?}"))
    }
}

fn push_changed(list: &mut Vec<i32>, value: i32) {
    if list.last() != Some(&value) {
        list.push(value);
    }
}

fn flags(case: &Value) -> Flags {
    let mut flags = Flags::default();
    for flag in case["controllerFlags"].as_array().unwrap() {
        let flag = flag
            .as_str()
            .unwrap()
            .trim_start_matches("--horizontal-pod-autoscaler-");
        let (name, value) = flag.split_once('=').unwrap();
        let seconds = || SignedDuration::from_secs(value.trim_end_matches('s').parse().unwrap());
        match name {
            "downscale-stabilization" => flags.downscale_stabilization = seconds(),
            "cpu-initialization-period" => flags.cpu_initialization_period = seconds(),
            "initial-readiness-delay" => flags.initial_readiness_delay = seconds(),
            _ => {}
        }
    }
    flags
}

fn pod_view(pod: &Value) -> PodView {
    let ago = |seconds: i64| start() - SignedDuration::from_secs(seconds);
    let container = |container: &Value| {
        let requests = container["requests"].as_object().into_iter().flatten();
        let requests =
            requests.map(|(name, value)| (name.clone(), millis(value.as_str().unwrap()).unwrap()));
        (
            container["name"].as_str().unwrap().to_owned(),
            requests.collect(),
        )
    };
    PodView {
        name: pod["name"].as_str().unwrap().to_owned(),
        phase: pod["phase"].as_str().unwrap().to_owned(),
        deleting: pod["state"] == "terminating",
        start_time: pod["startedSecondsAgo"].as_i64().map(ago),
        ready: pod["ready"].as_object().map(|ready| ReadyView {
            is_ready: ready["status"] == "True",
            is_unready: ready["status"] == "False",
            since: ago(ready["changedSecondsAgo"].as_i64().unwrap()),
        }),
        containers: pod["containers"]
            .as_array()
            .unwrap()
            .iter()
            .map(container)
            .collect(),
    }
}

/// What the stubbed metrics APIs answer in a step, as the controller's client words it.
fn reading(
    metric: &k8s_openapi::api::autoscaling::v2::MetricSpec,
    step: &Value,
    pods: &[(PodView, Value)],
    now: Timestamp,
) -> Result<Samples, String> {
    if let Some(source) = &metric.pods {
        let name = &source.metric.name;
        let Some(value) = step[format!("podsMetric_{name}")].as_str() else {
            return Err(format!(
                "unable to get metric {name}: unable to fetch metrics from custom metrics API: the server could not find the metric {name} for pods"
            ));
        };
        let milli = millis(value).unwrap();
        return Ok(samples(step, pods, now, |_, _| Some(milli)));
    }
    let resource = metric.resource.as_ref().map(|source| source.name.as_str());
    let container = metric
        .container_resource
        .as_ref()
        .map(|source| source.container.as_str());
    let resource = resource
        .or(metric
            .container_resource
            .as_ref()
            .map(|source| source.name.as_str()))
        .unwrap();
    let prefix = format!("unable to get metrics for resource {resource}: ");
    if let Some(message) = step["apiFailure"]["message"].as_str() {
        return Err(format!(
            "{prefix}unable to fetch metrics from resource metrics API: {message}"
        ));
    }
    if samples(step, pods, now, |_, _| Some(0)).is_empty() {
        return Err(format!(
            "{prefix}no metrics returned from resource metrics API"
        ));
    }
    Ok(samples(step, pods, now, |index, pod| {
        usage(step, resource, container, index, pod, pods.len())
    }))
}

fn usage(
    step: &Value,
    resource: &str,
    only: Option<&str>,
    index: usize,
    pod: &Value,
    pods: usize,
) -> Option<i64> {
    if let Some(total) = step["total"].as_i64() {
        return Some(total / pods as i64);
    }
    let main = if resource == "memory" {
        &step["perPodMemory"]
    } else {
        &step["perPodCpu"]
    };
    let main = millis(main.get(index).unwrap_or(main).as_str()?).ok()?;
    let by_container = pod["containers"]
        .as_array()?
        .iter()
        .map(|container| container["name"].as_str().unwrap());
    let values: Vec<i64> = by_container
        .filter(|name| only.is_none_or(|only| only == *name))
        .map(|name| {
            if name == "side" {
                millis(step["sidecarCpu"].as_str().unwrap_or("0")).unwrap()
            } else {
                main
            }
        })
        .collect();
    (!values.is_empty()).then(|| values.iter().sum())
}

fn samples(
    step: &Value,
    pods: &[(PodView, Value)],
    now: Timestamp,
    value: impl Fn(usize, &Value) -> Option<i64>,
) -> Samples {
    let without: Vec<&str> = step["podsWithoutMetrics"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let mut samples = Samples::new();
    for (index, (view, pod)) in pods.iter().enumerate() {
        if without.contains(&view.name.as_str()) {
            continue;
        }
        if let Some(milli) = value(index, pod) {
            let window = SignedDuration::from_secs(10);
            samples.insert(
                view.name.clone(),
                Sample {
                    milli,
                    timestamp: now,
                    window,
                },
            );
        }
    }
    samples
}

fn masked(status: &Value) -> Value {
    let mut status = status.clone();
    let object = status.as_object_mut().unwrap();
    object.remove("lastScaleTime");
    object.retain(|_, value| !value.is_null());
    object.entry("currentReplicas").or_insert(Value::from(0));
    object.entry("desiredReplicas").or_insert(Value::from(0));
    for condition in object
        .get_mut("conditions")
        .and_then(Value::as_array_mut)
        .into_iter()
        .flatten()
    {
        condition
            .as_object_mut()
            .unwrap()
            .remove("lastTransitionTime");
    }
    status
}
