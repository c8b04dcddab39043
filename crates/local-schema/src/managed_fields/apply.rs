//! Server-side apply: merging, conflicts, giving up fields.

use serde_json::{Map, Value};

use super::compare::compare;
use super::entries::{self, Entry, Operation};
use super::set::{self, Node};
use super::{Actor, strip, typed, zero_object};
use crate::decode;
use crate::types::{Type, TypeRef};

/// The manager whose applies may take over what `kubectl apply` wrote client-side.
const KUBECTL: &str = "kubectl";
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Owner of everything an object held before its first apply, when nobody had been tracked.
const BEFORE_FIRST_APPLY: &str = "before-first-apply";

/// One field that somebody else owns with another value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conflict {
    /// `conflict with "m1" using apps/v1`: the message of the cause.
    pub message: String,
    /// `.spec.replicas`
    pub field: String,
}

/// Why an apply was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    /// 409 `Conflict`, causes `FieldManagerConflict`.
    #[error("{message}")]
    Conflicts {
        /// The message of the answer.
        message: String,
        /// The causes.
        conflicts: Vec<Conflict>,
    },
    /// 400 `BadRequest`.
    #[error("{0}")]
    BadRequest(String),
    /// 500 without a reason: the body does not fit the schema.
    #[error("{0}")]
    Typed(String),
}

/// The outcome of an apply.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The merged object with its `managedFields`, not yet defaulted.
    pub object: Value,
    /// False when nothing but ownership may have changed.
    pub changed: bool,
}

/// How a body is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct ApplyOptions<'a> {
    /// Take over fields that others own.
    pub force: bool,
    /// Paths that this endpoint does not track (the other half of spec and status).
    pub ignored: &'a [&'a [&'a str]],
}

