//! The real virtual node between a small API in memory and the real state of the local cloud, each on a clock that stands
//! still until it is moved. The process is a runtime of its own: dropping it is its death, with all tasks at whatever
//! await they are.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cloud_api::client::{BoxError, BoxFuture, Transport};
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig};
use elastic_node::{NodeEndpoint, VSwitch, VirtualNodeConfig, run_virtual_nodes};
use http::{Request, Response};
use http_body_util::BodyExt;
use jiff::Timestamp;
use kube::Client;
use kube::client::Body as KubeBody;
use local_cloud::backend::StartDelay;
use local_cloud::{
    CloudSources, Fault, FaultOrder, LocalCloudConfig, PaperCloud, PaperGroup, VSwitchConfig,
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::api::{Body, MemoryApi};
use super::fate::Fate;

pub const ZONES: [&str; 2] = ["cn-hangzhou-h", "cn-hangzhou-i"];
pub const NAMESPACE: &str = "default";
const CLUSTER: &str = "c-sim";
const UID_TAG: &str = "springtide/uid";
const INSTANCE_ID: &str = "k8s.aliyun.com/eci-instance-id";
/// Process and outside take turns of this length.
const SLICE: Duration = Duration::from_millis(20);
/// A pod whose node is gone for so long is taken away, as every cluster's garbage collection of pods does.
const NODE_GONE_SECONDS: u32 = 20;

type Call = (Request<Bytes>, oneshot::Sender<Response<Bytes>>);

/// The way to the cloud.
struct CloudWay {
    fate: Arc<Fate>,
    calls: mpsc::UnboundedSender<Call>,
}

impl Transport for CloudWay {
    fn send(&self, request: Request<Bytes>) -> BoxFuture<'_, Result<Response<Bytes>, BoxError>> {
        Box::pin(async move {
            self.fate.moment(false).await?;
            let (reply, answer) = oneshot::channel();
            self.calls.send((request, reply))?;
            let answer = answer.await?;
            self.fate.moment(false).await?;
            Ok(answer)
        })
    }
}

/// The way to the API.
async fn ask(
    api: Arc<MemoryApi>,
    fate: Arc<Fate>,
    request: Request<KubeBody>,
) -> Result<Response<Body>, BoxError> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    fate.moment(true).await?;
    let answer = api.answer(&Request::from_parts(head, body));
    fate.moment(true).await?;
    Ok(answer)
}

fn paused() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
}

pub struct World {
    pub api: Arc<MemoryApi>,
    pub cloud: Arc<PaperCloud>,
    pub fate: Arc<Fate>,
    /// Pods whose group was taken from them; they may end as failed.
    pub harmed: BTreeSet<String>,
    /// Zones have no stock for good.
    pub sold_out: bool,
    pub deaths: u64,
    clock_ms: Arc<AtomicI64>,
    nonces: Arc<AtomicU64>,
    calls: mpsc::UnboundedSender<Call>,
    without_node: BTreeMap<String, u32>,
    process: Option<Runtime>,
    outside: Runtime,
}

impl World {
    pub fn new(seed: u64, delay: StartDelay) -> Self {
        let outside = paused();
        let clock_ms = Arc::new(AtomicI64::new(1_767_225_600_000));
        let sources = CloudSources {
            now: clock(&clock_ms),
            seed,
        };
        let (calls, mut inbox) = mpsc::unbounded_channel::<Call>();
        let cloud = {
            let _inside = outside.enter();
            Arc::new(PaperCloud::start(cloud_config(), delay, sources).unwrap())
        };
        let serving = cloud.clone();
        outside.spawn(async move {
            while let Some((request, reply)) = inbox.recv().await {
                let cloud = serving.clone();
                tokio::spawn(async move {
                    if let Some(answer) = cloud.answer(request).await {
                        // Whoever asked may be dead.
                        let _ = reply.send(answer);
                    }
                });
            }
        });
        let mut world = Self {
            api: Arc::default(),
            cloud,
            fate: Arc::new(Fate::new(seed)),
            harmed: BTreeSet::new(),
            sold_out: false,
            deaths: 0,
            clock_ms,
            nonces: Arc::default(),
            calls,
            without_node: BTreeMap::new(),
            process: None,
            outside,
        };
        world.begin();
        world
    }

