//! Histories of a policy's pods with everything but the API server: admission, a replica set, a scheduler over units that
//! lose and get room, and the controller's own pass. Whatever happens, no unit has more than its maximum, units fill in
//! order and empty in the opposite one, and no pod is lost.

use std::collections::BTreeMap;

use elastic_core::names::{MATCHED_POLICY_ANNOTATION, POD_DELETION_COST};
use elastic_core::pod_facts::{is_active, is_ready};
use elastic_core::resource_policy::{
    ALL, Choice, Match, RETRY_SECONDS, ResourcePolicy, ResourcePolicyStatus, choose, enter,
    is_waiting, wait,
};
use jiff::{Timestamp, ToSpan};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::members::{self, Member};
use super::{reconcile, shortage};
use crate::pass::Teller;

const UNITS: usize = 3;
/// Far more than any history asks for.
const PLENTY: usize = 100;
/// Looks until nothing changes any more; more of them would be a quarrel without end.
const LOOKS_MOST: usize = 100;

struct World {
    policy: ResourcePolicy,
    status: ResourcePolicyStatus,
    now: Timestamp,
    pods: BTreeMap<String, Value>,
    created: u32,
    wanted: usize,
    /// Pods that fit into each unit.
    room: [usize; UNITS],
}

impl World {
    fn new(max: &[Option<i32>], way: &str) -> Self {
        let units = max.iter().map(|max| json!({"resource": "ecs", "max": max}));
        let policy = json!({
            "metadata": {"name": "p", "namespace": "n"},
            "spec": {"units": units.collect::<Vec<_>>(), "whenTryNextUnits": {"policy": way, "timeout": "30s"}}
        });
        Self {
            policy: serde_json::from_value(policy).unwrap(),
            status: ResourcePolicyStatus::default(),
            now: "2026-11-20T00:00:00Z".parse().unwrap(),
            pods: BTreeMap::new(),
            created: 0,
            wanted: 0,
            room: [PLENTY; UNITS],
        }
    }

    fn all(&self) -> Vec<Pod> {
        let read = |pod: &Value| serde_json::from_value(pod.clone()).unwrap();
        self.pods.values().map(read).collect()
    }

    fn members(&self) -> Vec<Member> {
        let keys = self.policy.spec.keys();
        let pods = self.all().into_iter();
        pods.filter_map(|pod| members::member(&self.policy, &keys, &BTreeMap::new(), pod))
            .collect()
    }

    /// Living pods of a unit, and those of them that have a node.
    fn living(&self, unit: usize) -> (usize, usize) {
        let members = self.members();
        let here = members
            .iter()
            .filter(|member| member.unit == Some(unit) && is_active(&member.pod));
        let bound = here.clone().filter(|member| member.is_bound()).count();
        (here.count(), bound)
    }

    fn is_full(&self, unit: usize) -> bool {
        let max = self.policy.spec.units[unit].most();
        max.is_some_and(|max| self.living(unit).0 >= max as usize)
    }

