//! A runtime of its own for each test: unique cluster, temporary state, nothing left behind.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use local_runtime::image::{ImageConfig, LayerSource};
use local_runtime::{
    ContainerId, ContainerSpec, ContainerState, ContainerStatus, Runtime, RuntimeConfig,
    SandboxSpec,
};

pub const IMAGE: &str = "test/busybox:1";
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A test's machine. `finish` checks that nothing is left; dropping cleans up also when the test fails.
pub struct World {
    pub runtime: Runtime,
    pub state: tempfile::TempDir,
    pub cluster: String,
    network_namespaces: Vec<String>,
}

fn busybox() -> PathBuf {
    let paths = ["/bin/busybox", "/usr/bin/busybox"];
    let found = paths
        .into_iter()
        .map(PathBuf::from)
        .find(|path| path.exists());
    found.expect("these tests need the Debian package busybox-static")
}

pub fn config(state: &Path, cluster: &str) -> RuntimeConfig {
    RuntimeConfig {
        state_dir: state.to_path_buf(),
        cluster_id: cluster.to_owned(),
        shim_command: vec![env!("CARGO_BIN_EXE_local-runtime-shim").into()],
    }
}

impl World {
    pub async fn new() -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "these tests must run as root"
        );
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let cluster = format!(
            "it-{}-{}",
            std::process::id(),
            COUNTER.fetch_add(1, Ordering::Relaxed)
        );
        let state = tempfile::tempdir().unwrap();
        let runtime = Runtime::open(config(state.path(), &cluster)).await.unwrap();
        let world = Self {
            runtime,
            state,
            cluster,
            network_namespaces: Vec::new(),
        };
        world.import_busybox().await;
        world
    }

    async fn import_busybox(&self) {
        let tree = tempfile::tempdir().unwrap();
        let etc = tree.path().join("etc");
        std::fs::create_dir_all(&etc).unwrap();
        std::fs::write(
            etc.join("passwd"),
            "root:x:0:0:root:/root:/bin/sh\nweb:x:1234:1235::/srv:/bin/sh\n",
        )
        .unwrap();
        std::fs::write(etc.join("group"), "root:x:0:\nextra:x:77:web\n").unwrap();
        std::fs::create_dir_all(tree.path().join("tmp")).unwrap();
        let bin = tree.path().join("bin");
        std::fs::create_dir_all(&bin).unwrap();
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
        let image = ImageConfig {
            env: vec!["FROM_IMAGE=yes".into()],
            ..ImageConfig::default()
        };
        let layers = vec![LayerSource::Directory(tree.path().to_path_buf())];
        self.runtime
            .images()
            .import_image(IMAGE, image, layers)
            .await
            .unwrap();
    }

    pub async fn sandbox(&self, id: &str) {
        self.runtime.create_sandbox(sandbox(id)).await.unwrap();
    }

    /// Makes a named network namespace with loopback up.
    pub fn network_namespace(&mut self) -> PathBuf {
        let name = format!("{}-{}", self.cluster, self.network_namespaces.len());
        run(&["ip", "netns", "add", &name]);
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
        let path = Path::new("/run/netns").join(&name);
        self.network_namespaces.push(name);
        path
    }

    /// Creates and starts a container.
    pub async fn start(&self, sandbox: &str, spec: ContainerSpec) -> ContainerId {
        let id = self.runtime.create_container(sandbox, spec).await.unwrap();
        self.runtime.start_container(&id).await.unwrap();
        id
    }

    /// Runs a shell script to its end; gives its status and log.
    pub async fn run(&self, sandbox: &str, spec: ContainerSpec) -> (ContainerStatus, String) {
        let id = self.start(sandbox, spec).await;
        let status = self.wait_exited(&id).await;
        (status, self.log(&id).await)
    }

    pub async fn log(&self, id: &ContainerId) -> String {
        use futures::TryStreamExt;
        let stream = self
            .runtime
            .container_logs(id, Default::default())
            .await
            .unwrap();
        let chunks: Vec<bytes::Bytes> = stream.try_collect().await.unwrap();
        String::from_utf8_lossy(&chunks.concat()).into_owned()
    }

    pub async fn wait_exited(&self, id: &ContainerId) -> ContainerStatus {
        let wanted = |status: &ContainerStatus| status.state == ContainerState::Exited;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let status = self.runtime.container_status(id).await.unwrap();
            if wanted(&status) {
                return status;
            }
            assert!(Instant::now() < deadline, "still {status:?}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub async fn exec(&self, id: &ContainerId, script: &str) -> (i32, String) {
        let command = vec!["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let output = self.runtime.exec_sync(id, command, PATIENCE).await.unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        (output.exit_code, text)
    }

    /// Removes everything and checks that it is gone.
    pub async fn finish(self) {
        Runtime::remove_all(self.state.path(), &self.cluster)
            .await
            .unwrap();
        let left = Runtime::leftovers(self.state.path(), &self.cluster);
        assert!(left.is_empty(), "{left:?}");
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let (state, cluster) = (self.state.path().to_path_buf(), self.cluster.clone());
        // A failed test must leave nothing either; its own runtime may be gone already.
        let cleaning = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(Runtime::remove_all(&state, &cluster))
        });
        let _ = cleaning.join();
        for name in &self.network_namespaces {
            let _ = Command::new("ip").args(["netns", "delete", name]).status();
        }
    }
}

pub fn run(command: &[&str]) {
    let output = Command::new(command[0])
        .args(&command[1..])
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub fn sandbox(id: &str) -> SandboxSpec {
    SandboxSpec {
        id: id.to_owned(),
        hostname: id.to_owned(),
        cgroup_subpath: "worker-1".into(),
        ..SandboxSpec::default()
    }
}

/// A container that runs a shell script.
pub fn script(name: &str, text: &str) -> ContainerSpec {
    ContainerSpec {
        name: name.to_owned(),
        image: IMAGE.to_owned(),
        command: Some(vec!["sh".into(), "-c".into(), text.into()]),
        ..ContainerSpec::default()
    }
}

/// A container that runs until it is stopped, quickly.
pub fn sleeper(name: &str) -> ContainerSpec {
    script(name, "trap 'exit 7' TERM; while :; do sleep 0.05; done")
}

/// Waits until a condition holds.
pub async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
