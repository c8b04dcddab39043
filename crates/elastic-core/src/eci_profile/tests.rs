use proptest::prelude::*;
use serde_json::json;

use super::*;

fn data(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

fn problems(pairs: &[(&str, &str)]) -> Vec<String> {
    let problems = EciProfile::parse(&data(pairs)).unwrap_err();
    problems.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_profile_is_the_default() {
    assert_eq!(EciProfile::parse(&data(&[])), Ok(EciProfile::default()));
    let blank = data(&[("vpcId", ""), ("selectors", " "), ("enableClusterIp", "")]);
    assert_eq!(EciProfile::parse(&blank), Ok(EciProfile::default()));
}

#[test]
fn every_documented_key_is_read() {
    let profile = EciProfile::parse(&data(&[
        ("vpcId", "vpc-1"),
        ("vSwitchIds", "vsw-a, vsw-b"),
        ("vSwitchZones", "vsw-b=cn-hangzhou-i"),
        ("securityGroupId", "sg-1"),
        ("resourceGroupId", "rg-1"),
        ("enableClusterIp", "false"),
        ("enableHybridMode", "true"),
        ("enableLinuxArm64Node", "true"),
        ("enableLogController", "true"),
        ("slsMachineGroup", "group"),
        ("enablePVCController", "false"),
        ("enablePrivateZone", "true"),
        ("enableReuseSSLKey", "false"),
        ("featureGates", "WaitForFirstConsumer=false,New=true"),
        (
            "selectors",
            r#"[{"name": "a", "effect": {"labels": {"via": "profile"}}}]"#,
        ),
        ("unheard", "of"),
    ]))
    .unwrap();
    assert_eq!(profile.v_switch_ids, ["vsw-a", "vsw-b"]);
    assert_eq!(profile.v_switch_zones["vsw-b"], "cn-hangzhou-i");
    assert!(!profile.enable_cluster_ip && profile.enable_linux_arm64_node);
    assert!(profile.enable_private_zone);
    assert_eq!(profile.selectors[0].effect.labels["via"], "profile");
    let noted: Vec<_> = profile.notes.iter().map(|note| note.key.as_str()).collect();
    assert_eq!(
        noted,
        [
            "enableHybridMode",
            "enableLogController",
            "unheard",
            "featureGates"
        ]
    );
}

/// Key, value, and how the cause begins.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "vpcId",
        "net-1",
        "vpcId: \"net-1\" is no id; expected vpc- with letters",
    ),
    ("vSwitchIds", "vsw-a,,vsw-b", "vSwitchIds: \"\" is no id"),
    (
        "vSwitchIds",
        "vsw-a,vsw-a",
        "vSwitchIds: vsw-a is listed twice",
    ),
    (
        "securityGroupId",
        "vsw-a",
        "securityGroupId: \"vsw-a\" is no id",
    ),
    (
        "enableClusterIp",
        "yes",
        "enableClusterIp: \"yes\" is neither \"true\" nor \"false\"",
    ),
    (
        "enableHybridMode",
        "1",
        "enableHybridMode: \"1\" is neither",
    ),
    ("enableLogController", "true", "slsMachineGroup: is needed"),
    (
        "featureGates",
        "A=maybe",
        "featureGates: \"maybe\" of gate A is neither",
    ),
    (
        "vSwitchZones",
        "vsw-a",
        "vSwitchZones: \"vsw-a\" is not <vSwitch>=<zone>",
    ),
    (
        "selectors",
        "[{",
        "selectors: is not a JSON array of selectors (EOF",
    ),
    (
        "selectors",
        "{}",
        "selectors: is not a JSON array of selectors",
    ),
    ("selectors", "[{}]", "selectors[0].name: is missing"),
    (
        "selectors",
        r#"[{"name":"a","labels":{}}]"#,
        "selectors[0]: unknown field `labels`",
    ),
    (
        "selectors",
        r#"[{"name":"a"},{"name":"a"}]"#,
        "selectors[1].name: \"a\" is the name of an earlier",
    ),
    (
        "selectors",
        r#"[{"name":"a","effect":{"labels":{"x":1}}}]"#,
        "selectors[0]: invalid type: integer",
    ),
    (
        "selectors",
        r#"[{"name":"a","objectSelector":{"matchLabel":{}}}]"#,
        "selectors[0].objectSelector.matchLabel: is not a member",
    ),
    (
        "selectors",
        r#"[{"name":"a","policy":"sometimes"}]"#,
        "selectors[0].policy: \"sometimes\" is not one of",
    ),
    (
        "selectors",
        r#"[{"name":"a","namespaceSelector":{"matchExpressions":[{"key":"k","operator":"Like"}]}}]"#,
        "selectors[0].namespaceSelector.matchExpressions[0].operator: \"Like\" is not one of",
    ),
];

#[test]
fn each_bad_value_is_told_with_its_key_and_cause() {
    for (key, value, expected) in WRONG {
        let found = problems(&[(*key, *value)]);
        assert!(
            found.len() == 1 && found[0].starts_with(*expected),
            "{key}={value}: {found:?}"
        );
    }
    let many: Vec<String> = (0..11).map(|number| format!("vsw-{number}")).collect();
    assert_eq!(
        problems(&[("vSwitchIds", &many.join(",")), ("vpcId", "x")]).len(),
        2
    );
}