    /// A new pod gets its unit or waits.
    fn create(&mut self) {
        self.created += 1;
        let name = format!("p{:04}", self.created);
        let pod = json!({
            "metadata": {"name": name, "uid": name, "creationTimestamp": self.now, "annotations": {}, "ownerReferences":
                [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "w", "controller": true}]},
            "spec": {"containers": []}, "status": {"phase": "Pending"}
        });
        let members = self.members();
        let members: Vec<&Member> = members.iter().collect();
        let states = members::states(&self.policy, &self.status, ALL, &members, self.now);
        let mut found = Match {
            name: self.policy.name_any(),
            unit: String::new(),
            uid: name.clone(),
        };
        let pod = match choose(&self.policy.spec, &states) {
            Choice::Unit(index) => {
                assert!(!self.is_full(index), "{states:?} → {index}");
                if !states[index].short {
                    let passed = |unit: usize| self.is_full(unit) || states[unit].short;
                    assert!((0..index).all(passed), "{states:?} → {index}");
                }
                found.unit.clone_from(&self.policy.spec.keys()[index]);
                enter(&pod, &self.policy.spec.units[index], &found)
            }
            Choice::Wait => wait(&pod, &found),
            Choice::Outside => panic!("units take all pods"),
        };
        self.pods.insert(name, pod);
    }

    /// As a replica set chooses: without a node first, then unready, then by cost, then the youngest.
    fn remove(&mut self) {
        let cost = |pod: &Pod| {
            let cost = pod.annotations().get(POD_DELETION_COST);
            cost.map_or(0, |cost| cost.parse::<i32>().unwrap())
        };
        let rank = |pod: &Pod| {
            let bound = pod.spec.as_ref().unwrap().node_name.is_some();
            (bound, is_ready(pod), cost(pod))
        };
        let pods = self.all().into_iter().filter(is_active);
        let Some(gone) = pods.min_by_key(|pod| (rank(pod), std::cmp::Reverse(pod.name_any())))
        else {
            return;
        };
        let unit_of = |name: &str| {
            let members = self.members();
            let found = members.iter().find(|member| member.pod.name_any() == name);
            found.and_then(|member| member.unit)
        };
        if is_ready(&gone) {
            let unit = unit_of(&gone.name_any());
            let later = |unit: usize| self.living(unit).1;
            let emptied = (0..UNITS)
                .filter(|other| Some(*other) > unit)
                .all(|other| later(other) == 0);
            assert!(
                emptied,
                "{} goes before pods of later units",
                gone.name_any()
            );
        }
        self.end(&gone);
    }

    /// A pod with a node takes its time to end.
    fn end(&mut self, pod: &Pod) {
        let name = pod.name_any();
        if pod.spec.as_ref().unwrap().node_name.is_some() {
            self.pods.get_mut(&name).unwrap()["metadata"]["deletionTimestamp"] = json!(self.now);
        } else {
            self.pods.remove(&name);
        }
    }

    fn schedule(&mut self) {
        for unit in 0..UNITS {
            let members = self.members();
            let here = members.iter().filter(|member| member.unit == Some(unit));
            let mut taken = here.clone().filter(|member| member.is_bound()).count();
            let unplaced = here.filter(|member| !member.is_bound() && !is_waiting(&member.pod));
            for member in unplaced {
                let pod = self.pods.get_mut(&member.pod.name_any()).unwrap();
                if taken < self.room[unit] {
                    taken += 1;
                    pod["spec"]["nodeName"] = json!(format!("node-{unit}"));
                    pod["status"] = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
                } else if pod["status"]["conditions"].is_null() {
                    pod["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False",
                        "reason": "Unschedulable", "lastTransitionTime": self.now}]);
                }
            }
        }
    }

    fn write(&mut self, writes: Vec<(String, Value)>) {
        for (name, patch) in writes {
            merge(self.pods.get_mut(&name).unwrap(), &patch);
        }
    }

    /// The controller's pass, in its order.
    fn keep_books(&mut self) {
        let members = self.members();
        self.write(members::writes(&self.policy, &members));
        let members = self.members();
        let mut teller = Teller::new(&[], None, self.now);
        let (policy, status) = (&self.policy, &mut self.status);
        let short = shortage::look(policy, &members, self.now, status, &mut teller);
        let let_go = reconcile::let_go(policy, &members, status, self.now);
        reconcile::count(policy, &members, status, self.now);
        self.write(let_go);
        for pod in &short.evicted {
            assert!(
                pod.spec.as_ref().unwrap().node_name.is_none() && is_active(pod),
                "only pods without a place are passed on"
            );
            self.end(pod);
        }
    }

    /// Everybody looks until nobody finds anything to do.
    fn settle(&mut self) {
        for _ in 0..LOOKS_MOST {
            let before = (self.pods.clone(), self.status.clone());
            self.replicate();
            self.schedule();
            self.keep_books();
            self.check();
            if (&self.pods, &self.status) == (&before.0, &before.1) {
                let living = self.all().iter().filter(|pod| is_active(pod)).count();
                assert_eq!(living, self.wanted, "no pod is lost");
                return;
            }
        }
        panic!("no rest: {:#?} {:#?}", self.status, self.pods);
    }

    fn replicate(&mut self) {
        let living = self.all().iter().filter(|pod| is_active(pod)).count();
        for _ in living..self.wanted {
            self.create();
        }
        for _ in self.wanted..living {
            self.remove();
        }
    }

    fn check(&self) {
        for (index, unit) in self.policy.spec.units.iter().enumerate() {
            let living = self.living(index).0;
            let most = unit.most().map_or(usize::MAX, |max| max as usize);
            assert!(living <= most, "unit {index} has {living} of {most}");
        }
        for pod in self.all() {
            let marked = pod.annotations().contains_key(MATCHED_POLICY_ANNOTATION);
            assert!(marked, "{} is nobody's", pod.name_any());
        }
    }

    fn pass(&mut self, seconds: i64) {
        self.now += seconds.seconds();
        // By then what was ending has ended.
        self.pods
            .retain(|_, pod| pod["metadata"]["deletionTimestamp"].is_null());
    }
}

