//! The real parts that tests use besides our own code, and how they come on to the machine.

use std::path::Path;

use anyhow::{Context, bail};

use crate::run;

/// A thing tests need: how to see it is there, which Debian package brings it, and what for.
struct Need {
    present: fn() -> bool,
    package: &'static str,
    reason: &'static str,
}

const NEEDS: &[Need] = &[
    Need {
        present: || on_path("kubectl"),
        package: "kubernetes-client",
        reason: "a real kubectl drives the API server",
    },
    Need {
        present: || on_path("jq"),
        package: "jq",
        reason: "the walks in examples/ read the cluster's status with it",
    },
    Need {
        present: || on_path("busybox") && Path::new("/usr/share/doc/busybox-static").exists(),
        package: "busybox-static",
        reason: "the smallest real container image",
    },
    Need {
        present: || on_path("docker-registry"),
        package: "docker-registry",
        reason: "images are pulled from a real registry",
    },
    Need {
        present: || Path::new("/etc/ssl/certs/ca-certificates.crt").exists(),
        package: "ca-certificates",
        reason: "the shipped image holds whom to trust",
    },
    Need {
        present: || on_path("dpkg-deb"),
        package: "dpkg",
        reason: "the Debian package is built and installed into a root of its own",
    },
    Need {
        present: || on_path("promtool"),
        package: "prometheus",
        reason: "promtool checks and tries the alert rules",
    },
    Need {
        present: || on_path("ip"),
        package: "iproute2",
        reason: "network namespaces are made and looked at by an independent tool",
    },
    Need {
        present: || on_path("node"),
        package: "nodejs",
        reason: "the vendor's SDK for Node.js calls the local cloud",
    },
    Need {
        present: || on_path("npm"),
        package: "npm",
        reason: "the vendor's SDK for Node.js is installed",
    },
    Need {
        present: || on_path("prometheus") && on_path("promtool"),
        package: "prometheus",
        reason: "a real Prometheus scrapes the kubelets",
    },
    Need {
        present: || on_path("python3"),
        package: "python3",
        reason: "the vendor's SDKs call the local cloud",
    },
    Need {
        present: || {
            std::process::Command::new("python3")
                .args(["-c", "import venv, ensurepip"])
                .stderr(std::process::Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
        },
        package: "python3-venv",
        reason: "the vendor's SDKs are installed from PyPI into a temporary environment",
    },
];

/// What the upstream control plane is built with and keeps its objects in.
const UPSTREAM: &[Need] = &[
    Need {
        present: || on_path("etcd"),
        package: "etcd-server",
        reason: "the store of the upstream control plane",
    },
    Need {
        present: || on_path("kubectl"),
        package: "kubernetes-client",
        reason: "a real kubectl drives the API server",
    },
];

const COMPILER: &[Need] = &[
    Need {
        present: || on_path("go"),
        package: "golang-go",
        reason: "the upstream control plane is built from source",
    },
    Need {
        present: tool_upstream::build::has_mended_library,
        package: "golang-github-modern-go-reflect2-dev",
        reason: "the source's own version of it crashes under this compiler",
    },
];

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|folder| folder.join(program).is_file())
}

/// Installs what tests need and is missing, as root on Debian; elsewhere says what is missing.
pub fn provide() -> anyhow::Result<()> {
    install(&NEEDS.iter().collect::<Vec<_>>())
}

/// The same for the upstream control plane; the compiler only when something is to be built.
pub fn provide_for_upstream(is_built: bool) -> anyhow::Result<()> {
    let compiler = if is_built { &[] } else { COMPILER };
    install(&UPSTREAM.iter().chain(compiler).collect::<Vec<_>>())
}

fn install(needs: &[&Need]) -> anyhow::Result<()> {
    let missing: Vec<&&Need> = needs.iter().filter(|need| !(need.present)()).collect();
    for need in needs {
        let state = if missing.iter().any(|one| one.package == need.package) {
            "missing"
        } else {
            "present"
        };
        println!("{:<20} {state:<8} {}", need.package, need.reason);
    }
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|need| need.package).collect();
    if !is_root()? || !on_path("apt-get") {
        bail!(
            "these Debian packages are needed: {}; install them, or run this command as root on Debian",
            names.join(" ")
        );
    }
    run::program("apt-get", &["update", "-qq"])?;
    let mut arguments = vec!["install", "-y", "-qq", "--no-install-recommends"];
    arguments.extend(&names);
    run::program("apt-get", &arguments)
}

fn is_root() -> anyhow::Result<bool> {
    let status = std::fs::read_to_string("/proc/self/status").context("read /proc/self/status")?;
    let uid = status
        .lines()
        .find_map(|line| line.strip_prefix("Uid:"))
        .and_then(|rest| rest.split_whitespace().nth(1));
    Ok(uid == Some("0"))
}
