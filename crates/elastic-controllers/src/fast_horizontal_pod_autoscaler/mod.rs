//! The fast path of autoscalers, off by default: HorizontalPodAutoscalers that ask for it with an annotation are looked at
//! as often as they say, with the decision that the ordinary controller makes, and `/scale` is written at once.
//!
//! The ordinary controller stays in charge. It alone writes the autoscaler's status, it alone lowers unless the
//! autoscaler says otherwise, and what it refuses to act on (an ambiguous selector) is not acted on here either. Nothing
//! is kept that a restart would miss: scale calls are on record in an annotation, and the size at first sight is
//! remembered as upstream remembers it.

mod follower;
mod pods;

use std::collections::{BTreeSet, HashMap};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use elastic_autoscaler::{Autoscaler, AutoscalerSettings};
use elastic_core::events::{EventKind, event};
use elastic_core::horizontal_pod_autoscaler::{FastPath, Flags};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Event;
use kube::api::PostParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{Notify, broadcast, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use follower::{Follower, Wakes};

const COMPONENT: &str = "fast-horizontal-pod-autoscaler";
/// Autoscalers followed at the same time; more would ask metrics APIs more than they bear.
const FOLLOWERS_MAX: usize = 500;

/// How the fast path behaves.
#[derive(Clone, Debug)]
pub struct FastAutoscalerConfig {
    /// What decisions take into account; should be what the ordinary controller was given.
    pub flags: Flags,
    /// How long an answer of a metrics API serves all who ask the same.
    pub metrics_freshness: Duration,
    /// How long a scale that was read serves looks at metrics that have not changed.
    pub scale_freshness: Duration,
    /// How often who waits for pushed metrics looks without any.
    pub resync_period: Duration,
    /// Tells the names of metrics that were pushed and have changed; without it nobody waits for them.
    pub pushes: Option<Pushes>,
}

/// Names of metrics whose values have changed.
type Pushes = broadcast::Sender<Arc<BTreeSet<String>>>;

impl Default for FastAutoscalerConfig {
    fn default() -> Self {
        FastAutoscalerConfig {
            flags: Flags::default(),
            metrics_freshness: Duration::from_millis(50),
            scale_freshness: Duration::from_secs(5),
            resync_period: Duration::from_secs(15),
            pushes: None,
        }
    }
}

/// What followers share.
struct Context {
    client: Client,
    config: FastAutoscalerConfig,
    autoscaler: Autoscaler,
}

impl Context {
    /// Posts an event; one that cannot be posted must not stop the work it tells about.
    async fn post(
        &self,
        about: &HorizontalPodAutoscaler,
        kind: EventKind,
        reason: &str,
        message: &str,
    ) {
        let namespace = about.namespace().unwrap_or_default();
        let events: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        let about = about.object_ref(&());
        let object = event(&about, COMPONENT, kind, reason, message, Timestamp::now());
        if let Err(error) = events.create(&PostParams::default(), &object).await {
            tracing::warn!(namespace, reason, %error, "event could not be posted");
        }
    }
}

/// Runs the fast path until `shutdown`.
pub async fn run_fast_horizontal_pod_autoscaler(
    client: Client,
    config: FastAutoscalerConfig,
    shutdown: CancellationToken,
) {
    let settings = AutoscalerSettings {
        flags: config.flags.clone(),
        metrics_freshness: config.metrics_freshness,
        field_manager: COMPONENT,
    };
    let mut pushes = config.pushes.as_ref().map(broadcast::Sender::subscribe);
    let context = Arc::new(Context {
        autoscaler: Autoscaler::new(client.clone(), settings),
        client: client.clone(),
        config,
    });
    let mut fleet = Fleet {
        context,
        shutdown: shutdown.clone(),
        followed: HashMap::new(),
        tasks: JoinSet::new(),
    };
    let autoscalers: Api<HorizontalPodAutoscaler> = Api::all(client);
    let changes = watcher(autoscalers, watcher::Config::default()).default_backoff();
    let mut changes = pin!(changes);
    let mut listed: Option<Vec<String>> = None;
    let mut told_absent = false;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = fleet.tasks.join_next() => {}
            pushed = next_push(&mut pushes) => fleet.wake(pushed.as_deref()),
            change = changes.next() => match change {
                Some(Ok(change)) => fleet.take(change, &mut listed).await,
                Some(Err(error)) if is_absent(&error) => {
                    if !std::mem::replace(&mut told_absent, true) {
                        tracing::warn!(
                            "this API server serves no autoscaling/v2, which Kubernetes has from 1.23 on: no autoscaler \
                             takes the fast path, whatever its annotations say"
                        );
                    }
                }
                Some(Err(error)) => tracing::debug!(%error, "watch of autoscalers interrupted"),
                None => break,
            },
        }
    }
    fleet.followed.clear();
    while fleet.tasks.join_next().await.is_some() {}
}

/// Whether the server has never heard of the kind; the watch goes on asking, for servers that are upgraded.
fn is_absent(error: &watcher::Error) -> bool {
    use watcher::Error::{InitialListFailed, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status)) => status.code == 404,
        _ => false,
    }
}

/// The metrics that were pushed next; none: any of them may have been.
async fn next_push(
    pushes: &mut Option<broadcast::Receiver<Arc<BTreeSet<String>>>>,
) -> Option<Arc<BTreeSet<String>>> {
    if let Some(receiver) = pushes {
        match receiver.recv().await {
            Ok(names) => return Some(names),
            Err(RecvError::Lagged(_)) => return None,
            Err(RecvError::Closed) => *pushes = None,
        }
    }
    std::future::pending().await
}

