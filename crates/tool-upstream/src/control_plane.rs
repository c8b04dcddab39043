//! etcd, API server, controller manager and scheduler on loopback, in a temporary folder, ended when dropped.
//!
//! RBAC, webhooks, aggregation and the certificate signers are on, as installers leave them.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::build;
use crate::certificates::{
    ADMIN, CONTROLLER_MANAGER, Certificates, FRONT_PROXY, KUBELET_CLIENT, SCHEDULER,
};

const START_TIMEOUT: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(100);
const ETCD: &str = "etcd";
const SERVICES: &str = "10.96.0.0/16";
/// A port that was free a moment ago can be somebody else's by now.
const ATTEMPTS: usize = 3;

/// How the control plane differs from its defaults.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Lifts the limits of the controller manager's and the scheduler's clients (20 and 50 requests a second), for
    /// measurements of what comes after them.
    pub raised_limits: bool,
    /// Further flags of the API server.
    pub api_server: Vec<String>,
}

/// A running control plane.
pub struct ControlPlane {
    folder: tempfile::TempDir,
    certificates: Certificates,
    server: String,
    kubeconfig: PathBuf,
    processes: Vec<(&'static str, Child)>,
}

impl ControlPlane {
    /// Starts it and waits until it works.
    ///
    /// # Errors
    /// When it is not built, or does not start; the error holds the last lines of its log.
    pub fn start(options: &Options) -> anyhow::Result<Self> {
        let programs = build::programs()?;
        let mut last = None;
        for _ in 0..ATTEMPTS {
            match Self::attempt(&programs, options) {
                Err(error) if error.to_string().contains("address already in use") => {
                    last = Some(error);
                }
                outcome => return outcome,
            }
        }
        Err(last.context("no attempt was made")?)
    }

    fn attempt(programs: &Path, options: &Options) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("upstream-").tempdir()?;
        let [client, peer, secure] = free_ports()?;
        let host = Ipv4Addr::LOCALHOST.to_string();
        let certificates =
            Certificates::make(&folder.path().join("pki"), std::slice::from_ref(&host))?;
        let server = format!("https://{host}:{secure}");
        let kubeconfig = certificates.kubeconfig(&ADMIN, &server)?;
        let mut plane = Self {
            folder,
            certificates,
            server,
            kubeconfig,
            processes: Vec::new(),
        };
        plane.start_etcd(client, peer)?;
        plane.start_api_server(programs, client, secure, options)?;
        plane.wait_until("the API server is ready", &["get", "--raw", "/readyz"])?;
        plane.start_controller_manager(programs, options)?;
        plane.start_scheduler(programs, options)?;
        plane.let_api_server_call_kubelets()?;
        let account = ["-n", "default", "get", "serviceaccount", "default"];
        plane.wait_until("the controller manager works", &account)?;
        Ok(plane)
    }

    /// An administrator's kubeconfig.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Where the API server listens.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The authority that signs clients' and servers' certificates.
    #[must_use]
    pub fn authority_pem(&self) -> &str {
        self.certificates.authority_pem()
    }

    /// A file of the cluster's certificates, such as `kubelet-client.crt`.
    #[must_use]
    pub fn certificate(&self, file: &str) -> PathBuf {
        self.certificates.path(file)
    }

    /// Its programs with their process ids.
    #[must_use]
    pub fn processes(&self) -> Vec<(&'static str, u32)> {
        self.processes
            .iter()
            .map(|(name, child)| (*name, child.id()))
            .collect()
    }

    /// What a program has logged.
    #[must_use]
    pub fn log(&self, program: &str) -> String {
        std::fs::read_to_string(self.log_path(program)).unwrap_or_default()
    }

    /// kubectl as the administrator.
    #[must_use]
    pub fn kubectl(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("kubectl");
        command
            .arg("--kubeconfig")
            .arg(&self.kubeconfig)
            .args(arguments)
            .env("HOME", self.folder.path());
        command
    }

    fn log_path(&self, program: &str) -> PathBuf {
        self.folder.path().join(format!("{program}.log"))
    }

    fn start_etcd(&mut self, client: u16, peer: u16) -> anyhow::Result<()> {
        let url = |port: u16| format!("http://127.0.0.1:{port}");
        let mut command = Command::new(ETCD);
        command
            .arg("--data-dir")
            .arg(self.folder.path().join("etcd"))
            .args(["--listen-client-urls", &url(client)])
            .args(["--advertise-client-urls", &url(client)])
            .args(["--listen-peer-urls", &url(peer)])
            .args(["--initial-advertise-peer-urls", &url(peer)])
            .args(["--initial-cluster", &format!("default={}", url(peer))]);
        self.spawn(ETCD, command)
            .context("the Debian package etcd-server is needed; `cargo xtask upstream` installs it")
    }

