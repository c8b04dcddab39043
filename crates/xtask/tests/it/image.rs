//! The image in a container of a local cluster. Needs root and kubectl.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::{BUILDING, run};

const NAME: &str = "ghcr.io/springtide/springtide:shipped";
const POD: &str = r#"{"apiVersion":"v1","kind":"Pod","metadata":{"name":"shipped"},"spec":{"restartPolicy":"Never",
    "securityContext":{"runAsNonRoot":true},"containers":[{"name":"main","image":"ghcr.io/springtide/springtide:shipped",
    "imagePullPolicy":"Never","args":["--version"],"securityContext":{"readOnlyRootFilesystem":true}}]}}"#;

/// Taken down whatever happens.
struct Cluster {
    program: String,
    data_dir: String,
    serving: Child,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let down = ["down", "--purge", "--data-dir", &self.data_dir];
        let _ = Command::new(&self.program).args(down).status();
        let _ = self.serving.wait();
    }
}

fn eventually(what: &str, mut look: impl FnMut() -> Result<(), String>) {
    let until = Instant::now() + Duration::from_secs(60);
    while let Err(state) = look() {
        assert!(Instant::now() < until, "{what}: {state}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn the_image_loads_and_runs_without_shell_and_root() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (archive, program, data_dir) = (path("image.tar"), path("springtide"), path("cluster"));
    {
        let _one = BUILDING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let xtask = env!("CARGO_BIN_EXE_xtask");
        run(
            xtask,
            &["image", "--debug", "--name", NAME, "--output", &archive],
        );
        let built = std::path::Path::new(xtask).with_file_name("springtide");
        std::fs::copy(built, &program).unwrap();
    }
    run(
        &program,
        &["image", "--data-dir", &data_dir, "load", &archive],
    );
    let serving = Command::new(&program)
        .args(["up", "--data-dir", &data_dir, "--workers", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let cluster = Cluster {
        program,
        data_dir,
        serving,
    };
    let kubeconfig = format!("{}/kubeconfig", cluster.data_dir);
    let status = format!("{}/status.json", cluster.data_dir);
    eventually("the cluster serves", || {
        std::fs::metadata(&status)
            .map(drop)
            .map_err(|error| error.to_string())
    });
    let pod = path("pod.json");
    std::fs::write(&pod, POD).unwrap();
    run(
        "kubectl",
        &["--kubeconfig", &kubeconfig, "apply", "-f", &pod],
    );
    eventually("the program ran", || {
        let logs = Command::new("kubectl")
            .args(["--kubeconfig", &kubeconfig, "logs", "shipped"])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&logs.stdout).trim().to_owned();
        if text == concat!("springtide ", env!("CARGO_PKG_VERSION")) {
            Ok(())
        } else {
            Err(format!("{text}{}", String::from_utf8_lossy(&logs.stderr)))
        }
    });
}
