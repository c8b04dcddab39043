//! The Debian package, looked at by dpkg itself.

use std::path::Path;

use crate::{BUILDING, run};

#[test]
fn the_package_installs_into_a_root_and_brings_everything() {
    let folder = tempfile::tempdir().unwrap();
    let at = folder.path().display().to_string();
    let xtask = env!("CARGO_BIN_EXE_xtask");
    let package = {
        let _one = BUILDING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        run(xtask, &["deb", "--debug", "--output", &at])
    };
    let package = package.trim();
    let root = folder.path().join("root");
    for empty in ["var/lib/dpkg/info", "var/lib/dpkg/updates"] {
        std::fs::create_dir_all(root.join(empty)).unwrap();
    }
    for empty in ["status", "available"] {
        std::fs::write(root.join("var/lib/dpkg").join(empty), "").unwrap();
    }
    let root_text = root.display().to_string();
    // dpkg as root installs really; the other root has no other packages, so nothing is needed of it.
    run("dpkg", &["--root", &root_text, "--install", package]);
    for file in [
        "usr/bin/springtide",
        "usr/lib/systemd/system/springtide-virtual-node.service",
        "etc/default/springtide-virtual-node",
        "usr/share/bash-completion/completions/springtide",
        "usr/share/zsh/vendor-completions/_springtide",
        "usr/share/fish/vendor_completions.d/springtide.fish",
        "usr/share/man/man1/springtide.1.gz",
        "usr/share/man/man1/springtide-addon-uninstall.1.gz",
        "usr/share/doc/springtide/copyright",
    ] {
        assert!(root.join(file).is_file(), "{file} is missing");
    }
    let program = root.join("usr/bin/springtide").display().to_string();
    let version = run(&program, &["--version"]);
    assert_eq!(
        version.trim(),
        concat!("springtide ", env!("CARGO_PKG_VERSION"))
    );
    let status = run(
        "dpkg-query",
        &[
            "--admindir",
            &format!("{root_text}/var/lib/dpkg"),
            "-W",
            "-f=${Status}",
            "springtide",
        ],
    );
    assert_eq!(status, "install ok installed");
    run("dpkg", &["--root", &root_text, "--purge", "springtide"]);
    assert!(!Path::new(&program).exists());
}
