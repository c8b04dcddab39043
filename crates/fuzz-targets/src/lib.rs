//! One function per parser that reads what strangers write: bytes in, no panic out, and where there is a way back, the
//! same thing again. `fuzz/` lets a coverage-guided fuzzer call them; the tests here play a small corpus and a bounded
//! number of changed ones on every build. Parsers that no crate shows to others have their property tests beside them.

use std::collections::BTreeMap;

use bytes::BytesMut;
use cloud_api::encoding::{encode_pairs, parse_form};
use cloud_api::model::create::CreateContainerGroupRequest;
use cloud_api::signature::v3;
use cloud_api::unflatten::unflatten;
use elastic_core::cron::Schedule;
use elastic_core::eci_annotations::{self, InstanceOptions};
use elastic_core::eci_profile::EciProfile;
use elastic_core::{pod_sizing, quantity};
use elastic_metrics::AdapterConfig;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::api::core::v1::PodSpec;
use kubelet_api::spdy::Decoder;
use local_schema::{PatchKind, patch};
use serde_json::{Value, json};

/// A target by its name, which is also that of its corpus and of its file in `fuzz/`.
pub type Target = (&'static str, fn(&[u8]));

/// All targets.
pub const TARGETS: &[Target] = &[
    ("adapter_config", adapter_config),
    ("annotations", annotations),
    ("cloud_call", cloud_call),
    ("cloud_signature", cloud_signature),
    ("cron", cron),
    ("eci_profile", eci_profile),
    ("patch", patches),
    ("quantity", quantities),
    ("spdy", spdy),
];

/// Longest interesting input of the targets whose work grows with it.
const LONGEST_TEXT: usize = 4_096;

fn text(data: &[u8]) -> Option<&str> {
    std::str::from_utf8(data)
        .ok()
        .filter(|text| text.len() <= LONGEST_TEXT)
}

/// Lines of `key=value`.
fn lines(data: &[u8]) -> Option<BTreeMap<String, String>> {
    let lines = text(data)?.lines();
    let pairs = lines.filter_map(|line| line.split_once('='));
    Some(
        pairs
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect(),
    )
}

/// A configuration file of prometheus-adapter, with its templates and regular expressions.
pub fn adapter_config(data: &[u8]) {
    let Some(text) = text(data) else { return };
    // The reason of a refusal is shown to people, so it must be showable.
    if let Err(error) = AdapterConfig::parse(text) {
        assert!(!error.to_string().is_empty());
    }
}

/// Annotations of a pod, `name=value` line by line.
pub fn annotations(data: &[u8]) {
    let Some(found) = lines(data) else { return };
    let prefixed: BTreeMap<String, String> = found
        .into_iter()
        .map(|(name, value)| (format!("k8s.aliyun.com/{name}"), value))
        .collect();
    if let Err(problems) = InstanceOptions::read(&prefixed) {
        assert!(!problems.is_empty());
    }
    let unknown = eci_annotations::unknown(&prefixed);
    assert!(unknown.len() <= prefixed.len());
    if let Ok(sizes) = pod_sizing::wanted_specs(&PodSpec::default(), Some(&prefixed)) {
        assert!(!sizes.is_empty(), "there is always a size to try");
    }
}

/// The parameters of a call of the cloud, as query or form.
pub fn cloud_call(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let Ok(pairs) = parse_form(text) else { return };
    let borrowed = || pairs.iter().map(|(name, value)| (&**name, &**value));
    let again = parse_form(&encode_pairs(borrowed()));
    assert_eq!(again.as_ref().ok(), Some(&pairs), "written and read again");
    if let Err(error) = unflatten::<CreateContainerGroupRequest>(borrowed()) {
        assert!(!error.to_string().is_empty());
    }
}

/// The header of a version 3 signature.
pub fn cloud_signature(data: &[u8]) {
    let Some(text) = text(data) else { return };
    if let Ok(header) = v3::Authorization::parse(text) {
        assert!(!header.signed_headers.is_empty());
    }
}

/// A cron expression, and when it is due.
pub fn cron(data: &[u8]) {
    let Some(schedule) = text(data).and_then(|text| Schedule::parse(text).ok()) else {
        return;
    };
    // A leap day, just before midnight.
    let Ok(now) = "2028-02-29T23:59:58Z".parse::<Timestamp>() else {
        return;
    };
    if let Some(next) = schedule.next_after(now, &TimeZone::UTC, Timestamp::UNIX_EPOCH) {
        assert!(next > now, "the next activation is later");
        let last = schedule.last_until(next, &TimeZone::UTC, Timestamp::UNIX_EPOCH);
        assert_eq!(last, Some(next), "an activation is its own last one");
    }
}

/// The ConfigMap `eci-profile`, `key=value` line by line.
pub fn eci_profile(data: &[u8]) {
    let Some(found) = lines(data) else { return };
    match EciProfile::parse(&found) {
        Ok(profile) => {
            assert!(profile.v_switch_ids.len() <= elastic_core::eci_profile::MAX_V_SWITCHES)
        }
        Err(problems) => assert!(!problems.is_empty()),
    }
}

/// A patch of a Deployment: the first byte says of which kind.
pub fn patches(data: &[u8]) {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let Some(deployment) = local_schema::type_of("apps", "v1", "Deployment") else {
        return;
    };
    let kind = match kind % 3 {
        0 => PatchKind::Json,
        1 => PatchKind::Merge,
        _ => PatchKind::Strategic,
    };
    if let Ok(patched) = patch::patch(kind, object(), body, &deployment) {
        assert!(patched.object.is_object(), "an object stays one");
    }
}

fn object() -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {"containers": [
                    {"name": "web", "image": "shop:1", "ports": [{"containerPort": 80}], "env": [{"name": "A", "value": "1"}]},
                    {"name": "log", "image": "log:1"}
                ]}
            }
        }
    })
}

/// A quantity such as `250m`.
pub fn quantities(data: &[u8]) {
    let Some(text) = text(data) else { return };
    let (nanos, millis) = (quantity::nanos(text), quantity::millis(text));
    if let (Ok(nanos), Ok(millis)) = (nanos, millis) {
        let up = i128::from(millis) * 1_000_000;
        assert!(up >= nanos, "rounded up, never down");
        assert!(up - nanos < 1_000_000, "by less than one");
    }
    // The API server's own reading of it; what it makes of odd ones is its business, as long as it says so.
    if let Err(error) = local_schema::Quantity::parse(text) {
        assert!(!error.to_string().is_empty());
    }
}

/// Bytes of a SPDY/3.1 peer, in pieces as a network brings them: the first byte says how long.
pub fn spdy(data: &[u8]) {
    let Some((length, stream)) = data.split_first() else {
        return;
    };
    let mut decoder = Decoder::default();
    let mut arrived = BytesMut::new();
    for piece in stream.chunks(usize::from(*length).max(1)) {
        arrived.extend_from_slice(piece);
        loop {
            let before = arrived.len();
            match decoder.decode(&mut arrived) {
                // A frame without bytes of its own may only end one that had some.
                Ok(Some(_)) if arrived.len() <= before => {}
                Ok(Some(_)) => unreachable!("decoding takes bytes away"),
                Ok(None) => break,
                Err(_) => return,
            }
        }
    }
}
