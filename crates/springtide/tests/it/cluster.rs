//! A cluster served by the built program in a directory of its own, taken down whatever happens.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_springtide");

pub struct TestCluster {
    pub folder: tempfile::TempDir,
    process: Option<Child>,
    flags: Vec<String>,
}

pub fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Runs the program to its end.
pub fn springtide(arguments: &[&str]) -> Output {
    Command::new(PROGRAM).args(arguments).output().unwrap()
}

/// What a command said on standard error, after it failed as it should.
pub fn refusal(arguments: &[&str]) -> String {
    let output = springtide(arguments);
    assert!(
        !output.status.success(),
        "{arguments:?} should have failed: {}",
        text(&output.stdout)
    );
    text(&output.stderr)
}

/// Runs a command to its end; gives what it printed and whether it succeeded.
pub fn run(command: &mut Command, input: Option<&str>) -> Result<String, String> {
    use std::io::Write;
    let mut child = command
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("kubectl is installed (Debian package kubernetes-client)");
    let writer = child.stdin.take().zip(input.map(str::to_string));
    // Beside the reading, so that neither side waits for the other; who does not read all its input closes the pipe.
    let writing = writer.map(|(mut pipe, input)| {
        std::thread::spawn(move || drop(pipe.write_all(input.as_bytes())))
    });
    let output = child.wait_with_output().unwrap();
    if let Some(writing) = writing {
        writing.join().unwrap();
    }
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!("{}{}", text(&output.stdout), text(&output.stderr)))
    }
}

/// Tries until it works; panics with the last state seen.
pub fn wait_for<T>(what: &str, seconds: u64, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let until = Instant::now() + Duration::from_secs(seconds);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(state) if Instant::now() > until => {
                panic!("{what} did not happen within {seconds} s; last seen: {state}")
            }
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

impl TestCluster {
    pub fn start(flags: &[&str]) -> Self {
        assert!(
            nix::unistd::geteuid().is_root(),
            "this test makes namespaces, mounts and cgroups; run it as root"
        );
        let mut cluster = Self {
            folder: tempfile::tempdir().unwrap(),
            process: None,
            flags: flags.iter().map(|flag| (*flag).to_string()).collect(),
        };
        cluster.up();
        cluster
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("cluster")
    }

    fn data_dir_text(&self) -> String {
        self.data_dir().display().to_string()
    }

    /// Starts the serving process and waits until it is ready.
    pub fn up(&mut self) {
        let log = std::fs::File::create(self.folder.path().join("up.log")).unwrap();
        let process = Command::new(PROGRAM)
            .args(["--log", "info", "up", "--data-dir", &self.data_dir_text()])
            .args(&self.flags)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        let pid = process.id();
        self.process = Some(process);
        wait_for("the cluster's start", 60, || {
            if let Some(status) = self.process.as_mut().unwrap().try_wait().unwrap() {
                panic!("`up` ended with {status}: {}", self.log());
            }
            match self.try_status() {
                Some(status) if status["pid"] == pid => Ok(()),
                other => Err(format!("{other:?}\n{}", self.log())),
            }
        });
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("up.log")).unwrap_or_default()
    }

    fn try_status(&self) -> Option<Value> {
        let output = springtide(&["status", "-o", "json", "--data-dir", &self.data_dir_text()]);
        output
            .status
            .success()
            .then(|| serde_json::from_slice(&output.stdout).unwrap())
    }

    pub fn status(&self) -> Value {
        self.try_status().expect("the cluster is served")
    }

    /// `kill -9` of the serving process.
    pub fn kill(&mut self) {
        let mut process = self.process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    pub fn load_image(&self, archive: &Path) {
        let output = springtide(&[
            "image",
            "--data-dir",
            &self.data_dir_text(),
            "load",
            &archive.display().to_string(),
        ]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    pub fn build_sample(&self) {
        let output = springtide(&["image", "--data-dir", &self.data_dir_text(), "build-sample"]);
        assert!(output.status.success(), "{}", text(&output.stderr));
    }

    /// Runs kubectl; gives what it printed and whether it succeeded.
    pub fn try_kubectl(&self, arguments: &[&str], input: Option<&str>) -> Result<String, String> {
        let mut command = self.kubectl_command(arguments);
        run(&mut command, input)
    }

    /// kubectl on this cluster, ready to be started.
    pub fn kubectl_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .args(arguments)
            .env("KUBECONFIG", self.data_dir().join("kubeconfig"))
            .env("HOME", self.folder.path());
        command
    }

    pub fn kubectl(&self, arguments: &[&str]) -> String {
        self.try_kubectl(arguments, None)
            .unwrap_or_else(|error| panic!("kubectl {arguments:?}: {error}\n{}", self.log()))
    }

    pub fn apply(&self, manifest: &str) {
        let applied = self.try_kubectl(&["apply", "-f", "-"], Some(manifest));
        applied.unwrap_or_else(|error| panic!("apply: {error}\n{manifest}"));
    }

    /// `kubectl get … -o json`.
    pub fn get(&self, arguments: &[&str]) -> Value {
        let mut all = vec!["get", "-o", "json"];
        all.extend(arguments);
        serde_json::from_str(&self.kubectl(&all)).unwrap()
    }

    /// Waits until a JSON pointer of an object has a value.
    pub fn wait_for_value(&self, arguments: &[&str], pointer: &str, wanted: &Value) {
        wait_for(&format!("{arguments:?} {pointer} = {wanted}"), 60, || {
            let object = self.get(arguments);
            if object.pointer(pointer) == Some(wanted) {
                Ok(())
            } else {
                Err(format!("{object:#}\n{}", self.log()))
            }
        });
    }

    /// Stops the cluster as a user would and shows that nothing is left.
    pub fn down(&mut self) {
        let output = springtide(&["down", "--purge", "--data-dir", &self.data_dir_text()]);
        assert!(
            output.status.success(),
            "down: {}\n{}",
            text(&output.stderr),
            self.log()
        );
        if let Some(mut process) = self.process.take() {
            assert!(process.wait().unwrap().success(), "{}", self.log());
        }
        assert!(!self.data_dir().exists());
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            let _ = process.kill();
            let _ = process.wait();
        }
        if self.data_dir().exists() {
            let output = springtide(&["down", "--purge", "--data-dir", &self.data_dir_text()]);
            if !output.status.success() && !std::thread::panicking() {
                panic!("the cluster left something: {}", text(&output.stderr));
            }
        }
    }
}
