//! The CronHPA controller: one alarm an object, and a pass over an object when its alarm rings or it changes.
//!
//! Between runs nothing happens: no job is looked at before it is due, or a few seconds before to claim it. State lives in
//! the objects' status only; a pass claims a run there before it acts, so a restart or a second replica changes nothing.

mod alarms;
mod config;
mod counts;
mod memory;
mod pass;
mod report;
mod rush;
mod target;

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use elastic_core::CronHorizontalPodAutoscaler;
use elastic_core::cron_horizontal_pod_autoscaler::{Run, give_back};
use futures::{StreamExt, stream};
use jiff::{Span, Timestamp};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::Semaphore;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;

pub use config::CronHorizontalPodAutoscalerConfig;
pub use counts::JobCounts;

use alarms::Alarms;
use memory::Memory;
use pass::{Ended, Pass};
use report::Reporter;
use rush::Rush;
use target::Targets;

/// Longest wait after failures of a pass.
const RETRY_MOST_SECONDS: i64 = 60;
/// Passes in flight get this long to finish when the controller stops.
const STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// Shared by all passes.
struct Context {
    config: CronHorizontalPodAutoscalerConfig,
    targets: Targets,
    reporter: Reporter,
    /// Names this run of this replica in claims.
    holder: String,
    /// Objects that are worked on; the others wait in the order in which they came.
    places: Semaphore,
    /// Objects of which a run that was claimed ahead is due: one write each, and they do not wait for the others.
    places_of_due: Semaphore,
    rush: Rush,
}

/// Runs the controller until `shutdown`. The definition must be installed before (see `install_definitions`).
pub async fn run_cron_horizontal_pod_autoscaler(
    client: Client,
    config: CronHorizontalPodAutoscalerConfig,
    shutdown: CancellationToken,
) {
    let context = Arc::new(Context {
        places: Semaphore::new(config.passes_most),
        places_of_due: Semaphore::new(config.passes_most),
        rush: Rush::new(),
        config,
        targets: Targets::new(client.clone()),
        reporter: Reporter::new(client.clone()),
        holder: uuid::Uuid::new_v4().to_string(),
    });
    let all: Api<CronHorizontalPodAutoscaler> = Api::all(client);
    let mut changes = pin!(watcher(all, watcher::Config::default()).default_backoff());
    let clock = context.config.clock.clone();
    let mut control = Control::new(context);
    loop {
        control.start_passes();
        let next = control.alarms.next_at();
        let alarm = async {
            match next {
                Some(at) => clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            change = changes.next() => match change {
                Some(Ok(change)) => control.changed(change),
                Some(Err(error)) => tracing::warn!(%error, "watch of CronHorizontalPodAutoscalers, trying again"),
                None => break,
            },
            Some(ended) = control.passes.join_next_with_id() => match ended {
                Ok((id, ended)) => control.ended(id, ended),
                Err(error) => control.ended(error.id(), Passed::broken_off()),
            },
            () = alarm => control.ring(clock.now()),
        }
    }
    control.stop().await;
}

type Key = (String, String);

/// What a pass came to.
struct Passed {
    ended: Result<Ended, PassError>,
    /// Versions it wrote.
    versions: Vec<String>,
    /// For the next one.
    memory: Memory,
}

impl Passed {
    fn broken_off() -> Self {
        Self {
            ended: Err(PassError::BrokeOff),
            versions: Vec::new(),
            memory: Memory::default(),
        }
    }
}

/// Why a pass did not come to its end.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Api(#[from] kube::Error),
    #[error("the pass broke off")]
    BrokeOff,
}

/// What is known of one object.
struct Entry {
    object: Arc<CronHorizontalPodAutoscaler>,
    running: bool,
    /// Something happened that a pass that is running may not have seen.
    again: bool,
    failures: u32,
    /// Versions the last pass wrote; the watch brings them later.
    own: Vec<String>,
    /// With the pass while one is running.
    memory: Memory,
}

impl Entry {
    /// Whether `object` is what we have, or have written ourselves.
    fn knows(&self, object: &CronHorizontalPodAutoscaler) -> bool {
        let version = object.resource_version();
        self.object.resource_version() == version
            || version.is_some_and(|version| self.own.contains(&version))
    }
}

struct Control {
    context: Arc<Context>,
    entries: HashMap<Key, Entry>,
    alarms: Alarms<Key>,
    ready: VecDeque<Key>,
    passes: JoinSet<Passed>,
    keys: HashMap<Id, Key>,
    /// Objects of a listing that is under way.
    listed: HashSet<Key>,
}

impl Control {
    fn new(context: Arc<Context>) -> Self {
        Self {
            context,
            entries: HashMap::new(),
            alarms: Alarms::new(),
            ready: VecDeque::new(),
            passes: JoinSet::new(),
            keys: HashMap::new(),
            listed: HashSet::new(),
        }
    }

