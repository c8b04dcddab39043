//! What upstream's default plugins set on new pods: account and token volume, tolerations, priority.

use super::Attributes;
use crate::core::Core;
use crate::status::{ApiError, ApiResult};
use rand::Rng;
use serde_json::{Value, json};
use std::time::Duration;

const TOKEN_PATH: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const TOKEN_SECONDS: i64 = 3607;
const TOLERATED_SECONDS: i64 = 300;
const VOLUME_PREFIX: &str = "kube-api-access-";
const LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// How long a new namespace's account is waited for, and how often it is looked for.
const ACCOUNT_WAIT: Duration = Duration::from_millis(500);
const ACCOUNT_LOOK: Duration = Duration::from_millis(20);

/// Waits for the pod's account where it is not there yet.
pub(super) async fn await_account(attributes: &Attributes<'_>, pod: &Value) {
    let call = attributes.call;
    let key = format!("{}/{}", call.namespace, account_name(pod));
    let deadline = tokio::time::Instant::now() + ACCOUNT_WAIT;
    while call.core.store.get("serviceaccounts", &key).is_none()
        && tokio::time::Instant::now() < deadline
    {
        tokio::time::sleep(ACCOUNT_LOOK).await;
    }
}

fn account_name(pod: &Value) -> &str {
    match pod["spec"]["serviceAccountName"]
        .as_str()
        .unwrap_or_default()
    {
        "" => "default",
        name => name,
    }
}

/// ServiceAccount, DefaultTolerationSeconds and Priority on a new pod.
pub(super) fn mutate(attributes: &Attributes<'_>, pod: &mut Value) -> ApiResult<()> {
    if !pod["spec"].is_object() {
        return Ok(());
    }
    account(attributes, pod)?;
    tolerations(&mut pod["spec"]);
    priority(attributes, &mut pod["spec"])
}

fn account(attributes: &Attributes<'_>, pod: &mut Value) -> ApiResult<()> {
    let call = attributes.call;
    // A mirror pod stands for one that runs already; it has no account.
    if pod["metadata"]["annotations"]["kubernetes.io/config.mirror"].is_string() {
        return Ok(());
    }
    let name = account_name(pod).to_string();
    let found = call
        .core
        .store
        .get("serviceaccounts", &format!("{}/{name}", call.namespace));
    let Some(account) = found else {
        // The default account is made by a controller, which not every user of this crate runs.
        if name == "default" {
            return Ok(());
        }
        let why = format!(
            "error looking up service account {}/{name}: serviceaccount \"{name}\" not found",
            call.namespace
        );
        return Err(ApiError::forbidden("", "pods", attributes.name, &why));
    };
    let account = &account.tree;
    let spec = &mut pod["spec"];
    spec["serviceAccountName"] = name.as_str().into();
    spec["serviceAccount"] = name.into();
    let mount = match spec["automountServiceAccountToken"].as_bool() {
        Some(wanted) => wanted,
        None => account["automountServiceAccountToken"]
            .as_bool()
            .unwrap_or(true),
    };
    if mount {
        mount_token(spec);
    }
    let secrets = account["imagePullSecrets"]
        .as_array()
        .filter(|list| !list.is_empty());
    if spec["imagePullSecrets"]
        .as_array()
        .is_none_or(|list| list.is_empty())
        && let Some(secrets) = secrets
    {
        spec["imagePullSecrets"] = json!(secrets);
    }
    Ok(())
}