#[test]
fn the_environment_fills_what_the_profile_leaves_open() {
    let variables = data(&[
        ("ECI_REGION", "cn-hangzhou"),
        ("ECI_VSWITCH", "vsw-e"),
        ("ECI_SECURITY_GROUP", "sg-e"),
        ("ECI_KUBE_PROXY", "false"),
        ("ALIYUN_CLUSTERID", "c-1"),
        ("KUBERNETES_APISERVER_HOST", "10.0.0.1"),
        ("ECI_QUOTA_CPU", "1000"),
        ("ECI_QUOTA_MEMORY", "4Ti"),
        ("ECI_QUOTA_POD", "1000"),
        ("KUBELET_PORT", "10251"),
        ("PATH", "/bin"),
    ]);
    let environment = Environment::parse(&variables).unwrap();
    assert_eq!(environment.api_server, Some(("10.0.0.1".to_owned(), 6443)));
    assert_eq!(environment.quota.pods, Some(1_000));
    let written = data(&[("securityGroupId", "sg-w")]);
    let profile = EciProfile::parse_over(&written, &environment.profile).unwrap();
    assert_eq!(profile.v_switch_ids, ["vsw-e"]);
    assert_eq!(profile.security_group_id.as_deref(), Some("sg-w"));
    assert!(!profile.enable_cluster_ip);
    let bad = BTreeMap::from([(
        "vSwitchIds".to_owned(),
        ("ECI_VSWITCH".to_owned(), "x".to_owned()),
    )]);
    let problems = EciProfile::parse_over(&written, &bad).unwrap_err();
    assert_eq!(problems[0].key, "ECI_VSWITCH");
    let bad = Environment::parse(&data(&[("ECI_QUOTA_POD", "-1"), ("ECI_QUOTA_CPU", "lots")]));
    assert_eq!(bad.unwrap_err().len(), 2);
}

fn profile(selectors: serde_json::Value) -> EciProfile {
    EciProfile::parse(&data(&[("selectors", &selectors.to_string())])).unwrap()
}

#[test]
fn both_selectors_must_match_and_the_first_rule_decides() {
    let profile = profile(json!([
        {"name": "everywhere", "effect": {"labels": {"seen": "yes"}}},
        {"name": "both", "namespaceSelector": {"matchLabels": {"burst": "on"}},
         "objectSelector": {"matchLabels": {"tier": "web", "lane": "a"}}, "policy": {"normalNodePrefer": {}}},
        {"name": "namespace", "namespaceSelector": {"matchExpressions": [{"key": "burst", "operator": "Exists"}]}}
    ]));
    let name = |pod: &[(&str, &str)], namespace: &[(&str, &str)]| {
        let found = profile.routing_selector(&data(pod), &data(namespace));
        found.map(|selector| (selector.name.clone(), selector.policy))
    };
    let web = [("tier", "web"), ("lane", "a")];
    assert_eq!(
        name(&web, &[("burst", "on")]),
        Some(("both".to_owned(), Policy::NormalNodePrefer))
    );
    assert_eq!(
        name(&web[..1], &[("burst", "on")]),
        Some(("namespace".to_owned(), Policy::VirtualNodeOnly))
    );
    assert_eq!(name(&web, &[]), None);
}

#[test]
fn effects_add_up_in_order_and_never_overwrite() {
    let profile = profile(json!([
        {"name": "one", "objectSelector": {"matchLabels": {"tier": "web"}},
         "effect": {"annotations": {"size": "first", "own": "effect"}}},
        {"name": "two", "effect": {"annotations": {"size": "second", "more": "yes"}, "labels": {"via": "profile"}}},
        {"name": "kept-away", "objectSelector": {"matchLabels": {"tier": "web"}}, "policy": "normalNodeOnly",
         "effect": {"labels": {"never": "seen"}}}
    ]));
    let own = data(&[("own", "pod")]);
    let effect = profile.effect_for(&data(&[("tier", "web")]), &own, &data(&[]));
    assert_eq!(
        effect.annotations,
        data(&[("size", "first"), ("more", "yes")])
    );
    assert_eq!(effect.labels, data(&[("via", "profile")]));
    let other = profile.effect_for(&data(&[("tier", "db")]), &own, &data(&[]));
    assert_eq!(
        other.annotations,
        data(&[("size", "second"), ("more", "yes")])
    );
}

proptest! {
    #[test]
    fn no_text_panics_and_a_refusal_always_names_a_key(value in "\\PC{0,60}", index in 0usize..8) {
        let keys = ["vpcId", "vSwitchIds", "selectors", "enableClusterIp", "featureGates", "vSwitchZones", "slsMachineGroup", "x"];
        match EciProfile::parse(&data(&[(keys[index], &value)])) {
            Ok(_) => {}
            Err(problems) => prop_assert!(problems.iter().all(|problem| !problem.key.is_empty() && !problem.cause.is_empty())),
        }
    }

    #[test]
    fn an_effect_never_touches_what_the_pod_says(
        own in proptest::collection::btree_map("[a-d]", "[a-z]", 0..4),
        first in proptest::collection::btree_map("[a-d]", "[a-z]", 0..4),
        second in proptest::collection::btree_map("[a-d]", "[a-z]", 0..4),
    ) {
        let profile = profile(json!([
            {"name": "1", "effect": {"annotations": first}}, {"name": "2", "effect": {"annotations": second}}
        ]));
        let effect = profile.effect_for(&data(&[]), &own, &data(&[])).annotations;
        for (key, value) in &effect {
            prop_assert!(!own.contains_key(key));
            prop_assert_eq!(Some(value), first.get(key).or_else(|| second.get(key)));
        }
        for key in first.keys().chain(second.keys()) {
            prop_assert!(own.contains_key(key) || effect.contains_key(key));
        }
    }
}