    fn start_api_server(
        &mut self,
        programs: &Path,
        etcd: u16,
        secure: u16,
        options: &Options,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(programs.join("kube-apiserver"));
        let file = |name: &str| self.certificates.path(name).display().to_string();
        let key = |person: &str| file(&format!("{person}.key"));
        let certificate = |person: &str| file(&format!("{person}.crt"));
        let flags = [
            ("etcd-servers", format!("http://127.0.0.1:{etcd}")),
            ("bind-address", "127.0.0.1".to_owned()),
            ("advertise-address", "127.0.0.1".to_owned()),
            // Its own endpoint is on loopback, which Endpoints may not be.
            ("endpoint-reconciler-type", "none".to_owned()),
            ("secure-port", secure.to_string()),
            ("tls-cert-file", certificate("apiserver")),
            ("tls-private-key-file", key("apiserver")),
            ("client-ca-file", file("ca.crt")),
            ("kubelet-certificate-authority", file("ca.crt")),
            (
                "kubelet-client-certificate",
                certificate(KUBELET_CLIENT.file),
            ),
            ("kubelet-client-key", key(KUBELET_CLIENT.file)),
            ("kubelet-preferred-address-types", "InternalIP".to_owned()),
            (
                "service-account-issuer",
                "https://kubernetes.default.svc".to_owned(),
            ),
            ("service-account-key-file", file("service-accounts.pub")),
            (
                "service-account-signing-key-file",
                file("service-accounts.key"),
            ),
            ("service-cluster-ip-range", SERVICES.to_owned()),
            ("authorization-mode", "Node,RBAC".to_owned()),
            ("enable-admission-plugins", "NodeRestriction".to_owned()),
            ("requestheader-client-ca-file", file("front-proxy-ca.crt")),
            (
                "requestheader-allowed-names",
                "front-proxy-client".to_owned(),
            ),
            ("requestheader-username-headers", "X-Remote-User".to_owned()),
            ("requestheader-group-headers", "X-Remote-Group".to_owned()),
            (
                "requestheader-extra-headers-prefix",
                "X-Remote-Extra-".to_owned(),
            ),
            ("proxy-client-cert-file", certificate(FRONT_PROXY.file)),
            ("proxy-client-key-file", key(FRONT_PROXY.file)),
            ("enable-aggregator-routing", "true".to_owned()),
        ];
        command.args(flags.map(|(name, value)| format!("--{name}={value}")));
        command.args(&options.api_server);
        self.spawn("kube-apiserver", command)
    }

    fn start_controller_manager(
        &mut self,
        programs: &Path,
        options: &Options,
    ) -> anyhow::Result<()> {
        let mut command = Command::new(programs.join("kube-controller-manager"));
        let own = self
            .certificates
            .kubeconfig(&CONTROLLER_MANAGER, &self.server)?;
        let file = |name: &str| self.certificates.path(name).display().to_string();
        let flags = [
            ("kubeconfig", own.display().to_string()),
            ("leader-elect", "false".to_owned()),
            // Nobody asks it anything.
            ("port", "0".to_owned()),
            ("secure-port", "0".to_owned()),
            ("cluster-signing-cert-file", file("ca.crt")),
            ("cluster-signing-key-file", file("ca.key")),
            ("root-ca-file", file("ca.crt")),
            (
                "service-account-private-key-file",
                file("service-accounts.key"),
            ),
            ("use-service-account-credentials", "true".to_owned()),
        ];
        command.args(flags.map(|(name, value)| format!("--{name}={value}")));
        if options.raised_limits {
            command.args(["--kube-api-qps=1000", "--kube-api-burst=2000"]);
            command.args([
                "--concurrent-deployment-syncs=20",
                "--concurrent-replicaset-syncs=20",
            ]);
        }
        self.spawn("kube-controller-manager", command)
    }

    fn start_scheduler(&mut self, programs: &Path, options: &Options) -> anyhow::Result<()> {
        let mut command = Command::new(programs.join("kube-scheduler"));
        let own = self.certificates.kubeconfig(&SCHEDULER, &self.server)?;
        command.arg("--kubeconfig").arg(own);
        command.args(["--leader-elect=false", "--port=0", "--secure-port=0"]);
        if options.raised_limits {
            command.args(["--kube-api-qps=1000", "--kube-api-burst=2000"]);
        }
        self.spawn("kube-scheduler", command)
    }

    /// What installers do for the API server's own name.
    fn let_api_server_call_kubelets(&self) -> anyhow::Result<()> {
        let arguments = [
            "create",
            "clusterrolebinding",
            "kube-apiserver-kubelet-client",
            "--clusterrole=system:kubelet-api-admin",
            "--user=kube-apiserver-kubelet-client",
        ];
        let output = self.kubectl(&arguments).output().context("start kubectl")?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }

    fn spawn(&mut self, name: &'static str, mut command: Command) -> anyhow::Result<()> {
        let log = File::create(self.log_path(name)).context("create a log")?;
        command
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share a log")?)
            .stderr(log);
        let child = command.spawn().with_context(|| format!("start {name}"))?;
        self.processes.push((name, child));
        Ok(())
    }

    fn wait_until(&mut self, what: &str, question: &[&str]) -> anyhow::Result<()> {
        let until = Instant::now() + START_TIMEOUT;
        loop {
            let output = self.kubectl(question).output();
            let output = output.context("start kubectl (Debian package kubernetes-client)")?;
            if output.status.success() {
                return Ok(());
            }
            for (name, child) in &mut self.processes {
                if let Some(status) = child.try_wait()? {
                    bail!(
                        "{name} ended ({status}):\n{}",
                        tail(&self.folder.path().join(format!("{name}.log")))
                    );
                }
            }
            ensure!(
                Instant::now() < until,
                "not so within {START_TIMEOUT:?}: {what}\n{}\n{}",
                String::from_utf8_lossy(&output.stderr),
                tail(&self.log_path("kube-apiserver"))
            );
            std::thread::sleep(LOOK);
        }
    }
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The store last: the others would only complain that it is gone.
        for (_, child) in self.processes.iter_mut().rev() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn tail(path: &Path) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(20)..].join("\n")
}

/// Ports that nobody listens on now.
fn free_ports<const COUNT: usize>() -> anyhow::Result<[u16; COUNT]> {
    let mut listeners = Vec::new();
    let mut ports = [0; COUNT];
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).context("find a free port")?;
        *port = listener.local_addr().context("find a free port")?.port();
        listeners.push(listener);
    }
    Ok(ports)
}
