//! Plans of CronHPA over simulated time: what is claimed, run, skipped, made up for and told.

use elastic_core::cron_horizontal_pod_autoscaler::{
    Activity, CronHorizontalPodAutoscalerSpec, CronHorizontalPodAutoscalerStatus, EventText,
    JobCondition, JobState, Plan, Run, Schedules, Situation, TargetSize, floor_held,
    floor_released, hold, plan, record, release, scaled_message, upcoming,
};
use jiff::Timestamp;
use serde_json::{Value, json};

pub fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// One object, its target, and time.
pub struct World {
    pub spec: CronHorizontalPodAutoscalerSpec,
    pub status: CronHorizontalPodAutoscalerStatus,
    pub created: Timestamp,
    pub now: Timestamp,
    pub replicas: i32,
    ids: u32,
    pub runs: Vec<(String, Timestamp)>,
    events: Vec<EventText>,
    /// The run that was claimed ahead and has not begun.
    pub ahead: Option<Run>,
}

impl World {
    /// Made and first seen at `now`.
    pub fn new(spec: Value, now: &str) -> Self {
        let mut spec = spec;
        let target = json!({"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"});
        spec.as_object_mut()
            .unwrap()
            .entry("scaleTargetRef")
            .or_insert(target);
        let mut world = Self {
            spec: serde_json::from_value(spec).unwrap(),
            status: CronHorizontalPodAutoscalerStatus::default(),
            created: at(now),
            now: at(now),
            replicas: 1,
            ids: 0,
            runs: Vec::new(),
            events: Vec::new(),
            ahead: None,
        };
        world.settle();
        world
    }

    pub fn plan_as(&mut self, holder: &str) -> Plan {
        let schedules = Schedules::read(&self.spec, "Asia/Shanghai");
        let situation = Situation {
            holder,
            ..self.situation(&schedules, "Asia/Shanghai")
        };
        let mut ids = self.ids;
        let plan = plan(&situation, &mut || {
            ids += 1;
            format!("id-{ids}")
        });
        self.ids = ids;
        plan
    }

    /// As somebody who holds nothing sees it.
    pub fn situation<'a>(&'a self, schedules: &'a Schedules, zone: &'a str) -> Situation<'a> {
        Situation {
            spec: &self.spec,
            schedules,
            status: &self.status,
            generation: Some(1),
            created: self.created,
            now: self.now,
            holder: "x",
            ahead: self.ahead.as_ref(),
            default_zone: zone,
        }
    }

    /// What a controller does at this moment; returns when it wants to be woken.
    pub fn settle(&mut self) -> Option<Timestamp> {
        for _ in 0..40 {
            let plan = self.plan_as("a");
            self.status = plan.status;
            self.events.extend(plan.events);
            match plan.activity {
                None => return plan.wake,
                Some(Activity::Scale(run)) => self.finish(&run),
                Some(Activity::Prepare(run)) => {
                    self.ahead = Some(run);
                    return plan.wake;
                }
                Some(Activity::HoldFloor { floor, opening }) => {
                    let size = self.size();
                    if let Some(step) = hold(&floor, size) {
                        self.status.floor = Some(step.floor);
                        self.replicas = step.write.replicas.unwrap_or(self.replicas);
                    }
                    if opening.is_empty() {
                        return plan.wake;
                    }
                    let told = floor_held(&mut self.status, &opening, "held.", self.now);
                    self.events.extend(told);
                }
                Some(Activity::ReleaseFloor(floor)) => {
                    let size = self.size();
                    self.replicas = release(&floor, size).replicas.unwrap_or(self.replicas);
                    self.events
                        .extend(floor_released(&mut self.status, "restored.", self.now));
                }
            }
        }
        panic!("no rest: {:#?}", self.status);
    }

    fn size(&self) -> TargetSize {
        TargetSize {
            replicas: self.replicas,
            bounds: None,
        }
    }

    /// A claim is used once.
    fn begin(&mut self, run: &Run) {
        self.ahead
            .take_if(|ahead| ahead.job_id == run.job_id && ahead.scheduled == run.scheduled);
    }

    pub fn finish(&mut self, run: &Run) {
        self.begin(run);
        let outcome = Ok(scaled_message(self.replicas, run.size));
        self.replicas = run.size;
        self.runs.push((run.job.clone(), run.scheduled));
        self.events
            .extend(record(&mut self.status, run, &outcome, self.now));
    }

    /// Runs on alarms alone until `end`, as the controller does.
    pub fn pass_to(&mut self, end: &str) {
        let end = at(end);
        let mut wakes = 0;
        while let Some(wake) = self.settle().filter(|wake| *wake <= end) {
            assert!(wake > self.now, "an alarm at {wake} for {}", self.now);
            self.now = wake;
            wakes += 1;
            assert!(wakes < 100_000, "too many alarms");
        }
        self.now = end;
        self.settle();
    }

    /// Nobody looks until `end`.
    fn down_to(&mut self, end: &str) {
        self.now = at(end);
        self.settle();
    }

    pub fn condition(&self, job: &str) -> &JobCondition {
        let found = self.status.conditions.iter().find(|one| one.name == job);
        found.unwrap()
    }

    fn message(&self, job: &str) -> &str {
        &self.condition(job).message
    }

    fn told(&self, reason: &str) -> Vec<&str> {
        let told = self.events.iter().filter(|event| event.reason == reason);
        told.map(|event| event.message.as_str()).collect()
    }

    fn run_times(&self) -> Vec<String> {
        let times = self.runs.iter().map(|(job, at)| format!("{job} {at}"));
        times.collect()
    }
}

