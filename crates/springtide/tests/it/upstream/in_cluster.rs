//! In-cluster mode: the Deployment's own pods, made by upstream's controllers and bound by its scheduler. No kubelet runs
//! containers here, so the test is the kubelet of their node: it starts the built program with the arguments and variables
//! of each pod, and with the files of its service account where pods have them.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{ANYWHERE, NODE, Scene, labelled, runs};
use crate::cluster::{PROGRAM, run, wait_for};

pub const WORKER: &str = "worker-1";
/// The pods' range, all of it on this network's loopback: Endpoints may not be in 127.0.0.0/8.
const RANGE: &str = "10.77.0.1/24";
const DEPLOYMENT: [&str; 4] = ["-n", "kube-system", "deployment", CONTROLLER];
const CONTROLLER: &str = "ack-virtual-node-controller";
const LEASE: [&str; 4] = ["-n", "kube-system", "lease", CONTROLLER];
/// Where pods find their account. `/run` is mounted anew for each process, so that the machine's own stays as it is.
const BECOME_POD: &str = "mount -t tmpfs tmpfs /run && mkdir -p /run/secrets/kubernetes.io && \
    cp -r \"$1\" /run/secrets/kubernetes.io/serviceaccount && shift && exec \"$@\"";
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
const HEARTBEAT: Duration = Duration::from_secs(5);
/// Longer than a Lease, so that a leader that is killed has surely been replaced.
const PATIENCE: u64 = 120;

/// Runs a test in a network of its own, where every address of [`RANGE`] is this machine.
pub fn in_own_network(test: impl FnOnce() + Send) {
    std::thread::scope(|scope| {
        let body = || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET)
                .expect("this test makes a network namespace; run it as root");
            for arguments in [
                ["link", "set", "lo", "up", "", ""],
                ["address", "add", RANGE, "dev", "lo", ""],
            ] {
                let arguments = arguments.iter().filter(|argument| !argument.is_empty());
                run(Command::new("ip").args(arguments), None)
                    .expect("the Debian package iproute2 is needed");
            }
            test();
        };
        if let Err(panic) = scope.spawn(body).join() {
            std::panic::resume_unwind(panic);
        }
    });
}

/// One container that runs.
struct Running {
    name: String,
    address: String,
    process: Child,
    ready: bool,
}

/// The kubelet of [`WORKER`].
pub struct Kubelet<'s> {
    pub scene: &'s Scene,
    /// By pod UID.
    running: BTreeMap<String, Running>,
    /// Addresses given out so far.
    given: u8,
    seen: Option<Instant>,
    /// A pod whose container is not started again for now, as after crashes in a row.
    pub back_off: Option<String>,
}

impl<'s> Kubelet<'s> {
    pub fn start(scene: &'s Scene) -> Self {
        scene.apply(&[
            json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": WORKER}}),
            json!({
                "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
                "metadata": {"name": WORKER, "namespace": "kube-node-lease"},
                "spec": {"holderIdentity": WORKER, "leaseDurationSeconds": 40},
            }),
        ]);
        let mut kubelet = Self {
            scene,
            running: BTreeMap::new(),
            given: 10,
            seen: None,
            back_off: None,
        };
        kubelet.beat();
        kubelet
    }

    /// Waits, and goes on being a kubelet meanwhile.
    pub fn until<T>(&mut self, what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
        wait_for(what, PATIENCE, || {
            self.sync();
            attempt().map_err(|error| format!("{error}\n{}", self.scene.logs()))
        })
    }

    /// Waits until an object, or a list of them, is as wanted; gives it.
    pub fn sees(&mut self, what: &str, of: &[&str], done: impl Fn(&Value) -> bool) -> Value {
        let scene = self.scene;
        self.until(what, || {
            let text = scene.try_kubectl(&[&["get", "-o", "json"], of].concat())?;
            let object: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
            if done(&object) {
                Ok(object)
            } else {
                Err(format!("{object:#}"))
            }
        })
    }

    fn patch_status(&self, namespace: &str, kind: &str, name: &str, status: &Value) {
        let patch = json!({ "status": status }).to_string();
        let subject = ["-n", namespace, "patch", kind, name];
        // It may have gone in the meantime.
        let how = ["--subresource=status", "--type=strategic", "-p", &patch];
        let _ = self.scene.try_kubectl(&[&subject[..], &how].concat());
    }

