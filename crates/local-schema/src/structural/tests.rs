use super::*;
use proptest::prelude::*;
use serde_json::json;

fn widget() -> Structural {
    Structural::new(
        &json!({"type": "object", "properties": {"spec": {"type": "object", "required": ["must"], "properties": {
        "must": {"type": "string", "minLength": 2},
        "def": {"type": "integer", "default": 7},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        "tags": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "null": {"type": "string", "nullable": true}}}}}),
    )
}

#[test]
fn unknown_fields_are_pruned_and_named() {
    let decoded = widget()
        .decode(br#"{"metadata":{"name":"w","bogus":1},"spec":{"must":"ab","zz":1,"free":{"x":1},"null":null},"top":2}"#)
        .unwrap();
    assert_eq!(
        decoded.problems,
        [
            "unknown field \"spec.zz\"",
            "unknown field \"top\"",
            "unknown field \"metadata.bogus\""
        ]
    );
    assert_eq!(
        decoded.object,
        json!({"metadata": {"name": "w"}, "spec": {"must": "ab", "free": {"x": 1}, "null": null}})
    );
}

#[test]
fn defaults_fill_what_is_missing_or_null() {
    for spec in [json!({}), json!({"def": null})] {
        let mut object = json!({"spec": spec});
        widget().default(&mut object);
        assert_eq!(object, json!({"spec": {"def": 7}}));
    }
}

#[test]
fn unchanged_values_are_tolerated() {
    let old = json!({"spec": {"must": "a", "tags": ["x", "x"]}});
    let mut new = old.clone();
    new["spec"]["def"] = json!("no");
    let errors = widget().validate(&new, Some(&old));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert_eq!(widget().validate(&old, None).len(), 2);
}

fn tree() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(json!(null)),
        any::<i8>().prop_map(Value::from),
        "[a-c]{0,3}".prop_map(Value::from)
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::btree_map(
                "type|properties|items|spec|must|tags|default|anyOf|required|not|metadata",
                inner.clone(),
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
            prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

proptest! {
    #[test]
    fn no_schema_and_no_object_panic(schema in tree(), object in tree()) {
        let structural = Structural::new(&schema);
        if let Ok(mut decoded) = structural.decode_value(object) {
            structural.default(&mut decoded.object);
            let _ = structural.validate(&decoded.object, None);
        }
        let _ = validate_crd(&json!({"spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": schema}}]}}));
    }

    #[test]
    fn pruning_and_defaulting_twice_change_nothing_more(object in tree()) {
        let widget = widget();
        if let Ok(decoded) = widget.decode_value(object) {
            let mut once = decoded.object;
            widget.default(&mut once);
            let mut twice = once.clone();
            prop_assert!(widget.prune(&mut twice).is_empty());
            widget.default(&mut twice);
            prop_assert_eq!(once, twice);
        }
    }
}
