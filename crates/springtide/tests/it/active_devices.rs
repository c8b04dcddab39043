//! The walk of `examples/active-devices`: devices, log service, exporter, a real Prometheus, metrics API, HPA, ElasticWorkload.

use serde_json::Value;

use crate::cluster::{TestCluster, wait_for};
use crate::devices::{EXAMPLE, create_logstore, exporter, free_address, prometheus, replay};

/// No registry is at hand, so the sample's image stands in for the one of the manifests.
const IMAGE: &str = "springtide.local/sample-shop:demo";

fn manifest(name: &str) -> String {
    let text = std::fs::read_to_string(format!("{EXAMPLE}/{name}")).unwrap();
    text.replace("nginx:1.27-alpine", IMAGE)
}

/// Pods of the source and of the unit that are not on their way out, and the nodes of those of the unit that run.
#[derive(Debug, Default)]
struct Pods {
    owned: usize,
    serverless: usize,
    serverless_nodes: Vec<String>,
}

/// One look at all pods; own nodes are full as long as there is a serverless pod.
fn pods(cluster: &TestCluster) -> Pods {
    let list = cluster.get(&["pods", "--selector", "app=nginx"]);
    let mut pods = Pods::default();
    for pod in list["items"].as_array().unwrap() {
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            continue;
        }
        let name = pod["metadata"]["name"].as_str().unwrap();
        if !name.starts_with("nginx-unit-virtual-kubelet-") {
            pods.owned += 1;
            continue;
        }
        pods.serverless += 1;
        if pod["status"]["phase"] == "Running" {
            let node = pod["spec"]["nodeName"].as_str().unwrap();
            pods.serverless_nodes.push(node.to_owned());
        }
    }
    assert!(
        pods.serverless == 0 || pods.owned == 2,
        "serverless pods while own nodes are not full: {list:#}"
    );
    pods
}

fn listed(cluster: &TestCluster) -> Result<(), String> {
    let arguments = ["get", "--raw", "/apis/custom.metrics.k8s.io/v1beta1"];
    let answer = cluster.try_kubectl(&arguments, None)?;
    let list: Value = serde_json::from_str(&answer).map_err(|error| error.to_string())?;
    let resources = list["resources"].as_array().cloned().unwrap_or_default();
    let of = |name: &str| {
        let found = resources.iter().find(|one| one["name"] == name);
        found.map(|one| (one["namespaced"].clone(), one["kind"].clone()))
    };
    let wanted = |namespaced: bool| Some((namespaced.into(), "MetricValueList".into()));
    if of("services/active_devices") == wanted(true)
        && of("namespaces/active_devices") == wanted(false)
    {
        Ok(())
    } else {
        Err(answer)
    }
}

#[test]
fn replicas_follow_the_active_devices_and_serverless_ones_go_first() {
    let prometheus_address = free_address();
    let mut cluster = TestCluster::start(&[
        "--workers",
        "1",
        "--prometheus-url",
        &format!("http://{prometheus_address}"),
        "--metrics-config",
        &format!("{EXAMPLE}/adapter-rules.yaml"),
    ]);
    cluster.build_sample();
    create_logstore(&cluster);
    let (_exporter, exporter_address) = exporter(&cluster);
    let _prometheus = prometheus(&cluster, &exporter_address, &prometheus_address);
    for name in [
        "10-nginx.yaml",
        "20-elasticworkload.yaml",
        "30-horizontalpodautoscaler.yaml",
    ] {
        cluster.apply(&manifest(name));
    }
    // A few minutes of a day at its height: far more devices than one replica is meant for.
    let devices = replay(&cluster, "20m", "8000");
    wait_for("the metrics API lists the devices", 120, || {
        listed(&cluster)
    });
    wait_for("a serverless replica runs", 180, || {
        let pods = pods(&cluster);
        let on_virtual_node = |node: &String| node.starts_with("virtual-kubelet-");
        if !pods.serverless_nodes.is_empty() && pods.serverless_nodes.iter().all(on_virtual_node) {
            Ok(())
        } else {
            let described = cluster.kubectl(&["describe", "hpa", "nginx"]);
            Err(format!("{pods:?}\n{described}\n{}", cluster.log()))
        }
    });
    let row = cluster.kubectl(&["get", "hpa", "nginx", "--no-headers"]);
    let columns: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(columns[1], "ElasticWorkload/nginx", "{row}");
    assert!(columns[2].ends_with("/3k"), "{row}");
    assert_eq!(columns[3..5], ["1", "4"], "{row}");
    let described = cluster.kubectl(&["describe", "hpa", "nginx"]);
    for said in [
        "\"active_devices\" on Service/nginx (target value)",
        "the HPA was able to successfully calculate a replica count from Service metric active_devices",
        "reason: Service metric active_devices above target",
    ] {
        assert!(described.contains(said), "{said}\n{described}");
    }

    // Nobody writes any more: the number falls to nought, and what overflowed goes before anything on own nodes does.
    drop(devices);
    wait_for("one replica on an own node is left", 240, || {
        let pods = pods(&cluster);
        if (pods.owned, pods.serverless) == (1, 0) {
            Ok(())
        } else {
            let described = cluster.kubectl(&["describe", "hpa", "nginx"]);
            Err(format!("{pods:?}\n{described}"))
        }
    });
    cluster.down();
}
