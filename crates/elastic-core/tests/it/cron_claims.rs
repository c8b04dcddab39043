//! Claims of CronHPA's runs: made ahead, kept, dropped, taken over; and what two replicas with stale reads and deaths make
//! of them.

use elastic_core::cron_horizontal_pod_autoscaler::{
    Activity, CronHorizontalPodAutoscalerStatus, Run, Schedules, give_back, upcoming,
};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::cron_plan::{World, at, tide};

/// "down" is due at 14:00; this is when it can be claimed.
const AHEAD: &str = "2026-11-20T13:59:55.5Z";
const DUE: &str = "2026-11-20T14:00:00Z";

#[test]
fn a_run_is_claimed_ahead_and_at_its_moment_nothing_is_written_before_it() {
    let mut world = World::new(tide(), "2026-11-20T13:00:00Z");
    assert_eq!(world.settle(), Some(at(AHEAD)));
    world.now = at(AHEAD);
    let claimed = world.plan_as("a");
    let Some(Activity::Prepare(run)) = claimed.activity else {
        panic!("{:?}", claimed.activity)
    };
    assert_eq!((run.size, run.scheduled), (2, at(DUE)));
    assert_eq!(claimed.wake, Some(at(DUE)));
    assert_ne!(claimed.status.next_runs[0].time.0, at(DUE), "under way");
    world.status = claimed.status;
    world.ahead = Some(run.clone());
    world.now = at("2026-11-20T13:59:58Z");
    let waiting = world.plan_as("a");
    assert_eq!((waiting.activity, waiting.wake), (None, Some(at(DUE))));
    assert_eq!(waiting.status, world.status);
    world.now = at("2026-11-20T14:00:00.003Z");
    let begun = world.plan_as("a");
    assert_eq!(begun.activity, Some(Activity::Scale(run.clone())));
    assert_eq!(begun.status, world.status, "nothing to write");
    // Who does not hold the claim in mind, or comes late, takes it again in the status.
    world.ahead = None;
    let anew = world.plan_as("a");
    assert_eq!(anew.activity, Some(Activity::Scale(run.clone())));
    assert_ne!(anew.status, world.status);
    world.ahead = Some(run.clone());
    world.now = at("2026-11-20T14:00:06Z");
    assert_ne!(world.plan_as("a").status, world.status);
    world.finish(&run);
    let condition = world.condition("down");
    assert_eq!(condition.last_schedule_time.as_ref().unwrap().0, at(DUE));
    assert_eq!(world.settle(), Some(at("2026-11-20T23:59:55.5Z")));
}

#[test]
fn a_claim_made_ahead_is_left_to_its_holder_and_taken_over_from_the_dead() {
    let mut world = World::new(tide(), AHEAD);
    let run = world.ahead.take();
    assert!(run.is_some() && world.runs.is_empty());
    let other = world.plan_as("b");
    let free = at("2026-11-20T14:00:30Z");
    assert_eq!(other.activity, None);
    assert_eq!(other.status, world.status);
    world.now = at(DUE);
    let other = world.plan_as("b");
    assert_eq!((other.activity, other.wake), (None, Some(free)));
    world.now = free;
    let other = world.plan_as("b");
    assert_eq!(other.activity, run.map(Activity::Scale));
    assert_ne!(other.status, world.status);
}

#[test]
fn a_claim_that_is_given_back_is_taken_at_once_by_another() {
    let mut world = World::new(tide(), AHEAD);
    let run = world.ahead.take().unwrap();
    assert!(!give_back(&mut world.status, &run, "b"), "not its own");
    assert!(give_back(&mut world.status, &run, "a"));
    assert!(!give_back(&mut world.status, &run, "a"));
    world.now = at("2026-11-20T13:59:58Z");
    let other = world.plan_as("b");
    assert_eq!(other.activity, Some(Activity::Prepare(run)));
}