/// Applies a configuration. `live` is `None` when the object is to be created.
pub fn apply(
    kind: &TypeRef,
    live: Option<&Value>,
    config: &Value,
    actor: &Actor<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied, ApplyError> {
    if config["metadata"]
        .get("managedFields")
        .is_some_and(|entries| !entries.is_null())
    {
        return Err(ApplyError::BadRequest(
            "metadata.managedFields must be nil".to_string(),
        ));
    }
    check_kind(live, config, actor)?;
    let mut complaints = Vec::new();
    typed::check(Some(kind.walk()), config, "", &mut complaints);
    if !complaints.is_empty() {
        return Err(ApplyError::Typed(format!(
            "failed to create typed patch object ({}): {}",
            describe(config),
            join(&complaints)
        )));
    }
    let nothing = zero_object(kind, config);
    let base = live.unwrap_or(&nothing);
    let mut applied = match attempt(kind, live, base, config, actor, options) {
        Err(refusal) if actor.manager == KUBECTL && !options.force => {
            let options = ApplyOptions {
                force: true,
                ..options
            };
            match refusal {
                Refusal::Conflicts(conflicts) => match allowed(kind, base, conflicts) {
                    Ok(()) => attempt(kind, live, base, config, actor, options),
                    Err(conflicts) => Err(Refusal::Conflicts(conflicts)),
                },
            }
        }
        other => other,
    }
    .map_err(|Refusal::Conflicts(conflicts)| refuse(&conflicts))?;
    if actor.manager == KUBECTL && base["metadata"]["annotations"].get(LAST_APPLIED).is_some() {
        sync_last_applied(&mut applied.object, config);
    }
    Ok(applied)
}

/// The body names the kind and version of the endpoint.
fn check_kind(live: Option<&Value>, config: &Value, actor: &Actor<'_>) -> Result<(), ApplyError> {
    let same_version = config["apiVersion"] == actor.api_version;
    let same_kind =
        live.is_none_or(|live| live["kind"].is_null() || live["kind"] == config["kind"]);
    if same_version && same_kind {
        return Ok(());
    }
    Err(ApplyError::BadRequest(format!(
        "invalid object type: {}",
        describe_kind(config)
    )))
}

/// `apps/v1, Kind=Deployment`
fn describe_kind(config: &Value) -> String {
    let version = config["apiVersion"].as_str().unwrap_or_default();
    let slash = if version.contains('/') { "" } else { "/" };
    format!(
        "{slash}{version}, Kind={}",
        config["kind"].as_str().unwrap_or_default()
    )
}

fn join(complaints: &[String]) -> String {
    match complaints {
        [one] => one.clone(),
        many => many.iter().fold("errors:".to_string(), |text, one| {
            format!("{text}\n  {one}")
        }),
    }
}

/// `default/name; apps/v1, Kind=Deployment`
fn describe(config: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    format!(
        "{}/{}; {}",
        text(&config["metadata"]["namespace"]),
        text(&config["metadata"]["name"]),
        describe_kind(config)
    )
}

enum Refusal {
    Conflicts(Vec<(Entry, Node)>),
}

fn attempt(
    kind: &TypeRef,
    live: Option<&Value>,
    base: &Value,
    config: &Value,
    actor: &Actor<'_>,
    options: ApplyOptions<'_>,
) -> Result<Applied, Refusal> {
    let place = Some(kind.walk());
    let mut managers = live.and_then(entries::read).unwrap_or_default();
    if live.is_some() && managers.is_empty() {
        managers.extend(before_first_apply(kind, base, config, actor));
    }
    let merged = typed::merge(place, Some(base), Some(config)).unwrap_or_default();
    let mut own = actor.entry(Operation::Apply);
    let former = managers
        .iter()
        .position(|entry| entry.is_same_manager(&own))
        .map(|index| managers.remove(index));
    own.fields = typed::field_set(place, config).unwrap_or_default();
    for path in options.ignored {
        set::remove_below(&mut own.fields, path);
    }
    let mut result = match &former {
        Some(former) if !former.fields.is_empty() => prune(place, merged, former, &own, &managers),
        _ => merged,
    };
    let mut difference = compare(place, Some(base), Some(&result));
    strip(&mut difference);
    take_over(
        &mut managers,
        &difference.written(),
        difference.removed.as_ref(),
        options.force,
    )?;
    set::subtract(&mut own.fields, super::stripped());
    // Only what the merge brought counts as a change; entries are no part of the comparison.
    let changed = live.is_none() || !difference.is_empty();
    own.time = match (changed, &former) {
        (true, _) => actor.time(),
        (false, former) => former.as_ref().and_then(|former| former.time.clone()),
    };
    if !own.fields.is_empty() {
        managers.push(own);
    }
    if changed {
        result = canonical(kind, result);
    } else {
        result = base.clone();
    }
    entries::write(&mut result, managers);
    Ok(Applied {
        object: result,
        changed,
    })
}

/// Decoding brings what Go's types would: canonical quantities, no nulls. Custom resources stay as they are.
fn canonical(kind: &TypeRef, object: Value) -> Value {
    let is_builtin = kind
        .walk()
        .fields()
        .is_some_and(|fields| !fields.name.is_empty());
    if !is_builtin {
        return object;
    }
    let copy = object.clone();
    decode::decode_unstructured(object, kind).map_or(copy, |decoded| decoded.object)
}

fn before_first_apply(
    kind: &TypeRef,
    base: &Value,
    config: &Value,
    actor: &Actor<'_>,
) -> Option<Entry> {
    let mut difference = compare(
        Some(kind.walk()),
        Some(&zero_object(kind, config)),
        Some(base),
    );
    strip(&mut difference);
    let fields = difference.written();
    (!fields.is_empty()).then(|| Entry {
        manager: BEFORE_FIRST_APPLY.to_string(),
        time: actor.time(),
        fields,
        ..actor.entry(Operation::Update)
    })
}

/// Others lose what was written or removed; without force that is a conflict.
pub(super) fn take_over_entries(managers: &mut Vec<Entry>, written: &Node, removed: Option<&Node>) {
    for entry in managers.iter_mut() {
        set::subtract(&mut entry.fields, written);
        if let Some(removed) = removed {
            set::subtract(&mut entry.fields, removed);
        }
    }
    managers.retain(|entry| !entry.fields.is_empty());
}

fn take_over(
    managers: &mut Vec<Entry>,
    written: &Node,
    removed: Option<&Node>,
    force: bool,
) -> Result<(), Refusal> {
    if !force {
        let conflicts: Vec<(Entry, Node)> = managers
            .iter()
            .map(|entry| (entry.clone(), set::intersect(&entry.fields, written)))
            .filter(|(_, fields)| !fields.is_empty())
            .collect();
        if !conflicts.is_empty() {
            return Err(Refusal::Conflicts(conflicts));
        }
    }
    take_over_entries(managers, written, removed);
    Ok(())
}

/// Removes what the manager applied before, does not apply now, and nobody else owns.
fn prune(
    place: Option<Type<'_>>,
    merged: Value,
    former: &Entry,
    own: &Entry,
    managers: &[Entry],
) -> Value {
    let named = |set: &Node| typed::with_named_fields(place, set);
    let names = |value: &Value| named(&typed::field_set(place, value).unwrap_or_default());
    let without = |set: &Node| {
        typed::remove(place, &merged, set).unwrap_or_else(|| Value::Object(Map::new()))
    };
    let last = named(&former.fields);
    let all = names(&merged);
    // Back come the fields that somebody owns …
    let mut keep = names(&without(&last));
    let mut managed = own.fields.clone();
    for entry in managers {
        set::unite(&mut managed, &entry.fields);
    }
    set::unite(&mut keep, &named(&managed));
    let mut gone = all.clone();
    set::subtract(&mut gone, &keep);
    // … and those that the manager never applied.
    let kept = names(&without(&gone));
    let mut gone = all;
    set::subtract(&mut gone, &kept);
    without(&set::intersect(&gone, &last))
}

/// Conflicts about what client-side apply wrote last and nobody changed since are no conflicts for kubectl.
fn allowed(
    kind: &TypeRef,
    live: &Value,
    conflicts: Vec<(Entry, Node)>,
) -> Result<(), Vec<(Entry, Node)>> {
    let place = Some(kind.walk());
    let last: Option<Value> = live["metadata"]["annotations"][LAST_APPLIED]
        .as_str()
        .and_then(|text| serde_json::from_str(text).ok());
    let Some(last) = last else {
        return Err(conflicts);
    };
    let mut fields = typed::field_set(place, &last).unwrap_or_default();
    let difference = compare(place, Some(&last), Some(live));
    for node in [&difference.added, &difference.changed, &difference.removed]
        .into_iter()
        .flatten()
    {
        set::subtract(&mut fields, node);
    }
    let left: Vec<(Entry, Node)> = conflicts
        .into_iter()
        .filter_map(|(entry, mut node)| {
            set::subtract(&mut node, &fields);
            (!node.is_empty()).then_some((entry, node))
        })
        .collect();
    if left.is_empty() { Ok(()) } else { Err(left) }
}

fn sync_last_applied(object: &mut Value, config: &Value) {
    let mut copy = config.clone();
    if let Some(annotations) = copy["metadata"]
        .get_mut("annotations")
        .and_then(Value::as_object_mut)
    {
        annotations.remove(LAST_APPLIED);
    }
    if let Some(annotation) = object
        .pointer_mut("/metadata/annotations")
        .and_then(|all| all.get_mut(LAST_APPLIED))
    {
        *annotation = format!("{copy}\n").into();
    }
}

/// Upstream's message and causes.
fn refuse(conflicts: &[(Entry, Node)]) -> ApplyError {
    let mut causes = Vec::new();
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for (entry, node) in conflicts {
        let manager = entry.describe();
        let paths = set::paths(node);
        causes.extend(paths.iter().map(|path| Conflict {
            message: format!("conflict with {manager}"),
            field: path.clone(),
        }));
        groups.push((manager, paths));
    }
    groups.sort();
    let message = match causes.as_slice() {
        [one] => format!(
            "Apply failed with 1 conflict: {}: {}",
            one.message, one.field
        ),
        many => {
            let mut lines = Vec::new();
            for (manager, paths) in &groups {
                lines.push(format!("conflicts with {manager}:"));
                lines.extend(paths.iter().map(|path| format!("- {path}")));
            }
            format!(
                "Apply failed with {} conflicts: {}",
                many.len(),
                lines.join("\n")
            )
        }
    };
    ApplyError::Conflicts {
        message,
        conflicts: causes,
    }
}

/// Applies a replica count through the scale subresource: only that one field counts.
///
/// Returns the entries' effect on `object`, whose replica count the caller has set already.
pub fn apply_scale(
    live: &Value,
    object: &mut Value,
    replicas_path: &[&str],
    actor: &Actor<'_>,
    force: bool,
) -> Result<(), ApplyError> {
    let pointer = replicas_path
        .iter()
        .fold(String::new(), |path, name| format!("{path}/{name}"));
    let field = path_node(replicas_path);
    let mut managers = entries::read(live).unwrap_or_default();
    let mut own = actor.entry(Operation::Apply);
    let former = managers
        .iter()
        .position(|entry| entry.is_same_manager(&own))
        .map(|index| managers.remove(index));
    let changed = live.pointer(&pointer) != object.pointer(&pointer);
    if changed && !force {
        let mut owners: Vec<(Entry, Node)> = managers
            .iter()
            .map(|entry| (entry.clone(), set::intersect(&entry.fields, &field)))
            .filter(|(_, node)| !node.is_empty())
            .collect();
        if owners.is_empty() && former.is_none() && live.pointer(&pointer).is_some() {
            let unowned = Entry {
                manager: BEFORE_FIRST_APPLY.to_string(),
                api_version: "autoscaling/v1".to_string(),
                ..actor.entry(Operation::Update)
            };
            owners.push((unowned, path_node(&["spec", "replicas"])));
        }
        if !owners.is_empty() {
            return Err(refuse(&owners));
        }
    }
    if changed {
        take_over_entries(&mut managers, &field, None);
        own.time = actor.time();
    } else {
        own.time = former.and_then(|former| former.time);
    }
    own.fields = field;
    managers.push(own);
    entries::write(object, managers);
    Ok(())
}

fn path_node(path: &[&str]) -> Node {
    let mut node = Node::new();
    for name in path.iter().rev() {
        let mut parent = Node::new();
        parent.insert(format!("f:{name}"), Value::Object(node));
        node = parent;
    }
    node
}
