//! The add-on on an upstream control plane: real etcd, API server, controller manager and scheduler, a cloud of ours, and
//! replicas of the built program between them. `cargo xtask upstream` builds what it needs.

mod elastic;
mod in_cluster;
mod life;
mod metrics;
mod outages;
mod sessions;
mod top;

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use cloud_api::model::describe::{ContainerGroup, DescribeContainerGroupsRequest};
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig};
use local_cloud::backend::{SimulatedBackend, StartDelay};
use local_cloud::{CloudSources, LocalCloud, LocalCloudConfig, VSwitchConfig};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tool_upstream::{ControlPlane, Options};

use crate::busybox;
use crate::cluster::{PROGRAM, TestCluster, run, wait_for};

const ZONE: &str = "cn-hangzhou-h";
const NODE: &str = "virtual-kubelet-cn-hangzhou-h";
/// Addresses of groups that nobody has to reach.
const ANYWHERE: &str = "10.64.0.0/16";
/// Groups on paper at addresses where a test can listen.
const LOOPBACK: &str = "127.77.0.0/24";

/// Where groups run.
enum Cloud {
    /// On paper, in this process.
    Paper {
        _cloud: LocalCloud,
        threads: Runtime,
    },
    /// In containers, beside a cluster whose API nobody uses.
    Containers { _cluster: TestCluster },
}

