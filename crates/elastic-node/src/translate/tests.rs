//! Whole pods in, whole requests out.

use serde_json::{Value, json};

use super::*;

fn settings() -> ClusterSettings {
    ClusterSettings {
        cluster_dns: vec!["10.96.0.10".into()],
        cluster_domain: "cluster.local".into(),
        kubernetes_service: Some(("10.96.0.1".into(), 443)),
        security_group: Some("sg-1".into()),
        ..ClusterSettings::default()
    }
}

fn pod(spec: Value) -> Pod {
    serde_json::from_value(json!({
        "metadata": {
            "name": "web-1", "namespace": "shop", "uid": "uid-1",
            "labels": {"app": "web"}, "annotations": {"k8s.aliyun.com/eci-custom-tags": "env:test"}
        },
        "spec": spec
    }))
    .unwrap()
}

fn translate(
    spec: Value,
    references: &References,
) -> Result<CreateContainerGroupRequest, TranslateError> {
    let identity = Identity {
        cluster: "c-1",
        node: "virtual-kubelet-z",
        node_ip: "10.10.0.101",
    };
    container_group(&pod(spec), identity, &settings(), references)
}

fn references() -> References {
    let config: ConfigMap =
        serde_json::from_value(json!({"data": {"color": "blue", "a.txt": "hello"}})).unwrap();
    let secret: Secret = serde_json::from_value(json!({"data": {"password": "czNjcmV0"}})).unwrap();
    let login = STANDARD_LOGIN;
    let pull: Secret =
        serde_json::from_value(json!({"data": {".dockerconfigjson": login}})).unwrap();
    References {
        config_maps: [
            ("settings".to_owned(), Some(config)),
            ("absent".to_owned(), None),
        ]
        .into(),
        secrets: [
            ("login".to_owned(), Some(secret)),
            ("pull".to_owned(), Some(pull)),
        ]
        .into(),
        tokens: [(
            TokenKey {
                audience: String::new(),
                expiration_seconds: 3_607,
            },
            "t-1".to_owned(),
        )]
        .into(),
    }
}

use k8s_openapi::api::core::v1::{ConfigMap, Secret};

/// `{"auths":{"https://registry.example/v1/":{"auth":"dXNlcjpwYXNz"}}}`
const STANDARD_LOGIN: &str =
    "eyJhdXRocyI6eyJodHRwczovL3JlZ2lzdHJ5LmV4YW1wbGUvdjEvIjp7ImF1dGgiOiJkWE5sY2pwd1lYTnoifX19";

#[test]
fn identity_travels_in_token_and_tags() {
    let request = translate(
        json!({"containers": [{"name": "web", "image": "shop:1"}]}),
        &References::default(),
    )
    .unwrap();
    assert_eq!(request.client_token.as_deref(), Some("uid-1"));
    assert_eq!(request.container_group_name, "shop-web-1");
    assert_eq!(request.host_name.as_deref(), Some("web-1"));
    assert_eq!(request.security_group_id.as_deref(), Some("sg-1"));
    let tags: Vec<_> = request
        .tag
        .iter()
        .map(|tag| (tag.key.as_str(), tag.value.as_str()))
        .collect();
    assert_eq!(
        tags,
        [
            ("springtide/cluster", "c-1"),
            ("springtide/node", "virtual-kubelet-z"),
            ("springtide/namespace", "shop"),
            ("springtide/pod", "web-1"),
            ("springtide/uid", "uid-1"),
            ("env", "test"),
        ]
    );
}

#[test]
fn names_resolve_as_on_a_worker() {
    let request = translate(
        json!({"containers": [{"name": "web"}]}),
        &References::default(),
    )
    .unwrap();
    assert_eq!(request.dns_policy.as_deref(), Some("None"));
    let config = request.dns_config.unwrap();
    assert_eq!(config.name_server, ["10.96.0.10"]);
    assert_eq!(
        config.search,
        [
            "shop.svc.cluster.local",
            "svc.cluster.local",
            "cluster.local"
        ]
    );
    let request = translate(
        json!({"dnsPolicy": "Default", "containers": [{"name": "web"}]}),
        &References::default(),
    )
    .unwrap();
    assert_eq!(
        (request.dns_policy.as_deref(), request.dns_config),
        (Some("Default"), None)
    );
}