pub fn tide() -> Value {
    json!({"jobs": [
        {"name": "up", "schedule": "0 0 8 * * *", "targetSize": 6},
        {"name": "down", "schedule": "0 0 22 * * *", "targetSize": 2}
    ]})
}

#[test]
fn jobs_are_taken_up_in_their_order_and_run_at_their_times() {
    let mut world = World::new(tide(), "2026-11-20T04:00:00Z");
    let names: Vec<_> = world
        .status
        .conditions
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["up", "down"]);
    assert!(
        world
            .status
            .conditions
            .iter()
            .all(|one| one.state == JobState::Submitted)
    );
    assert!(
        world.events.is_empty(),
        "nothing is told about a submission"
    );
    world.pass_to("2026-11-22T04:00:00Z");
    assert_eq!(
        world.run_times(),
        [
            "down 2026-11-20T14:00:00Z",
            "up 2026-11-21T00:00:00Z",
            "down 2026-11-21T14:00:00Z",
            "up 2026-11-22T00:00:00Z",
        ]
    );
    assert_eq!(world.replicas, 6);
    assert_eq!(world.told("Succeed").len(), 4);
    let next: Vec<_> = world
        .status
        .next_runs
        .iter()
        .map(|run| run.local_time.as_str())
        .collect();
    assert_eq!(next[0], "2026-11-22 22:00:00 Asia/Shanghai");
    assert_eq!(next.len(), 5);
}

#[test]
fn a_year_over_both_changes_of_the_clocks_has_one_run_a_day() {
    let spec = json!({"timeZone": "America/New_York", "jobs": [
        {"name": "gap", "schedule": "0 30 2 * * *", "targetSize": 3},
        {"name": "twice", "schedule": "0 30 1 * * *", "targetSize": 4}
    ]});
    let mut world = World::new(spec, "2027-12-31T12:00:00Z");
    world.pass_to("2028-12-31T12:00:00Z");
    for job in ["gap", "twice"] {
        let count = world.runs.iter().filter(|(name, _)| name == job).count();
        assert_eq!(count, 366, "{job}: 2028 has a leap day");
    }
}

#[test]
fn only_the_changed_job_is_taken_up_anew_and_a_changed_target_renews_all() {
    let mut world = World::new(tide(), "2026-11-20T04:00:00Z");
    world.pass_to("2026-11-21T04:00:00Z");
    let ids = |world: &World| {
        let ids = world.status.conditions.iter().map(|one| one.job_id.clone());
        ids.collect::<Vec<_>>()
    };
    let before = ids(&world);
    world.spec.jobs[0].target_size = 9;
    world.settle();
    let after = ids(&world);
    assert_ne!(after[0], before[0]);
    assert_eq!(after[1], before[1]);
    assert_eq!(world.condition("up").state, JobState::Submitted);
    assert_eq!(world.condition("down").state, JobState::Succeed);
    world.spec.scale_target_ref.name = "other".into();
    world.settle();
    assert!(ids(&world).iter().all(|id| !after.contains(id)));
    world.spec.jobs.remove(0);
    world.settle();
    assert_eq!(world.status.conditions.len(), 1);
}

