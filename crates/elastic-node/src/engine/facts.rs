//! What is written on a pod about its group, and what is read back from it. Pure.

use std::collections::BTreeMap;

use cloud_api::catalog::Catalog;
use cloud_api::model::create::CreateContainerGroupRequest;
use cloud_api::model::describe::ContainerGroup;
use elastic_core::names::{self, APPLIED_IMAGES_ANNOTATION, TOKEN_LIFE_ANNOTATION};
use elastic_core::pod_sizing::{PodSize, WantedSpec};
use elastic_core::timeline::PodMoments;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Effective;
use crate::config::VSwitch;
use crate::tokens::TokenLife;
use crate::translate;

type Annotations = BTreeMap<String, String>;

/// Event that says that an image is there.
const PULLED: &str = "Pulled";
/// Event that names the image cache.
const CACHE_HIT: &str = "SuccessfulHitImageCache";
/// Annotations that users write as wishes (their words stay), and those that are written again when a group is changed
/// in place: what is on the pod is newer than what was known at the group's creation.
const STAYING: [&str; 4] = [
    names::ECI_VSWITCH,
    names::ECI_SECURITY_GROUP,
    APPLIED_IMAGES_ANNOTATION,
    TOKEN_LIFE_ANNOTATION,
];

/// What is known when a group has been accepted.
pub(super) fn accepted(
    pod: &Pod,
    effective: &Effective,
    request: &CreateContainerGroupRequest,
    place: &VSwitch,
    request_id: &str,
    tokens: Option<TokenLife>,
) -> Annotations {
    let settings = &effective.settings;
    let mut all = Annotations::new();
    let mut put = |key: &str, value: Option<String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            all.insert(key.to_owned(), value);
        }
    };
    put(names::CLIENT_TOKEN, request.client_token.clone());
    put("ProviderCreate", Some("done".to_owned()));
    put(APPLIED_IMAGES_ANNOTATION, Some(images(pod)));
    put(TOKEN_LIFE_ANNOTATION, tokens.map(|life| life.to_string()));
    put(names::REQUEST_ID, Some(request_id.to_owned()));
    put(names::SCHEDULE_RESULT, Some("finished".to_owned()));
    put(names::INSTANCE_ZONE, Some(place.zone.clone()));
    put(names::ECI_VSWITCH, Some(place.id.clone()));
    put(names::ECI_SECURITY_GROUP, request.security_group_id.clone());
    put(names::INSTANCE_VPC, settings.vpc.clone());
    put(
        names::KUBE_PROXY_ENABLED,
        Some(settings.cluster_ip.to_string()),
    );
    put(names::POD_CLUSTER_DNS, Some(settings.cluster_dns.join(",")));
    put(
        names::POD_CLUSTER_DOMAIN,
        Some(settings.cluster_domain.clone()),
    );
    put(
        names::VK_VERSION,
        Some(format!("v{}", env!("CARGO_PKG_VERSION"))),
    );
    all.extend(size(
        &request.instance_type,
        request.cpu.zip(request.memory),
    ));
    all
}

/// What the cloud says about a group.
pub(super) fn described(group: &ContainerGroup) -> Annotations {
    let amounts = (group.cpu > 0.0).then_some((group.cpu, group.memory));
    let mut all = size(&group.instance_type, amounts);
    let mut put = |key: &str, value: Option<&String>| {
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            all.insert(key.to_owned(), value.clone());
        }
    };
    put(names::INSTANCE_ZONE, Some(&group.zone_id));
    put(names::ECI_VSWITCH, Some(&group.v_switch_id));
    put(names::ECI_SECURITY_GROUP, Some(&group.security_group_id));
    put(names::INSTANCE_VPC, Some(&group.vpc_id));
    put(names::ENI_INSTANCE_ID, group.eni_instance_id.as_ref());
    put(
        names::INSTANCE_COMPUTE_CATEGORY,
        group.compute_category.as_ref(),
    );
    put(names::ALLOCATED_EIP_ADDRESS, group.internet_ip.as_ref());
    put(names::ALLOCATED_IPV6_ADDRESS, group.ipv6_address.as_ref());
    let hit = group.events.iter().find(|event| event.reason == CACHE_HIT);
    let words = hit
        .into_iter()
        .flat_map(|event| event.message.split_whitespace());
    let cache = words
        .map(|word| word.trim_end_matches('.'))
        .find(|word| word.starts_with("imc-"));
    put(
        names::MATCHED_IMAGE_CACHE,
        cache.map(str::to_owned).as_ref(),
    );
    all
}