#[test]
fn what_changes_between_claim_and_moment_counts() {
    let claimed = || World::new(tide(), AHEAD);
    let mut paused = claimed();
    paused.spec.suspend = true;
    paused.settle();
    assert_eq!(paused.condition("down").pending, None);
    paused.spec.suspend = false;
    paused.pass_to("2026-11-20T14:10:00Z");
    assert_eq!(paused.runs.len(), 1, "not paused any more when it was due");
    let mut resized = claimed();
    resized.spec.jobs[1].target_size = 7;
    resized.pass_to("2026-11-20T14:10:00Z");
    assert_eq!((resized.replicas, resized.runs.len()), (7, 1));
    let mut removed = claimed();
    removed.spec.jobs.pop();
    removed.pass_to("2026-11-20T14:10:00Z");
    assert!(removed.runs.is_empty());
    let mut excluded = claimed();
    excluded.spec.exclude_dates.push("2026-11-20".to_owned());
    excluded.pass_to("2026-11-20T14:10:00Z");
    assert!(excluded.runs.is_empty());
}

#[test]
fn nothing_is_claimed_ahead_on_excluded_days_or_beside_windows() {
    let mut spec = tide();
    spec["excludeDates"] = json!(["2026-11-20"]);
    let excluded = World::new(spec, AHEAD);
    assert_eq!((&excluded.ahead, excluded.replicas), (&None, 1));
    let mut spec = tide();
    let window =
        json!({"name": "day", "schedule": "0 0 9 * * *", "until": "@every 1h", "targetSize": 4});
    spec["jobs"].as_array_mut().unwrap().push(window);
    let mut beside = World::new(spec, AHEAD);
    assert_eq!(beside.ahead, None);
    beside.pass_to(DUE);
    assert_eq!(beside.replicas, 2);
}

fn any_job() -> impl Strategy<Value = Value> {
    let schedule = prop_oneof![
        (0..60u8, 0..24u8).prop_map(|(minute, hour)| format!("0 {minute} {hour} * * *")),
        (0..60u8).prop_map(|minute| format!("30 {minute} * * * MON-FRI")),
        (1..200u8).prop_map(|minutes| format!("@every {minutes}m")),
    ];
    let until = proptest::option::of((1..300u16).prop_map(|minutes| format!("@every {minutes}m")));
    (schedule, until, any::<bool>()).prop_map(|(schedule, until, run_once)| {
        json!({"schedule": schedule, "until": until, "runOnce": run_once, "targetSize": 3})
    })
}