#[test]
fn variables_are_resolved_from_everywhere() {
    let spec = json!({"containers": [{
        "name": "web", "image": "shop:1",
        "command": ["/run", "--color=$(COLOR)", "--host=$(POD_IP)"],
        "resources": {"limits": {"cpu": "1500m", "memory": "1Gi"}},
        "envFrom": [{"configMapRef": {"name": "settings"}, "prefix": "CFG_"}],
        "env": [
            {"name": "COLOR", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "color"}}},
            {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "login", "key": "password"}}},
            {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            {"name": "APP", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['app']"}}},
            {"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "HOST_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
            {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu"}}},
            {"name": "MAYBE", "valueFrom": {"configMapKeyRef": {"name": "absent", "key": "x", "optional": true}}},
            {"name": "BOTH", "value": "$(COLOR)-$(NAME)"}
        ]
    }]});
    let request = translate(spec, &references()).unwrap();
    let container = &request.container[0];
    let get = |key: &str| {
        let variable = container
            .environment_var
            .iter()
            .find(|variable| variable.key == key)?;
        Some((
            variable.value.clone(),
            variable
                .field_ref
                .as_ref()
                .map(|field| field.field_path.clone()),
        ))
    };
    let text = |value: &str| Some((Some(value.to_owned()), None));
    assert_eq!(get("COLOR"), text("blue"));
    assert_eq!(get("CFG_color"), text("blue"));
    assert_eq!(get("PASSWORD"), text("s3cret"));
    assert_eq!(get("APP"), text("web"));
    assert_eq!(get("HOST_IP"), text("10.10.0.101"));
    assert_eq!(get("CPUS"), text("2"));
    assert_eq!(get("BOTH"), text("blue-web-1"));
    assert_eq!(get("MAYBE"), None);
    assert_eq!(get("KUBERNETES_SERVICE_HOST"), text("10.96.0.1"));
    assert_eq!(get("POD_IP"), Some((None, Some("status.podIP".to_owned()))));
    assert_eq!(
        container.command,
        ["/run", "--color=blue", "--host=$(POD_IP)"]
    );
    assert_eq!((container.cpu, container.memory), (Some(1.5), Some(1.0)));
}

#[test]
fn a_missing_reference_is_named_and_may_pass() {
    let spec =
        json!({"containers": [{"name": "web", "envFrom": [{"configMapRef": {"name": "absent"}}]}]});
    let error = translate(spec, &references()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "envFrom of container web refers to ConfigMap absent, which does not exist"
    );
    assert!(error.may_pass());
    let spec = json!({
        "containers": [{"name": "web"}],
        "volumes": [{"name": "v", "secret": {"secretName": "login", "items": [{"key": "user", "path": "u"}]}}]
    });
    let error = translate(spec, &references()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "volume v refers to Secret login, which has no key user"
    );
}

#[test]
fn rendered_volumes_become_config_files() {
    let spec = json!({
        "containers": [{"name": "web", "volumeMounts": [{"name": "all", "mountPath": "/all", "readOnly": true}]}],
        "volumes": [
            {"name": "config", "configMap": {"name": "settings", "items": [{"key": "a.txt", "path": "dir/a", "mode": 256}]}},
            {"name": "scratch", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}},
            {"name": "all", "projected": {"defaultMode": 420, "sources": [
                {"secret": {"name": "login"}},
                {"serviceAccountToken": {"path": "token", "expirationSeconds": 3607}},
                {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}
            ]}}
        ]
    });
    let request = translate(spec, &references()).unwrap();
    let config = request.volume[0].config_file_volume.as_ref().unwrap();
    assert_eq!(config.config_file_to_path[0].path, "dir/a");
    assert_eq!(config.config_file_to_path[0].content, "aGVsbG8=");
    assert_eq!(config.config_file_to_path[0].mode, Some(400));
    let scratch = request.volume[1].empty_dir_volume.as_ref().unwrap();
    assert_eq!(scratch.medium.as_deref(), Some("Memory"));
    let all = request.volume[2].config_file_volume.as_ref().unwrap();
    assert_eq!(all.default_mode, Some(644));
    let paths: Vec<_> = all
        .config_file_to_path
        .iter()
        .map(|file| file.path.as_str())
        .collect();
    assert_eq!(paths, ["password", "token", "ns"]);
    assert_eq!(request.container[0].volume_mount[0].read_only, Some(true));
}

