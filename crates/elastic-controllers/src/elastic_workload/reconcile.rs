//! One pass over one ElasticWorkload: read, decide by `elastic-core`, write what differs, report.

use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::{
    ChildAction, ChildState, Distribution, ElasticUnit, FieldError, ScaleState, UnitError,
    bounds_of_source, bounds_of_unit, derive_unit, distribute, plan_scale, unit_is_current,
    unit_name, validate,
};
use elastic_core::names::{POD_MOMENTS_ANNOTATION, UNIT_LABEL};
use elastic_core::timeline::PodMoments;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::core::PartialObjectMeta;
use kube::runtime::controller::Action;

use super::Context;
use super::children::{Children, child_state, selector_text};
use super::report::{Happening, Outcome, Problem, Report};

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
    /// A Deployment with a unit's name exists and belongs to somebody else.
    #[error("deployment {0} exists and does not belong to this elastic workload")]
    NotOurs(String),
    /// The source's selector cannot be expressed.
    #[error("read the selector of the source")]
    Selector,
    /// No Deployment can be derived for a unit.
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
            Self::NotOurs(name) => Some(Problem {
                reason: "UnitNameTaken",
                message: format!(
                    "deployment {name} exists and does not belong to this elastic workload; rename the unit or delete it"
                ),
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
    let seen = Timestamp::now();
    let children = Children::new(&context.client, workload);
    let mut report = Report::new(workload, seen);
    let errors = validate(&workload.spec);
    if !errors.is_empty() {
        report.outcome(Outcome::Invalid(join(&errors)));
        return report.publish(context).await;
    }
    let Some(source) = children.source().await? else {
        report.outcome(Outcome::SourceMissing);
        return report.publish(context).await;
    };
    let Some(replicas) = workload.spec.replicas else {
        let own = source
            .spec
            .as_ref()
            .and_then(|spec| spec.replicas)
            .unwrap_or(1);
        children.adopt_replicas(own).await?;
        return Ok(Action::await_change());
    };
    match bring_to_shares(
        &children,
        &source,
        u32::try_from(replicas).unwrap_or(0),
        &mut report,
    )
    .await
    {
        Ok(held) => {
            report.outcome(Outcome::Done { held });
            let action = report.publish(context).await?;
            Ok(if held.is_some() {
                Action::requeue(context.config.hold_check_interval)
            } else {
                action
            })
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

/// Everything a pass knows about one unit of the spec.
struct Unit<'a> {
    spec: &'a ElasticUnit,
    name: String,
    derived: Deployment,
    existing: Option<Deployment>,
}

impl Unit<'_> {
    fn state(&self) -> ChildState {
        self.existing.as_ref().map(child_state).unwrap_or_default()
    }
}

/// Returns the serverless pods the source still waits for.
async fn bring_to_shares(
    children: &Children<'_>,
    source: &Deployment,
    replicas: u32,
    report: &mut Report<'_>,
) -> Result<Option<u32>, ReconcileError> {
    let workload = children.workload;
    let mut existing = children.units().await?;
    let mut units = Vec::with_capacity(workload.spec.elastic_unit.len());
    for spec in &workload.spec.elastic_unit {
        let name = unit_name(&source.name_any(), &spec.name);
        let position = existing.iter().position(|unit| unit.name_any() == name);
        let existing = position.map(|index| existing.swap_remove(index));
        units.push(Unit {
            spec,
            name,
            derived: derive_unit(workload, source, spec)?,
            existing,
        });
    }
    let removed = existing;
    let bounds: Vec<_> = workload
        .spec
        .elastic_unit
        .iter()
        .map(bounds_of_unit)
        .collect();
    let shares = distribute(
        replicas,
        bounds_of_source(&workload.spec.source_target),
        &bounds,
    );

    let mut state = ScaleState {
        source: child_state(source),
        units: units.iter().map(Unit::state).collect(),
        removed_unit_pods: removed.iter().map(|unit| child_state(unit).pods).sum(),
    };
    report.counts(
        source,
        units
            .iter()
            .filter_map(|unit| unit.existing.as_ref())
            .chain(&removed),
    );
    if let Some(selector) = source.spec.as_ref().map(|spec| &spec.selector) {
        report.selector(selector_text(selector)?);
    }
    count_living_pods(children, source, &shares, &units, &mut state).await?;
    for unit in &removed {
        children.delete(unit).await?;
        report.happened(Happening::Removed(unit.name_any()));
    }
    let held = write_shares(children, source, &shares, &state, &units, report).await?;
    if report.rises_now()
        && let Some(selector) = source.spec.as_ref().map(|spec| &spec.selector)
    {
        report.samples(&children.samples(selector).await);
    }
    record_burst(children, source, &units, report).await?;
    Ok(held)
}

/// Before the source may be lowered, the pods are counted one by one: a Deployment's own numbers leave out the pods
/// that are still ending.
async fn count_living_pods(
    children: &Children<'_>,
    source: &Deployment,
    shares: &Distribution,
    units: &[Unit<'_>],
    state: &mut ScaleState,
) -> Result<(), ReconcileError> {
    if shares.source >= state.source.wanted || plan_scale(shares, state).hold.is_some() {
        return Ok(());
    }
    let Some(selector) = source.spec.as_ref().map(|spec| &spec.selector) else {
        return Ok(());
    };
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
    Ok(())
}

async fn write_shares(
    children: &Children<'_>,
    source: &Deployment,
    shares: &Distribution,
    state: &ScaleState,
    units: &[Unit<'_>],
    report: &mut Report<'_>,
) -> Result<Option<u32>, ReconcileError> {
    let plan = plan_scale(shares, state);
    let mut source_wanted = state.source.wanted;
    let mut unit_wanted: Vec<u32> = state.units.iter().map(|unit| unit.wanted).collect();
    // Units whose Deployment is made or rewritten get their number with the same write.
    let mut whole = vec![false; units.len()];
    for (index, unit) in units.iter().enumerate() {
        let current = unit
            .existing
            .as_ref()
            .is_some_and(|existing| unit_is_current(existing, &unit.derived));
        whole[index] = !current;
    }
    for action in &plan.actions {
        match *action {
            ChildAction::SetSource(replicas) => {
                children.set_replicas(&source.name_any(), replicas).await?;
                source_wanted = replicas;
            }
            ChildAction::SetUnit(index, replicas) => {
                if !whole[index] {
                    children.set_replicas(&units[index].name, replicas).await?;
                    report.happened(Happening::Scaled {
                        name: units[index].name.clone(),
                        replicas,
                    });
                }
                unit_wanted[index] = replicas;
            }
        }
    }
    for (index, unit) in units.iter().enumerate().filter(|(index, _)| whole[*index]) {
        write_unit(children, unit, unit_wanted[index], report).await?;
    }
    let wanted = units
        .iter()
        .zip(&unit_wanted)
        .map(|(unit, wanted)| (unit.spec.name.clone(), *wanted));
    report.shares(source_wanted, wanted.collect(), shares.unplaced);
    Ok(plan.hold.map(|hold| hold.serverless_pods))
}

async fn write_unit(
    children: &Children<'_>,
    unit: &Unit<'_>,
    replicas: u32,
    report: &mut Report<'_>,
) -> Result<(), ReconcileError> {
    let mut derived = unit.derived.clone();
    if let Some(spec) = derived.spec.as_mut() {
        spec.replicas = Some(i32::try_from(replicas).unwrap_or(i32::MAX));
    }
    let selector =
        |deployment: &Deployment| deployment.spec.as_ref().map(|spec| spec.selector.clone());
    match &unit.existing {
        None => {
            children.create(&derived).await?;
            report.happened(Happening::Created {
                name: unit.name.clone(),
                replicas,
            });
        }
        Some(existing) if selector(existing) != selector(&derived) => {
            // A selector cannot be changed; the unit is made anew in the next pass, which its deletion wakes.
            children.delete(existing).await?;
            report.happened(Happening::Removed(unit.name.clone()));
        }
        Some(existing) => {
            children.update(existing, &derived).await?;
            report.happened(Happening::Followed(unit.name.clone()));
        }
    }
    Ok(())
}

/// Keeps the moments of a rise once all of its overflow is ready, because its pods will not live for ever.
async fn record_burst(
    children: &Children<'_>,
    source: &Deployment,
    units: &[Unit<'_>],
    report: &mut Report<'_>,
) -> Result<(), ReconcileError> {
    let Some(since) = report.unrecorded_rise() else {
        return Ok(());
    };
    let Some(selector) = source.spec.as_ref().map(|spec| &spec.selector) else {
        return Ok(());
    };
    let all_ready = |unit: &Unit<'_>| {
        let wanted = unit.state().wanted;
        let ready = unit
            .existing
            .as_ref()
            .and_then(|unit| unit.status.as_ref()?.ready_replicas);
        wanted == u32::try_from(ready.unwrap_or(0)).unwrap_or(0)
    };
    if !units.iter().all(all_ready) || units.iter().all(|unit| unit.state().wanted == 0) {
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
