//! One pass over one ElasticWorkload: read, decide by `elastic-core`, write what differs, report.

use std::time::Duration;

use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::{
    ChildState, Decision, ElasticUnit, FieldError, Observed, PlacePods, RolloutState, RolloutStep,
    ScaleState, SourceKind, SourceMark, UnitError, bounds_of_unit, decide, derive_unit,
    last_scaler, plan_rollout, plan_scale, unit_difference, unit_name, validate,
};
use elastic_core::names::{POD_MOMENTS_ANNOTATION, UNIT_LABEL};
use elastic_core::timeline::PodMoments;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::ResourceExt;
use kube::api::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;

use super::Context;
use super::children::{Children, FIELD_MANAGER, selector_text};
use super::give_back;
use super::place_report::PlaceNumbers;
use super::report::{Outcome, Problem, Report};
use super::write::Writes;

/// Pods are looked at this often at most while some of them are not ready.
const LONGEST_LOOK: Duration = Duration::from_secs(15);

/// Why a pass could not finish; it is repeated.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReconcileError {
    /// The API refused or could not be reached.
    #[error("{verb} {name}")]
    Api {
        verb: &'static str,
        name: String,
        #[source]
        source: Box<kube::Error>,
    },
    /// An object with a unit's name exists and belongs to somebody else.
    #[error("{noun} {name} exists and does not belong to this elastic workload")]
    NotOurs { noun: &'static str, name: String },
    /// The source's selector cannot be expressed.
    #[error("read the selector of the source")]
    Selector,
    /// No object can be derived for a unit.
    #[error(transparent)]
    Unit(#[from] UnitError),
}

impl ReconcileError {
    pub(super) fn about(verb: &'static str, name: &str) -> impl FnOnce(kube::Error) -> Self {
        let name = name.to_owned();
        move |source| Self::Api {
            verb,
            name,
            source: Box::new(source),
        }
    }

    pub(super) fn cause(&self) -> Option<String> {
        std::error::Error::source(self).map(ToString::to_string)
    }

    /// What the user can do something about is reported on the object; the rest is retried quietly.
    fn problem(&self) -> Option<Problem> {
        match self {
            Self::NotOurs { .. } => Some(Problem {
                reason: "UnitNameTaken",
                message: format!("{self}; rename the unit or delete it"),
            }),
            Self::Unit(error) => Some(Problem {
                reason: "UnitNotDerivable",
                message: error.to_string(),
            }),
            Self::Api { source, .. } => match source.as_ref() {
                kube::Error::Api(status) if status.code == 403 || status.code == 422 => {
                    Some(Problem {
                        reason: "Refused",
                        message: format!("{self}: {}", status.message),
                    })
                }
                _ => None,
            },
            Self::Selector => Some(Problem {
                reason: "Selector",
                message: self.to_string(),
            }),
        }
    }
}

pub(super) async fn reconcile(
    workload: &ElasticWorkload,
    context: &Context,
) -> Result<Action, ReconcileError> {
    let mut report = Report::new(workload, Timestamp::now());
    let errors = validate(&workload.spec);
    let kind = SourceKind::of(&workload.spec.source_target).filter(|_| errors.is_empty());
    let Some(kind) = kind else {
        report.outcome(Outcome::Invalid(join(&errors)));
        return report.publish(context).await;
    };
    let children = Children::new(&context.client, workload, kind);
    leave_former_source(&children, context).await?;
    let Some(source) = children.source().await? else {
        report.outcome(Outcome::SourceMissing(kind));
        return report.publish(context).await;
    };
    if let Some(problem) = claimed_by_another(&children, &source, context).await? {
        report.outcome(Outcome::Failed(problem));
        report.publish(context).await?;
        return Ok(Action::requeue(context.config.retry_most));
    }
    if kind.is_finished(&source) {
        report.outcome(Outcome::Finished(kind));
        return report.publish(context).await;
    }
    let Some(replicas) = workload.spec.replicas else {
        // A source whose ElasticWorkload was just replaced brings the total of the former one.
        let due = SourceMark::of(&source).map(|mark| mark.replicas);
        children
            .adopt_replicas(due.unwrap_or_else(|| kind.wanted(&source)))
            .await?;
        return Ok(Action::await_change());
    };
    let replicas = u32::try_from(replicas).unwrap_or(0);
    match bring_to_shares(&children, context, &source, replicas, &mut report).await {
        Ok(next) => {
            report.outcome(Outcome::Done {
                kind,
                held: next.held,
                kept: next.kept,
            });
            let wait = report.publish_in(context).await?;
            let held = next.held.map(|_| context.config.hold_check_interval);
            let soonest = [wait, held, next.look_in].into_iter().flatten().min();
            Ok(soonest.map_or_else(Action::await_change, Action::requeue))
        }
        Err(error) => {
            if let Some(problem) = error.problem() {
                report.outcome(Outcome::Failed(problem));
                report.publish(context).await?;
            }
            Err(error)
        }
    }
}

fn join(errors: &[FieldError]) -> String {
    errors
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("; ")
}

/// A spec that names another source now: the former one gets back what is due.
async fn leave_former_source(
    children: &Children<'_>,
    context: &Context,
) -> Result<(), ReconcileError> {
    let target = &children.workload.spec.source_target;
    let status = children.workload.status.as_ref();
    let former = status.and_then(|status| status.source_target.as_ref());
    let Some(former) =
        former.filter(|former| former.name != target.name || former.kind != target.kind)
    else {
        return Ok(());
    };
    let mut workload = children.workload.clone();
    workload.spec.source_target.name = former.name.clone();
    workload.spec.source_target.kind = former.kind.clone();
    workload.spec.source_target.api_version = former.api_version.clone();
    let Some(kind) = SourceKind::of(&workload.spec.source_target) else {
        return Ok(());
    };
    if let Some(source) = Children::new(&context.client, &workload, kind)
        .source()
        .await?
    {
        give_back::give_back(&context.client, kind, &source).await?;
    }
    Ok(())
}

/// Two ElasticWorkloads on one source would undo each other's work for ever.
async fn claimed_by_another(
    children: &Children<'_>,
    source: &DynamicObject,
    context: &Context,
) -> Result<Option<Problem>, ReconcileError> {
    let uid = children.workload.uid().unwrap_or_default();
    let Some(mark) = SourceMark::of(source).filter(|mark| mark.uid != uid) else {
        return Ok(None);
    };
    let claimed = give_back::is_claimed(&context.client, children.kind, source, &mark).await?;
    Ok(claimed.then(|| Problem {
        reason: "SourceTaken",
        message: format!(
            "spec.sourceTarget.name: {} {} is distributed by ElasticWorkload {} already; delete one of the two",
            children.kind.noun(),
            source.name_any(),
            mark.name
        ),
    }))
}

/// Everything a pass knows about one unit of the spec.
pub(super) struct Unit<'a> {
    pub(super) spec: &'a ElasticUnit,
    pub(super) name: String,
    pub(super) derived: DynamicObject,
    pub(super) existing: Option<DynamicObject>,
}