#[test]
fn the_status_of_the_original_controller_is_taken_over_as_it_is() {
    let mut world = World::new(tide(), "2026-11-20T04:00:00Z");
    world.status = serde_json::from_value(json!({
        "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
        "conditions": [
            {"jobId": "38e79271-9a42-4131-9acd-1f5bfab38802", "lastProbeTime": "2026-11-20T00:00:00Z", "message": "old",
             "name": "up", "runOnce": false, "schedule": "0 0 8 * * *", "state": "Succeed", "targetSize": 6},
            {"jobId": "a7db95b6-396a-4753-91d5-23c2e73819ac", "lastProbeTime": null, "message": "",
             "name": "down", "runOnce": false, "schedule": "0 0 22 * * *", "state": "Submitted", "targetSize": 2}
        ]
    }))
    .unwrap();
    world.pass_to("2026-11-20T13:00:00Z");
    assert_eq!(
        world.condition("up").job_id,
        "38e79271-9a42-4131-9acd-1f5bfab38802"
    );
    assert_eq!(world.message("up"), "old");
    assert!(world.runs.is_empty());
    world.pass_to("2026-11-20T15:00:00Z");
    assert_eq!(world.run_times(), ["down 2026-11-20T14:00:00Z"]);
}

#[test]
fn run_once_and_dates_run_once() {
    let spec = json!({"jobs": [
        {"name": "once", "schedule": "0 0 * * * *", "targetSize": 3, "runOnce": true},
        {"name": "dated", "schedule": "@date 2026-11-20 20:30:00", "targetSize": 4},
        {"name": "past", "schedule": "@date 2025-11-20 20:30:00", "targetSize": 5}
    ]});
    let mut world = World::new(spec, "2026-11-20T04:30:00Z");
    assert_eq!(
        world.condition("past").state,
        JobState::Failed,
        "not next year instead"
    );
    assert!(
        world
            .message("past")
            .starts_with("Failed to update cron hpa job past,because of schedule: ")
    );
    world.pass_to("2028-01-01T00:00:00Z");
    assert_eq!(
        world.run_times(),
        ["once 2026-11-20T05:00:00Z", "dated 2026-11-20T12:30:00Z"]
    );
    assert_eq!(world.status.next_runs, []);
}

#[test]
fn what_cannot_be_read_is_told_once_and_the_rest_runs() {
    let spec = json!({"jobs": [
        {"name": "good", "schedule": "@hourly", "targetSize": 3},
        {"name": "bad", "schedule": "0 0 25 * * *", "targetSize": 4},
        {"name": "good", "schedule": "@daily", "targetSize": 5}
    ]});
    let mut world = World::new(spec, "2026-11-20T04:30:00Z");
    world.pass_to("2026-11-20T06:30:00Z");
    assert_eq!(world.runs.len(), 2);
    assert_eq!(world.told("Failed").len(), 2, "{:?}", world.events);
    assert_eq!(
        world.message("bad"),
        "Failed to update cron hpa job bad,because of schedule: field hour cannot be \"25\": it goes from 0 to 23"
    );
    assert!(
        world.status.conditions[2]
            .message
            .contains("another job is called \"good\"")
    );
    world.spec.jobs[1].schedule = "0 0 23 * * *".into();
    world.settle();
    assert_eq!(world.condition("bad").state, JobState::Submitted);
}

#[test]
fn malformed_excluded_days_stop_the_jobs_with_a_reason_and_heal() {
    let mut spec = tide();
    spec["excludeDates"] = json!(["* * * 15 11 *", "15 November"]);
    let mut world = World::new(spec, "2026-11-20T04:00:00Z");
    world.pass_to("2026-11-21T04:00:00Z");
    assert!(world.runs.is_empty());
    assert!(
        world
            .message("up")
            .contains("because of excludeDates: \"15 November\""),
        "{}",
        world.message("up")
    );
    world.spec.exclude_dates.pop();
    world.pass_to("2026-11-22T04:00:00Z");
    assert_eq!(world.runs.len(), 2);
}