proptest! {
    /// The first runs are the same however many are asked for.
    #[test]
    fn few_upcoming_runs_are_the_first_of_many(jobs in proptest::collection::vec(any_job(), 1..6), count in 1..8usize) {
        let named = jobs.into_iter().enumerate().map(|(number, mut job)| {
            job["name"] = json!(format!("j{number}"));
            job
        });
        let world = World::new(json!({"jobs": named.collect::<Vec<_>>()}), "2026-11-20T02:00:00Z");
        let schedules = Schedules::read(&world.spec, "UTC");
        let situation = world.situation(&schedules, "UTC");
        let mut many = upcoming(&situation, 100);
        many.truncate(count);
        prop_assert_eq!(upcoming(&situation, count), many);
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    /// Replica 0 or 1 looks, and may die after its claim or its write.
    Look {
        replica: usize,
        reads: Reads,
        dies: Death,
    },
    /// Seconds pass.
    Pass(i64),
    /// So many milliseconds before or after the next moment at which something is due.
    Approach(i64),
}

#[derive(Clone, Copy, Debug)]
enum Reads {
    /// What it read or wrote last.
    Again,
    Newest,
    /// So many versions ago: a watch that lags behind.
    Old(usize),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Death {
    No,
    AfterClaim,
    AfterScaling,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let death = prop_oneof![6 => Just(Death::No), 1 => Just(Death::AfterClaim), 1 => Just(Death::AfterScaling)];
    let reads = prop_oneof![2 => Just(Reads::Again), 2 => Just(Reads::Newest), 1 => (1..6usize).prop_map(Reads::Old)];
    let look = (0..2usize, reads, death).prop_map(|(replica, reads, dies)| Step::Look {
        replica,
        reads,
        dies,
    });
    let pass = prop_oneof![Just(0), 1..40i64, 60..7200i64].prop_map(Step::Pass);
    let approach = (-6_000..8_000i64).prop_map(Step::Approach);
    proptest::collection::vec(prop_oneof![4 => look, 1 => pass, 1 => approach], 1..100)
}

/// Two replicas, what each of them has in mind, and the server's versions.
struct Replicas {
    world: World,
    versions: Vec<CronHorizontalPodAutoscalerStatus>,
    read: [usize; 2],
    ahead: [Option<Run>; 2],
    lives: [usize; 2],
    deaths: usize,
}

impl Replicas {
    fn new() -> Self {
        let spec = json!({"jobs": [
            {"name": "a", "schedule": "0 */20 * * * *", "targetSize": 5},
            {"name": "b", "schedule": "0 10/20 * * * *", "targetSize": 8},
            {"name": "c", "schedule": "0 0 * * * *", "targetSize": 2}
        ]});
        let world = World::new(spec, "2026-11-20T04:05:00Z");
        Self {
            versions: vec![world.status.clone()],
            world,
            read: [0, 0],
            ahead: [None, None],
            lives: [0, 0],
            deaths: 0,
        }
    }

    fn wrote(&mut self, replica: usize) {
        self.versions.push(self.world.status.clone());
        self.read[replica] = self.versions.len() - 1;
    }

    fn die(&mut self, replica: usize) {
        self.lives[replica] += 1;
        self.ahead[replica] = None;
        self.deaths += 1;
    }

    fn look(&mut self, replica: usize, reads: Reads, dies: Death) {
        let newest = self.versions.len() - 1;
        match reads {
            Reads::Again => {}
            Reads::Newest => self.read[replica] = newest,
            Reads::Old(ago) => self.read[replica] = newest.saturating_sub(ago),
        }
        // No two looks are at the same moment.
        self.world.now += 1.microsecond();
        let basis = self.versions[self.read[replica]].clone();
        self.world.status.clone_from(&basis);
        self.world.ahead.clone_from(&self.ahead[replica]);
        let plan = self
            .world
            .plan_as(&format!("{replica}-{}", self.lives[replica]));
        self.world.status.clone_from(&self.versions[newest]);
        if plan.status != basis {
            if self.read[replica] != newest {
                return; // The server refuses the write.
            }
            self.world.status = plan.status;
            self.wrote(replica);
        }
        match plan.activity {
            Some(Activity::Prepare(_) | Activity::Scale(_)) if dies == Death::AfterClaim => {
                self.die(replica);
            }
            Some(Activity::Prepare(run)) => self.ahead[replica] = Some(run),
            Some(Activity::Scale(run)) if dies == Death::AfterScaling => {
                self.world.replicas = run.size;
                self.world.runs.push((run.job, run.scheduled));
                self.die(replica);
            }
            Some(Activity::Scale(run)) => {
                self.world.finish(&run);
                self.ahead[replica] = self.world.ahead.take();
                if self.world.status != self.versions[self.versions.len() - 1] {
                    self.wrote(replica);
                }
            }
            _ => {}
        }
    }
}

proptest! {
    /// Two replicas with stale reads and deaths at any point: each activation is acted on once, or once more when somebody
    /// died in the middle; and when all is quiet the target has the size of the newest activation.
    #[test]
    fn two_replicas_act_once_for_each_activation(steps in steps()) {
        let mut both = Replicas::new();
        for step in steps {
            match step {
                Step::Pass(seconds) => both.world.now += seconds.seconds(),
                Step::Approach(millis) => {
                    let next = (both.world.now.as_second() / 600 + 1) * 600;
                    let to = Timestamp::from_millisecond(next * 1_000 + millis).unwrap();
                    both.world.now = both.world.now.max(to);
                }
                Step::Look { replica, reads, dies } => both.look(replica, reads, dies),
            }
        }
        let Replicas { mut world, deaths, .. } = both;
        let mut unique = world.runs.clone();
        unique.sort();
        unique.dedup();
        prop_assert!(world.runs.len() - unique.len() <= deaths, "{:?}", world.runs);
        // Rest: one healthy replica goes on past every claim.
        world.ahead = None;
        let end = world.now + 2.hours();
        world.pass_to(&end.to_string());
        let local = |minutes: i64| (end.as_second() / 60 - minutes) % 60;
        let minute = (0..20).map(local).find(|minute| minute % 10 == 0).unwrap();
        let expected = match minute { 0 => 2, 20 | 40 => 5, _ => 8 };
        prop_assert_eq!(world.replicas, expected);
    }
}
