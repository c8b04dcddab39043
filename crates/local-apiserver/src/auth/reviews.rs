//! Kinds that are only created and answered: access reviews, token reviews, token requests.

use super::{User, authenticate, authorize, token};
use crate::registry::context::time_text;
use crate::registry::decode::{self, Expected};
use crate::registry::options::FieldValidation;
use crate::registry::{Call, Payload, Reply, metadata};
use crate::status::{ApiError, ApiResult};
use local_schema::FieldError;
use serde_json::{Value, json};

const MIN_SECONDS: i64 = 600;
const MAX_SECONDS: i64 = 1 << 32;
const DEFAULT_SECONDS: i64 = 3600;

/// Whether a storage identifier names a kind that is answered here.
pub fn is_review(storage_id: &str) -> bool {
    matches!(
        storage_id,
        "selfsubjectaccessreviews.authorization.k8s.io"
            | "subjectaccessreviews.authorization.k8s.io"
            | "localsubjectaccessreviews.authorization.k8s.io"
            | "selfsubjectrulesreviews.authorization.k8s.io"
            | "selfsubjectreviews.authentication.k8s.io"
            | "tokenreviews.authentication.k8s.io"
    )
}

/// POST of a review.
pub fn create(call: &Call) -> ApiResult<Reply> {
    let mut review = decode::object(call, FieldValidation::Warn)?;
    if !review["spec"].is_object() && !call.served.kind.starts_with("SelfSubjectReview") {
        review["spec"] = json!({});
    }
    let status = match call.served.kind.as_ref() {
        "SelfSubjectReview" => json!({"userInfo": user_info(&call.user)}),
        "TokenReview" => token_review(call, &review["spec"])?,
        "SelfSubjectRulesReview" => rules_review(call, &mut review)?,
        kind => access_review(call, kind, &review)?,
    };
    if !review["metadata"].is_object() {
        review["metadata"] = json!({});
    }
    if call.served.kind.as_ref() == "SelfSubjectReview" {
        metadata::of(&mut review).insert("creationTimestamp".into(), call.now_text().into());
    }
    review["status"] = status;
    Ok(Reply {
        status: 201,
        payload: Payload::Tree(review),
    })
}

fn user_info(user: &User) -> Value {
    let mut info = json!({"username": user.name});
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    if !user.groups.is_empty() {
        info["groups"] = json!(user.groups);
    }
    if !user.extra.is_empty() {
        let extra: serde_json::Map<String, Value> = user
            .extra
            .iter()
            .map(|(key, values)| (key.clone(), json!(values)))
            .collect();
        info["extra"] = extra.into();
    }
    info
}