/// When the cloud had the last image, as far as its events tell: its times are whole seconds, so the moment is kept
/// between those that were seen here. An image that is pulled again for a later run does not count.
pub(super) fn pulled(group: &ContainerGroup, moments: &PodMoments) -> Option<Timestamp> {
    let (accepted, running) = moments.accepted.zip(moments.running)?;
    let events = group.events.iter().filter(|event| event.reason == PULLED);
    let told = events.flat_map(|event| [&event.first_timestamp, &event.last_timestamp]);
    let times = told.filter_map(|text| text.parse::<Timestamp>().ok());
    let last = times.filter(|time| *time <= running).max()?;
    Some(last.max(accepted).min(running))
}

fn size(instance_type: &Option<String>, amounts: Option<(f64, f64)>) -> Annotations {
    let mut all = Annotations::new();
    let machine = instance_type
        .as_ref()
        .filter(|machine| machine.starts_with("ecs."));
    let spec = machine
        .cloned()
        .or_else(|| amounts.map(|(vcpu, gib)| format!("{vcpu:?}-{gib:?}Gi")));
    all.extend(spec.map(|spec| (names::INSTANCE_SPEC.to_owned(), spec)));
    if let Some((vcpu, gib)) = amounts {
        all.insert(names::INSTANCE_CPU.to_owned(), format!("{vcpu:?}"));
        all.insert(names::INSTANCE_MEMORY.to_owned(), format!("{gib:?}"));
    }
    all
}

/// The size that is billed for a wish, as far as the catalog knows; the cloud rounds the same way.
pub(super) fn sold(catalog: &Catalog, wish: &WantedSpec) -> WantedSpec {
    let WantedSpec::Size(size) = wish else {
        return wish.clone();
    };
    let least = PodSize {
        cpu_milli: size.cpu_milli.max(1),
        memory_bytes: size.memory_bytes.max(1 << 20),
    };
    let found =
        cloud_api::catalog::Size::from_decimals(translate::vcpu(&least), translate::gib(&least));
    match found.and_then(|size| catalog.round_up(size)) {
        Some(sold) => WantedSpec::Size(PodSize {
            cpu_milli: i64::from(sold.vcpu_milli),
            memory_bytes: i64::from(sold.memory_mib) << 20,
        }),
        None => WantedSpec::Size(least),
    }
}

