//! Runs a plan: starts and ends users as the plan says, and takes stock once a second.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use http::Uri;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::connection::{Connection, RequestShape};
use crate::plan::{LoadPlan, PlanError};
use crate::record::{Recorder, Sample, Tally};
use crate::report::{LatencyMillis, LoadReport, SecondSample};

/// How often the number of users is brought in line with the plan.
const ADJUST_PERIOD: Duration = Duration::from_millis(50);
/// Users started in one adjustment are spread over this time, so that a step is not one stampede.
const START_SPREAD: Duration = Duration::from_millis(500);

/// A run that goes on: follow it, then wait for its report.
pub struct LoadRun {
    /// The newest second.
    pub live: watch::Receiver<SecondSample>,
    task: tokio::task::JoinHandle<LoadReport>,
}

impl LoadRun {
    /// Waits for the last user and gives the report.
    ///
    /// # Errors
    /// When the run's task panicked.
    pub async fn report(self) -> Result<LoadReport, tokio::task::JoinError> {
        self.task.await
    }
}

/// Starts a plan. It ends with its last stage or earlier with `shutdown`; running requests are finished either way.
///
/// # Errors
/// A plan that cannot be run, or a host without an address.
pub async fn run(plan: LoadPlan, shutdown: CancellationToken) -> Result<LoadRun, PlanError> {
    plan.check()?;
    let unresolved = PlanError::Url {
        url: plan.target.host.clone(),
        reason: "the host has no address; check its spelling",
    };
    let addresses: Vec<_> = tokio::net::lookup_host((plan.target.host.as_str(), plan.target.port))
        .await
        .map_err(|_| unresolved.clone())?
        .collect();
    if addresses.is_empty() {
        return Err(unresolved);
    }
    let path = plan
        .target
        .path
        .parse::<Uri>()
        .map_err(|_| PlanError::Url {
            url: plan.target.path.clone(),
            reason: "the path is not valid in a request; percent-encode special characters",
        })?;
    let shape = RequestShape {
        addresses,
        authority: plan.target.authority(),
        path,
        count_header: plan.count_header.clone(),
        timeout: plan.request_timeout,
    };
    let (sender, live) = watch::channel(SecondSample::default());
    let task = tokio::spawn(Conductor::new(plan, shape, sender).conduct(shutdown));
    Ok(LoadRun { live, task })
}

/// What all users share.
struct Shared {
    shape: RequestShape,
    recorder: Recorder,
    retries: AtomicU64,
    think_time: Duration,
    /// Users numbered below this go on; the others end after their request.
    wanted: watch::Sender<u32>,
}

struct Conductor {
    plan: LoadPlan,
    shared: Arc<Shared>,
    live: watch::Sender<SecondSample>,
    users: JoinSet<usize>,
    /// Which user numbers have a task.
    running: Vec<bool>,
    total: Tally,
    series: Vec<SecondSample>,
    users_peak: u32,
}

impl Conductor {
    fn new(plan: LoadPlan, shape: RequestShape, live: watch::Sender<SecondSample>) -> Self {
        let shared = Shared {
            shape,
            recorder: Recorder::new(),
            retries: AtomicU64::new(0),
            think_time: plan.think_time,
            wanted: watch::channel(0).0,
        };
        Self {
            plan,
            shared: Arc::new(shared),
            live,
            users: JoinSet::new(),
            running: Vec::new(),
            total: Tally::new(),
            series: Vec::new(),
            users_peak: 0,
        }
    }

    async fn conduct(mut self, shutdown: CancellationToken) -> LoadReport {
        let start = Instant::now();
        let mut adjust = tokio::time::interval(ADJUST_PERIOD);
        adjust.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut second =
            tokio::time::interval_at(start + Duration::from_secs(1), Duration::from_secs(1));
        while let Some(users) = self.plan.users_at(start.elapsed()) {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = adjust.tick() => self.adjust(users),
                _ = second.tick() => self.take_stock(start.elapsed(), users),
            }
        }
        self.shared.wanted.send_replace(0);
        while self.users.join_next().await.is_some() {}
        self.take_stock(start.elapsed(), 0);
        let retries = self.shared.retries.load(Ordering::Relaxed);
        LoadReport::new(
            self.users_peak,
            &self.total,
            self.series,
            start.elapsed().as_secs_f64(),
            retries,
        )
    }

    /// Starts the missing users; superfluous ones see `wanted` and end by themselves.
    fn adjust(&mut self, wanted: u32) {
        self.users_peak = self.users_peak.max(wanted);
        while let Some(ended) = self.users.try_join_next() {
            if let Ok(user) = ended {
                self.running[user] = false;
            }
        }
        self.shared
            .wanted
            .send_if_modified(|old| std::mem::replace(old, wanted) != wanted);
        let count = wanted as usize;
        if self.running.len() < count {
            self.running.resize(count, false);
        }
        let missing: Vec<usize> = (0..count).filter(|user| !self.running[*user]).collect();
        for (position, user) in missing.iter().copied().enumerate() {
            self.running[user] = true;
            let delay = START_SPREAD.mul_f64(position as f64 / missing.len() as f64);
            let random = StdRng::seed_from_u64(self.plan.seed.wrapping_add(user as u64));
            self.users
                .spawn(virtual_user(self.shared.clone(), user, delay, random));
        }
    }

    fn take_stock(&mut self, elapsed: Duration, users: u32) {
        let tally = self.shared.recorder.drain();
        let sample = SecondSample {
            second: elapsed.as_secs_f64().round() as u64,
            users,
            requests: tally.requests(),
            failures: tally.requests() - tally.successes,
            response_time: LatencyMillis::from_micros(&tally.response),
        };
        self.total.merge(&tally);
        self.series.push(sample.clone());
        self.live.send_replace(sample);
    }
}

/// Request, think, request … until the plan wants fewer users. Returns its number.
async fn virtual_user(
    shared: Arc<Shared>,
    user: usize,
    delay: Duration,
    mut random: StdRng,
) -> usize {
    let mut wanted = shared.wanted.subscribe();
    let mut connection = Connection::default();
    let mut intended = Instant::now() + delay;
    loop {
        if !pause_until(intended, &mut wanted, user).await {
            return user;
        }
        let sent = Instant::now();
        let answer = connection.get(&shared.shape, &shared.retries).await;
        let done = Instant::now();
        shared.recorder.add(
            user,
            &Sample {
                outcome: answer.outcome,
                service_time: done - sent,
                response_time: done - intended,
                bytes: answer.bytes,
                header: answer.header,
            },
        );
        intended = done + shared.think_time.mul_f64(random.random_range(0.5..1.5));
    }
}

/// False when this user is no longer wanted.
async fn pause_until(until: Instant, wanted: &mut watch::Receiver<u32>, user: usize) -> bool {
    loop {
        if *wanted.borrow_and_update() as usize <= user {
            return false;
        }
        tokio::select! {
            () = tokio::time::sleep_until(until) => return true,
            changed = wanted.changed() => if changed.is_err() { return false },
        }
    }
}
