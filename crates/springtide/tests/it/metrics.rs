//! Business metrics on a local cluster: a real Prometheus on the host with rules of prometheus-adapter, and pods read directly,
//! both asked by a real kubectl.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::busybox;
use crate::cluster::{TestCluster, refusal, wait_for};

const RULES: &str = r#"
rules:
  - seriesQuery: 'active_devices{namespace!="",service!=""}'
    resources:
      overrides:
        namespace: {resource: namespace}
        service: {resource: service}
    metricsQuery: 'sum(<<.Series>>{<<.LabelMatchers>>}) by (<<.GroupBy>>)'
"#;

/// Answers every request with one series; ends with the test's process.
fn exporter() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let mut request = [0u8; 4096];
            let _ = stream.read(&mut request);
            let body = "active_devices{namespace=\"default\",service=\"nginx\"} 2721\n";
            let head = format!(
                "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    port
}

/// A Prometheus on the host's loopback.
struct Prometheus {
    process: Child,
    url: String,
    _folder: tempfile::TempDir,
}

impl Prometheus {
    fn start(target: u16) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("prometheus.yml");
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s"},
            "scrape_configs": [{
                "job_name": "chat", "honor_labels": true,
                "static_configs": [{"targets": [format!("127.0.0.1:{target}")]}]
            }]
        });
        std::fs::write(&file, configuration.to_string()).unwrap();
        // Prometheus tells no port that it chose, so one that is free now is given to it.
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap();
        drop(free);
        let process = Command::new("prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.path().join("series").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("prometheus is installed (Debian package prometheus)");
        Self {
            process,
            url: format!("http://{address}"),
            _folder: folder,
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn raw(cluster: &TestCluster, path: &str) -> Result<Value, String> {
    let text = cluster.try_kubectl(&["get", "--raw", path], None)?;
    serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))
}

fn wait_for_value(cluster: &TestCluster, path: &str, wanted: &str) -> Value {
    wait_for(&format!("{path} = {wanted}"), 90, || {
        let answer = raw(cluster, path).map_err(|error| format!("{error}\n{}", cluster.log()))?;
        match answer["items"][0]["value"] == wanted {
            true => Ok(answer),
            false => Err(answer.to_string()),
        }
    })
}

#[test]
fn rules_over_prometheus_and_pods_without_it_give_metrics_to_kubectl() {
    let prometheus = Prometheus::start(exporter());
    let folder = tempfile::tempdir().unwrap();
    let rules = folder.path().join("rules.yaml");
    std::fs::write(&rules, RULES).unwrap();
    let rules = rules.display().to_string();
    let mut cluster = TestCluster::start(&[
        "--workers",
        "1",
        "--prometheus-url",
        &prometheus.url,
        "--metrics-config",
        &rules,
    ]);
    let services = "/apis/custom.metrics.k8s.io/v1beta1/namespaces/default/services/nginx";
    wait_for_value(&cluster, &format!("{services}/active_devices"), "2721");
    let list = raw(&cluster, "/apis/custom.metrics.k8s.io/v1beta1").unwrap();
    let names: Vec<&str> = list["resources"]
        .as_array()
        .unwrap()
        .iter()
        .map(|resource| resource["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        ["namespaces/active_devices", "services/active_devices"]
    );
    pods_are_read_directly(&cluster);
    drop(prometheus);
    cluster.down();
}

fn pods_are_read_directly(cluster: &TestCluster) {
    cluster.load_image(&busybox::archive(cluster.folder.path()));
    let serve = "mkdir /w; echo 'sessions{k=\"a\"} 3' > /w/metrics; httpd -f -p 8080 -h /w";
    let deployment = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "nginx"},
        "spec": {
            "replicas": 2,
            "selector": {"matchLabels": {"app": "nginx"}},
            "template": {
                "metadata": {"labels": {"app": "nginx"}},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [
                    {"name": "main", "image": busybox::REFERENCE, "command": ["sh", "-c", serve], "ports": [{"containerPort": 8080}]}
                ]}
            }
        }
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": "nginx"},
        "spec": {"selector": {"app": "nginx"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]}
    });
    let metric = json!({
        "apiVersion": "autoscaling.alibabacloud.com/v1beta1", "kind": "ElasticMetric", "metadata": {"name": "sessions"},
        "spec": {
            "target": {"apiVersion": "v1", "kind": "Service", "name": "nginx"}, "intervalSeconds": 1,
            "scrape": {"service": "nginx", "port": "http", "metric": "sessions"}
        }
    });
    for object in [deployment, service, metric] {
        cluster.apply(&object.to_string());
    }
    let path = "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/services/nginx/sessions";
    wait_for_value(cluster, path, "6");
    cluster.wait_for_value(
        &["elasticmetric", "sessions"],
        "/status/conditions/0/reason",
        &json!("Read"),
    );
}

#[test]
fn wrong_metrics_flags_are_told_before_anything_starts() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("c").display().to_string();
    let file = folder.path().join("rules.yaml");
    std::fs::write(
        &file,
        "rules: [{seriesQuery: x, metricsQuery: '<<.Nope>>'}]",
    )
    .unwrap();
    let file = file.display().to_string();
    let up = ["up", "--data-dir", &data_dir];
    let url = ["--prometheus-url", "http://127.0.0.1:9"];
    let said = refusal(&[&up[..], &url, &["--metrics-config", &file]].concat());
    assert!(
        said.contains("rules[0].metricsQuery") && said.contains(".Nope"),
        "{said}"
    );
    let said = refusal(&[&up[..], &["--metrics-config", &file]].concat());
    assert!(said.contains("--prometheus-url"), "{said}");
    let said = refusal(&[&up[..], &url, &["--prometheus-header", "x"]].concat());
    assert!(said.contains("name=value"), "{said}");
    assert!(!folder.path().join("c").exists());
}