    /// A new process, which knows nothing.
    fn begin(&mut self) {
        let process = paused();
        let inside = process.enter();
        let (api, fate) = (self.api.clone(), self.fate.clone());
        let service = tower::service_fn(move |request| ask(api.clone(), fate.clone(), request));
        let client = Client::new(service, NAMESPACE);
        let way = CloudWay {
            fate: self.fate.clone(),
            calls: self.calls.clone(),
        };
        let nonces = self.nonces.clone();
        let sources = ClientSources {
            now: clock(&self.clock_ms),
            nonce: Arc::new(move || format!("n-{}", nonces.fetch_add(1, Ordering::Relaxed))),
            jitter: Arc::new(|| 0.5),
        };
        let credentials = Credentials::new("id", "secret");
        let mut config =
            EciConfig::new("http://cloud", "cn-hangzhou", credentials).without_limits();
        config.attempt_timeout = Duration::from_secs(3);
        config.attempts = 3;
        let eci = EciClient::with_transport(config, sources, Arc::new(way)).unwrap();
        process.spawn(run_virtual_nodes(
            client,
            eci,
            node_config(),
            CancellationToken::new(),
        ));
        drop(inside);
        self.process = Some(process);
    }

    /// Lets time pass.
    pub fn advance(&mut self, milliseconds: u64) {
        for _ in 0..milliseconds.div_ceil(u64::try_from(SLICE.as_millis()).unwrap()) {
            if let Some(process) = &self.process {
                process.block_on(async { tokio::time::sleep(SLICE).await });
            }
            if self.fate.bury() {
                self.kill();
            }
            self.clock_ms
                .fetch_add(i64::try_from(SLICE.as_millis()).unwrap(), Ordering::Relaxed);
            self.outside
                .block_on(async { tokio::time::sleep(SLICE).await });
        }
    }

    /// The process dies now, and another one begins.
    pub fn kill(&mut self) {
        self.process = None;
        self.deaths += 1;
        self.begin();
    }

    pub fn create_pod(&self, name: &str, node: &str, spot: bool) {
        self.create_pod_with(name, node, |pod| {
            if spot {
                pod["metadata"]["annotations"] =
                    json!({"k8s.aliyun.com/eci-spot-strategy": "SpotAsPriceGo"});
            }
        });
    }

    pub fn create_pod_with(&self, name: &str, node: &str, change: impl FnOnce(&mut Value)) {
        let mut pod = json!({
            "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {
                "nodeName": node, "restartPolicy": "Always", "terminationGracePeriodSeconds": 1,
                "containers": [{"name": "web", "image": "shop:1", "resources": {"requests": {"cpu": "2", "memory": "4Gi"}}}]
            },
            "status": {"phase": "Pending"}
        });
        change(&mut pod);
        self.api.create("pods", NAMESPACE, pod);
    }

    pub fn delete_pod(&self, name: &str, at_once: bool) {
        self.api.delete("pods", NAMESPACE, name, at_once);
    }

    pub fn fault(
        &self,
        fault: Fault,
        action: Option<&str>,
        times: Option<u64>,
        seconds: Option<u64>,
    ) {
        let order = FaultOrder {
            fault,
            action: action.map(str::to_owned),
            times,
            seconds,
        };
        // What cannot befall a group, such as a reclaim when it is no spot group, does not.
        let _ = self.cloud.order_fault(order);
    }

    /// What must hold at every moment: never two groups that cost money for one pod.
    pub fn doubled(&self) -> Option<String> {
        let mut seen = BTreeSet::new();
        let groups = self.cloud.groups();
        let mut costly = groups
            .iter()
            .filter(|group| !group.deleting && !group.status.is_final());
        costly
            .find(|group| !seen.insert(uid_of(group)))
            .map(|group| format!("{} has two groups", uid_of(group)))
    }

    /// What must hold when all is at rest.
    pub fn wrong(&self) -> Option<String> {
        let (groups, pods) = (self.cloud.groups(), self.api.all("pods"));
        for group in &groups {
            let uid = uid_of(group);
            match pods.iter().find(|pod| pod["metadata"]["uid"] == uid) {
                None => {
                    return Some(format!(
                        "group {} of {uid} is leaked ({:?})",
                        group.id, group.status
                    ));
                }
                Some(pod) if has_ended(pod) && !group.status.is_final() => {
                    return Some(format!(
                        "group {} costs money for {uid}, which has ended",
                        group.id
                    ));
                }
                Some(_) => {}
            }
        }
        pods.iter().find_map(|pod| {
            let uid = text(&pod["metadata"]["uid"]);
            let own: Vec<&PaperGroup> =
                groups.iter().filter(|group| uid_of(group) == uid).collect();
            let trouble = self.trouble_of(pod, &uid, &own)?;
            let name = text(&pod["metadata"]["name"]);
            Some(format!(
                "pod {name} ({uid}) {trouble}: {}; groups {own:?}",
                pod["status"]
            ))
        })
    }

    fn trouble_of(&self, pod: &Value, uid: &str, own: &[&PaperGroup]) -> Option<&'static str> {
        if !pod["metadata"]["deletionTimestamp"].is_null() {
            return Some("hangs in its deletion");
        }
        let shown = &pod["metadata"]["annotations"][INSTANCE_ID];
        match (pod["status"]["phase"].as_str(), own) {
            (_, [_, _, ..]) => Some("has several groups"),
            (Some("Failed"), _) if self.harmed.contains(uid) => None,
            (Some("Failed"), _) => Some("is called failed and nothing had happened to it"),
            (Some("Running"), [group]) if *shown == group.id => None,
            (Some("Pending"), []) if self.sold_out && says_why(pod, "NoStock") => None,
            (Some("Pending"), [group]) if group.status.is_final() => {
                let told = self.harmed.contains(uid) && says_why(pod, "ContainerInstanceFailed");
                (!told).then_some("waits for a group that has ended")
            }
            (_, []) => Some("is a zombie: it has no group and waits for nothing"),
            _ => Some("does not show its group"),
        }
    }

    /// Pods of nodes that are gone go too, by and by; the cluster does that, not the virtual node.
    fn collect_garbage(&mut self) {
        let nodes: BTreeSet<String> = self
            .api
            .all("nodes")
            .iter()
            .map(|node| text(&node["metadata"]["name"]))
            .collect();
        for pod in self.api.all("pods") {
            let uid = text(&pod["metadata"]["uid"]);
            if nodes.contains(&text(&pod["spec"]["nodeName"])) {
                self.without_node.remove(&uid);
                continue;
            }
            let seconds = self.without_node.entry(uid).or_default();
            *seconds += 1;
            if *seconds > NODE_GONE_SECONDS {
                self.delete_pod(&text(&pod["metadata"]["name"]), true);
            }
        }
    }

    /// Lets time pass until nothing is wrong for `calm` seconds in a row; what is wrong when that never comes.
    pub fn come_to_rest(&mut self, calm: u32, longest: u32) -> Result<(), String> {
        let mut seconds = 0;
        for _ in 0..longest {
            self.advance(1_000);
            self.collect_garbage();
            if let Some(doubled) = self.doubled() {
                return Err(doubled);
            }
            seconds = if self.wrong().is_none() {
                seconds + 1
            } else {
                0
            };
            if seconds >= calm {
                return Ok(());
            }
        }
        Err(self
            .wrong()
            .unwrap_or_else(|| "it does not stay at rest".to_owned()))
    }
}

