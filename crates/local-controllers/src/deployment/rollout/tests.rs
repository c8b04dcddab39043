//! Tables of sets with the sizes that must come next.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn set(name: &str, size: i32, available: i32, max: i32) -> Arc<ReplicaSet> {
    Arc::new(
        serde_json::from_value(json!({
            "metadata": {"name": name, "generation": 1, "creationTimestamp": format!("2026-11-21T11:00:0{}Z", name.len()),
                "annotations": {"deployment.kubernetes.io/max-replicas": max.to_string(),
                    "deployment.kubernetes.io/revision": name.len().to_string()}},
            "spec": {"replicas": size, "selector": {}},
            "status": {"replicas": size, "availableReplicas": available, "observedGeneration": 1},
        }))
        .unwrap(),
    )
}

fn bounds(replicas: i32, surge: i32, unavailable: i32) -> Bounds {
    Bounds {
        replicas,
        surge,
        unavailable,
        is_rolling: true,
    }
}

fn sizes(resizes: &[Resize]) -> Vec<(String, i32)> {
    resizes
        .iter()
        .map(|resize| (name(&resize.set.metadata).to_owned(), resize.to))
        .collect()
}

fn named(pairs: &[(&str, i32)]) -> Vec<(String, i32)> {
    pairs
        .iter()
        .map(|(name, to)| ((*name).to_owned(), *to))
        .collect()
}

#[test]
fn percentages_round_surge_up_and_unavailability_down() {
    for (replicas, surge, unavailable) in [(3, 1, 0), (4, 1, 1), (10, 3, 2), (1, 1, 0), (0, 0, 0)] {
        let deployment = serde_json::from_value(
            json!({"spec": {"replicas": replicas, "selector": {}, "template": {}}}),
        );
        let found = Bounds::of(&deployment.unwrap());
        assert_eq!(
            (found.surge, found.unavailable),
            (surge, unavailable),
            "{replicas} replicas"
        );
    }
}

#[test]
fn a_rollout_goes_up_by_the_surge_and_down_by_what_is_spare() {
    let bounds = bounds(10, 3, 2);
    let (old, new) = (set("o", 10, 10, 13), set("nn", 0, 0, 13));
    assert_eq!(
        sizes(&roll(bounds, &new, &[Arc::clone(&old)])),
        named(&[("nn", 3)])
    );
    let new = set("nn", 3, 0, 13);
    assert_eq!(sizes(&roll(bounds, &new, &[old])), named(&[("o", 8)]));
    let old = set("o", 8, 8, 13);
    assert_eq!(
        sizes(&roll(bounds, &new, &[Arc::clone(&old)])),
        named(&[("nn", 5)])
    );
    let new = set("nn", 5, 0, 13);
    assert_eq!(roll(bounds, &new, &[Arc::clone(&old)]), []);
    let new = set("nn", 5, 5, 13);
    assert_eq!(sizes(&roll(bounds, &new, &[old])), named(&[("o", 3)]));
}

#[test]
fn unhealthy_old_pods_go_first() {
    let old = [set("o", 4, 1, 0), set("oo", 4, 4, 0)];
    let new = set("nnn", 5, 5, 0);
    assert_eq!(
        sizes(&roll(bounds(8, 2, 0), &new, &old)),
        named(&[("o", 0), ("oo", 3)])
    );
}

#[test]
fn a_change_of_size_in_a_rollout_is_shared_in_proportion() {
    let (old, new) = (set("o", 8, 8, 13), set("nn", 5, 0, 13));
    let resized = scale(bounds(15, 3, 2), Some(&new), &[Arc::clone(&old)]);
    assert_eq!(sizes(&resized), named(&[("o", 11), ("nn", 7)]));
    let (old, new) = (set("o", 11, 8, 18), set("nn", 7, 0, 18));
    let resized = scale(bounds(6, 3, 2), Some(&new), &[old]);
    assert_eq!(resized.iter().map(|resize| resize.to).sum::<i32>(), 9);
}

#[test]
fn a_single_active_set_takes_the_whole_size() {
    let (old, new) = (set("o", 0, 0, 4), set("nn", 3, 3, 4));
    assert_eq!(
        sizes(&scale(bounds(5, 2, 1), Some(&new), &[old])),
        named(&[("nn", 5)])
    );
    let idle = [set("o", 0, 0, 4)];
    assert_eq!(
        sizes(&scale(bounds(5, 2, 1), None, &idle)),
        named(&[("o", 5)])
    );
}

#[test]
fn history_beyond_the_limit_goes_oldest_first_unless_it_has_pods() {
    let old = [set("o", 0, 0, 0), set("ooo", 0, 0, 0), set("oo", 2, 2, 0)];
    let deployment = serde_json::from_value(
        json!({"spec": {"revisionHistoryLimit": 1, "selector": {}, "template": {}}}),
    )
    .unwrap();
    let gone = surplus_history(&deployment, &old);
    assert_eq!(
        gone.iter()
            .map(|set| name(&set.metadata))
            .collect::<Vec<_>>(),
        ["o"]
    );
}

proptest! {
    #[test]
    fn a_rollout_keeps_its_bounds_and_ends(
        replicas in 0_i32..40, surge in 0_i32..10, unavailable in 0_i32..10, start in 0_i32..40,
    ) {
        let unavailable = if surge == 0 && unavailable == 0 { 1 } else { unavailable };
        let bounds = bounds(replicas, surge, unavailable.min(replicas.max(1)));
        let (mut old_size, mut new_size) = (start.min(replicas), 0);
        for _ in 0..200 {
            // Everything becomes available between two steps.
            let (old, new) = (set("o", old_size, old_size, 0), set("nn", new_size, new_size, 0));
            let steps = roll(bounds, &new, &[old]);
            for step in &steps {
                if name(&step.set.metadata) == "o" { old_size = step.to } else { new_size = step.to }
            }
            prop_assert!(old_size + new_size <= replicas + surge);
            prop_assert!(start < replicas || old_size + new_size >= replicas - bounds.unavailable);
            if steps.is_empty() { break; }
        }
        prop_assert_eq!((old_size, new_size), (0, replicas));
    }

    #[test]
    fn scaling_in_proportion_never_exceeds_what_is_allowed(
        one in 1_i32..50, two in 1_i32..50, replicas in 0_i32..80, surge in 0_i32..10, max in 1_i32..120,
    ) {
        let resized = scale(bounds(replicas, surge, 1), Some(&set("nn", one, 0, max)), &[set("o", two, two, max)]);
        let total: i32 = resized.iter().map(|resize| resize.to).sum();
        prop_assert!(resized.iter().all(|resize| resize.to >= 0));
        let allowed = if replicas > 0 { replicas + surge } else { 0 };
        prop_assert!(total >= allowed);
        prop_assert!(total == allowed || resized.len() < 3);
    }
}