/// Those facts that are to be written.
pub(super) fn to_write(pod: &Pod, facts: &Annotations) -> Annotations {
    let written = pod.annotations();
    let differs = |(key, value): &(&String, &String)| match written.get(*key) {
        None => true,
        Some(_) if STAYING.contains(&key.as_str()) => false,
        Some(found) => found != *value,
    };
    let pairs = facts.iter().filter(differs);
    pairs
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// Whether a fact is not on the pod at all. (A fact that changed waits for the next write.)
pub(super) fn unwritten(pod: &Pod, facts: &Annotations) -> bool {
    facts.keys().any(|key| !pod.annotations().contains_key(key))
}

/// The images of a pod, by container.
pub(super) fn images(pod: &Pod) -> String {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let image = |container: &k8s_openapi::api::core::v1::Container| {
        format!(
            "{}={}",
            container.name,
            container.image.as_deref().unwrap_or_default()
        )
    };
    containers.map(image).collect::<Vec<_>>().join(",")
}

/// Whether the pod names other images than its group was made with or brought to.
pub(super) fn images_changed(pod: &Pod) -> bool {
    let applied = pod.annotations().get(APPLIED_IMAGES_ANNOTATION);
    applied.is_some_and(|applied| *applied != images(pod))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn everything_the_cloud_tells_is_noted() {
        let group: ContainerGroup = serde_json::from_value(json!({
            "ContainerGroupId": "eci-1", "ZoneId": "z", "VSwitchId": "vsw-1", "SecurityGroupId": "sg-1", "VpcId": "vpc-1",
            "EniInstanceId": "eni-1", "InternetIp": "47.0.0.1", "Ipv6Address": "fd00::1", "ComputeCategory": "economy",
            "Cpu": 2.0, "Memory": 4.0,
            "Events": [{"Reason": "SuccessfulHitImageCache", "Message": "[eci.imagecache]Successfully hit image cache imc-7."}]
        }))
        .unwrap();
        let facts = described(&group);
        let expected = [
            ("allocated-eipAddress", "47.0.0.1"),
            ("allocated-ipv6Address", "fd00::1"),
            ("eci-instance-compute-category", "economy"),
            ("eci-instance-cpu", "2.0"),
            ("eci-instance-mem", "4.0"),
            ("eci-instance-spec", "2.0-4.0Gi"),
            ("eci-instance-zone", "z"),
            ("eci-matched-image-cache", "imc-7"),
            ("eci-security-group", "sg-1"),
            ("eci-vpc", "vpc-1"),
            ("eci-vswitch", "vsw-1"),
            ("eni-instance-id", "eni-1"),
        ];
        let expected =
            expected.map(|(name, value)| (format!("k8s.aliyun.com/{name}"), value.to_owned()));
        assert_eq!(facts, expected.into());
        let machine = ContainerGroup {
            instance_type: Some("ecs.c6.large".into()),
            ..group
        };
        assert_eq!(described(&machine)[names::INSTANCE_SPEC], "ecs.c6.large");
    }

    #[test]
    fn the_moment_of_the_last_pull_lies_between_those_that_were_seen() {
        let at = |text: &str| Some(text.parse::<Timestamp>().unwrap());
        let moments = PodMoments {
            accepted: at("2026-01-01T00:00:01.9Z"),
            running: at("2026-01-01T00:00:09.5Z"),
            ..PodMoments::default()
        };
        let group = |events: &[(&str, &str, &str)]| -> ContainerGroup {
            let events = events.iter().map(|(reason, first, last)| {
                json!({"Reason": reason, "FirstTimestamp": first, "LastTimestamp": last})
            });
            serde_json::from_value(json!({"Events": events.collect::<Vec<_>>()})).unwrap()
        };
        let second = |second: u8| format!("2026-01-01T00:00:{second:02}Z");
        let (one, four, seven, late) = (second(1), second(4), second(7), second(40));
        let found = |events: &[(&str, &str, &str)]| pulled(&group(events), &moments);
        assert_eq!(found(&[("Pulled", &four, &seven)]), at(&seven));
        assert_eq!(
            found(&[("Pulled", &four, &late)]),
            at(&four),
            "a later run pulled again"
        );
        assert_eq!(found(&[("Pulled", &one, &one)]), moments.accepted);
        assert_eq!(found(&[("Pulling", &four, &four)]), None);
        assert_eq!(
            pulled(&group(&[("Pulled", &four, &four)]), &PodMoments::default()),
            None
        );
    }

    #[test]
    fn a_wish_keeps_its_words_and_a_written_fact_is_not_written_again() {
        let pod: Pod = serde_json::from_value(json!({"metadata": {"annotations": {
            "k8s.aliyun.com/eci-vswitch": "vsw-a,vsw-b", "k8s.aliyun.com/eci-instance-zone": "z"}}}))
        .unwrap();
        let facts = Annotations::from([
            (names::ECI_VSWITCH.to_owned(), "vsw-b".to_owned()),
            (names::INSTANCE_ZONE.to_owned(), "z".to_owned()),
        ]);
        assert!(to_write(&pod, &facts).is_empty() && !unwritten(&pod, &facts));
        assert_eq!(to_write(&Pod::default(), &facts), facts);
        assert!(unwritten(&Pod::default(), &facts));
    }

    #[test]
    fn a_wish_is_rounded_up_to_what_is_sold() {
        let catalog = Catalog::new(true);
        let wish = |cpu_milli: i64, memory_bytes: i64| match sold(
            &catalog,
            &WantedSpec::Size(PodSize {
                cpu_milli,
                memory_bytes,
            }),
        ) {
            WantedSpec::Size(size) => (size.cpu_milli, size.memory_bytes >> 20),
            WantedSpec::InstanceType(name) => panic!("{name}"),
        };
        assert_eq!(wish(7_000, 13 << 30), (8_000, 14 << 10));
        assert_eq!(wish(4_250, (17 << 30) / 2), (6_000, 10 << 10));
        assert_eq!(wish(1_000, 0), (1_000, 2 << 10));
        assert_eq!(wish(0, 3 << 30), (1_000, 4 << 10));
        assert_eq!(
            wish(100_000, 1 << 30),
            (100_000, 1 << 10),
            "left to the cloud to refuse"
        );
    }
}
