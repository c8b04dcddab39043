//! Tells the API server which pods to send here.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use elastic_core::eci_profile::{EciProfile, PROFILE_NAMESPACE, Policy};
use elastic_core::names::{
    BURST_RESOURCE, ECI_LABEL, LEGACY_ECI_LABEL, LEGACY_NAMESPACE_LABEL, LEGACY_NAMESPACE_VALUE,
    TRUE, UNIT_LABEL, WEBHOOK_NAME,
};
use k8s_openapi::api::admissionregistration::v1::{MutatingWebhook, MutatingWebhookConfiguration};
use kube::Client;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use super::{BURST_PATH, NAMESPACE_PATH, POD_PATH, POLICY_PATH, SELECTOR_PATH};

/// A webhook that hangs delays a pod by this much at most, once for each entry that concerns it.
const TIMEOUT_SECONDS: i32 = 2;
const MAX_ATTEMPTS: usize = 5;

/// Where the API server reaches the webhook.
#[derive(Clone, Debug)]
pub enum WebhookAddress {
    /// Directly, such as `https://127.0.0.1:9443`.
    Url(String),
    /// Through a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
}

/// The configuration could not be written.
#[derive(Debug, thiserror::Error)]
#[error("register webhook configuration {WEBHOOK_NAME}")]
pub struct RegistrationError(#[source] Box<kube::Error>);

/// Writes the MutatingWebhookConfiguration with an entry for each label and each rule of the profile. Calling it again
/// changes nothing.
pub async fn register_admission(
    client: &Client,
    address: &WebhookAddress,
    authority_pem: &str,
    profile: &EciProfile,
) -> Result<(), RegistrationError> {
    register(client, address, authority_pem, profile, &[]).await
}

/// The same, with an entry for the namespaces that have policies.
pub(super) async fn register(
    client: &Client,
    address: &WebhookAddress,
    authority_pem: &str,
    profile: &EciProfile,
    policies: &[String],
) -> Result<(), RegistrationError> {
    let api: Api<MutatingWebhookConfiguration> = Api::all(client.clone());
    let mut wanted = webhook_configuration(address, authority_pem, profile);
    let entry = by_policy(address, authority_pem, policies);
    wanted.webhooks.get_or_insert_default().extend(entry);
    for attempt in 1.. {
        match put(&api, &wanted).await {
            Ok(()) => break,
            Err(kube::Error::Api(status)) if status.code == 409 && attempt < MAX_ATTEMPTS => {}
            Err(error) => return Err(RegistrationError(Box::new(error))),
        }
    }
    Ok(())
}

async fn put(
    api: &Api<MutatingWebhookConfiguration>,
    wanted: &MutatingWebhookConfiguration,
) -> Result<(), kube::Error> {
    let Some(existing) = api.get_opt(WEBHOOK_NAME).await? else {
        return api.create(&PostParams::default(), wanted).await.map(drop);
    };
    // Labels and annotations belong to whoever installed the object; the entries are ours.
    let mut next = existing.clone();
    next.webhooks.clone_from(&wanted.webhooks);
    next.metadata.managed_fields = None;
    if next.webhooks == existing.webhooks {
        return Ok(());
    }
    api.replace(WEBHOOK_NAME, &PostParams::default(), &next)
        .await
        .map(drop)
}

/// What [`register_admission`] writes.
///
/// The selectors mirror `elastic_core::routing::place`; they are alternatives, so each has a webhook of its own.
pub fn webhook_configuration(
    address: &WebhookAddress,
    authority_pem: &str,
    profile: &EciProfile,
) -> MutatingWebhookConfiguration {
    // Unit Deployments are routed when they are derived; asking for each of their pods again would only cost time.
    let not_a_unit = json!({"key": UNIT_LABEL, "operator": "DoesNotExist"});
    let not_opted_out = json!({"key": ECI_LABEL, "operator": "NotIn", "values": ["false", TRUE]});
    let by_pod = |name: &str, label: &str| {
        let selector = json!({"matchLabels": {label: TRUE}, "matchExpressions": [not_a_unit]});
        webhook(name, address, POD_PATH, authority_pem, json!({}), selector)
    };
    let by_namespace = |name: &str, label: &str, value: &str| {
        let namespaces = json!({"matchLabels": {label: value}});
        webhook(
            name,
            address,
            NAMESPACE_PATH,
            authority_pem,
            namespaces,
            json!({"matchExpressions": [not_opted_out]}),
        )
    };
    let mut webhooks = vec![
        by_pod("pod.eci.alibabacloud.com", ECI_LABEL),
        by_pod("legacy-pod.eci.alibabacloud.com", LEGACY_ECI_LABEL),
        by_namespace("namespace.eci.alibabacloud.com", ECI_LABEL, TRUE),
        by_namespace(
            "legacy-namespace.eci.alibabacloud.com",
            LEGACY_NAMESPACE_LABEL,
            LEGACY_NAMESPACE_VALUE,
        ),
        by_annotation(address, authority_pem, &not_a_unit),
    ];
    for (index, selector) in profile.selectors.iter().enumerate() {
        let at_creation = matches!(selector.policy, Policy::VirtualNodeOnly | Policy::Fair);
        if !selector.routes() || !at_creation {
            continue;
        }
        let mut objects = json!(selector.object_selector.clone().unwrap_or_default());
        match objects["matchExpressions"].as_array_mut() {
            Some(all) => all.extend([not_opted_out.clone(), not_a_unit.clone()]),
            None => objects["matchExpressions"] = json!([not_opted_out, not_a_unit]),
        }
        webhooks.push(webhook(
            &format!("selector-{index}.eci-profile.alibabacloud.com"),
            address,
            SELECTOR_PATH,
            authority_pem,
            json!(selector.namespace_selector.clone().unwrap_or_default()),
            objects,
        ));
    }
    serde_json::from_value(json!({"metadata": {"name": WEBHOOK_NAME}, "webhooks": webhooks}))
        .expect(
            "the literal above has the shape of a MutatingWebhookConfiguration, which a test holds",
        )
}

/// Annotations cannot be selected by label, so the API server is given a condition; one that knows no conditions asks for
/// every pod, which costs time and does no harm. The cluster's own namespace is left out.
fn by_annotation(address: &WebhookAddress, authority_pem: &str, not_a_unit: &Value) -> Value {
    let namespaces = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": [PROFILE_NAMESPACE]}]});
    let objects = json!({"matchExpressions": [not_a_unit]});
    let name = "burst-resource.eci.alibabacloud.com";
    let mut webhook = webhook(
        name,
        address,
        BURST_PATH,
        authority_pem,
        namespaces,
        objects,
    );
    let expression = format!(
        "has(object.metadata.annotations) && '{BURST_RESOURCE}' in object.metadata.annotations"
    );
    webhook["matchConditions"] = json!([{"name": "has-burst-resource", "expression": expression}]);
    webhook
}

/// Pods in namespaces that have a policy, after all others, which may have routed them. Without policies no pod waits for
/// this. A unit's pods are placed by their unit.
fn by_policy(
    address: &WebhookAddress,
    authority_pem: &str,
    policies: &[String],
) -> Option<MutatingWebhook> {
    if policies.is_empty() {
        return None;
    }
    let namespaces = json!({"matchExpressions": [
        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": policies}]});
    let not_a_unit = json!({"matchExpressions": [{"key": UNIT_LABEL, "operator": "DoesNotExist"}]});
    let name = "policy.eci.alibabacloud.com";
    let mut entry = webhook(
        name,
        address,
        POLICY_PATH,
        authority_pem,
        namespaces,
        not_a_unit,
    );
    // What was given is written down, but not for a dry run.
    entry["sideEffects"] = json!("NoneOnDryRun");
    serde_json::from_value(entry).ok()
}

fn webhook(
    name: &str,
    address: &WebhookAddress,
    path: &str,
    authority_pem: &str,
    namespaces: Value,
    objects: Value,
) -> Value {
    let authority = STANDARD.encode(authority_pem);
    let client_config = match address {
        WebhookAddress::Url(base) => {
            json!({"url": format!("{}{path}", base.trim_end_matches('/')), "caBundle": authority})
        }
        WebhookAddress::Service {
            namespace,
            name,
            port,
        } => json!({
            "service": {"namespace": namespace, "name": name, "port": port, "path": path},
            "caBundle": authority
        }),
    };
    json!({
        "name": name,
        "admissionReviewVersions": ["v1"],
        "clientConfig": client_config,
        "failurePolicy": "Ignore",
        "matchPolicy": "Equivalent",
        "namespaceSelector": namespaces,
        "objectSelector": objects,
        "reinvocationPolicy": "Never",
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"], "scope": "Namespaced"}],
        "sideEffects": "None",
        "timeoutSeconds": TIMEOUT_SECONDS
    })
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;

    use super::*;

    #[test]
    fn every_documented_label_has_a_webhook_that_never_blocks_pods() {
        let configuration = webhook_configuration(
            &WebhookAddress::Url("https://127.0.0.1:9443/".into()),
            "PEM",
            &EciProfile::default(),
        );
        assert_eq!(configuration.name_any(), "vk-webhook");
        let webhooks = configuration.webhooks.unwrap();
        assert_eq!(webhooks.len(), 5);
        assert!(
            webhooks
                .iter()
                .all(|webhook| webhook.failure_policy.as_deref() == Some("Ignore"))
        );
        assert_eq!(
            webhooks[0].client_config.url.as_deref(),
            Some("https://127.0.0.1:9443/mutate/pod-label")
        );
        let labels = webhooks[3]
            .namespace_selector
            .as_ref()
            .unwrap()
            .match_labels
            .as_ref()
            .unwrap();
        assert_eq!(labels["virtual-node-affinity-injection"], "enabled");
    }

    #[test]
    fn each_rule_that_acts_at_creation_has_a_webhook_with_its_selectors() {
        let selectors = r#"[
            {"name": "effect-only", "effect": {"labels": {"a": "b"}}},
            {"name": "prefer", "objectSelector": {"matchLabels": {"lane": "p"}}, "policy": "normalNodePrefer"},
            {"name": "only", "namespaceSelector": {"matchLabels": {"burst": "on"}},
             "objectSelector": {"matchExpressions": [{"key": "tier", "operator": "Exists"}]}}
        ]"#;
        let data = [("selectors".to_owned(), selectors.to_owned())].into();
        let profile = EciProfile::parse(&data).unwrap();
        let address = WebhookAddress::Url("https://127.0.0.1:9443".into());
        let webhooks = webhook_configuration(&address, "PEM", &profile)
            .webhooks
            .unwrap();
        assert_eq!(webhooks.len(), 6);
        let rule = &webhooks[5];
        assert_eq!(rule.name, "selector-2.eci-profile.alibabacloud.com");
        assert_eq!(rule.timeout_seconds, Some(2));
        let labels = rule
            .namespace_selector
            .as_ref()
            .unwrap()
            .match_labels
            .as_ref();
        assert_eq!(labels.unwrap()["burst"], "on");
        let objects = rule.object_selector.as_ref().unwrap();
        assert_eq!(objects.match_expressions.as_ref().unwrap().len(), 3);
    }

    #[test]
    fn a_service_address_names_the_service() {
        let address = WebhookAddress::Service {
            namespace: "kube-system".into(),
            name: "vk-webhook".into(),
            port: 443,
        };
        let configuration = webhook_configuration(&address, "PEM", &EciProfile::default());
        let service = configuration.webhooks.unwrap()[0]
            .client_config
            .service
            .clone()
            .unwrap();
        assert_eq!(
            (
                service.namespace.as_str(),
                service.name.as_str(),
                service.port
            ),
            ("kube-system", "vk-webhook", Some(443))
        );
    }
}
