//! A machine of its own for each test: unique cluster, temporary state, nothing left behind.

use crate::support::{TestCloud, client, eventually, quick};
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
use cloud_api::model::manage::DescribeContainerLogRequest;
use local_cloud::backend::{RealBackend, RealBackendConfig};
use local_cloud::{CloudSources, LocalCloud};
use local_network::{ClusterNetwork, NetworkConfig};
use local_runtime::image::{ImageConfig, LayerSource};
use local_runtime::{Runtime, RuntimeConfig};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::net::TcpListener;

pub const IMAGE: &str = "test/busybox:1";

pub struct World {
    pub cluster: String,
    pub directory: tempfile::TempDir,
}

fn busybox() -> PathBuf {
    let found = ["/bin/busybox", "/usr/bin/busybox"]
        .map(PathBuf::from)
        .into_iter()
        .find(|path| path.exists());
    found.expect("these tests need the Debian package busybox-static")
}

/// One container that runs a shell script.
pub fn script(name: &str, script: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        command: vec!["/bin/sh".to_owned(), "-c".to_owned(), script.to_owned()],
        ..Default::default()
    }
}

pub fn group(name: &str, container: ContainerSpec) -> CreateContainerGroupRequest {
    CreateContainerGroupRequest {
        container_group_name: name.to_owned(),
        termination_grace_period_seconds: Some(1),
        container: vec![container],
        ..Default::default()
    }
}

impl World {
    pub async fn new() -> Self {
        let id = Command::new("id").arg("-u").output().unwrap().stdout;
        assert_eq!(id, b"0\n", "these tests must run as root");
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let world = Self {
            cluster: format!("lc-{}-{number}", std::process::id()),
            directory: tempfile::tempdir().unwrap(),
        };
        world.import_busybox().await;
        world
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub async fn runtime(&self) -> Runtime {
        let config = RuntimeConfig {
            state_dir: self.path("runtime"),
            cluster_id: self.cluster.clone(),
            shim_command: vec![env!("CARGO_BIN_EXE_local-cloud-test-shim").into()],
        };
        Runtime::open(config).await.unwrap()
    }

    pub async fn network(&self) -> ClusterNetwork {
        ClusterNetwork::open(NetworkConfig {
            cluster_id: self.cluster.clone(),
        })
        .await
        .unwrap()
    }

    async fn import_busybox(&self) {
        let tree = self.path("tree");
        let bin = tree.join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        std::fs::create_dir_all(tree.join("tmp")).unwrap();
        std::fs::copy(busybox(), bin.join("busybox")).unwrap();
        let list = Command::new(busybox())
            .arg("--list")
            .output()
            .unwrap()
            .stdout;
        for name in String::from_utf8(list)
            .unwrap()
            .lines()
            .filter(|name| *name != "busybox")
        {
            std::os::unix::fs::symlink("busybox", bin.join(name)).unwrap();
        }
        let layers = vec![LayerSource::Directory(tree)];
        self.runtime()
            .await
            .images()
            .import_image(IMAGE, ImageConfig::default(), layers)
            .await
            .unwrap();
    }

    /// A cloud over this machine, as a fresh process would start it.
    pub async fn cloud(&self, state: &str) -> LocalCloud {
        let backend = RealBackend::new(RealBackendConfig {
            runtime: self.runtime().await,
            network: self.network().await,
            data_dir: self.path("cloud-data"),
            cgroup_subpath: "cloud".to_owned(),
            default_resolv_conf: "nameserver 10.96.0.10\n".to_owned(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let config = quick(&self.path(state));
        LocalCloud::start(config, Arc::new(backend), listener, CloudSources::system())
            .await
            .unwrap()
    }

    pub async fn start(&self) -> TestCloud {
        let cloud = self.cloud("state").await;
        let client = client(&cloud.endpoint());
        TestCloud::new(cloud, client)
    }

    /// Deletes every group and checks that the machine is as it was.
    pub async fn finish(self, test: TestCloud) {
        assert!(
            test.cloud.delete_all(Duration::from_secs(20)).await,
            "{:?}",
            test.cloud.group_ids()
        );
        assert!(self.runtime().await.sandboxes().await.is_empty());
        assert!(self.network().await.attached().await.unwrap().is_empty());
        let left = std::fs::read_dir(self.path("cloud-data/groups"))
            .map(Iterator::count)
            .unwrap_or_default();
        assert_eq!(left, 0, "directories of groups");
        test.cloud.shutdown().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (state, cluster) = (self.path("runtime"), self.cluster.clone());
        // Also after a failed test; a runtime of its own, because the test's may be the one that panicked.
        let cleaner = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let containers = Runtime::remove_all(Path::new(&state), &cluster).await;
                let network = ClusterNetwork::destroy(&cluster).await;
                (
                    containers.map_err(|error| error.to_string()),
                    network.map_err(|error| error.to_string()),
                )
            })
        });
        let outcome = cleaner.join();
        if !std::thread::panicking() {
            let (containers, network) = outcome.unwrap();
            containers.unwrap();
            network.unwrap();
        }
    }
}

pub async fn log(test: &TestCloud, id: &str, container: &str, previous: bool) -> String {
    let request = DescribeContainerLogRequest {
        container_group_id: id.to_owned(),
        container_name: container.to_owned(),
        last_time: Some(previous),
        ..Default::default()
    };
    test.client.call(&request).await.unwrap().content
}

pub async fn until_log(test: &TestCloud, id: &str, container: &str, wanted: &str) -> String {
    eventually(&format!("log of {container} holds {wanted:?}"), || async {
        let content = log(test, id, container, false).await;
        if content.contains(wanted) {
            Ok(content)
        } else {
            Err(content)
        }
    })
    .await
}