/// Whether an autoscaler looks at one of these metrics.
fn looks_at(autoscaler: &HorizontalPodAutoscaler, names: &BTreeSet<String>) -> bool {
    let spec = autoscaler.spec.as_ref();
    let mut metrics = spec
        .into_iter()
        .flat_map(|spec| spec.metrics.iter().flatten());
    metrics.any(|metric| {
        let pods = metric.pods.as_ref().map(|source| &source.metric.name);
        let object = metric.object.as_ref().map(|source| &source.metric.name);
        let external = metric.external.as_ref().map(|source| &source.metric.name);
        let name = pods.or(object).or(external);
        name.is_some_and(|name| names.contains(name))
    })
}

/// One autoscaler that is followed; dropping it ends the follower.
struct Followed {
    newest: watch::Sender<Arc<HorizontalPodAutoscaler>>,
    pushed: Arc<Notify>,
    stop: CancellationToken,
    complaint: Option<String>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// All autoscalers that are followed or were refused.
struct Fleet {
    context: Arc<Context>,
    shutdown: CancellationToken,
    followed: HashMap<String, Followed>,
    tasks: JoinSet<()>,
}

fn key_of(autoscaler: &HorizontalPodAutoscaler) -> String {
    // A new object of the same name starts with an empty memory.
    autoscaler.uid().unwrap_or_default()
}

impl Fleet {
    async fn take(
        &mut self,
        change: watcher::Event<HorizontalPodAutoscaler>,
        listed: &mut Option<Vec<String>>,
    ) {
        match change {
            watcher::Event::Init => *listed = Some(Vec::new()),
            watcher::Event::InitApply(autoscaler) => {
                if let Some(listed) = listed {
                    listed.push(key_of(&autoscaler));
                }
                self.see(autoscaler).await;
            }
            watcher::Event::InitDone => {
                let listed = listed.take().unwrap_or_default();
                self.followed.retain(|key, _| listed.contains(key));
            }
            watcher::Event::Apply(autoscaler) => self.see(autoscaler).await,
            watcher::Event::Delete(autoscaler) => {
                self.followed.remove(&key_of(&autoscaler));
            }
        }
    }

    /// Wakes who looks at these metrics; without names, everybody.
    fn wake(&self, names: Option<&BTreeSet<String>>) {
        for followed in self.followed.values() {
            let autoscaler = followed.newest.borrow();
            if names.is_none_or(|names| looks_at(&autoscaler, names)) {
                followed.pushed.notify_one();
            }
        }
    }

    async fn see(&mut self, autoscaler: HorizontalPodAutoscaler) {
        let key = key_of(&autoscaler);
        let is_going = autoscaler.meta().deletion_timestamp.is_some();
        let complaint = match FastPath::of(autoscaler.metadata.annotations.as_ref()) {
            Ok(Some(_)) if !is_going => {
                let is_full = self.tasks.len() >= FOLLOWERS_MAX;
                let is_new = !self.followed.contains_key(&key);
                (is_new && is_full).then(|| {
                    format!("{FOLLOWERS_MAX} autoscalers take the fast path already, this one is left to the ordinary controller")
                })
            }
            Ok(_) => {
                self.followed.remove(&key);
                return;
            }
            Err(error) => Some(error),
        };
        let autoscaler = Arc::new(autoscaler);
        match complaint {
            Some(complaint) => self.refuse(key, &autoscaler, complaint).await,
            None => self.follow(key, autoscaler),
        }
    }

    /// Says once why an autoscaler is not followed.
    async fn refuse(
        &mut self,
        key: String,
        autoscaler: &Arc<HorizontalPodAutoscaler>,
        complaint: String,
    ) {
        let known = self.followed.get(&key);
        if known.is_some_and(|known| known.complaint.as_ref() == Some(&complaint)) {
            return;
        }
        let (context, kind) = (&self.context, EventKind::Warning);
        context
            .post(autoscaler, kind, "FastPathRefused", &complaint)
            .await;
        let refused = Followed {
            newest: watch::Sender::new(Arc::clone(autoscaler)),
            pushed: Arc::default(),
            stop: CancellationToken::new(),
            complaint: Some(complaint),
        };
        self.followed.insert(key, refused);
    }

    fn follow(&mut self, key: String, autoscaler: Arc<HorizontalPodAutoscaler>) {
        if let Some(known) = self.followed.get(&key)
            && known.complaint.is_none()
        {
            // Nobody need look anew because of a status or of what the fast path itself put on record.
            known.newest.send_if_modified(|held| {
                let asks = |one: &HorizontalPodAutoscaler| {
                    let path = FastPath::of(one.metadata.annotations.as_ref());
                    (one.spec.clone(), path)
                };
                let is_news = asks(held) != asks(&autoscaler);
                *held = autoscaler;
                is_news
            });
            return;
        }
        let stop = self.shutdown.child_token();
        let newest = watch::Sender::new(autoscaler);
        let pushed = Arc::<Notify>::default();
        let wakes = Wakes {
            newest: newest.subscribe(),
            pushed: Arc::clone(&pushed),
            stop: stop.clone(),
        };
        let follower = Follower::new(Arc::clone(&self.context), wakes);
        self.tasks.spawn(follower.run());
        let followed = Followed {
            newest,
            pushed,
            stop,
            complaint: None,
        };
        self.followed.insert(key, followed);
    }
}