impl Unit<'_> {
    pub(super) fn state(&self, kind: SourceKind) -> ChildState {
        let state = self.existing.as_ref().map(|existing| kind.state(existing));
        ChildState {
            max: bounds_of_unit(self.spec).max,
            ..state.unwrap_or_default()
        }
    }

    fn rollout(&self, kind: SourceKind) -> RolloutState {
        let Some(existing) = &self.existing else {
            return RolloutState::default();
        };
        RolloutState {
            behind: unit_difference(kind, existing, &self.derived).template,
            ..kind.rollout(existing)
        }
    }
}

/// What a pass leaves for later.
struct Next {
    /// The serverless pods the source still waits for.
    held: Option<u32>,
    /// Replicas that stay until others are ready.
    kept: u32,
    /// When to look again without any other cause.
    look_in: Option<Duration>,
}

async fn bring_to_shares(
    children: &Children<'_>,
    context: &Context,
    source: &DynamicObject,
    replicas: u32,
    report: &mut Report<'_>,
) -> Result<Next, ReconcileError> {
    let kind = children.kind;
    let (units, removed) = find_units(children, source).await?;
    let names: Vec<String> = units.iter().map(|unit| unit.name.clone()).collect();
    let selector = kind.selector(source, &names);
    report.selector(selector_text(&selector)?);
    let existing = units.iter().filter_map(|unit| unit.existing.as_ref());
    report.counts(
        kind,
        std::iter::once(source).chain(existing).chain(&removed),
    );
    note_hand_scaling(children, source, report);

    let policy = children.workload.spec.policy(replicas);
    let mut observed = observe(children, source, &units, &removed);
    let patience = policy.shortage.map(|policy| policy.reschedule_after);
    let look_in = match patience.and_then(|patience| Duration::try_from(patience).ok()) {
        Some(patience) => {
            look_at_pods(children, context, &selector, patience, &mut observed).await?
        }
        None => None,
    };
    let mut decision = decide(&policy, &observed, report.now());
    if count_living_pods(children, &selector, &decision, &units, &mut observed.scale).await? {
        decision.plan = plan_scale(&decision.shares, &observed.scale);
    }
    let steps = rollout_steps(kind, source, &units, replicas);
    let writes = Writes {
        children,
        source,
        units: &units,
        removed: &removed,
        decision: &decision,
        steps: &steps,
        total: replicas,
    };
    let asked = writes.apply(report).await?;
    report.shares(&PlaceNumbers {
        kind,
        source,
        units: &units,
        decision: &decision,
        steps: &steps,
        asked: &asked,
        recover_after: policy.shortage.map(|policy| policy.recover_after),
    });
    if report.rises_now() {
        report.samples(&children.samples(&selector).await);
    }
    record_burst(children, &selector, &units, report).await?;
    let until = |at: Timestamp| {
        Duration::try_from(at.duration_since(report.now())).unwrap_or(Duration::ZERO)
    };
    let due = decision.look_again.map(until);
    let shown = report.hand_scaled_until(context.config.hand_scaled_shown);
    Ok(Next {
        held: decision.plan.hold.map(|hold| hold.serverless_pods),
        kept: decision.plan.kept,
        look_in: [due, look_in, shown].into_iter().flatten().min(),
    })
}

