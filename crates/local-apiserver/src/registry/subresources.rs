//! Subresources with a verb of their own: binding, eviction, finalize, ephemeralcontainers and the like.

use super::context::{Call, Payload, Reply};
use super::decode::{self, Expected};
use super::options::{FieldValidation, WriteOptions};
use super::update::read_modify_write;
use super::{metadata, patch, update};
use crate::schema::Manager;
use crate::status::{ApiError, ApiResult};
use serde_json::{Value, json};

/// A subresource that shows the object itself: get, update, patch.
pub async fn object_view(call: &Call, verb: &str) -> ApiResult<Reply> {
    match verb {
        "get" => super::read::get(call).await,
        "update" => update::update(call).await,
        "patch" => patch::patch(call).await,
        _ => Err(ApiError::method_not_allowed()),
    }
}

/// POST pods/X/binding, or POST bindings.
pub async fn bind(call: &Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let expected = Expected {
        api_version: "v1",
        kind: "Binding",
        custom: false,
    };
    let binding = decode::decode(call, &expected, options.field_validation)?;
    let target = binding["target"].clone();
    let node = target["name"].as_str().unwrap_or_default().to_string();
    if node.is_empty() {
        let error = local_schema::FieldError::required("target.name", "");
        return Err(ApiError::invalid("", "Binding", &call.name, &[error]));
    }
    let kind = target["kind"].as_str().unwrap_or_default();
    if !matches!(kind, "" | "Node") {
        let error =
            local_schema::FieldError::not_supported("target.kind", kind, &["Node", "<empty>"]);
        return Err(ApiError::invalid("", "Binding", &call.name, &[error]));
    }
    let uid = metadata::text(&binding, "uid").to_string();
    let manager = Manager::patch(call, &options, "binding");
    let conflict = |why: String| ApiError::conflict("", "pods/binding", &call.name, &why);
    read_modify_write(call, &options, &manager, |live| {
        if !uid.is_empty() && uid != metadata::text(live, "uid") {
            return Err(conflict(format!(
                "Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
                metadata::text(live, "uid")
            )));
        }
        if metadata::is_deleting(live) {
            return Err(conflict(format!(
                "pod {} is being deleted, cannot be assigned to a host",
                call.name
            )));
        }
        let bound = live["spec"]["nodeName"].as_str().unwrap_or_default();
        if !bound.is_empty() {
            return Err(conflict(format!(
                "pod {} is already assigned to node {bound:?}",
                call.name
            )));
        }
        if live["spec"]["schedulingGates"]
            .as_array()
            .is_some_and(|gates| !gates.is_empty())
        {
            return Err(conflict(format!(
                "pod {} has non-empty .spec.schedulingGates",
                call.name
            )));
        }
        let mut bound = live.clone();
        bound["spec"]["nodeName"] = node.as_str().into();
        copy_annotations(&binding, &mut bound);
        set_condition(&mut bound, "PodScheduled", &call.now_text());
        Ok(bound)
    })
    .await?;
    Ok(success(201))
}

fn copy_annotations(binding: &Value, pod: &mut Value) {
    for (key, value) in binding["metadata"]["annotations"]
        .as_object()
        .into_iter()
        .flatten()
    {
        pod["metadata"]["annotations"][key] = value.clone();
    }
}

fn set_condition(pod: &mut Value, kind: &str, now: &str) {
    let condition =
        json!({"type": kind, "status": "True", "lastProbeTime": null, "lastTransitionTime": now});
    let observed = pod["metadata"]["generation"].clone();
    let mut condition = condition;
    if observed.is_number() {
        condition["observedGeneration"] = observed;
    }
    if !pod["status"]["conditions"].is_array() {
        pod["status"]["conditions"] = json!([]);
    }
    let Some(list) = pod["status"]["conditions"].as_array_mut() else {
        return;
    };
    match list.iter_mut().find(|one| one["type"] == kind) {
        Some(found) if found["status"] == "True" => {}
        Some(found) => *found = condition,
        None => list.push(condition),
    }
}

