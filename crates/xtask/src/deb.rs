//! The Debian package: program, unit, completions and man pages, laid out here and packed by dpkg-deb, which every Debian
//! has.

use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::program::{Program, VERSION, architecture, source_time};
use crate::run;

const UNIT: &str = "deploy/systemd/springtide-virtual-node.service";
const SETTINGS: &str = "deploy/systemd/springtide-virtual-node.default";

/// How the package is built.
#[derive(clap::Args)]
pub struct Deb {
    #[command(flatten)]
    program: Program,
    /// Folder the package is written into.
    #[arg(long, default_value = ".")]
    output: PathBuf,
}

/// Builds the package.
pub fn build(deb: &Deb) -> anyhow::Result<()> {
    let program = deb.program.provide()?;
    let time = source_time()?;
    let stage = deb.output.join(format!("springtide_{VERSION}.stage"));
    if stage.exists() {
        fs::remove_dir_all(&stage).with_context(|| format!("empty {}", stage.display()))?;
    }
    let laid_out = lay_out(&stage, &program).and_then(|()| pack(&stage, deb, time));
    let _ = fs::remove_dir_all(&stage);
    println!("{}", laid_out?.display());
    Ok(())
}

fn put(stage: &Path, path: &str, mode: u32, content: &[u8]) -> anyhow::Result<()> {
    let path = stage.join(path);
    let write = || format!("write {}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).with_context(write)?;
    }
    fs::write(&path, content).with_context(write)?;
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).with_context(write)
}

fn lay_out(stage: &Path, program: &Path) -> anyhow::Result<()> {
    let source = |path: &str| {
        let path = run::root().join(path);
        fs::read(&path).with_context(|| format!("read {}", path.display()))
    };
    let bytes = fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let kib = bytes.len().div_ceil(1024);
    put(stage, "usr/bin/springtide", 0o755, &bytes)?;
    put(
        stage,
        "usr/lib/systemd/system/springtide-virtual-node.service",
        0o644,
        &source(UNIT)?,
    )?;
    put(
        stage,
        "etc/default/springtide-virtual-node",
        0o644,
        &source(SETTINGS)?,
    )?;
    for (shell, path) in [
        ("bash", "usr/share/bash-completion/completions/springtide"),
        ("zsh", "usr/share/zsh/vendor-completions/_springtide"),
        (
            "fish",
            "usr/share/fish/vendor_completions.d/springtide.fish",
        ),
    ] {
        put(stage, path, 0o644, &ask(program, &["completions", shell])?)?;
    }
    man_pages(stage, program)?;
    let copyright = "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\n\nFiles: *\nLicense: Apache-2.0\n On Debian the text is in /usr/share/common-licenses/Apache-2.0.\n";
    put(
        stage,
        "usr/share/doc/springtide/copyright",
        0o644,
        copyright.as_bytes(),
    )?;
    let changes = gzip(&source("CHANGELOG.md")?)?;
    put(
        stage,
        "usr/share/doc/springtide/changelog.gz",
        0o644,
        &changes,
    )?;
    put(stage, "DEBIAN/control", 0o644, control(kib).as_bytes())?;
    let settings = b"/etc/default/springtide-virtual-node\n";
    put(stage, "DEBIAN/conffiles", 0o644, settings)
}

/// No dependencies: the program is static. A local cluster finds out itself what it lacks.
fn control(kib: usize) -> String {
    format!(
        "Package: springtide\nVersion: {VERSION}\nArchitecture: {}\nMaintainer: Springtide maintainers <maintainers@springtide.invalid>\n\
         Installed-Size: {kib}\nRecommends: ca-certificates\nSection: admin\nPriority: optional\n\
         Description: elastic capacity for Kubernetes\n Steady load runs on nodes you own; peaks overflow on to serverless container instances\n \
         billed by the second; when the peak passes, the overflow goes first.\n",
        architecture()
    )
}

fn ask(program: &Path, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
    let line = format!("{} {}", program.display(), arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("start `{line}`"))?;
    if !output.status.success() {
        bail!("`{line}` failed ({})", output.status);
    }
    Ok(output.stdout)
}

fn man_pages(stage: &Path, program: &Path) -> anyhow::Result<()> {
    let folder = stage.join("usr/share/man/man1");
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    ask(program, &["man-pages", &folder.display().to_string()])?;
    let pages = fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))?;
    for page in pages {
        let path = page?.path();
        let text = fs::read(&path).with_context(|| format!("read {}", path.display()))?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let packed = format!("usr/share/man/man1/{name}.gz");
        put(stage, &packed, 0o644, &gzip(&text)?)?;
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

fn gzip(bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).context("compress")?;
    encoder.finish().context("compress")
}

fn pack(stage: &Path, deb: &Deb, time: u64) -> anyhow::Result<PathBuf> {
    let compression = if deb.program.is_debug() {
        "-Znone"
    } else {
        "-Zxz"
    };
    let package = deb
        .output
        .join(format!("springtide_{VERSION}_{}.deb", architecture()));
    let status = Command::new("dpkg-deb")
        .args(["--root-owner-group", compression, "--build"])
        .arg(stage)
        .arg(&package)
        .env("SOURCE_DATE_EPOCH", time.to_string())
        .stdout(std::process::Stdio::null())
        .status()
        .context("start dpkg-deb; it is part of Debian's package dpkg")?;
    if !status.success() {
        bail!("dpkg-deb failed ({status})");
    }
    Ok(package)
}