/// The units of the spec, and those that are there but no longer in it.
async fn find_units<'a>(
    children: &Children<'a>,
    source: &DynamicObject,
) -> Result<(Vec<Unit<'a>>, Vec<DynamicObject>), ReconcileError> {
    let workload = children.workload;
    let mut existing = children.units().await?;
    let mut units = Vec::with_capacity(workload.spec.elastic_unit.len());
    for (index, spec) in workload.spec.elastic_unit.iter().enumerate() {
        let name = unit_name(&source.name_any(), &spec.name);
        let position = existing.iter().position(|unit| unit.name_any() == name);
        units.push(Unit {
            spec,
            name,
            derived: derive_unit(workload, children.kind, source, index)?,
            existing: position.map(|index| existing.swap_remove(index)),
        });
    }
    Ok((units, existing))
}

/// What was last asked of the source is on the source itself, so anything else was set by somebody else.
fn note_hand_scaling(children: &Children<'_>, source: &DynamicObject, report: &mut Report<'_>) {
    let kind = children.kind;
    let uid = children.workload.uid().unwrap_or_default();
    let mark = SourceMark::of(source).filter(|mark| mark.uid == uid);
    let wanted = kind.wanted(source);
    match mark.filter(|mark| mark.asked != wanted) {
        Some(mark) => {
            let by = last_scaler(source, kind.replicas_field(), FIELD_MANAGER);
            report.hand_scaled(kind, mark.asked, wanted, by.as_deref());
        }
        None => report.not_hand_scaled(),
    }
}

fn observe(
    children: &Children<'_>,
    source: &DynamicObject,
    units: &[Unit<'_>],
    removed: &[DynamicObject],
) -> Observed {
    let kind = children.kind;
    let removed: Vec<ChildState> = removed.iter().map(|unit| kind.state(unit)).collect();
    let status = children.workload.status.as_ref();
    let known = status.and_then(|status| status.source_target.as_ref());
    let of_unit = |unit: &Unit<'_>| {
        let all = status.map(|status| &status.elastic_units_status);
        all.into_iter()
            .flatten()
            .find(|known| known.name == unit.spec.name)
    };
    let count = |value: i32| u32::try_from(value).ok();
    let shortages = std::iter::once(known.and_then(|known| known.shortage.clone()));
    let shares = std::iter::once(known.and_then(|known| count(known.wanted_replicas)));
    Observed {
        scale: ScaleState {
            source: kind.state(source),
            units: units.iter().map(|unit| unit.state(kind)).collect(),
            removed_unit_pods: removed.iter().map(|state| state.pods).sum(),
            removed_unit_ready: removed.iter().map(|state| state.ready).sum(),
        },
        pods: Vec::new(),
        shortages: shortages
            .chain(
                units
                    .iter()
                    .map(|unit| of_unit(unit).and_then(|known| known.shortage.clone())),
            )
            .collect(),
        shares: shares
            .chain(
                units
                    .iter()
                    .map(|unit| of_unit(unit).and_then(|known| count(known.wanted_replicas))),
            )
            .collect(),
    }
}