/// `Status` Success.
pub fn success(code: u16) -> Reply {
    Reply {
        status: code,
        payload: Payload::Plain(json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": code,
        })),
    }
}

/// POST pods/X/eviction.
pub async fn evict(call: &Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "CreateOptions", false)?;
    let expected = Expected {
        api_version: "policy/v1",
        kind: "Eviction",
        custom: false,
    };
    let eviction = decode::decode(call, &expected, options.field_validation)?;
    if metadata::text(&eviction, "name") != call.name {
        return Err(ApiError::bad_request(
            "name in URL does not match name in Eviction object",
        ));
    }
    let pod = call.existing()?;
    let finished = matches!(
        pod.tree["status"]["phase"].as_str(),
        Some("Succeeded" | "Failed" | "Pending")
    );
    if !finished && !metadata::is_deleting(&pod.tree) {
        crate::registry::subresources::budget(call, &pod.tree)?;
    }
    let mut body = eviction["deleteOptions"].clone();
    if !body.is_object() {
        body = json!({});
    }
    body["kind"] = "DeleteOptions".into();
    body["apiVersion"] = "v1".into();
    if options.dry_run {
        body["dryRun"] = json!(["All"]);
    }
    let delete = Call {
        core: call.core.clone(),
        user: call.user.clone(),
        agent: call.agent.clone(),
        served: call.served.clone(),
        namespace: call.namespace.clone(),
        name: call.name.clone(),
        subresource: String::new(),
        query: Default::default(),
        content_type: "application/json".into(),
        body: body.to_string().into(),
        now: call.now,
        warnings: Default::default(),
    };
    super::delete::delete(&delete).await?;
    Ok(success(201))
}

/// Refuses with 429 when a PodDisruptionBudget allows no further disruption.
pub fn budget(call: &Call, pod: &Value) -> ApiResult<()> {
    let budgets = call.core.store.list(
        "poddisruptionbudgets.policy",
        &format!("{}/", call.namespace),
    );
    for (_, budget) in budgets.objects {
        let selector =
            super::selectors::LabelSelector::from_object(&budget.tree["spec"]["selector"]);
        if selector.is_empty() || !selector.matches(pod["metadata"]["labels"].as_object()) {
            continue;
        }
        if budget.tree["status"]["disruptionsAllowed"]
            .as_i64()
            .unwrap_or(0)
            > 0
        {
            continue;
        }
        let name = metadata::text(&budget.tree, "name");
        let healthy = budget.tree["status"]["currentHealthy"]
            .as_i64()
            .unwrap_or(0);
        let desired = budget.tree["status"]["desiredHealthy"]
            .as_i64()
            .unwrap_or(0);
        let cause = format!(
            "The disruption budget {name} needs {desired} healthy pods and has {healthy} currently"
        );
        return Err(ApiError::new(
            http::StatusCode::TOO_MANY_REQUESTS,
            "TooManyRequests",
            "Cannot evict pod as it would violate the pod's disruption budget.",
            Some(json!({"causes": [{"reason": "DisruptionBudget", "message": cause}]})),
        ));
    }
    Ok(())
}

/// PUT namespaces/X/finalize.
pub async fn finalize(call: &Call) -> ApiResult<Reply> {
    let options = WriteOptions::parse(&call.query, "UpdateOptions", false)?;
    let body = decode::object(call, FieldValidation::Ignore)?;
    update::check_name(call, &body)?;
    let manager = Manager::patch(call, &options, "finalize");
    let wanted = body["spec"]["finalizers"].clone();
    let revision = metadata::text(&body, "resourceVersion").to_string();
    read_modify_write(call, &options, &manager, |live| {
        let mut new = live.clone();
        new["spec"]["finalizers"] = wanted.clone();
        if wanted.as_array().is_none_or(|list| list.is_empty())
            && let Some(spec) = new["spec"].as_object_mut()
        {
            spec.remove("finalizers");
        }
        if !revision.is_empty() {
            metadata::of(&mut new).insert("resourceVersion".into(), revision.as_str().into());
        }
        Ok(new)
    })
    .await
}