/// One projected volume, mounted into every container that has nothing at the path.
fn mount_token(spec: &mut Value) {
    let mut random = rand::rng();
    let suffix: String = (0..5)
        .map(|_| LETTERS[random.random_range(0..LETTERS.len())] as char)
        .collect();
    let name = format!("{VOLUME_PREFIX}{suffix}");
    let mut mounted = false;
    for field in ["initContainers", "containers"] {
        let list = spec.get_mut(field).and_then(Value::as_array_mut);
        for container in list.into_iter().flatten() {
            if !container["volumeMounts"].is_array() {
                container["volumeMounts"] = json!([]);
            }
            let Some(mounts) = container["volumeMounts"].as_array_mut() else {
                continue;
            };
            if mounts.iter().all(|one| one["mountPath"] != TOKEN_PATH) {
                mounts.push(json!({"name": name, "readOnly": true, "mountPath": TOKEN_PATH}));
                mounted = true;
            }
        }
    }
    if !mounted {
        return;
    }
    if !spec["volumes"].is_array() {
        spec["volumes"] = json!([]);
    }
    if let Some(volumes) = spec["volumes"].as_array_mut() {
        volumes.push(json!({"name": name, "projected": {"defaultMode": 420, "sources": [
            {"serviceAccountToken": {"expirationSeconds": TOKEN_SECONDS, "path": "token"}},
            {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
        ]}}));
    }
}

fn tolerations(spec: &mut Value) {
    for key in [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ] {
        let list = spec["tolerations"].as_array();
        let tolerated = list.into_iter().flatten().any(|one| {
            let effect = one["effect"].as_str().unwrap_or_default();
            let name = one["key"].as_str().unwrap_or_default();
            (name == key || name.is_empty()) && matches!(effect, "" | "NoExecute")
        });
        if tolerated {
            continue;
        }
        if !spec["tolerations"].is_array() {
            spec["tolerations"] = json!([]);
        }
        if let Some(list) = spec["tolerations"].as_array_mut() {
            list.push(json!({"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": TOLERATED_SECONDS}));
        }
    }
}

struct Class {
    name: String,
    value: i64,
    preemption: String,
}

fn class(core: &Core, name: &str) -> Option<Class> {
    let built_in = match name {
        "system-cluster-critical" => Some(2_000_000_000),
        "system-node-critical" => Some(2_000_001_000),
        _ => None,
    };
    let stored = core.store.get("priorityclasses.scheduling.k8s.io", name);
    if let Some(stored) = stored {
        return Some(of(&stored.tree));
    }
    built_in.map(|value| Class {
        name: name.to_string(),
        value,
        preemption: "PreemptLowerPriority".into(),
    })
}

fn of(tree: &Value) -> Class {
    Class {
        name: tree["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_string(),
        value: tree["value"].as_i64().unwrap_or(0),
        preemption: tree["preemptionPolicy"]
            .as_str()
            .unwrap_or("PreemptLowerPriority")
            .to_string(),
    }
}

fn global_default(core: &Core) -> Option<Class> {
    let classes = core
        .store
        .list("priorityclasses.scheduling.k8s.io", "")
        .objects;
    let defaults = classes
        .iter()
        .filter(|(_, one)| one.tree["globalDefault"] == true);
    defaults
        .map(|(_, one)| of(&one.tree))
        .min_by_key(|one| one.value)
}

fn priority(attributes: &Attributes<'_>, spec: &mut Value) -> ApiResult<()> {
    let core = &attributes.call.core;
    let wanted = spec["priorityClassName"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    let refused = |why: String| Err(ApiError::forbidden("", "pods", attributes.name, &why));
    let found = if wanted.is_empty() {
        global_default(core)
    } else {
        match class(core, &wanted) {
            Some(found) => Some(found),
            None => return refused(format!("no PriorityClass with name {wanted} was found")),
        }
    };
    let (value, preemption) = match &found {
        Some(class) => (class.value, class.preemption.clone()),
        None => (0, "PreemptLowerPriority".to_string()),
    };
    if let Some(given) = spec["priority"].as_i64().filter(|given| *given != value) {
        return refused(format!(
            "the integer value of priority ({given}) must not be provided in pod spec; priority admission controller computed {value} from the given PriorityClass name"
        ));
    }
    if let Some(class) = found.filter(|_| wanted.is_empty()) {
        spec["priorityClassName"] = class.name.into();
    }
    let given = spec["preemptionPolicy"].as_str().map(str::to_string);
    if let Some(given) = given.filter(|given| *given != preemption) {
        return refused(format!(
            "the string value of PreemptionPolicy ({given}) must not be provided in pod spec; priority admission controller computed {preemption} from the given PriorityClass name"
        ));
    }
    spec["priority"] = value.into();
    spec["preemptionPolicy"] = preemption.into();
    Ok(())
}