    fn beat(&mut self) {
        if self.seen.is_some_and(|seen| seen.elapsed() < HEARTBEAT) {
            return;
        }
        self.seen = Some(Instant::now());
        let now = jiff::Timestamp::now();
        let amounts = json!({"cpu": "4", "memory": "8Gi", "pods": "110"});
        let ready = json!({"type": "Ready", "status": "True", "reason": "KubeletReady", "lastHeartbeatTime": now});
        let status = json!({"capacity": amounts, "allocatable": amounts, "conditions": [ready]});
        self.patch_status("default", "node", WORKER, &status);
        let renewed = json!({"spec": {"renewTime": format!("{now:.6}")}}).to_string();
        let lease = ["-n", "kube-node-lease", "patch", "lease", WORKER];
        self.scene
            .kubectl(&[&lease[..], &["--type=merge", "-p", &renewed]].concat());
    }

    /// One round of what a kubelet does.
    fn sync(&mut self) {
        self.beat();
        let bound = format!("--field-selector=spec.nodeName={WORKER}");
        let pods = self.scene.get(&["pods", "-n", "kube-system", &bound]);
        let pods = pods["items"].as_array().unwrap().clone();
        let uid = |pod: &Value| pod["metadata"]["uid"].as_str().unwrap().to_owned();
        let wanted: Vec<String> = pods.iter().map(uid).collect();
        self.running.retain(|uid, running| {
            let stays = wanted.contains(uid);
            if !stays {
                running.kill();
            }
            stays
        });
        for pod in &pods {
            let uid = uid(pod);
            if pod["metadata"]["deletionTimestamp"].is_string() {
                self.end(pod, &uid);
            } else {
                self.keep(pod, uid);
            }
        }
    }

    fn end(&mut self, pod: &Value, uid: &str) {
        if let Some(mut running) = self.running.remove(uid) {
            running.stop();
        }
        let name = pod["metadata"]["name"].as_str().unwrap();
        let delete = ["-n", "kube-system", "delete", "pod", name, "--force"];
        let _ = self
            .scene
            .try_kubectl(&[&delete[..], &["--grace-period=0"]].concat());
    }

    /// Starts the container, or anew when it has ended, and tells how it does.
    fn keep(&mut self, pod: &Value, uid: String) {
        let held = self.back_off.as_deref() == pod["metadata"]["name"].as_str();
        let ended = |running: &mut Running| !held && running.process.try_wait().unwrap().is_some();
        let known = self.running.get_mut(&uid);
        if known.is_none_or(ended) {
            let before = self.running.remove(&uid);
            let address = before
                .map(|running| running.address.clone())
                .unwrap_or_else(|| {
                    self.given += 1;
                    format!("10.77.0.{}", self.given)
                });
            let running = self.start_container(pod, address);
            self.running.insert(uid, running);
            return;
        }
        let running = self.running.get_mut(&uid).unwrap();
        let ready = is_ready(&running.address);
        if ready == running.ready && pod["status"]["podIP"].is_string() {
            return;
        }
        running.ready = ready;
        let (name, address) = (running.name.clone(), running.address.clone());
        let condition = if ready { "True" } else { "False" };
        let conditions: Vec<Value> = ["Initialized", "PodScheduled", "ContainersReady", "Ready"]
            .iter()
            .map(|kind| {
                let own = if kind.ends_with("Ready") {
                    condition
                } else {
                    "True"
                };
                json!({"type": kind, "status": own, "lastTransitionTime": jiff::Timestamp::now()})
            })
            .collect();
        let status = json!({
            "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions,
            "startTime": jiff::Timestamp::now(),
        });
        self.patch_status("kube-system", "pod", &name, &status);
    }

