//! What holds for every kind, tried on recorded bodies from which parts were taken away.

use jiff::Timestamp;
use local_schema::decode::decode_value;
use local_schema::type_of;
use proptest::prelude::*;
use serde_json::Value;

use crate::golden::{exchanges, scenarios};
use crate::replay::Target;

/// Every recorded body of a create that was accepted.
fn bodies() -> Vec<(Target, Value)> {
    let mut all = Vec::new();
    for scenario in scenarios("kinds") {
        for exchange in exchanges(&scenario) {
            if exchange.method != "POST" || exchange.status != 201 {
                continue;
            }
            if let Some(target) = Target::parse(&exchange.path) {
                all.push((target, exchange.request));
            }
        }
    }
    all
}

/// The body as its kind, completed with defaults.
fn defaulted(target: &Target, body: &Value) -> Option<Value> {
    let kind = type_of(target.row.group, &target.version, target.row.kind)?;
    let mut object = decode_value(body.clone(), &kind).ok()?.object;
    target.row.rules.default(&target.version, &mut object);
    Some(object)
}

/// Takes away the subtree that the choices lead to.
fn take_away(tree: &mut Value, choices: &[usize]) {
    let Some((first, rest)) = choices.split_first() else {
        return;
    };
    match tree {
        Value::Object(map) if !map.is_empty() => {
            let key = map.keys().nth(first % map.len()).unwrap().clone();
            if rest.is_empty() {
                map.remove(&key);
            } else {
                take_away(&mut map[&key], rest);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let position = first % items.len();
            if rest.is_empty() {
                items.remove(position);
            } else {
                take_away(&mut items[position], rest);
            }
        }
        _ => {}
    }
}

#[test]
fn defaulting_twice_changes_nothing_more() {
    for (target, body) in bodies() {
        let Some(once) = defaulted(&target, &body) else {
            continue;
        };
        let mut twice = once.clone();
        target.row.rules.default(&target.version, &mut twice);
        assert_eq!(once, twice, "{:?}", target.row);
    }
}

#[test]
fn an_accepted_object_may_be_written_back_unchanged() {
    for (target, body) in bodies() {
        let Some(mut object) = defaulted(&target, &body) else {
            continue;
        };
        let rules = target.row.rules;
        rules.to_storage(&target.version, &mut object);
        object["metadata"]["namespace"] = body["metadata"]["namespace"].clone();
        rules.prepare_for_create(&mut object);
        if !rules.validate_create(&object).is_empty() {
            continue;
        }
        let mut again = object.clone();
        rules.prepare_for_update(&mut again, &object);
        let errors = rules.validate_update(&again, &object);
        assert!(errors.is_empty(), "{:?}: {errors:?}", target.row);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn no_part_that_is_missing_breaks_a_rule(pick in 0_usize..10_000, cuts in prop::collection::vec(prop::collection::vec(0_usize..50, 1..9), 0..4)) {
        static BODIES: std::sync::LazyLock<Vec<(Target, Value)>> = std::sync::LazyLock::new(bodies);
        let (target, body) = &BODIES[pick % BODIES.len()];
        let mut body = body.clone();
        for cut in &cuts {
            take_away(&mut body, cut);
        }
        let Some(mut object) = defaulted(target, &body) else { return Ok(()) };
        let rules = target.row.rules;
        rules.to_storage(&target.version, &mut object);
        rules.prepare_for_create(&mut object);
        rules.validate_create(&object);
        rules.warnings(&object, None);
        prop_assert_eq!(rules.cells(&object, Timestamp::UNIX_EPOCH).len(), rules.columns().len());
        for field in rules.selectable_fields() {
            rules.selectable_field(&object, field);
        }
        let mut shown = object.clone();
        rules.to_version(&target.version, &mut shown);
        let mut next = object.clone();
        for cut in &cuts {
            take_away(&mut next, cut);
        }
        rules.prepare_for_update(&mut next, &object);
        rules.validate_update(&next, &object);
        rules.prepare_for_status_update(&mut next, &object);
        rules.validate_status_update(&next, &object);
        rules.grace_period_seconds(&object, None);
    }
}
