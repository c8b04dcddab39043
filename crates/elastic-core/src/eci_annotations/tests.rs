use proptest::prelude::*;

use super::*;

fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    let key = |name: &str| {
        if name.contains('/') {
            name.to_owned()
        } else {
            format!("k8s.aliyun.com/{name}")
        }
    };
    pairs
        .iter()
        .map(|(name, value)| (key(name), (*value).to_owned()))
        .collect()
}

fn read(pairs: &[(&str, &str)]) -> InstanceOptions {
    InstanceOptions::read(&annotations(pairs)).unwrap()
}

#[test]
fn a_pod_that_says_nothing_gets_the_defaults() {
    assert_eq!(read(&[]), InstanceOptions::default());
    assert_eq!(
        read(&[("eci-vswitch", " "), ("eci-spot-strategy", "NoSpot")]),
        InstanceOptions::default()
    );
}

#[test]
fn values_are_read_as_users_write_them() {
    let options = read(&[
        ("eci-security-group", "sg-a, sg-b"),
        ("eci-vswitch", "vsw-a,vsw-b"),
        ("eci-schedule-strategy", "VSwitchOrdered"),
        ("eci-spot-strategy", "SpotWithPriceLimit"),
        ("eci-spot-price-limit", "0.125"),
        ("eci-spot-duration", "0"),
        ("eci-spot-fallback", "true"),
        ("eci-fail-strategy", "fail-fast"),
        ("eci-max-pending-minute", "30"),
        ("eci-custom-tags", "env:test,name:alice"),
        (
            "eci-custom-hosts",
            r#"[{"host": "a.example", "ip": "10.0.0.1"}]"#,
        ),
        (
            "eci-custom-dnsconfig",
            r#"{"nameservers": ["1.1.1.1"], "options": [{"name": "ndots", "value": "2"}]}"#,
        ),
        ("eci-image-cache", "true"),
        ("eci-image-snapshot-id", "imc-1"),
        ("acr-instance-ids", "cri-a,cn-beijing:cri-b"),
        ("acr-user-arns", "arn-1,arn-2"),
        ("eci-with-eip", "true"),
        ("eip-bandwidth", "10"),
        ("kubernetes.io/ingress-bandwidth", "40M"),
        ("eci-extra-ephemeral-storage", "50.5Gi"),
        ("eci-sls-enable", "false"),
    ]);
    assert_eq!(options.security_groups.as_deref(), Some("sg-a,sg-b"));
    assert_eq!(options.strategy, ScheduleStrategy::Ordered);
    let spot = options.spot.unwrap();
    assert_eq!(
        (spot.price_limit, spot.duration_hours, spot.fallback),
        (Some(0.125), Some(0), true)
    );
    assert!(options.fail_fast);
    assert_eq!(options.tags[1], ("name".to_owned(), "alice".to_owned()));
    assert_eq!(options.hosts[0].host, "a.example");
    assert_eq!(
        options.dns.unwrap().options,
        [("ndots".to_owned(), Some("2".to_owned()))]
    );
    assert_eq!(
        (options.auto_image_cache, options.image_cache.as_deref()),
        (Some(true), Some("imc-1"))
    );
    assert_eq!(options.acr[1].region.as_deref(), Some("cn-beijing"));
    assert_eq!(options.acr[1].user_arn.as_deref(), Some("arn-2"));
    assert_eq!(options.eip.bandwidth, Some(10));
    assert_eq!(options.ingress_bandwidth, Some(40_000_000));
    assert_eq!(options.extra_ephemeral_gib, Some(51));
}

#[test]
fn the_legacy_ways_to_fail_mean_the_same() {
    assert!(read(&[("pod-fail-on-create-err", "true")]).fail_fast);
    assert!(read(&[("eci-reschedule-enable", "false")]).fail_fast);
    assert!(!read(&[("eci-reschedule-enable", "true")]).fail_fast);
    let newer = [
        ("pod-fail-on-create-err", "true"),
        ("eci-fail-strategy", "fail-back"),
    ];
    assert!(!read(&newer).fail_fast);
}