#[test]
fn excluded_days_are_compared_as_dates() {
    // The original compares month and hour: 00:30 of any day in November was skipped, 23:59:59 of the 25th was not.
    let spec = json!({"excludeDates": ["* * * 25 11 *"], "jobs": [
        {"name": "night", "schedule": "0 30 0 * * *", "targetSize": 3},
        {"name": "end", "schedule": "59 59 23 * * *", "targetSize": 4}
    ]});
    let mut world = World::new(spec, "2026-11-23T16:00:00Z");
    world.pass_to("2026-11-24T15:00:00Z");
    assert_eq!(world.run_times(), ["night 2026-11-23T16:30:00Z"]);
    world.pass_to("2026-11-25T15:59:59Z");
    assert_eq!(world.runs.len(), 2, "{:?}", world.run_times());
    assert_eq!(
        world.message("end"),
        "cron hpa job end executed successfully. skip scaling activity,because of excludeDate (* * * 25 11 *)."
    );
    assert_eq!(world.condition("end").state, JobState::Succeed);
    world.pass_to("2026-11-26T15:59:59Z");
    assert_eq!(world.runs.len(), 4);
}

#[test]
fn five_fields_are_told_and_read_as_meant() {
    let spec = json!({"jobs": [{"name": "crontab", "schedule": "30 9 * * 1", "targetSize": 3}]});
    let mut world = World::new(spec, "2026-11-20T04:00:00Z");
    assert!(
        world
            .message("crontab")
            .contains("write \"0 30 9 * * 1\" to say so")
    );
    assert_eq!(world.told("FiveFieldSchedule").len(), 1);
    world.pass_to("2026-11-27T04:00:00Z");
    assert_eq!(world.run_times(), ["crontab 2026-11-23T01:30:00Z"]);
}

#[test]
fn what_was_due_during_a_pause_is_not_made_up_for() {
    let mut world = World::new(tide(), "2026-11-20T04:00:00Z");
    world.spec.suspend = true;
    world.pass_to("2026-11-21T00:10:00Z");
    assert!(world.runs.is_empty() && world.status.next_runs.is_empty());
    world.spec.suspend = false;
    world.spec.jobs[1].suspend = true;
    world.pass_to("2026-11-22T04:00:00Z");
    assert_eq!(world.run_times(), ["up 2026-11-22T00:00:00Z"]);
}

#[test]
fn limits_of_validity_hold_at_both_ends() {
    let spec = json!({"jobs": [{"name": "week", "schedule": "0 0 9 * * *", "targetSize": 3,
        "startAfter": "2026-12-01", "endBefore": "2026-12-04"}]});
    let mut world = World::new(spec, "2026-11-20T04:00:00Z");
    world.pass_to("2027-11-20T04:00:00Z");
    let days: Vec<_> = world.run_times();
    assert_eq!(
        days,
        [
            "week 2026-12-01T01:00:00Z",
            "week 2026-12-02T01:00:00Z",
            "week 2026-12-03T01:00:00Z"
        ]
    );
}

#[test]
fn the_newest_missed_run_is_made_up_for_within_the_deadline_and_the_others_are_told() {
    let mut world = World::new(tide(), "2026-11-20T04:00:00Z");
    world.down_to("2026-11-23T14:40:00Z");
    assert_eq!(
        world.run_times(),
        ["down 2026-11-23T14:00:00Z"],
        "of all only the last one counts"
    );
    assert_eq!(world.told("OutOfDate").len(), 1);
    assert!(world.told("OutOfDate")[0].starts_with(
        "rerun out of date job: down (due at 2026-11-23T14:00:00Z, 2400 s ago; 3 runs"
    ));
    let missed = world.told("MissedRun");
    assert!(
        missed[0].contains("cron hpa job up: ")
            && missed[0].contains("and 2 before it were missed"),
        "{missed:?}"
    );
    assert_eq!(world.condition("up").state, JobState::Failed);
    world.pass_to("2026-11-24T00:00:00Z");
    assert_eq!(world.condition("up").state, JobState::Succeed);
}