struct Scene {
    plane: ControlPlane,
    cloud: Cloud,
    eci: EciClient,
    environment: Vec<(&'static str, String)>,
    folder: tempfile::TempDir,
}

/// One running `springtide virtual-node run`; killed when dropped.
struct Replica {
    process: Child,
    log: PathBuf,
    webhook: u16,
}

impl Scene {
    /// With groups on paper, at addresses of a range.
    fn on_paper(range: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let threads = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let key = Credentials::new("LTAI-upstream", "secret-upstream");
        let mut config = LocalCloudConfig::new(folder.path().join("cloud"), key);
        config.v_switches = vec![VSwitchConfig {
            id: "vsw-upstream".to_owned(),
            zone: ZONE.to_owned(),
            cidr: range.to_owned(),
        }];
        config.security_groups = ["sg-local", "sg-local-2"].map(str::to_owned).to_vec();
        let now = Arc::new(jiff::Timestamp::now);
        let backend = Arc::new(SimulatedBackend::new(StartDelay::default(), now));
        let cloud = threads.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
            let cloud = LocalCloud::start(config, backend, listener, CloudSources::system());
            cloud.await.unwrap()
        });
        let endpoint = cloud.endpoint();
        let cloud = Cloud::Paper {
            _cloud: cloud,
            threads,
        };
        let key = ("LTAI-upstream", "secret-upstream");
        Self::start(folder, cloud, &endpoint, "vsw-upstream", key)
    }

    /// With groups in containers that have busybox.
    fn in_containers() -> Self {
        let cluster = TestCluster::start(&["--workers", "0", "--without-addon", "--zones", ZONE]);
        cluster.load_image(&busybox::archive(cluster.folder.path()));
        let status = cluster.status();
        let text = |pointer: &str| {
            let found = status.pointer(pointer).and_then(Value::as_str);
            found
                .unwrap_or_else(|| panic!("{pointer} of {status:#}"))
                .to_owned()
        };
        let endpoint = format!("http://{}", text("/cloud/eci/endpoint"));
        let (id, secret) = (text("/cloud/accessKeyId"), text("/cloud/accessKeySecret"));
        let switch = text("/cloud/vSwitches/0/id");
        let folder = tempfile::tempdir().unwrap();
        let cloud = Cloud::Containers { _cluster: cluster };
        Self::start(folder, cloud, &endpoint, &switch, (&id, &secret))
    }

    fn start(
        folder: tempfile::TempDir,
        cloud: Cloud,
        endpoint: &str,
        switch: &str,
        key: (&str, &str),
    ) -> Self {
        let plane = ControlPlane::start(&Options::default());
        let plane = plane.unwrap_or_else(|error| panic!("{error:#}"));
        let credentials = Credentials::new(key.0, key.1);
        let config = EciConfig::new(endpoint, "cn-hangzhou", credentials).without_limits();
        let eci = EciClient::new(config, ClientSources::system()).unwrap();
        let scene = Self {
            plane,
            cloud,
            eci,
            environment: vec![
                ("ECI_REGION", "cn-hangzhou".to_owned()),
                ("ECI_ENDPOINT", endpoint.to_owned()),
                ("ECI_VSWITCH", switch.to_owned()),
                ("ECI_SECURITY_GROUP", "sg-local".to_owned()),
                ("ECI_CALL_LIMITS", "none".to_owned()),
            ],
            folder,
        };
        let id = format!("--from-literal=access-key-id={}", key.0);
        let secret = format!("--from-literal=access-key-secret={}", key.1);
        let create = ["-n", "kube-system", "create", "secret", "generic"];
        scene.kubectl(&[&create[..], &["alibaba-addon-secret", &id, &secret]].concat());
        scene
    }

    /// The add-on installed, and one replica that leads with its node ready and its webhook registered.
    fn served(self) -> (Self, Replica) {
        self.springtide(&[
            "addon",
            "install",
            "ack-virtual-node",
            "--mode",
            "managed",
            "--any-version",
        ]);
        let replica = self.replica("first", &[]);
        self.wait_for_node(&replica);
        (self, replica)
    }

    fn wait_for_node(&self, replica: &Replica) {
        wait_for("the virtual node's readiness", 60, || {
            let ready = r#"-o=jsonpath={.status.conditions[?(@.type=="Ready")].status}"#;
            match self.try_kubectl(&["get", "node", NODE, ready]) {
                Ok(text) if text == "True" => Ok(()),
                other => Err(format!("{other:?}\n{}", replica.log())),
            }
        });
        wait_for("the webhook's registration", 60, || {
            let found = [
                "get",
                "mutatingwebhookconfiguration",
                "vk-webhook",
                "-o=jsonpath={.webhooks[0].clientConfig.caBundle}",
            ];
            match self.try_kubectl(&found) {
                Ok(text) if !text.is_empty() => Ok(()),
                other => Err(format!("{other:?}\n{}", replica.log())),
            }
        });
    }

    /// Starts a replica outside the cluster, as managed mode does.
    fn replica(&self, identity: &str, flags: &[&str]) -> Replica {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let webhook = listener.local_addr().unwrap().port();
        drop(listener);
        let log = self.folder.path().join(format!("{identity}.log"));
        let process = Command::new(PROGRAM)
            .args([
                "--log",
                "info",
                "virtual-node",
                "run",
                "--identity",
                identity,
            ])
            .args(["--health-listen", "127.0.0.1:0", "--kubelet-port", "0"])
            .args(["--webhook-listen", &format!("127.0.0.1:{webhook}")])
            .args(["--webhook-url", &format!("https://127.0.0.1:{webhook}")])
            .args(flags)
            .envs(
                self.environment
                    .iter()
                    .map(|(name, value)| (*name, value.as_str())),
            )
            .env("KUBECONFIG", self.plane.kubeconfig())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Replica {
            process,
            log,
            webhook,
        }
    }

    /// One of the program's commands on this cluster; gives what it printed.
    fn try_springtide(&self, arguments: &[&str]) -> Result<String, String> {
        let mut command = Command::new(PROGRAM);
        command
            .args(arguments)
            .envs(
                self.environment
                    .iter()
                    .map(|(name, value)| (*name, value.as_str())),
            )
            .env("KUBECONFIG", self.plane.kubeconfig());
        run(&mut command, None)
    }

    fn springtide(&self, arguments: &[&str]) -> String {
        let outcome = self.try_springtide(arguments);
        outcome.unwrap_or_else(|error| panic!("springtide {arguments:?}: {error}"))
    }

    fn try_kubectl(&self, arguments: &[&str]) -> Result<String, String> {
        run(&mut self.plane.kubectl(arguments), None)
    }

    fn kubectl(&self, arguments: &[&str]) -> String {
        let outcome = self.try_kubectl(arguments);
        outcome.unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}"))
    }

    fn apply(&self, objects: &[Value]) {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        let applied = run(&mut self.plane.kubectl(&["apply", "-f", "-"]), Some(&list));
        applied.unwrap_or_else(|error| panic!("apply: {error}\n{list}"));
    }

    fn get(&self, arguments: &[&str]) -> Value {
        let text = self.kubectl(&[&["get", "-o", "json"], arguments].concat());
        serde_json::from_str(&text).unwrap()
    }

    /// Waits until an object, or a list of them, is as wanted; gives it.
    fn wait_for(&self, what: &str, arguments: &[&str], done: impl Fn(&Value) -> bool) -> Value {
        wait_for(what, 90, || {
            let text = self.try_kubectl(&[&["get", "-o", "json"], arguments].concat())?;
            let object: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if done(&object) {
                Ok(object)
            } else {
                Err(format!("{object:#}\n{}", self.logs()))
            }
        })
    }

    /// What all replicas have logged.
    fn logs(&self) -> String {
        let entries = std::fs::read_dir(self.folder.path()).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        let logs =
            paths.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
        logs.map(|path| {
            format!(
                "{}:\n{}",
                path.display(),
                std::fs::read_to_string(&path).unwrap()
            )
        })
        .collect()
    }

    fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        match &self.cloud {
            Cloud::Paper { threads, .. } => threads.block_on(future),
            Cloud::Containers { .. } => {
                let one = tokio::runtime::Builder::new_current_thread()
                    .enable_all()
                    .build();
                one.unwrap().block_on(future)
            }
        }
    }

    /// What costs money.
    fn groups(&self) -> Vec<ContainerGroup> {
        let all = DescribeContainerGroupsRequest::default();
        self.block_on(self.eci.all_container_groups(all)).unwrap()
    }
}

impl Replica {
    fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn wait_until_ended(&mut self) {
        wait_for("the replica's end", 60, || {
            let ended = self.process.try_wait().unwrap();
            ended
                .map(drop)
                .ok_or_else(|| std::fs::read_to_string(&self.log).unwrap_or_default())
        });
    }

    /// `kill -9`.
    fn kill(mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// A pod of one small container.
fn pod(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {}},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{"name": "main", "image": "shop:1", "resources": {"requests": {"cpu": "250m", "memory": "512Mi"}}}],
        },
    });
    change(&mut pod);
    pod
}

/// A pod that its label sends to virtual nodes.
fn labelled(name: &str, change: impl FnOnce(&mut Value)) -> Value {
    pod(name, |pod| {
        pod["metadata"]["labels"]["alibabacloud.com/eci"] = "true".into();
        change(pod);
    })
}

fn runs(pod: &Value) -> bool {
    pod["status"]["phase"] == "Running"
        && pod["status"]["podIP"].is_string()
        && pod["spec"]["nodeName"] == NODE
}

fn all_run(list: &Value, count: usize) -> bool {
    let pods = list["items"].as_array();
    pods.is_some_and(|pods| pods.iter().filter(|pod| runs(pod)).count() == count)
}