fn clock(clock_ms: &Arc<AtomicI64>) -> Arc<dyn Fn() -> Timestamp + Send + Sync> {
    let clock_ms = clock_ms.clone();
    Arc::new(move || Timestamp::from_millisecond(clock_ms.load(Ordering::Relaxed)).unwrap())
}

fn cloud_config() -> LocalCloudConfig {
    let mut config = LocalCloudConfig::new(PathBuf::new(), Credentials::new("id", "secret"));
    let switches = ZONES.iter().zip(4..).map(|(zone, number)| VSwitchConfig {
        id: format!("vsw-{zone}"),
        zone: (*zone).to_owned(),
        cidr: format!("10.{number}.0.0/24"),
    });
    config.v_switches = switches.collect();
    config.spot_notice = Duration::from_secs(2);
    config
}

fn node_config() -> VirtualNodeConfig {
    let switches = ZONES.iter().map(|zone| VSwitch {
        id: format!("vsw-{zone}"),
        zone: (*zone).to_owned(),
    });
    let endpoint = NodeEndpoint {
        zone: ZONES[0].to_owned(),
        address: "127.0.0.1".parse().unwrap(),
        port: 10250,
        listener: None,
    };
    let mut config = VirtualNodeConfig::new(CLUSTER, switches.collect(), vec![endpoint]);
    config.timing.quick_poll = Duration::from_millis(150);
    config.timing.steady_poll = Duration::from_secs(1);
    config.timing.sweep = Duration::from_secs(3);
    config.timing.retry_first = Duration::from_millis(500);
    config.timing.retry_most = Duration::from_secs(4);
    config.timing.zone_rest = Duration::from_secs(3);
    config
}

fn uid_of(group: &PaperGroup) -> String {
    let tag = group.tags.iter().find(|tag| tag.key == UID_TAG);
    tag.map(|tag| tag.value.clone()).unwrap_or_default()
}

fn has_ended(pod: &Value) -> bool {
    matches!(
        pod["status"]["phase"].as_str(),
        Some("Failed" | "Succeeded")
    )
}

/// Whether the pod tells what it waits for.
fn says_why(pod: &Value, reason: &str) -> bool {
    let conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    let mut waiting = conditions
        .filter(|one| one["type"] == "ContainerInstanceCreated" && one["status"] == "False");
    waiting.any(|one| one["reason"] == reason)
}

pub fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