#[test]
fn nothing_is_made_up_for_when_the_deadline_is_nought() {
    let mut spec = tide();
    spec["startingDeadlineSeconds"] = json!(0);
    let mut world = World::new(spec, "2026-11-20T04:00:00Z");
    world.down_to("2026-11-20T14:05:00Z");
    assert!(world.runs.is_empty());
    assert_eq!(world.told("MissedRun").len(), 1);
}

#[test]
fn an_object_made_while_nobody_looked_is_served_from_its_making() {
    let mut world = World::new(tide(), "2026-11-20T14:10:00Z");
    assert!(world.runs.is_empty());
    world.status = CronHorizontalPodAutoscalerStatus::default();
    world.created = at("2026-11-20T13:50:00Z");
    world.settle();
    assert_eq!(world.run_times(), ["down 2026-11-20T14:00:00Z"]);
}

#[test]
fn of_jobs_due_together_the_last_one_listed_counts() {
    let spec = json!({"jobs": [
        {"name": "first", "schedule": "0 0 8 * * *", "targetSize": 9},
        {"name": "last", "schedule": "0 0 8 * * MON-FRI", "targetSize": 4}
    ]});
    let mut world = World::new(spec, "2026-11-19T16:00:00Z");
    world.pass_to("2026-11-20T00:00:00Z");
    assert_eq!(world.run_times(), ["last 2026-11-20T00:00:00Z"]);
    assert_eq!(
        world.message("first"),
        "cron hpa job first executed successfully. skip scaling activity,because of job last which is due as well."
    );
    world.pass_to("2026-11-21T00:00:00Z");
    assert_eq!(world.replicas, 9, "on Saturday the first one is alone");
}

#[test]
fn a_claimed_run_is_left_to_its_holder_and_taken_over_from_the_dead() {
    let mut world = World::new(tide(), "2026-11-20T13:00:00Z");
    world.now = at("2026-11-20T14:00:00Z");
    let claimed = world.plan_as("dead");
    let Some(Activity::Scale(run)) = claimed.activity else {
        panic!("{:?}", claimed.activity)
    };
    world.status = claimed.status;
    let other = world.plan_as("a");
    assert_eq!(
        (other.activity, other.wake),
        (None, Some(at("2026-11-20T14:00:30Z")))
    );
    world.down_to("2026-11-20T14:00:30Z");
    assert_eq!(world.run_times(), ["down 2026-11-20T14:00:00Z"]);
    // The dead one comes back with its result: too late, somebody else wrote it.
    let message = world.message("down").to_owned();
    assert_eq!(
        record(
            &mut world.status,
            &run,
            &Err("x".into()),
            at("2026-11-20T14:00:40Z")
        ),
        None
    );
    assert_eq!(world.message("down"), message);
}

#[test]
fn every_counts_from_its_submission_over_restarts() {
    let spec = json!({"jobs": [{"name": "often", "schedule": "@every 40m", "targetSize": 3}]});
    let mut world = World::new(spec, "2026-11-20T04:10:00Z");
    world.pass_to("2026-11-20T05:00:00Z");
    world.down_to("2026-11-20T05:20:00Z");
    world.down_to("2026-11-20T05:31:00Z");
    assert_eq!(
        world.run_times(),
        ["often 2026-11-20T04:50:00Z", "often 2026-11-20T05:30:00Z"]
    );
}