/// Looks at the pods one by one while some of them are not ready. Their conditions wake nobody, so it says when to look
/// again.
async fn look_at_pods(
    children: &Children<'_>,
    context: &Context,
    selector: &LabelSelector,
    patience: Duration,
    observed: &mut Observed,
) -> Result<Option<Duration>, ReconcileError> {
    let states = || std::iter::once(&observed.scale.source).chain(&observed.scale.units);
    if states().all(|state| state.ready >= state.wanted) {
        return Ok(None);
    }
    let wait = context.pods_due_in(&children.workload.uid().unwrap_or_default());
    if !wait.is_zero() {
        return Ok(Some(wait));
    }
    let units = &children.workload.spec.elastic_unit;
    let names: Vec<&str> = units.iter().map(|unit| unit.name.as_str()).collect();
    let mut pods: Vec<PlacePods> = children.place_pods(selector, &names).await?;
    for (place, state) in pods.iter_mut().zip(states()) {
        place.wanted = state.wanted;
    }
    observed.pods = pods;
    let interval = context.config.shortage_interval;
    Ok(Some((patience / 2).min(LONGEST_LOOK).max(interval)))
}

/// Before the source may be lowered, the pods are counted one by one: a workload's own numbers leave out the pods
/// that are still ending. Returns whether `state` was made more exact.
async fn count_living_pods(
    children: &Children<'_>,
    selector: &LabelSelector,
    decision: &Decision,
    units: &[Unit<'_>],
    state: &mut ScaleState,
) -> Result<bool, ReconcileError> {
    if decision.shares.source >= state.source.wanted || decision.plan.hold.is_some() {
        return Ok(false);
    }
    let pods = children.unit_pods(selector).await?;
    let unit = |pod: &PartialObjectMeta<Pod>| pod.labels().get(UNIT_LABEL).cloned();
    let living: Vec<String> = pods.iter().filter_map(unit).collect();
    let mut others = u32::try_from(living.len()).unwrap_or(u32::MAX);
    for (unit, state) in units.iter().zip(&mut state.units) {
        let count = living
            .iter()
            .filter(|name| **name == unit.spec.name)
            .count();
        state.pods = u32::try_from(count).unwrap_or(u32::MAX);
        others = others.saturating_sub(state.pods);
    }
    state.removed_unit_pods = others;
    Ok(true)
}

fn rollout_steps(
    kind: SourceKind,
    source: &DynamicObject,
    units: &[Unit<'_>],
    total: u32,
) -> Vec<RolloutStep> {
    let states: Vec<RolloutState> = units.iter().map(|unit| unit.rollout(kind)).collect();
    plan_rollout(kind.budget(source, total), &kind.rollout(source), &states)
}

/// Keeps the moments of a rise once all of its overflow is ready, because its pods will not live for ever.
async fn record_burst(
    children: &Children<'_>,
    selector: &LabelSelector,
    units: &[Unit<'_>],
    report: &mut Report<'_>,
) -> Result<(), ReconcileError> {
    let Some(since) = report.unrecorded_rise() else {
        return Ok(());
    };
    let states: Vec<ChildState> = units.iter().map(|unit| unit.state(children.kind)).collect();
    let all_ready = states.iter().all(|state| state.wanted == state.ready);
    if !all_ready || states.iter().all(|state| state.wanted == 0) {
        return Ok(());
    }
    let pods = children.unit_pods(selector).await?;
    let moments = |pod: &PartialObjectMeta<Pod>| {
        let mut moments: PodMoments =
            serde_json::from_str(pod.annotations().get(POD_MOMENTS_ANNOTATION)?).ok()?;
        let created = pod.metadata.creation_timestamp.as_ref()?.0;
        moments.created = Some(created);
        // Creation times have whole seconds.
        (created.as_second() >= since.as_second()).then_some(moments)
    };
    report.burst(pods.iter().filter_map(moments).collect());
    Ok(())
}
