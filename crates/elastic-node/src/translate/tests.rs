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

fn bound(spec: Value) -> ClaimState {
    ClaimState::Bound(Box::new(
        serde_json::from_value(json!({"spec": spec})).unwrap(),
    ))
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
        token_life: None,
        claims: [
            ("media".to_owned(), bound(json!({"nfs": {"server": "nas.example", "path": "/media", "readOnly": true}}))),
            (
                "shared".to_owned(),
                bound(json!({"csi": {"driver": "nasplugin.csi.alibabacloud.com", "volumeHandle": "v",
                    "volumeAttributes": {"server": "cpfs.example", "path": "/share"}}})),
            ),
            ("disk".to_owned(), bound(json!({"csi": {"driver": "diskplugin.csi.alibabacloud.com", "volumeHandle": "d-1"}}))),
            ("waits".to_owned(), ClaimState::Unbound),
        ]
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

fn annotated(annotations: Value) -> Result<CreateContainerGroupRequest, TranslateError> {
    let mut pod = pod(json!({"containers": [{"name": "web"}]}));
    pod.metadata.annotations = serde_json::from_value(annotations).unwrap();
    let identity = Identity {
        cluster: "c-1",
        node: "n",
        node_ip: "10.10.0.101",
    };
    container_group(&pod, identity, &settings(), &References::default())
}

/// As users write them.
fn all_annotations() -> Value {
    json!({
        "k8s.aliyun.com/eci-security-group": "sg-x",
        "k8s.aliyun.com/eci-resource-group-id": "rg-1",
        "k8s.aliyun.com/eci-compute-category": "economy,general",
        "k8s.aliyun.com/eci-cpu-option-core": "2",
        "k8s.aliyun.com/eci-cpu-option-ht": "1",
        "k8s.aliyun.com/eci-gpu-driver-version": "tesla=535",
        "k8s.aliyun.com/eci-max-pending-minute": "30",
        "k8s.aliyun.com/eci-custom-hosts": r#"[{"host":"a","ip":"10.0.0.1"},{"host":"b","ip":"10.0.0.1"}]"#,
        "k8s.aliyun.com/eci-custom-dnsconfig": r#"{"nameservers":["1.1.1.1"],"searches":["x.example"]}"#,
        "k8s.aliyun.com/eci-ram-role-name": "role",
        "k8s.aliyun.com/eci-auto-imc": "true",
        "k8s.aliyun.com/eci-imc-id": "imc-1",
        "k8s.aliyun.com/acr-instance-ids": "cn-beijing:cri-1",
        "k8s.aliyun.com/plain-http-registry": "r.example:5000",
        "k8s.aliyun.com/insecure-registry": "s.example",
        "k8s.aliyun.com/eci-data-cache-bucket": "default",
        "k8s.aliyun.com/eci-data-cache-provisionedIops": "1000",
        "k8s.aliyun.com/eci-with-eip": "true",
        "k8s.aliyun.com/eip-bandwidth": "10",
        "k8s.aliyun.com/eip-isp": "BGP",
        "k8s.aliyun.com/eip-common-bandwidth-package-id": "cbwp-1",
        "k8s.aliyun.com/eci-enable-ipv6": "true",
        "k8s.aliyun.com/eci-ipv6-bandwidth-enable": "true",
        "k8s.aliyun.com/eci-private-ip-address": "10.4.0.9",
        "k8s.aliyun.com/eci-fixed-ip": "true",
        "k8s.aliyun.com/eci-fixed-ip-retain-hour": "24",
        "kubernetes.io/ingress-bandwidth": "40M",
        "kubernetes.io/egress-bandwidth": "10M",
        "k8s.aliyun.com/eci-extra-ephemeral-storage": "50Gi",
        "k8s.aliyun.com/eci-ntp-server": "10.0.0.2",
        "k8s.aliyun.com/eci-core-pattern": "/pod/cores/core"
    })
}

/// What they become on the wire.
const PARAMETERS: &[(&str, &str)] = &[
    ("SecurityGroupId", "sg-x"),
    ("ResourceGroupId", "rg-1"),
    ("ComputeCategory.2", "general"),
    ("CpuOptionsCore", "2"),
    ("CpuOptionsThreadsPerCore", "1"),
    ("GpuDriverVersion", "tesla=535"),
    ("HostAliase.1.Hostname.2", "b"),
    ("DnsPolicy", "None"),
    ("DnsConfig.NameServer.1", "1.1.1.1"),
    ("DnsConfig.Search.1", "x.example"),
    ("RamRoleName", "role"),
    ("AutoMatchImageCache", "true"),
    ("ImageSnapshotId", "imc-1"),
    ("AcrRegistryInfo.1.InstanceId", "cri-1"),
    ("AcrRegistryInfo.1.RegionId", "cn-beijing"),
    ("PlainHttpRegistry", "r.example:5000"),
    ("InsecureRegistry", "s.example"),
    ("DataCacheBucket", "default"),
    ("DataCacheProvisionedIops", "1000"),
    ("AutoCreateEip", "true"),
    ("EipBandwidth", "10"),
    ("EipISP", "BGP"),
    ("EipCommonBandwidthPackage", "cbwp-1"),
    ("Ipv6AddressCount", "1"),
    ("Ipv6GatewayBandwidthEnable", "true"),
    ("PrivateIpAddress", "10.4.0.9"),
    ("FixedIp", "true"),
    ("FixedIpRetainHour", "24"),
    ("IngressBandwidth", "40000000"),
    ("EgressBandwidth", "10000000"),
    ("EphemeralStorage", "50"),
    ("NtpServer.1", "10.0.0.2"),
    ("CorePattern", "/pod/cores/core"),
];

#[test]
fn annotations_become_parameters_of_the_interface() {
    let request = annotated(all_annotations()).unwrap();
    let parameters = cloud_api::flatten::flatten(&request).unwrap();
    for (name, value) in PARAMETERS {
        let found = parameters.iter().find(|(found, _)| found == name);
        assert_eq!(
            found.map(|(_, value)| value.as_str()),
            Some(*value),
            "{name}"
        );
    }
    assert_eq!(request.max_pending_minute, Some(30));
}

#[test]
fn an_annotation_that_cannot_be_followed_is_named() {
    let error = annotated(json!({"k8s.aliyun.com/eci-instance-family": "ecs.c6"})).unwrap_err();
    let words = "annotation k8s.aliyun.com/eci-instance-family: is not supported: ";
    assert!(
        error.to_string().starts_with(words) && !error.may_pass(),
        "{error}"
    );
}

#[test]
fn scratch_space_above_the_free_one_is_asked_for() {
    let asked = |amount: &str| {
        let spec = json!({"containers": [{"name": "web", "resources": {"requests": {"ephemeral-storage": amount}}}]});
        translate(spec, &References::default())
            .unwrap()
            .ephemeral_storage
    };
    assert_eq!(
        (asked("30Gi"), asked("30.5Gi"), asked("100Gi")),
        (None, Some(1), Some(70))
    );
}

#[test]
fn claims_become_shares_or_wait_or_are_refused() {
    let volume = |claim: &str| {
        let spec = json!({"containers": [{"name": "web"}],
            "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]});
        translate(spec, &references())
    };
    let share = |claim: &str| {
        let share = volume(claim).unwrap().volume[0].nfs_volume.clone().unwrap();
        (share.server, share.path, share.read_only)
    };
    assert_eq!(
        share("media"),
        ("nas.example".into(), "/media".into(), Some(true))
    );
    assert_eq!(
        share("shared"),
        ("cpfs.example".into(), "/share".into(), None)
    );
    for (claim, problem) in [
        ("waits", "is not bound to a volume"),
        ("none", "does not exist"),
    ] {
        let error = volume(claim).unwrap_err();
        assert!(
            error.may_pass() && error.to_string().ends_with(problem),
            "{error}"
        );
    }
    let error = volume("disk").unwrap_err();
    assert!(
        !error.may_pass() && error.to_string().contains("neither NFS, NAS"),
        "{error}"
    );
}

#[test]
fn sidecars_run_along_and_are_marked_for_the_cloud() {
    let spec = json!({
        "initContainers": [{"name": "prepare"}, {"name": "proxy", "restartPolicy": "Always"}],
        "containers": [{"name": "web", "env": [{"name": "ECI_CONTAINER_IGNORE_EXIT_CODE", "value": "true"}]}]
    });
    let request = translate(spec, &References::default()).unwrap();
    let names: Vec<_> = request
        .container
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["proxy", "web"]);
    assert_eq!(request.init_container.len(), 1);
    let variable = |container: usize, key: &str| {
        let all = &request.container[container].environment_var;
        all.iter()
            .find(|one| one.key == key)
            .and_then(|one| one.value.clone())
    };
    assert_eq!(
        variable(0, "ECI_CONTAINER_TYPE").as_deref(),
        Some("sidecar")
    );
    assert_eq!(variable(1, "ECI_CONTAINER_TYPE"), None);
    assert_eq!(
        variable(1, "ECI_CONTAINER_IGNORE_EXIT_CODE").as_deref(),
        Some("true")
    );
}

#[test]
fn every_kind_of_hook_is_passed_on() {
    let spec = json!({"containers": [
        {"name": "a", "ports": [{"name": "http", "containerPort": 8080}], "lifecycle": {
            "postStart": {"httpGet": {"path": "/start", "port": "http", "scheme": "HTTPS", "httpHeaders": [{"name": "X", "value": "1"}]}},
            "preStop": {"tcpSocket": {"port": 9000}}}},
        {"name": "b", "lifecycle": {"postStart": {"exec": {"command": ["/hello"]}}, "preStop": {"sleep": {"seconds": 3}}}}
    ]});
    let request = translate(spec, &References::default()).unwrap();
    let (a, b) = (&request.container[0], &request.container[1]);
    assert_eq!(a.lifecycle_post_start_handler_http_get_port, Some(8080));
    assert_eq!(
        a.lifecycle_post_start_handler_http_get_scheme.as_deref(),
        Some("HTTPS")
    );
    assert_eq!(
        a.lifecycle_post_start_handler_http_get_http_header[0].name,
        "X"
    );
    assert_eq!(a.lifecycle_pre_stop_handler_tcp_socket_port, Some(9000));
    assert_eq!(b.lifecycle_post_start_handler_exec, ["/hello"]);
    assert_eq!(b.lifecycle_pre_stop_handler_exec, ["sleep", "3"]);
}

#[test]
fn a_startup_probe_alone_decides_when_the_pod_is_ready() {
    let spec = json!({"containers": [{"name": "web", "startupProbe": {"tcpSocket": {"port": 80}, "successThreshold": 1}}]});
    let request = translate(spec, &References::default()).unwrap();
    assert!(request.container[0].readiness_probe.is_some());
    assert!(request.container[0].liveness_probe.is_none());
}

#[test]
fn kernel_settings_go_where_they_belong() {
    let spec = json!({"containers": [{"name": "web"}], "securityContext": {"sysctls": [
        {"name": "net.ipv4.ip_unprivileged_port_start", "value": "0"}, {"name": "net.core.somaxconn", "value": "1024"}]}});
    let request = translate(spec, &References::default()).unwrap();
    assert_eq!(
        request.security_context.unwrap().sysctl[0].value.as_deref(),
        Some("0")
    );
    assert_eq!(
        request.host_security_context.unwrap().sysctl[0].name,
        "net.core.somaxconn"
    );
}

#[test]
fn groups_without_cluster_ips_are_told_the_apis_own_address() {
    let mut settings = settings();
    settings.api_server = Some(("192.0.2.1".into(), 6443));
    settings.cluster_ip = false;
    let identity = Identity {
        cluster: "c",
        node: "n",
        node_ip: "10.10.0.101",
    };
    let request = container_group(
        &pod(json!({"containers": [{"name": "web"}]})),
        identity,
        &settings,
        &References::default(),
    )
    .unwrap();
    let host = request.container[0]
        .environment_var
        .iter()
        .find(|one| one.key == "KUBERNETES_SERVICE_HOST");
    assert_eq!(host.unwrap().value.as_deref(), Some("192.0.2.1"));
    let mut tags = request.tag.iter();
    let tag = tags.find(|tag| tag.key == "springtide/service-addresses");
    assert_eq!(tag.unwrap().value, "false");
}