#[test]
fn windows_are_levels_edges_move_what_they_restore() {
    let spec = json!({"jobs": [
        {"name": "day", "schedule": "0 0 8 * * MON-FRI", "until": "0 0 20 * * *", "targetSize": 6},
        {"name": "noon", "schedule": "0 0 11 * * *", "until": "@every 2h", "targetSize": 9},
        {"name": "edge", "schedule": "0 0 15 * * *", "targetSize": 3}
    ]});
    // Made at ten in the morning: the window is open already.
    let mut world = World::new(spec, "2026-11-20T02:00:00Z");
    assert_eq!(world.replicas, 6);
    world.pass_to("2026-11-20T03:00:00Z");
    assert_eq!(world.replicas, 9);
    world.pass_to("2026-11-20T05:00:00Z");
    assert_eq!(world.replicas, 6, "back to the window that is still open");
    world.pass_to("2026-11-20T07:00:00Z");
    assert_eq!(world.replicas, 6, "the edge stays under the floor");
    world.pass_to("2026-11-20T12:00:00Z");
    assert_eq!(world.replicas, 3, "what the edge asked for is restored");
    assert_eq!(world.status.floor, None);
    // Down over a whole opening: nothing to make up for. Down into one: it is open.
    world.spec.jobs.truncate(1);
    world.down_to("2026-11-23T13:00:00Z");
    assert_eq!(world.replicas, 3);
    world.down_to("2026-11-24T05:00:00Z");
    assert_eq!(world.replicas, 6);
    // Suspended, it closes.
    world.spec.suspend = true;
    world.settle();
    assert_eq!(world.replicas, 3);
}

#[test]
fn a_job_at_the_end_of_a_window_has_the_last_word() {
    let spec = json!({"jobs": [
        {"name": "day", "schedule": "0 0 8 * * *", "until": "0 0 20 * * *", "targetSize": 6},
        {"name": "evening", "schedule": "0 0 20 * * *", "targetSize": 3}
    ]});
    let mut world = World::new(spec, "2026-11-20T00:00:00Z");
    assert_eq!(world.replicas, 6);
    world.pass_to("2026-11-20T12:00:00Z");
    assert_eq!((world.replicas, &world.status.floor), (3, &None));
    assert!(
        world
            .message("evening")
            .ends_with("current replicas:6, desired replicas:3."),
        "{}",
        world.message("evening")
    );
}

#[test]
fn a_window_follows_its_target_and_a_single_one_opens_once() {
    let spec = json!({"jobs": [
        {"name": "day", "schedule": "0 0 8 * * *", "until": "0 0 20 * * *", "targetSize": 6, "runOnce": true}
    ]});
    let mut world = World::new(spec, "2026-11-20T00:00:00Z");
    assert_eq!(world.replicas, 6);
    world.spec.scale_target_ref.name = "other".into();
    world.settle();
    let held = world.status.floor.as_ref().unwrap();
    assert_eq!(held.scale_target_ref.name, "other");
    world.pass_to("2026-11-20T12:00:00Z");
    assert_eq!((world.replicas, &world.status.floor), (1, &None));
    world.pass_to("2026-11-25T02:00:00Z");
    assert_eq!(world.replicas, 1, "it does not open again");
}

#[test]
fn ten_thousand_jobs_of_one_object_are_planned_at_once() {
    let jobs: Vec<Value> = (0..10_000)
        .map(|number| json!({"name": format!("j{number}"), "schedule": format!("{} {} 8 * * *", number % 60, number / 60 % 60), "targetSize": 1}))
        .collect();
    let mut world = World::new(json!({"jobs": jobs}), "2026-11-20T00:00:00Z");
    let wake = world.settle();
    assert_eq!(wake, Some(at("2026-11-20T00:00:01Z")));
    world.down_to("2026-11-20T00:00:01Z");
    assert_eq!(
        world.runs.len(),
        1,
        "one of those that are due, the others give way"
    );
}

#[test]
fn upcoming_runs_show_openings_and_ends() {
    let spec = json!({"excludeDates": ["2026-11-23"], "jobs": [
        {"name": "day", "schedule": "0 0 8 * * MON-FRI", "until": "0 0 20 * * *", "targetSize": 6}
    ]});
    let world = World::new(spec, "2026-11-20T02:00:00Z");
    let schedules = Schedules::read(&world.spec, "Asia/Shanghai");
    let situation = world.situation(&schedules, "Asia/Shanghai");
    let shown: Vec<_> = upcoming(&situation, 3)
        .into_iter()
        .map(|run| (run.local_time, run.target_size))
        .collect();
    let expected = [
        ("2026-11-20 20:00:00 Asia/Shanghai".to_owned(), None),
        ("2026-11-24 08:00:00 Asia/Shanghai".to_owned(), Some(6)),
        ("2026-11-24 20:00:00 Asia/Shanghai".to_owned(), None),
    ];
    assert_eq!(shown, expected);
}