    fn start_container(&self, pod: &Value, address: String) -> Running {
        let name = pod["metadata"]["name"].as_str().unwrap().to_owned();
        let container = &pod["spec"]["containers"][0];
        let texts = |list: &Value| -> Vec<String> {
            let all = list.as_array().into_iter().flatten();
            all.map(|text| text.as_str().unwrap().to_owned()).collect()
        };
        let log = self.scene.folder.path().join(format!("{name}.log"));
        let log = std::fs::File::options().create(true).append(true).open(log);
        let api = self.scene.plane.server().strip_prefix("https://").unwrap();
        let (host, port) = api.split_once(':').unwrap();
        let process = Command::new("unshare")
            .args(["--mount", "sh", "-ec", BECOME_POD, "sh"])
            .arg(self.account(pod, container))
            .arg(PROGRAM)
            .args(texts(&container["args"]))
            // In one network two pods cannot both listen on all addresses.
            .args(["--webhook-listen", &format!("{address}:9443")])
            .args(["--metrics-listen", &format!("{address}:4443")])
            .args(["--health-listen", &format!("{address}:8080")])
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs([
                ("KUBERNETES_SERVICE_HOST", host),
                ("KUBERNETES_SERVICE_PORT", port),
            ])
            .envs(variables(container, &name, &address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .expect("the Debian package util-linux is needed");
        Running {
            name,
            address,
            process,
            ready: false,
        }
    }

    /// The files of the pod's account, from the Secret that the API server put into its volumes.
    fn account(&self, pod: &Value, container: &Value) -> std::path::PathBuf {
        let all = |list: &Value| list.as_array().cloned().unwrap_or_default();
        let mounts = all(&container["volumeMounts"]);
        let mount = mounts.iter().find(|mount| mount["mountPath"] == ACCOUNT);
        let mount = mount.unwrap_or_else(|| panic!("the pod has an account: {pod:#}"));
        let volumes = all(&pod["spec"]["volumes"]);
        let volume = volumes
            .iter()
            .find(|volume| volume["name"] == mount["name"]);
        let secret = volume.unwrap()["secret"]["secretName"]
            .as_str()
            .unwrap()
            .to_owned();
        let folder = self.scene.folder.path().join("accounts").join(&secret);
        std::fs::create_dir_all(&folder).unwrap();
        for (file, key) in [
            ("token", "token"),
            ("ca.crt", "ca.crt"),
            ("namespace", "namespace"),
        ] {
            let format = format!("-o=go-template={{{{index .data {key:?} | base64decode}}}}");
            let read = ["-n", "kube-system", "get", "secret", &secret, &format];
            std::fs::write(folder.join(file), self.scene.kubectl(&read)).unwrap();
        }
        folder
    }

    /// The process of a pod, for whoever wants to end it.
    pub fn process_of(&mut self, pod: &str) -> &mut Child {
        let mut running = self.running.values_mut();
        let found = running.find(|running| running.name == pod);
        &mut found.unwrap_or_else(|| panic!("pod {pod} runs")).process
    }
}

/// What the pod template says, with the fields of the pod filled in.
fn variables(container: &Value, name: &str, address: &str) -> BTreeMap<String, String> {
    let list = container["env"].as_array().unwrap().iter();
    list.map(|variable| {
        let field = variable.pointer("/valueFrom/fieldRef/fieldPath");
        let value = match field.and_then(Value::as_str) {
            Some("metadata.name") => name,
            Some("status.podIP") => address,
            Some(other) => panic!("the test knows no field {other}"),
            None => variable["value"].as_str().unwrap_or_default(),
        };
        (
            variable["name"].as_str().unwrap().to_owned(),
            value.to_owned(),
        )
    })
    .collect()
}

/// The readiness probe.
fn is_ready(address: &str) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(format!("{address}:8080"))?;
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
        stream.write_all(b"GET /readyz HTTP/1.0\r\nhost: pod\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok::<_, std::io::Error>(answer)
    };
    ask().is_ok_and(|answer| {
        answer
            .lines()
            .next()
            .is_some_and(|line| line.contains(" 200 "))
    })
}

impl Running {
    fn kill(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }

    /// As a kubelet ends a container: asked first, killed when the pod's grace is over.
    fn stop(&mut self) {
        let process = nix::unistd::Pid::from_raw(i32::try_from(self.process.id()).unwrap());
        let _ = nix::sys::signal::kill(process, nix::sys::signal::Signal::SIGTERM);
        let until = Instant::now() + Duration::from_secs(30);
        while self.process.try_wait().unwrap().is_none() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.kill();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The add-on in the cluster with both replicas ready, the virtual node too.
pub fn installed<'s>(scene: &'s Scene, variables: &[&str]) -> Kubelet<'s> {
    let mut install = vec!["addon", "install", "ack-virtual-node", "--any-version"];
    install.extend(["--set-env", "ECI_CALL_LIMITS=none"]);
    for variable in variables {
        install.extend(["--set-env", variable]);
    }
    scene.springtide(&install);
    let mut kubelet = Kubelet::start(scene);
    kubelet.sees("two ready replicas", &DEPLOYMENT, |deployment| {
        deployment["status"]["readyReplicas"] == 2
    });
    let is_ready = |node: &Value| {
        let conditions = node["status"]["conditions"].as_array();
        let mut conditions = conditions.into_iter().flatten();
        conditions.any(|one| one["type"] == "Ready" && one["status"] == "True")
    };
    kubelet.sees("the virtual node", &["node", NODE], is_ready);
    kubelet
}

fn leader(lease: &Value) -> String {
    let holder = lease["spec"]["holderIdentity"].as_str();
    holder.unwrap_or_default().to_owned()
}

#[test]
fn two_replicas_in_the_cluster_take_over_are_upgraded_and_leave_nothing() {
    in_own_network(|| {
        let scene = Scene::on_paper(ANYWHERE);
        let mut kubelet = installed(&scene, &[]);
        let status = scene.springtide(&["addon", "status", "ack-virtual-node"]);
        assert!(
            status.contains("in-cluster") && status.contains("2 of 2 ready"),
            "{status}"
        );
        let first = leader(&scene.get(&LEASE));
        assert!(first.starts_with(CONTROLLER), "a pod leads: {first}");

        // Routed by the webhook, which the API server reaches through its Service.
        scene.apply(&[labelled("kept", |_| ())]);
        let before = kubelet.sees("the pod runs", &["pod", "kept"], runs);
        assert_eq!(before["spec"]["nodeSelector"]["type"], "virtual-kubelet");

        kubelet.back_off = Some(first.clone());
        kubelet.process_of(&first).kill().unwrap();
        kubelet.process_of(&first).wait().unwrap();
        let second = kubelet.sees("the other leads", &LEASE, |lease| {
            !leader(lease).is_empty() && leader(lease) != first
        });
        assert!(leader(&second).starts_with(CONTROLLER));
        scene.apply(&[labelled("next", |_| ())]);
        kubelet.sees("a new pod runs", &["pod", "next"], runs);
        kubelet.back_off = None;
        kubelet.sees("the first is back", &DEPLOYMENT, |deployment| {
            deployment["status"]["readyReplicas"] == 2
        });

        upgraded(&scene, &mut kubelet);
        let after = scene.get(&["pod", "kept"]);
        for part in ["podIP", "startTime", "containerStatuses"] {
            assert_eq!(after["status"][part], before["status"][part], "{part}");
        }
        assert_eq!(scene.groups().len(), 2);
        uninstalled(&scene, &mut kubelet);
    });
}

/// Pods with another image come one by one, and what was set before stays.
fn upgraded(scene: &Scene, kubelet: &mut Kubelet<'_>) {
    let image = "registry.example.com/springtide:next";
    let upgrade = ["addon", "upgrade", "ack-virtual-node", "--any-version"];
    scene.springtide(&[&upgrade[..], &["--image", image]].concat());
    let rolled = kubelet.sees("the new replicas", &DEPLOYMENT, |deployment| {
        let status = &deployment["status"];
        let observed = status["observedGeneration"] == deployment["metadata"]["generation"];
        let counts = ["updatedReplicas", "readyReplicas", "replicas"];
        observed && counts.iter().all(|count| status[count] == 2)
    });
    let container = &rolled["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], image);
    let variables = container["env"].as_array().unwrap();
    let kept = json!({"name": "ECI_CALL_LIMITS", "value": "none"});
    assert!(variables.contains(&kept), "{container:#}");
    scene.apply(&[labelled("later", |_| ())]);
    kubelet.sees("a pod of the new leader runs", &["pod", "later"], runs);
    scene.kubectl(&["delete", "pod", "later", "--wait=false"]);
    kubelet.until("its group has gone", || match scene.groups().len() {
        2 => Ok(()),
        count => Err(format!("{count} groups")),
    });
}

fn uninstalled(scene: &Scene, kubelet: &mut Kubelet<'_>) {
    let mut command = Command::new(PROGRAM);
    let mut removing = command
        .args(["addon", "uninstall", "ack-virtual-node"])
        .envs(
            scene
                .environment
                .iter()
                .map(|(name, value)| (*name, value.as_str())),
        )
        .env("KUBECONFIG", scene.plane.kubeconfig())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let ended = kubelet.until("the add-on is removed", || {
        let ended = removing.try_wait().unwrap();
        ended.ok_or_else(|| "still removing".to_owned())
    });
    let mut told = String::new();
    removing
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut told)
        .unwrap();
    assert!(ended.success(), "{told}\n{}", scene.logs());
    assert_eq!(scene.groups().len(), 0, "nothing costs money");
    kubelet.until("the last pod has gone", || {
        match scene.try_kubectl(&["-n", "kube-system", "get", "pods", "-o", "name"])? {
            text if text.is_empty() => Ok(()),
            text => Err(text),
        }
    });
    assert!(kubelet.running.is_empty(), "no process is left");
    assert_eq!(
        scene.kubectl(&["get", "nodes", "-o", "name"]),
        format!("node/{WORKER}\n")
    );
    let kinds = "clusterrole,clusterrolebinding,mutatingwebhookconfiguration,customresourcedefinition,apiservice";
    let left = scene.kubectl(&["get", kinds, "-o", "name"]);
    for ours in [
        "virtual-kubelet",
        "vk-webhook",
        "alibabacloud",
        "metrics.k8s.io",
    ] {
        assert!(!left.contains(ours), "{ours} in {left}");
    }
}