/// A merge patch; what is null in it is left out, not removed, as these patches are of whole members.
fn merge(object: &mut Value, patch: &Value) {
    match (object, patch) {
        (Value::Object(object), Value::Object(patch)) => {
            for (key, value) in patch.iter().filter(|(key, _)| *key != "resourceVersion") {
                merge(object.entry(key).or_insert(Value::Null), value);
            }
        }
        (_, Value::Null) => {}
        (object, patch) => *object = patch.clone(),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Scale(usize),
    Room(usize, usize),
    Pass(i64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let room = prop_oneof![0..4usize, Just(PLENTY)];
    let step = prop_oneof![
        3 => (0..12usize).prop_map(Step::Scale),
        2 => (0..UNITS, room).prop_map(|(unit, room)| Step::Room(unit, room)),
        2 => prop_oneof![1..20i64, 20..100i64].prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..25)
}

fn ways() -> impl Strategy<Value = &'static str> {
    prop_oneof![
        Just("LackResourceOrExceedMax"),
        Just("ExceedMax"),
        Just("TimeoutOrExceedMax"),
        Just("LackResourceAndNoTerminating"),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn shortage_recovery_and_scaling_keep_the_maxima_and_the_order_and_lose_no_pod(
        max in proptest::collection::vec(proptest::option::of(0..5i32), UNITS), way in ways(), steps in steps()
    ) {
        let mut world = World::new(&max, way);
        for step in steps {
            match step {
                Step::Scale(wanted) => world.wanted = wanted,
                Step::Room(unit, room) => world.room[unit] = room,
                Step::Pass(seconds) => world.pass(seconds),
            }
            world.settle();
        }
        // When there is room everywhere again, all that the maxima allow have a place.
        world.room = [PLENTY; UNITS];
        for _ in 0..3 {
            world.pass(RETRY_SECONDS + 1);
            world.settle();
        }
        let most = max.iter().map(|max| max.map_or(PLENTY, |max| max as usize)).sum::<usize>();
        let placed: usize = (0..UNITS).map(|unit| world.living(unit).1).sum();
        prop_assert_eq!(placed, world.wanted.min(most));
        // And what is made anew then fills the units in order.
        world.wanted = 0;
        world.settle();
        world.pass(RETRY_SECONDS + 1);
        world.wanted = 7;
        world.settle();
        let mut left = 7;
        for (unit, max) in max.iter().enumerate() {
            let here = max.map_or(left, |max| left.min(max as usize));
            prop_assert_eq!(world.living(unit), (here, here), "unit {}", unit);
            left -= here;
        }
    }
}