/// Key, value, and how the cause begins.
const WRONG: &[(&str, &str, &str)] = &[
    (
        "eci-schedule-strategy",
        "Best",
        "\"Best\" is not one of VSwitchOrdered, VSwitchRandom",
    ),
    (
        "eci-vswitch",
        "1,2,3,4,5,6,7,8,9,10,11",
        "at most 10 may be listed, found 11",
    ),
    (
        "eci-security-group",
        "vsw-1",
        "\"vsw-1\" is no id; expected sg-",
    ),
    (
        "eci-spot-strategy",
        "SpotWithPriceLimit",
        "is needed with SpotWithPriceLimit",
    ),
    (
        "eci-spot-price-limit",
        "1",
        "is for SpotWithPriceLimit only",
    ),
    (
        "eci-spot-duration",
        "-1",
        "\"-1\" is not a whole number from 0",
    ),
    (
        "eci-fail-strategy",
        "fail",
        "\"fail\" is not one of fail-back",
    ),
    (
        "eci-max-pending-minute",
        "9",
        "\"9\" is not a whole number from 10 to 1440",
    ),
    (
        "eci-custom-tags",
        "a:1,b:2,c:3,d:4",
        "at most 3 may be listed, found 4",
    ),
    ("eci-custom-tags", "alone", "\"alone\" is not <key>:<value>"),
    ("eci-custom-hosts", "{}", "is not a JSON array"),
    (
        "eci-custom-hosts",
        r#"[{"host":"a","ip":"b"}]"#,
        "\"b\" is no address",
    ),
    ("eci-custom-dnsconfig", "[1]", "is not a JSON object"),
    (
        "eci-compute-category",
        "cheap",
        "\"cheap\" is not one of economy",
    ),
    (
        "eci-private-ip-address",
        "10.0.0",
        "\"10.0.0\" is no address",
    ),
    (
        "eci-extra-ephemeral-storage",
        "much",
        "\"much\" is not an amount",
    ),
    ("eci-core-pattern", "|sh", "must not start with a pipe"),
    ("eip-isp", "ISP", "\"ISP\" is not one of BGP"),
    (
        "kubernetes.io/egress-bandwidth",
        "-1M",
        "\"-1M\" is not a bandwidth",
    ),
];

#[test]
fn what_cannot_be_followed_is_refused_by_name() {
    for (name, value, expected) in WRONG {
        let problems = InstanceOptions::read(&annotations(&[(*name, *value)])).unwrap_err();
        let named = problems
            .iter()
            .any(|problem| problem.cause.starts_with(*expected));
        assert!(named, "{name}={value}: {problems:?}");
    }
    for (name, _) in REFUSED {
        let problems = InstanceOptions::read(&annotations(&[(name, "x")])).unwrap_err();
        assert_eq!(problems[0].key, format!("k8s.aliyun.com/{name}"));
        assert!(problems[0].cause.starts_with("is not supported: "));
    }
    let both = [
        ("eci-spot-strategy", "SpotAsPriceGo"),
        ("eci-compute-category", "economy"),
    ];
    assert!(InstanceOptions::read(&annotations(&both)).is_err());
}

#[test]
fn a_misspelt_annotation_is_noticed() {
    let pod = annotations(&[
        ("eci-use-spec", "2-4Gi"),
        ("eci-use-specs", "2-4Gi"),
        ("eci-instance-id", "x"),
        ("other", "y"),
    ]);
    assert_eq!(unknown(&pod), ["eci-use-spec"]);
}

proptest! {
    #[test]
    fn no_value_panics_and_every_annotation_is_either_taken_or_named(
        index in 0usize..HONOURED.len(), value in "\\PC{0,40}"
    ) {
        let name = HONOURED[index];
        let pod = annotations(&[(name, &value)]);
        if let Err(problems) = InstanceOptions::read(&pod) {
            prop_assert!(problems.iter().all(|problem| problem.key.contains('/') && !problem.cause.is_empty()));
        }
        prop_assert!(unknown(&pod).is_empty());
    }
}
