//! `metrics.k8s.io` behind the upstream aggregator, and `kubectl top`.

use serde_json::Value;

use super::in_cluster::{Kubelet, in_own_network, installed};
use super::{ANYWHERE, NODE, Scene, labelled, runs};

/// Waits for an answer of an aggregated API.
fn asked(kubelet: &mut Kubelet<'_>, path: &str, right: impl Fn(&Value) -> bool) -> Value {
    let scene = kubelet.scene;
    kubelet.until(path, || {
        let text = scene.try_kubectl(&["get", "--raw", path])?;
        let answer: Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        if right(&answer) {
            Ok(answer)
        } else {
            Err(answer.to_string())
        }
    })
}

/// The columns of the line that begins with a name.
fn columns(table: &str, name: &str) -> Result<Vec<String>, String> {
    let mut lines = table.lines();
    let line = lines.find(|line| line.split_whitespace().next() == Some(name));
    let words = line.ok_or_else(|| table.to_owned())?.split_whitespace();
    Ok(words.map(str::to_owned).collect())
}

#[test]
fn top_shows_pods_and_nodes() {
    in_own_network(|| {
        let scene = Scene::on_paper(ANYWHERE);
        let mut kubelet = installed(&scene, &["METRICS_APIS=resource"]);
        scene.apply(&[labelled("web", |_| ())]);
        kubelet.sees("the pod runs", &["pod", "web"], runs);
        let pod = kubelet.until("top of pods", || {
            columns(&scene.try_kubectl(&["top", "pods"])?, "web")
        });
        assert!(pod[1].ends_with('m') && pod[2].ends_with("Mi"), "{pod:?}");
        // The other replica may know of the pod a little later.
        kubelet.until("top of containers", || {
            let containers = scene.try_kubectl(&["top", "pod", "web", "--containers"])?;
            if containers.contains("main") {
                Ok(())
            } else {
                Err(containers)
            }
        });
        let node = kubelet.until("top of nodes", || {
            let line = columns(&scene.try_kubectl(&["top", "nodes"])?, NODE)?;
            let known = line.iter().all(|word| word != "<unknown>");
            if known { Ok(line) } else { Err(line.join(" ")) }
        });
        assert!(node[1].ends_with('m') && node[4].ends_with('%'), "{node:?}");
        let path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods/web";
        let metrics = asked(&mut kubelet, path, |metrics| {
            metrics["timestamp"].is_string()
        });
        assert_eq!(metrics["containers"][0]["name"], "main");
    });
}