    fn changed(&mut self, change: Event<CronHorizontalPodAutoscaler>) {
        match change {
            Event::Apply(object) => self.seen(object),
            Event::Delete(object) => self.forget(&key(&object)),
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                self.listed.insert(key(&object));
                self.seen(object);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed);
                let known: Vec<Key> = self.entries.keys().cloned().collect();
                for key in known.iter().filter(|key| !listed.contains(*key)) {
                    self.forget(key);
                }
            }
        }
    }

    fn seen(&mut self, object: CronHorizontalPodAutoscaler) {
        let key = key(&object);
        let counts = &self.context.config.counts;
        if let Some(entry) = self.entries.get_mut(&key) {
            if entry.knows(&object) {
                return;
            }
            counts.remove(&entry.object);
            counts.add(&object);
            entry.object = Arc::new(object);
        } else {
            counts.add(&object);
            let entry = Entry {
                object: Arc::new(object),
                running: false,
                again: false,
                failures: 0,
                own: Vec::new(),
                memory: Memory::default(),
            };
            self.entries.insert(key.clone(), entry);
        }
        self.wake(key);
    }

    fn wake(&mut self, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        if entry.running {
            entry.again = true;
        } else {
            entry.running = true;
            self.ready.push_back(key);
        }
    }

    fn forget(&mut self, key: &Key) {
        if let Some(entry) = self.entries.remove(key) {
            self.context.config.counts.remove(&entry.object);
        }
        self.alarms.set(key, None);
    }

    fn ring(&mut self, now: Timestamp) {
        for key in self.alarms.due(now) {
            self.wake(key);
        }
    }

    fn start_passes(&mut self) {
        while let Some(key) = self.ready.pop_front() {
            let Some(entry) = self.entries.get_mut(&key) else {
                continue;
            };
            let (context, object) = (self.context.clone(), entry.object.clone());
            let memory = std::mem::take(&mut entry.memory);
            let task = self.passes.spawn(async move {
                let mut pass = Pass::new(&context, memory);
                let ended = pass.run(object).await;
                Passed {
                    ended: ended.map_err(PassError::from),
                    versions: pass.versions,
                    memory: pass.memory,
                }
            });
            self.keys.insert(task.id(), key);
        }
    }

    fn ended(&mut self, task: Id, passed: Passed) {
        let now = self.context.config.clock.now();
        let Some(key) = self.keys.remove(&task) else {
            return;
        };
        let Some(entry) = self.entries.get_mut(&key) else {
            return;
        };
        entry.running = false;
        entry.own = passed.versions;
        entry.memory = passed.memory;
        let again = std::mem::take(&mut entry.again);
        let wake = match passed.ended {
            Ok(ended) => {
                entry.failures = 0;
                let version = entry.object.resource_version().unwrap_or_default();
                let news = again && !entry.own.contains(&version);
                if news || entry.object.uid() != ended.object.uid() {
                    // What came in meanwhile may be newer; if it is not, the next pass finds out when it writes.
                    return self.wake(key);
                }
                let counts = &self.context.config.counts;
                counts.remove(&entry.object);
                counts.add(&ended.object);
                entry.object = ended.object;
                ended.wake.filter(|_| !ended.gone)
            }
            Err(error) => {
                entry.failures = entry.failures.saturating_add(1);
                let wait = (1_i64 << entry.failures.min(6)).min(RETRY_MOST_SECONDS);
                let (namespace, name) = &key;
                tracing::warn!(namespace, name, %error, wait, "CronHorizontalPodAutoscaler, trying again");
                now.checked_add(Span::new().seconds(wait)).ok()
            }
        };
        self.alarms.set(&key, wake);
    }

    async fn stop(mut self) {
        let finished = async {
            while let Some(ended) = self.passes.join_next_with_id().await {
                if let Ok((id, passed)) = ended {
                    self.ended(id, passed);
                }
            }
        };
        // A run that is cut off stays claimed and is taken over by whoever comes next.
        if tokio::time::timeout(STOP_TIMEOUT, finished).await.is_err() {
            self.passes.shutdown().await;
        }
        for entry in self.entries.values() {
            self.context.config.counts.remove(&entry.object);
        }
        let unused = self.entries.values();
        let unused = unused.filter_map(|entry| Some((&entry.object, entry.memory.ahead()?)));
        let given_back = stream::iter(unused)
            .for_each_concurrent(self.context.config.passes_most, |(object, run)| {
                self.give_back(object, run)
            });
        if tokio::time::timeout(STOP_TIMEOUT, given_back)
            .await
            .is_err()
        {
            tracing::info!("claims that could not be given back in time end by themselves");
        }
    }

    /// Somebody else may do a run that this replica has claimed ahead.
    async fn give_back(&self, object: &CronHorizontalPodAutoscaler, run: &Run) {
        let mut status = object.status.clone().unwrap_or_default();
        if !give_back(&mut status, run, &self.context.holder) {
            return;
        }
        let (reporter, mut versions) = (&self.context.reporter, Vec::new());
        if let Err(error) = reporter.write(object, status, &mut versions).await {
            tracing::debug!(%error, name = object.name_any(), "a claim ends by itself, it could not be given back");
        }
    }
}

fn key(object: &CronHorizontalPodAutoscaler) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}
