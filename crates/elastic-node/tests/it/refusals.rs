//! What a virtual node cannot do is refused at once, through the real engine: an event that names the field and says what
//! to do instead, no group, and no pod that hangs.

use k8s_openapi::api::core::v1::Event;
use kube::Api;
use kube::api::ListParams;
use serde_json::{Value, json};

use crate::support::{Scene, eventually};

/// Name of the pod, what it asks for, the field that is named, and what is said to do.
type Row = (&'static str, fn(&mut Value), &'static str, &'static str);

fn container(pod: &mut Value) -> &mut Value {
    &mut pod["spec"]["containers"][0]
}

const ROWS: &[Row] = &[
    (
        "host-path",
        |pod| pod["spec"]["volumes"] = json!([{"name": "data", "hostPath": {"path": "/data"}}]),
        "spec.volumes[data]",
        "use emptyDir",
    ),
    (
        "host-network",
        |pod| pod["spec"]["hostNetwork"] = json!(true),
        "spec.hostNetwork",
        "run the pod on a worker",
    ),
    (
        "host-pid",
        |pod| pod["spec"]["hostPID"] = json!(true),
        "spec.hostPID",
        "run the pod on a worker",
    ),
    (
        "host-ipc",
        |pod| pod["spec"]["hostIPC"] = json!(true),
        "spec.hostIPC",
        "run the pod on a worker",
    ),
    (
        "privileged",
        |pod| container(pod)["securityContext"] = json!({"privileged": true}),
        "securityContext.privileged",
        "add single capabilities instead",
    ),
    (
        "host-port",
        |pod| container(pod)["ports"] = json!([{"containerPort": 80, "hostPort": 8080}]),
        "containers[0].ports",
        "by its own address or a Service",
    ),
    (
        "grpc-probe",
        |pod| container(pod)["livenessProbe"] = json!({"grpc": {"port": 80}}),
        "containers[0].probes",
        "use httpGet, tcpSocket or exec",
    ),
    (
        "http-header",
        |pod| {
            container(pod)["readinessProbe"] =
                json!({"httpGet": {"port": 80, "httpHeaders": [{"name": "a", "value": "b"}]}})
        },
        "containers[0].probes",
        "leave them out or use exec",
    ),
    (
        "init",
        |pod| {
            pod["spec"]["initContainers"] =
                json!([{"name": "i", "image": "i", "securityContext": {"privileged": true}}])
        },
        "spec.initContainers[0].securityContext.privileged",
        "add single capabilities",
    ),
    (
        "iscsi",
        |pod| pod["spec"]["volumes"] = json!([{"name": "disk", "iscsi": {"targetPortal": "10.0.0.1", "iqn": "iqn.2026-01.x:y", "lun": 0}}]),
        "spec.volumes[disk]",
        "a claim bound to an NFS volume",
    ),
    (
        "gpu",
        |pod| container(pod)["resources"] = json!({"limits": {"nvidia.com/gpu": "1"}}),
        "containers[0].resources.limits[nvidia.com/gpu]",
        "name in the annotation k8s.aliyun.com/eci-use-specs",
    ),
    (
        "gpu-too-few",
        |pod| {
            pod["metadata"]["annotations"]["k8s.aliyun.com/eci-use-specs"] =
                json!("ecs.gn6i-c4g1.xlarge");
            container(pod)["resources"] = json!({"limits": {"nvidia.com/gpu": "2"}});
        },
        "annotation k8s.aliyun.com/eci-use-specs",
        "name machine types that have enough",
    ),
    (
        "gpu-part",
        |pod| container(pod)["resources"] = json!({"limits": {"aliyun.com/gpu-mem": "3"}}),
        "containers[0].resources.limits[aliyun.com/gpu-mem]",
        "ask for whole ones as nvidia.com/gpu",
    ),
    // Only the cloud knows what it sells.
    (
        "size",
        |pod| {
            container(pod)["resources"] = json!({"requests": {"cpu": "4000", "memory": "9000Gi"}})
        },
        "InvalidParameter.CPU.Memory",
        "change the requests of its containers",
    ),
    // A DaemonSet's pod tolerates everything and so comes to virtual nodes too.
    (
        "daemon",
        |pod| {
            pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "DaemonSet", "name": "agent", "uid": "d-1", "controller": true}]);
            pod["spec"]["tolerations"] = json!([{"operator": "Exists"}]);
        },
        "metadata.ownerReferences",
        "type NotIn virtual-kubelet",
    ),
];

async fn messages(scene: &Scene, pod: &str) -> Vec<(String, String)> {
    let events: Api<Event> = Api::default_namespaced(scene.client.clone());
    let all = events.list(&ListParams::default()).await.unwrap().items;
    let own = all
        .into_iter()
        .filter(|event| event.involved_object.name.as_deref() == Some(pod));
    own.map(|event| {
        (
            event.reason.unwrap_or_default(),
            event.message.unwrap_or_default(),
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_virtual_nodes_cannot_do_is_refused_with_the_field_and_the_remedy() {
    let scene = Scene::start().await;
    for policy in ["Always", "Never"] {
        for (name, change, _, _) in ROWS {
            let name = format!("{name}-{}", policy.to_lowercase());
            let ask = |pod: &mut Value| {
                pod["spec"]["restartPolicy"] = json!(policy);
                change(pod);
            };
            scene.create_pod(&name, ask).await;
        }
    }
    for policy in ["Always", "Never"] {
        for (name, _, field, remedy) in ROWS {
            let pod = format!("{name}-{}", policy.to_lowercase());
            let told = |events: &Vec<(String, String)>| {
                events.iter().any(|(reason, message)| {
                    reason == "ProviderCreateFailed"
                        && message.contains(field)
                        && message.contains(remedy)
                })
            };
            eventually(&pod, async || messages(&scene, &pod).await, told).await;
            // Pods that never restart have failed, and so have those of DaemonSets, which would hang there for ever.
            let ends = policy == "Never" || *name == "daemon";
            let phase = if ends { "Failed" } else { "Pending" };
            let shown = |shown: &Value| {
                shown["status"]["phase"] == phase && shown["status"]["reason"] == "ProviderFailed"
            };
            eventually(&pod, async || scene.pod(&pod).await, shown).await;
        }
    }
    // One that is sound goes on as ever, and the cloud was asked for nothing else.
    scene.create_pod("sound", |_| {}).await;
    scene.runs("sound").await;
    assert_eq!(scene.cloud.group_ids().len(), 1);
}
