//! Replays the recorded autoscaler cases (a real v1.34 controller, one cycle a second) on the pure functions: the same
//! sizes in the same order, the same status after each step, the same events, on a clock that only the test moves.

mod given;

use std::collections::BTreeMap;
use std::io::Read as _;

use elastic_core::horizontal_pod_autoscaler::{
    EventText, Flags, Memory, Observed, Outcome, PodView, ReadyView, ScaleView, SelectorFault,
    Selectors, decide, is_scaled_to_zero, needs_metrics, next_status, scale_outcome_events,
    scale_read_failed,
};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::autoscaling::v2::{
    HorizontalPodAutoscalerSpec, HorizontalPodAutoscalerStatus,
};
use serde_json::{Value, json};

/// Cases that do not agree, each with the reason.
const EXCEPTIONS: [(&str, &str); 0] = [];
const CASES: usize = 62;
/// The controller's cycle as recorded: a second of delay after each, plus the work.
const FIRST_CYCLE_MILLIS: i64 = 1050;
const CYCLE_MILLIS: i64 = 1030;
/// The recorder changed the stubbed metrics a little later than planned, and not by the same delay in each case.
const STEP_LAGS_MILLIS: [i64; 2] = [0, 100];
const NAME: &str = "h";

#[test]
fn recorded_cases_agree() {
    let cases = recorded();
    assert_eq!(cases.len(), CASES);
    let mut differing = Vec::new();
    for case in &cases {
        let name = case["name"].as_str().unwrap();
        let runs = STEP_LAGS_MILLIS.map(|lag| Run::new(case, lag).compare());
        let difference = runs.into_iter().reduce(Result::or).unwrap();
        let is_excepted = EXCEPTIONS.iter().any(|(known, _)| *known == name);
        match (difference, is_excepted) {
            (Err(difference), false) => differing.push(format!("{name}: {difference}")),
            (Ok(()), true) => differing.push(format!("{name} agrees and is no exception any more")),
            _ => {}
        }
    }
    let agreeing = CASES - EXCEPTIONS.len();
    println!("recorded autoscaler cases: {agreeing} of {CASES} agree");
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

/// One autoscaler of a case.
#[derive(Default)]
struct Autoscaler {
    name: String,
    memory: Memory,
    status: HorizontalPodAutoscalerStatus,
    desired: Vec<i32>,
}

/// Event, and the autoscaler it is about.
type Event = (bool, String, String, String);

struct Run<'a> {
    case: &'a Value,
    step_lag_millis: i64,
    namespace: String,
    spec: HorizontalPodAutoscalerSpec,
    flags: Flags,
    replicas: i32,
    autoscalers: Vec<Autoscaler>,
    selectors: Selectors,
    sizes: Vec<i32>,
    events: BTreeMap<Event, i64>,
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
        let others = given["otherAutoscalersOnTheSameTarget"]
            .as_i64()
            .unwrap_or(0);
        // The others were made first.
        let names = (0..others).map(|index| format!("other{index}"));
        let autoscaler = |name| Autoscaler {
            name,
            desired: vec![0],
            ..Autoscaler::default()
        };
        let name = case["name"].as_str().unwrap().to_lowercase();
        Run {
            case,
            step_lag_millis,
            namespace: format!("g-hpa-{name}"),
            spec: serde_json::from_value(given["hpa"].clone()).unwrap(),
            flags: flags(case),
            replicas,
            autoscalers: names.chain([NAME.to_owned()]).map(autoscaler).collect(),
            selectors: Selectors::default(),
            sizes: vec![replicas],
            events: BTreeMap::new(),
        }
    }

    fn main(&self) -> &Autoscaler {
        self.autoscalers.last().unwrap()
    }

    fn compare(mut self) -> Result<(), String> {
        let steps = self.steps();
        let mut cycle_at = FIRST_CYCLE_MILLIS;
        let mut step_end = 0;
        for (index, step) in steps.iter().enumerate() {
            step_end += (step["seconds"].as_f64().unwrap() * 1000.0) as i64;
            while cycle_at < step_end + self.step_lag_millis {
                self.cycles(step, cycle_at);
                cycle_at += CYCLE_MILLIS;
            }
            let before = self.main().status.clone();
            let mut after = None;
            if index + 1 == steps.len() {
                self.cycles(step, cycle_at);
                after = Some(self.main().status.clone());
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

    fn cycles(&mut self, step: &Value, at_millis: i64) {
        for index in 0..self.autoscalers.len() {
            let now = start() + SignedDuration::from_millis(at_millis);
            let mut autoscaler = std::mem::take(&mut self.autoscalers[index]);
            self.cycle(&mut autoscaler, step, now);
            self.autoscalers[index] = autoscaler;
        }
        push_changed(&mut self.sizes, self.replicas);
    }

    fn cycle(&mut self, autoscaler: &mut Autoscaler, step: &Value, now: Timestamp) {
        let scale = match self.scale() {
            Ok(scale) => scale,
            Err(error) => {
                let (status, event) = scale_read_failed(&autoscaler.status, &error, now);
                autoscaler.status = status;
                return self.record(autoscaler, &event);
            }
        };
        let pods = self.pods(now);
        let views: Vec<PodView> = pods.iter().map(|(view, _)| view.clone()).collect();
        let metrics = self.spec.metrics.clone().unwrap_or_default();
        let readings = metrics
            .iter()
            .map(|metric| given::reading(metric, step, &pods, now))
            .collect();
        let mut selector = Ok(());
        if needs_metrics(&self.spec, scale.spec_replicas) {
            selector = self.select(&autoscaler.name, &scale, &views);
        }
        let observed = Observed {
            namespace: &self.namespace,
            spec_replicas: scale.spec_replicas,
            status_replicas: scale.status_replicas,
            is_scaled_to_zero: is_scaled_to_zero(&autoscaler.status),
            selector,
            pods: &views,
            readings,
        };
        let decision = decide(
            &self.spec,
            &observed,
            &mut autoscaler.memory,
            &self.flags,
            now,
        );
        let outcome = match &decision.rescale {
            Some(rescale) => {
                let behavior = self.spec.behavior.as_ref();
                let memory = &mut autoscaler.memory;
                memory.rescaled(behavior, self.replicas, rescale.replicas, now);
                self.replicas = rescale.replicas;
                Outcome::Scaled
            }
            None => Outcome::Unneeded,
        };
        let (before, spec_replicas) = (&autoscaler.status, scale.spec_replicas);
        autoscaler.status = next_status(before, spec_replicas, &decision, &outcome, now);
        let follow = scale_outcome_events(&decision, &outcome);
        for event in decision.events.iter().chain(&follow) {
            self.record(autoscaler, event);
        }
        push_changed(&mut autoscaler.desired, autoscaler.status.desired_replicas);
    }

    /// What the stand-in for the scale client answers: the custom resource's status never changes, the Deployment's
    /// follows at once.
    fn scale(&self) -> Result<ScaleView, String> {
        let given = &self.case["given"];
        let name = &self.spec.scale_target_ref.name;
        if name == "gone" {
            return Err("scalables.hpat.golden.example.com \"gone\" not found".to_owned());
        }
        let replicas = &given["targetStatusReplicas"];
        let selector = given["targetSelector"].as_str().unwrap_or("app=web");
        ScaleView::read(&json!({"spec": {"replicas": self.replicas}, "status": {
            "replicas": replicas.as_i64().unwrap_or(i64::from(self.replicas)), "selector": selector,
        }}))
    }

    fn select(
        &mut self,
        name: &str,
        scale: &ScaleView,
        pods: &[PodView],
    ) -> Result<(), SelectorFault> {
        let query = scale.query.clone().ok_or(SelectorFault::Missing)?;
        self.selectors.note(&self.namespace, name, query);
        self.selectors.check(&self.namespace, &scale.selector, pods)
    }

    fn record(&mut self, autoscaler: &Autoscaler, event: &EventText) {
        let message = in_order(&event.message);
        let about = format!("HorizontalPodAutoscaler/{}", autoscaler.name);
        let event = (event.is_warning, event.reason.to_owned(), message, about);
        *self.events.entry(event).or_default() += 1;
    }

    /// The pods with the recording's own description of each, or as many as the Deployment has.
    fn pods(&self, now: Timestamp) -> Vec<(PodView, Value)> {
        let given = &self.case["given"];
        if let Some(pods) = given["pods"].as_array() {
            return pods
                .iter()
                .map(|pod| (given::pod_view(pod), pod.clone()))
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
            labels: Some(BTreeMap::from([("app".to_owned(), "web".to_owned())])),
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
            ("desired", &self.main().desired, &desired),
        ] {
            if !ours.starts_with(theirs) || ours.len() > theirs.len() + 1 {
                return Err(format!("{what}: recorded {theirs:?}, computed {ours:?}"));
            }
        }
        Ok(())
    }

    /// The same events, each as often but for the last cycle; that may also bring one of its own.
    fn compare_events(&self) -> Result<(), String> {
        let mut recorded: BTreeMap<Event, i64> = BTreeMap::new();
        for event in self.case["events"].as_array().unwrap() {
            let text = |key: &str| event[key].as_str().unwrap().to_owned();
            let (about, message) = (text("object"), in_order(&text("message")));
            if about.starts_with("HorizontalPodAutoscaler/") {
                let event_key = (text("type") == "Warning", text("reason"), message, about);
                *recorded.entry(event_key).or_default() += event["count"].as_i64().unwrap();
            }
        }
        let is_near = |(event, count): (&Event, &i64)| {
            let theirs = recorded.get(event).copied().unwrap_or(0);
            (count - theirs).abs() <= 1
        };
        let has_all = recorded.keys().all(|event| self.events.contains_key(event));
        if has_all && self.events.len() <= recorded.len() + 1 && self.events.iter().all(is_near) {
            return Ok(());
        }
        let ours = &self.events;
        Err(format!("events: recorded {recorded:?}, computed {ours:?}"))
    }
}

/// Upstream lists rivals in the order of a Go map.
fn in_order(message: &str) -> String {
    let Some((before, rivals)) = message.split_once("multiple HPAs: [") else {
        return message.to_owned();
    };
    let mut rivals: Vec<&str> = rivals.trim_end_matches(']').split(' ').collect();
    rivals.sort_unstable();
    format!("{before}multiple HPAs: [{}]", rivals.join(" "))
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

/// Times only by whether they are there, empty and missing fields alike.
fn masked(status: &Value) -> Value {
    let mut status = status.clone();
    let object = status.as_object_mut().unwrap();
    object.retain(|_, value| !value.is_null());
    if let Some(time) = object.get_mut("lastScaleTime") {
        *time = Value::from("some time");
    }
    object.entry("currentReplicas").or_insert(Value::from(0));
    object.entry("desiredReplicas").or_insert(Value::from(0));
    let conditions = object.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in conditions.into_iter().flatten() {
        let condition = condition.as_object_mut().unwrap();
        condition.remove("lastTransitionTime").unwrap();
    }
    let rivals = object.get_mut("conditions").and_then(Value::as_array_mut);
    for condition in rivals.into_iter().flatten() {
        condition["message"] = in_order(condition["message"].as_str().unwrap()).into();
    }
    status
}
