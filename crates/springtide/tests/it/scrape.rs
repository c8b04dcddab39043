//! A real Prometheus reads the kubelets of both tiers with a ServiceAccount's token.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::json;

use crate::busybox;
use crate::cluster::{TestCluster, run, wait_for};

/// Prometheus inside the cluster's network.
struct Prometheus {
    namespace: String,
    process: Child,
}

const ADDRESS: &str = "127.0.0.1:9090";

fn inside(namespace: &str, program: &str) -> Command {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, program]);
    command
}

impl Prometheus {
    fn start(cluster: &TestCluster, configuration: &serde_json::Value) -> Self {
        let id = cluster.status()["clusterId"].as_str().unwrap().to_string();
        let namespace = format!("springtide-{id}");
        let folder = cluster.folder.path();
        let file = folder.join("prometheus.yml");
        // JSON is YAML.
        std::fs::write(&file, configuration.to_string()).unwrap();
        let log = std::fs::File::create(folder.join("prometheus.log")).unwrap();
        let process = inside(&namespace, "prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("series").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("ip is installed (Debian package iproute2)");
        Self { namespace, process }
    }

    fn query(&self, expression: &str) -> Result<String, String> {
        let server = format!("http://{ADDRESS}");
        let mut command = inside(&self.namespace, "promtool");
        command.args(["query", "instant", &server, expression]);
        run(&mut command, None)
    }

    /// Waits until the answer is `wanted`, without labels and time.
    fn wait_for(&self, expression: &str, wanted: &str, log: impl Fn() -> String) {
        wait_for(&format!("{expression} = {wanted}"), 90, || {
            let answer = self.query(expression)?;
            let value = answer
                .split("=> ")
                .nth(1)
                .and_then(|rest| rest.split(' ').next());
            if value == Some(wanted) {
                Ok(())
            } else {
                Err(format!("{answer}\n{}", log()))
            }
        });
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn pod(name: &str) -> String {
    let mut labels = json!({"app": "busy"});
    if name == "cloud" {
        labels["alibabacloud.com/eci"] = "true".into();
    }
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "labels": labels},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [{
                "name": "main", "image": busybox::REFERENCE,
                "command": ["sh", "-c", "while true; do seq 1 2000 > /dev/null; sleep 0.1; done"],
            }],
        },
    })
    .to_string()
}

/// Kubelets' addresses by node.
fn kubelets(cluster: &TestCluster) -> Vec<(String, String)> {
    let nodes = cluster.get(&["nodes"]);
    let nodes = nodes["items"].as_array().unwrap().iter();
    nodes
        .map(|node| {
            let addresses = node["status"]["addresses"].as_array().unwrap();
            let internal = addresses.iter().find(|one| one["type"] == "InternalIP");
            let address = internal.unwrap()["address"].as_str().unwrap();
            let name = node["metadata"]["name"].as_str().unwrap();
            (name.to_string(), format!("{address}:10250"))
        })
        .collect()
}

/// The token of an account that may read metrics, and the file of the cluster's authority.
fn credentials(cluster: &TestCluster) -> (String, PathBuf) {
    cluster.kubectl(&["create", "serviceaccount", "scraper"]);
    cluster.kubectl(&[
        "create",
        "clusterrole",
        "scraper",
        "--verb=get",
        "--resource=nodes/metrics",
    ]);
    let account = "--serviceaccount=default:scraper";
    cluster.kubectl(&[
        "create",
        "clusterrolebinding",
        "scraper",
        "--clusterrole=scraper",
        account,
    ]);
    let token = cluster.kubectl(&["create", "token", "scraper"]);
    let template =
        "{{index (index .clusters 0).cluster \"certificate-authority-data\" | base64decode}}";
    let format = format!("go-template={template}");
    let authority = cluster.kubectl(&["config", "view", "--raw", "-o", &format]);
    let file = cluster.folder.path().join("authority.pem");
    std::fs::write(&file, authority).unwrap();
    (token.trim().to_string(), file)
}

/// One job over all kubelets; each is asked for its own node's series, as scrapers of a shared address do.
fn job(
    name: &str,
    path: &str,
    token: &str,
    authority: &Path,
    nodes: &[(String, String)],
) -> serde_json::Value {
    let targets: Vec<_> = nodes
        .iter()
        .map(|(node, address)| {
            json!({"targets": [address], "labels": {"__param_nodeName": node, "node": node}})
        })
        .collect();
    json!({
        "job_name": name, "scheme": "https", "metrics_path": path, "static_configs": targets,
        "authorization": {"credentials": token}, "tls_config": {"ca_file": authority},
    })
}

#[test]
fn prometheus_scrapes_every_kubelet_and_no_series_comes_twice() {
    let mut cluster = TestCluster::start(&["--workers", "2"]);
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    for name in ["owned", "cloud"] {
        cluster.apply(&pod(name));
    }
    for name in ["owned", "cloud"] {
        cluster.wait_for_value(&["pod", name], "/status/phase", &json!("Running"));
    }
    let (token, authority) = credentials(&cluster);
    let nodes = kubelets(&cluster);
    let job = |name, path, token: &str| job(name, path, token, &authority, &nodes);
    let jobs = [
        job("cadvisor", "/metrics/cadvisor", &token),
        job("resource", "/metrics/resource", &token),
        job("kubelet", "/metrics", &token),
        // Not what this account may read, and nobody's token.
        job("pods", "/pods", &token),
        job("stranger", "/metrics", "nobody"),
    ];
    let interval = json!({"scrape_interval": "1s", "scrape_timeout": "1s"});
    let configuration = json!({"global": interval, "scrape_configs": jobs});
    let prometheus = Prometheus::start(&cluster, &configuration);
    let log = || {
        let path = cluster.folder.path().join("prometheus.log");
        std::fs::read_to_string(path).unwrap_or_default()
    };
    let all = nodes.len().to_string();
    for name in ["cadvisor", "resource", "kubelet"] {
        prometheus.wait_for(&format!("sum(up{{job=\"{name}\"}})"), &all, log);
    }
    for name in ["pods", "stranger"] {
        prometheus.wait_for(&format!("sum(up{{job=\"{name}\"}})"), "0", log);
    }
    for pod in ["owned", "cloud"] {
        for series in [
            "container_cpu_usage_seconds_total",
            "container_memory_working_set_bytes",
            "container_memory_rss",
        ] {
            let expression =
                format!("count({series}{{job=\"cadvisor\",pod=\"{pod}\",container=\"main\"}} > 0)");
            prometheus.wait_for(&expression, "1", log);
        }
    }
    let traffic = "count(container_network_receive_bytes_total{pod=\"owned\",interface=\"eth0\"})";
    prometheus.wait_for(traffic, "1", log);
    drop(prometheus);
    cluster.down();
}
