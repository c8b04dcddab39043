use super::*;
use crate::catalog::type_of;
use proptest::prelude::*;

fn actor(manager: &str) -> Actor<'_> {
    Actor {
        manager,
        api_version: "v1",
        subresource: "",
        now: Timestamp::from_second(1_800_000_000).unwrap(),
    }
}

fn config_map() -> TypeRef {
    type_of("", "v1", "ConfigMap").unwrap()
}

fn object(data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}, "data": data})
}

fn owned(object: &Value, manager: &str) -> Value {
    let entries = object["metadata"]["managedFields"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    entries
        .iter()
        .find(|entry| entry["manager"] == manager)
        .map_or(Value::Null, |entry| entry["fieldsV1"].clone())
}

#[test]
fn a_create_owns_what_it_wrote() {
    let mut new = object(json!({"a": "1"}));
    update(&config_map(), None, &mut new, &actor("me"), &[]);
    assert_eq!(owned(&new, "me"), json!({"f:data": {".": {}, "f:a": {}}}));
}

#[test]
fn an_update_takes_changed_fields_from_their_owner() {
    let mut live = object(json!({"a": "1", "b": "2"}));
    update(&config_map(), None, &mut live, &actor("one"), &[]);
    let mut new = object(json!({"a": "9"}));
    update(&config_map(), Some(&live), &mut new, &actor("two"), &[]);
    assert_eq!(
        owned(&new, "one"),
        json!({"f:data": {".": {}}})
            .as_object()
            .map(|_| json!({"f:data": {}}))
            .unwrap()
    );
    assert_eq!(owned(&new, "two"), json!({"f:data": {"f:a": {}}}));
}

#[test]
fn forgotten_managers_stay_forgotten_until_the_next_apply() {
    let mut live = object(json!({"a": "1"}));
    update(&config_map(), None, &mut live, &actor("one"), &[]);
    let mut new = live.clone();
    new["metadata"]["managedFields"] = json!([{}]);
    update(&config_map(), Some(&live), &mut new, &actor("one"), &[]);
    assert!(new["metadata"].get("managedFields").is_none());
    let mut next = object(json!({"a": "2"}));
    update(&config_map(), Some(&new), &mut next, &actor("one"), &[]);
    assert!(next["metadata"].get("managedFields").is_none());
    let applied = apply(
        &config_map(),
        Some(&next),
        &object(json!({"b": "1"})),
        &actor("two"),
        ApplyOptions::default(),
    )
    .unwrap();
    assert_eq!(
        owned(&applied.object, "before-first-apply"),
        json!({"f:data": {".": {}, "f:a": {}}})
    );
}

#[test]
fn equal_writes_keep_their_timestamps() {
    let mut live = object(json!({"a": "1"}));
    update(&config_map(), None, &mut live, &actor("one"), &[]);
    let mut new = live.clone();
    new["metadata"]["managedFields"][0]["time"] = json!("2030-01-01T00:00:00Z");
    keep_timestamps(&live, &mut new);
    assert_eq!(live, new);
}

#[test]
fn objects_of_unknown_types_are_tracked_by_their_form() {
    let mut new = json!({"apiVersion": "x/v1", "kind": "X", "metadata": {"name": "x"}, "spec": {"list": [1], "map": {"k": 1}}});
    update(&TypeRef::deduced(), None, &mut new, &actor("me"), &[]);
    assert_eq!(
        owned(&new, "me"),
        json!({"f:spec": {".": {}, "f:list": {}, "f:map": {".": {}, "f:k": {}}}})
    );
}

#[test]
fn an_apply_of_another_kind_or_version_is_refused() {
    let mut config = object(json!({}));
    config["kind"] = json!("Secret");
    let live = object(json!({}));
    let error = apply(
        &config_map(),
        Some(&live),
        &config,
        &actor("a"),
        ApplyOptions::default(),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "invalid object type: /v1, Kind=Secret");
    config["apiVersion"] = Value::Null;
    let error = apply(
        &config_map(),
        None,
        &config,
        &actor("a"),
        ApplyOptions::default(),
    )
    .unwrap_err();
    assert_eq!(error.to_string(), "invalid object type: /, Kind=Secret");
}

#[test]
fn scaling_is_owned_without_a_time() {
    let kind = type_of("apps", "v1", "Deployment").unwrap();
    let live = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"managedFields": [{"manager": "m",
        "operation": "Update", "apiVersion": "apps/v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {"f:replicas": {}}}}]},
        "spec": {"replicas": 1}});
    let mut new = live.clone();
    new["spec"]["replicas"] = json!(2);
    let scaler = Actor {
        manager: "hpa",
        api_version: "apps/v1",
        subresource: "scale",
        ..actor("hpa")
    };
    update(&kind, Some(&live), &mut new, &scaler, &[]);
    assert_eq!(owned(&new, "hpa"), json!({"f:spec": {"f:replicas": {}}}));
    assert!(owned(&new, "m").is_null());
    assert!(new["metadata"]["managedFields"][0].get("time").is_none());
}

#[test]
fn too_many_writers_are_folded() {
    let kind = config_map();
    let mut live = object(json!({}));
    for index in 0..14 {
        let mut new = live.clone();
        new["data"][format!("k{index}")] = json!("x");
        let name = format!("m{index:02}");
        let stored = (index > 0).then(|| live.clone());
        update(&kind, stored.as_ref(), &mut new, &actor(&name), &[]);
        live = new;
    }
    assert_eq!(
        live["metadata"]["managedFields"].as_array().unwrap().len(),
        10
    );
    assert!(
        owned(&live, "ancient-changes")["f:data"]
            .get("f:k0")
            .is_some()
    );
}

fn data() -> impl Strategy<Value = Value> {
    prop::collection::btree_map("[a-d]", "[xy]", 0..4).prop_map(|map| json!(map))
}

proptest! {
    #[test]
    fn applying_twice_changes_nothing(first in data(), second in data()) {
        let kind = config_map();
        let mut live = object(first);
        update(&kind, None, &mut live, &actor("one"), &[]);
        let options = ApplyOptions { force: true, ..ApplyOptions::default() };
        let config = object(second);
        let once = apply(&kind, Some(&live), &config, &actor("two"), options).unwrap().object;
        let twice = apply(&kind, Some(&once), &config, &actor("two"), options).unwrap();
        prop_assert!(!twice.changed);
        prop_assert_eq!(&once, &twice.object);
    }

    #[test]
    fn what_was_applied_stands_in_the_object_and_is_owned(first in data(), second in data(), third in data()) {
        let kind = config_map();
        let options = ApplyOptions { force: true, ..ApplyOptions::default() };
        let mut live = None;
        for (manager, config) in [("a", &first), ("b", &second), ("a", &third)] {
            let applied = apply(&kind, live.as_ref(), &object(config.clone()), &actor(manager), options).unwrap().object;
            for (key, value) in config.as_object().unwrap() {
                prop_assert_eq!(&applied["data"][key], value);
                let path = format!("f:{key}");
                prop_assert!(owned(&applied, manager)["f:data"].get(&path).is_some());
            }
            live = Some(applied);
        }
        // Only appliers wrote here: every field that is left has an owner.
        let live = live.unwrap();
        for key in live["data"].as_object().into_iter().flatten().map(|(key, _)| key) {
            let path = format!("f:{key}");
            prop_assert!(["a", "b"].iter().any(|one| owned(&live, one)["f:data"].get(&path).is_some()));
        }
    }

    #[test]
    fn no_stored_entry_panics(fields in "[fkv.]:[a-c{}\"]{0,6}", data in data()) {
        let mut live = object(data.clone());
        live["metadata"]["managedFields"] = json!([{"manager": "m", "operation": "Update", "apiVersion": "v1",
            "fieldsType": "FieldsV1", "fieldsV1": {fields: {}}}]);
        let mut new = object(data);
        update(&config_map(), Some(&live), &mut new, &actor("x"), &[]);
        let _ = apply(&config_map(), Some(&live), &new, &actor("y"), ApplyOptions::default());
    }
}