#[test]
fn probes_resolve_port_names_and_wait_for_slow_starts() {
    let spec = json!({"containers": [{
        "name": "web",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": "http"}, "periodSeconds": 1},
        "livenessProbe": {"tcpSocket": {"port": 8080}, "initialDelaySeconds": 5},
        "startupProbe": {"httpGet": {"port": 8080}, "periodSeconds": 2, "failureThreshold": 30}
    }]});
    let request = translate(spec, &References::default()).unwrap();
    let container = &request.container[0];
    let readiness = container.readiness_probe.as_ref().unwrap();
    assert_eq!(readiness.http_get.as_ref().unwrap().port, 8080);
    assert_eq!(readiness.period_seconds, Some(1));
    assert_eq!(
        container
            .liveness_probe
            .as_ref()
            .unwrap()
            .initial_delay_seconds,
        Some(65)
    );
}

#[test]
fn pull_secrets_become_logins() {
    let spec = json!({"containers": [{"name": "web"}], "imagePullSecrets": [{"name": "pull"}, {"name": "unknown"}]});
    let request = translate(spec, &references()).unwrap();
    let logins = request.image_registry_credential;
    assert_eq!(logins.len(), 1);
    assert_eq!(
        (logins[0].server.as_str(), logins[0].user_name.as_str()),
        ("registry.example", "user")
    );
}

#[test]
fn what_virtual_nodes_lack_is_refused_by_field() {
    let cases = [
        (
            json!({"hostNetwork": true, "containers": []}),
            "spec.hostNetwork",
        ),
        (
            json!({"containers": [], "volumes": [{"name": "h", "hostPath": {"path": "/"}}]}),
            "spec.volumes[h]",
        ),
        (
            json!({"containers": [{"name": "a"}, {"name": "b", "securityContext": {"privileged": true}}]}),
            "spec.containers[1].securityContext.privileged",
        ),
        (
            json!({"containers": [{"name": "a", "ports": [{"containerPort": 80, "hostPort": 80}]}]}),
            "spec.containers[0].ports",
        ),
    ];
    for (spec, field) in cases {
        match translate(spec, &References::default()) {
            Err(TranslateError::Refused(refusal)) => assert_eq!(refusal.field, field),
            other => panic!("{field}: {other:?}"),
        }
    }
    let mut daemon = pod(json!({"containers": []}));
    daemon.metadata.owner_references = Some(vec![
        serde_json::from_value(json!({"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "d", "uid": "u", "controller": true})).unwrap(),
    ]);
    assert!(refuse(&daemon).unwrap_err().reason.contains("DaemonSet"));
}

#[test]
fn sizes_are_put_into_the_request() {
    let mut request = CreateContainerGroupRequest::default();
    with_size(
        &mut request,
        &WantedSpec::Size(PodSize {
            cpu_milli: 250,
            memory_bytes: 512 << 20,
        }),
    );
    assert_eq!((request.cpu, request.memory), (Some(0.25), Some(0.5)));
    with_size(
        &mut request,
        &WantedSpec::InstanceType("ecs.c6.large".into()),
    );
    assert_eq!(
        (request.cpu, request.instance_type.as_deref()),
        (None, Some("ecs.c6.large"))
    );
}