fn token_review(call: &Call, spec: &Value) -> ApiResult<Value> {
    let text = spec["token"].as_str().unwrap_or_default();
    if text.is_empty() {
        return Err(ApiError::bad_request(
            "token is required for TokenReview in authentication",
        ));
    }
    let mut audiences: Vec<String> = spec["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().map(str::to_string))
        .collect();
    if audiences.is_empty() {
        audiences.push(token::ISSUER.to_string());
    }
    Ok(match authenticate::of_token(&call.core, text, &audiences) {
        Some(checked) => json!({
            "authenticated": true, "user": user_info(&checked.user), "audiences": checked.audiences,
        }),
        None => json!({"user": {}, "error": "invalid bearer token"}),
    })
}

fn refused(field: &str, value: Value, detail: &str) -> ApiError {
    let error = FieldError::invalid(field, value, detail);
    ApiError::invalid("authorization.k8s.io", "", "", &[error])
}

fn access_review(call: &Call, kind: &str, review: &Value) -> ApiResult<Value> {
    let spec = &review["spec"];
    let (resource, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    if resource.is_object() && path.is_object() {
        let shown = json!({"Path": path["path"], "Verb": path["verb"]});
        return Err(refused(
            "spec.nonResourceAttributes",
            shown,
            "cannot be specified in combination with resourceAttributes",
        ));
    }
    if !resource.is_object() && !path.is_object() {
        return Err(refused(
            "spec.resourceAttributes",
            Value::Null,
            "exactly one of nonResourceAttributes or resourceAttributes must be specified",
        ));
    }
    if kind == "LocalSubjectAccessReview" && resource["namespace"] != call.namespace.as_str() {
        return Err(refused(
            "spec.resourceAttributes.namespace",
            resource["namespace"].clone(),
            "must match metadata.namespace",
        ));
    }
    let user = if kind == "SelfSubjectAccessReview" {
        call.user.clone()
    } else {
        reviewed_user(spec)?
    };
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or_default().to_string();
    let allowed = if path.is_object() {
        authorize::path_allowed(&call.core, &user, &text(path, "verb"), &text(path, "path"))
    } else {
        let wanted = authorize::Wanted {
            verb: &text(resource, "verb"),
            group: &text(resource, "group"),
            resource: &text(resource, "resource"),
            subresource: &text(resource, "subresource"),
            namespace: &text(resource, "namespace"),
            name: &text(resource, "name"),
        };
        authorize::allowed(&call.core, &user, &wanted)
    };
    Ok(json!({"allowed": allowed}))
}

fn reviewed_user(spec: &Value) -> ApiResult<User> {
    let groups: Vec<String> = spec["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().map(str::to_string))
        .collect();
    let name = spec["user"].as_str().unwrap_or_default();
    if name.is_empty() && groups.is_empty() {
        return Err(refused(
            "spec.user",
            "".into(),
            "at least one of user or group must be specified",
        ));
    }
    Ok(User {
        name: name.to_string(),
        uid: spec["uid"].as_str().unwrap_or_default().to_string(),
        groups,
        extra: Vec::new(),
    })
}

fn rules_review(call: &Call, review: &mut Value) -> ApiResult<Value> {
    let namespace = review["spec"]["namespace"]
        .as_str()
        .unwrap_or_default()
        .to_string();
    if namespace.is_empty() {
        return Err(ApiError::bad_request("no namespace on request"));
    }
    review["spec"] = json!({});
    let mut resources = vec![
        json!({"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]}),
        json!({"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]}),
    ];
    let mut paths = vec![
        json!({"verbs": ["get"], "nonResourceURLs": ["/healthz", "/livez", "/readyz", "/version", "/version/"]}),
    ];
    if call.user.in_group(super::MASTERS) {
        resources.push(json!({"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]}));
        paths.push(json!({"verbs": ["*"], "nonResourceURLs": ["*"]}));
    }
    authorize::visit(&call.core, &call.user, &namespace, |rule| {
        if rule["nonResourceURLs"].is_array() {
            paths.push(rule.clone());
        } else if !resources.contains(rule) {
            resources.push(rule.clone());
        }
    });
    Ok(json!({"resourceRules": resources, "nonResourceRules": paths, "incomplete": false}))
}

/// POST serviceaccounts/X/token.
pub fn request_token(call: &Call) -> ApiResult<Reply> {
    let expected = Expected {
        api_version: "authentication.k8s.io/v1",
        kind: "TokenRequest",
        custom: false,
    };
    let mut request = decode::decode(call, &expected, FieldValidation::Warn)?;
    let account = call.existing()?;
    if !request["spec"].is_object() {
        request["spec"] = json!({});
    }
    let seconds = request["spec"]["expirationSeconds"]
        .as_i64()
        .unwrap_or(DEFAULT_SECONDS);
    let wrong = match seconds {
        ..MIN_SECONDS => Some("may not specify a duration less than 10 minutes"),
        _ if seconds > MAX_SECONDS => Some("may not specify a duration larger than 2^32 seconds"),
        _ => None,
    };
    if let Some(detail) = wrong {
        let error = FieldError::invalid("spec.expirationSeconds", seconds, detail);
        return Err(ApiError::invalid(
            "authentication.k8s.io",
            "TokenRequest",
            "",
            &[error],
        ));
    }
    let mut audiences: Vec<String> = request["spec"]["audiences"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one.as_str().map(str::to_string))
        .collect();
    if audiences.is_empty() {
        audiences.push(token::ISSUER.into());
    }
    let bound = bound_object(call, &request["spec"]["boundObjectRef"])?;
    let subject = token::Subject {
        namespace: &call.namespace,
        name: &call.name,
        uid: metadata::text(&account.tree, "uid"),
        bound,
    };
    let text = call
        .core
        .tokens
        .issue(&subject, &audiences, call.now, seconds)
        .ok_or_else(|| ApiError::internal("the token could not be signed"))?;
    let expires = time_text(call.now + jiff::SignedDuration::from_secs(seconds));
    let fields = metadata::of(&mut request);
    fields.insert("name".into(), call.name.as_str().into());
    fields.insert("namespace".into(), call.namespace.as_str().into());
    fields.insert("creationTimestamp".into(), call.now_text().into());
    request["spec"]["audiences"] = json!(audiences);
    request["spec"]["expirationSeconds"] = seconds.into();
    if request["spec"].get("boundObjectRef").is_none() {
        request["spec"]["boundObjectRef"] = Value::Null;
    }
    request["status"] = json!({"token": text, "expirationTimestamp": expires});
    Ok(Reply {
        status: 201,
        payload: Payload::Tree(request),
    })
}

fn bound_object(call: &Call, reference: &Value) -> ApiResult<Vec<token::Bound>> {
    // Typed decoding writes an absent reference as an empty one.
    if reference.as_object().is_none_or(serde_json::Map::is_empty) {
        return Ok(Vec::new());
    }
    let name = reference["name"].as_str().unwrap_or_default();
    let (kind, plural, key) = match reference["kind"].as_str().unwrap_or_default() {
        "Pod" => ("pod", "pods", format!("{}/{name}", call.namespace)),
        "Secret" => ("secret", "secrets", format!("{}/{name}", call.namespace)),
        "Node" => ("node", "nodes", name.to_string()),
        other => {
            let version = reference["apiVersion"].as_str().unwrap_or_default();
            let version = if version.contains('/') {
                version.to_string()
            } else {
                format!("/{version}")
            };
            return Err(ApiError::bad_request(format!(
                "cannot bind token to object of type {version}, Kind={other}"
            )));
        }
    };
    let object = call
        .core
        .store
        .get(plural, &key)
        .ok_or_else(|| ApiError::not_found("", plural, name))?;
    let uid = metadata::text(&object.tree, "uid").to_string();
    let given = reference["uid"].as_str().unwrap_or_default();
    if !given.is_empty() && given != uid {
        return Err(ApiError::conflict(
            "",
            plural,
            name,
            &format!(
                "the UID in the bound object reference ({given}) does not match the UID in record. The object might have been deleted and then recreated"
            ),
        ));
    }
    let mut bound = vec![token::Bound {
        kind,
        name: name.to_string(),
        uid,
    }];
    let node = object.tree["spec"]["nodeName"].as_str().unwrap_or_default();
    if kind == "pod"
        && let Some(found) = call.core.store.get("nodes", node)
    {
        bound.push(token::Bound {
            kind: "node",
            name: node.to_string(),
            uid: metadata::text(&found.tree, "uid").to_string(),
        });
    }
    Ok(bound)
}
