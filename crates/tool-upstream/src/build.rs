//! From the source package to the three programs, once; afterwards there is nothing to do.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use crate::{VERSION, source};

/// The control plane's programs; their store, etcd, is Debian's.
pub const PROGRAMS: [&str; 3] = [
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
];
/// Where the programs are, when not below the target folder.
pub const FOLDER_VARIABLE: &str = "SPRINGTIDE_UPSTREAM";
const PACKAGE: &str = "k8s.io/kubernetes";
/// What marks a Go package whose types the API server describes to its clients.
const TAG: &str = "+k8s:openapi-gen=";
const OPENAPI: &str = "pkg/generated/openapi";
/// The tree's version of this library crashes under compilers from Go 1.18 on; Debian packages the mended one.
const MENDED: &str = "github.com/modern-go/reflect2";
/// Where Debian's packages of Go libraries put them.
const GO_LIBRARIES: &str = "/usr/share/gocode/src";

/// Where the programs are kept: `target/upstream`.
#[must_use]
pub fn folder() -> PathBuf {
    if let Some(folder) = std::env::var_os(FOLDER_VARIABLE) {
        return PathBuf::from(folder);
    }
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    target
        .unwrap_or_else(|| root.join("target"))
        .join("upstream")
}

/// The folder of the programs, or an error that says how to make them.
///
/// # Errors
/// When one is missing.
pub fn programs() -> anyhow::Result<PathBuf> {
    let folder = folder();
    ensure!(
        are_built(&folder),
        "there is no upstream control plane in {}; build it with `cargo xtask upstream`",
        folder.display()
    );
    Ok(folder)
}

/// Whether there is nothing to build.
#[must_use]
pub fn are_built(folder: &Path) -> bool {
    PROGRAMS
        .iter()
        .all(|program| folder.join(program).is_file())
}

/// Builds what is missing; needs `go` on the path, and tells `progress` what it does.
///
/// # Errors
/// When the source cannot be had or built; what is there already stays.
pub fn provide(progress: impl Fn(&str)) -> anyhow::Result<PathBuf> {
    let folder = folder();
    if are_built(&folder) {
        progress(&format!(
            "Kubernetes {VERSION} is built: {}",
            folder.display()
        ));
        return Ok(folder);
    }
    std::fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let work = Work::new(&folder)?;
    progress(&format!(
        "Fetching the source of Kubernetes {VERSION} from the Debian mirror (34 MB)."
    ));
    let archive = source::fetch(&folder)?;
    progress("Unpacking it.");
    source::unpack(&archive, &work.tree())?;
    mend(Path::new(GO_LIBRARIES), &work.tree())?;
    progress("Generating the description of its types.");
    work.generate()?;
    progress(
        "Building the API server, the controller manager and the scheduler (several minutes on two cores).",
    );
    work.build()?;
    for program in PROGRAMS {
        // Last, so that programs that are there are whole.
        let (from, to) = (work.out().join(program), folder.join(program));
        std::fs::rename(&from, &to)
            .with_context(|| format!("move {} to {}", from.display(), to.display()))?;
    }
    std::fs::remove_file(&archive).with_context(|| format!("remove {}", archive.display()))?;
    progress(&format!(
        "Kubernetes {VERSION} is built: {}",
        folder.display()
    ));
    Ok(folder)
}

/// The tree as Go wants it without modules, and everything that is made on the way. Gone when it is dropped.
struct Work {
    folder: tempfile::TempDir,
}

impl Work {
    fn new(folder: &Path) -> anyhow::Result<Self> {
        let made = tempfile::Builder::new().prefix("work-").tempdir_in(folder);
        let folder = made.with_context(|| format!("create a folder in {}", folder.display()))?;
        let work = Self { folder };
        std::fs::create_dir_all(work.out()).context("create the folder for programs")?;
        Ok(work)
    }

    fn tree(&self) -> PathBuf {
        self.folder.path().join("go/src").join(PACKAGE)
    }

    fn out(&self) -> PathBuf {
        self.folder.path().join("out")
    }

    /// A program that is run on the tree.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.tree())
            .env("GOPATH", self.folder.path().join("go"))
            .env("GOCACHE", self.folder.path().join("cache"))
            // The tree brings what it needs; its module file asks for more than that.
            .env("GO111MODULE", "off")
            .env("GOFLAGS", "")
            .env("CGO_ENABLED", "0");
        command
    }

    /// The API server's description of its types is generated in every build upstream, and no part of the source.
    fn generate(&self) -> anyhow::Result<()> {
        let tool = self.out().join("openapi-gen");
        let mut build = self.command("go");
        build.args(["build", "-o"]).arg(&tool);
        run(build.arg("./vendor/k8s.io/kube-openapi/cmd/openapi-gen"))?;
        let packages = described_packages(&self.tree())?;
        let inputs: Vec<String> = packages
            .iter()
            .map(|one| format!("{PACKAGE}/{one}"))
            .collect();
        let mut generate = self.command(&tool);
        generate
            .args([
                "-O",
                "zz_generated.openapi",
                "-h",
                "vendor/k8s.io/code-generator/hack/boilerplate.go.txt",
            ])
            .args([
                "-i",
                &inputs.join(","),
                "-p",
                &format!("{PACKAGE}/{OPENAPI}"),
            ])
            .arg("-r")
            .arg(self.folder.path().join("violations.report"));
        run(&mut generate)
    }

    fn build(&self) -> anyhow::Result<()> {
        let mut parts = VERSION.split('.');
        let values = [
            ("gitVersion", format!("v{VERSION}")),
            ("gitMajor", parts.next().unwrap_or_default().to_owned()),
            ("gitMinor", parts.next().unwrap_or_default().to_owned()),
            ("gitTreeState", "clean".to_owned()),
        ];
        let mut flags = "-s -w".to_owned();
        // The programs tell the first, the API's /version the second.
        for library in ["component-base/version", "client-go/pkg/version"] {
            for (name, value) in &values {
                flags += &format!(" -X {PACKAGE}/vendor/k8s.io/{library}.{name}={value}");
            }
        }
        let mut build = self.command("go");
        build
            .args(["build", "-ldflags", &flags, "-o"])
            .arg(self.out());
        build.args(PROGRAMS.map(|program| format!("./cmd/{program}")));
        run(&mut build)
    }
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    let name = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("start {name}"))?;
    ensure!(status.success(), "{name} failed ({status})");
    Ok(())
}

/// Puts the mended library in the place of the tree's.
fn mend(libraries: &Path, tree: &Path) -> anyhow::Result<()> {
    let (from, to) = (libraries.join(MENDED), tree.join("vendor").join(MENDED));
    let replace = || format!("replace {} by {}", to.display(), from.display());
    ensure!(
        from.is_dir(),
        "{} is missing; the Debian package golang-github-modern-go-reflect2-dev brings it",
        from.display()
    );
    std::fs::remove_dir_all(&to).with_context(replace)?;
    std::fs::create_dir_all(&to).with_context(replace)?;
    for entry in std::fs::read_dir(&from).with_context(replace)? {
        let entry = entry.with_context(replace)?;
        if entry.path().is_file() {
            std::fs::copy(entry.path(), to.join(entry.file_name())).with_context(replace)?;
        }
    }
    Ok(())
}

/// Whether the library that has to be replaced is on this machine.
#[must_use]
pub fn has_mended_library() -> bool {
    Path::new(GO_LIBRARIES).join(MENDED).is_dir()
}

/// The packages whose types are described, as upstream's make files choose them.
fn described_packages(tree: &Path) -> anyhow::Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for (folder, name) in [
        ("staging/src/k8s.io", "vendor/k8s.io"),
        ("pkg/apis", "pkg/apis"),
    ] {
        collect(&tree.join(folder), name, &mut found)?;
    }
    found.retain(|one| !one.contains("/code-generator/") && !one.contains("/sample-apiserver/"));
    Ok(found)
}

fn collect(folder: &Path, name: &str, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    let read = || format!("read {}", folder.display());
    for entry in std::fs::read_dir(folder).with_context(read)? {
        let entry = entry.with_context(read)?;
        let kind = entry.file_type().with_context(read)?;
        let file = entry.file_name().to_string_lossy().into_owned();
        if kind.is_dir() {
            collect(&entry.path(), &format!("{name}/{file}"), found)?;
        } else if kind.is_file() && file.ends_with(".go") && !file.starts_with("zz_generated") {
            let text = std::fs::read_to_string(entry.path())
                .with_context(|| format!("read {}", entry.path().display()))?;
            if text.contains(TAG) {
                found.insert(name.to_string());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_described_that_say_so_outside_of_tools_and_samples() {
        let tree = tempfile::tempdir().unwrap();
        let file = |path: &str, text: &str| {
            let path = tree.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        let tag = "// +k8s:openapi-gen=true\npackage v1\n";
        file("staging/src/k8s.io/api/core/v1/doc.go", tag);
        file("staging/src/k8s.io/api/core/v1/types.go", tag);
        file("staging/src/k8s.io/api/old/zz_generated.doc.go", tag);
        file("staging/src/k8s.io/sample-apiserver/pkg/doc.go", tag);
        file("staging/src/k8s.io/client-go/rest.go", "package rest\n");
        file("pkg/apis/abac/v0/types.go", tag);
        let found = described_packages(tree.path()).unwrap();
        assert_eq!(
            Vec::from_iter(found),
            ["pkg/apis/abac/v0", "vendor/k8s.io/api/core/v1"]
        );
    }

    #[test]
    fn the_mended_library_takes_the_place_of_the_trees() {
        let folder = tempfile::tempdir().unwrap();
        let (libraries, tree) = (folder.path().join("libraries"), folder.path().join("tree"));
        let vendored = tree.join("vendor").join(MENDED);
        std::fs::create_dir_all(&vendored).unwrap();
        std::fs::write(vendored.join("old.go"), "").unwrap();
        let refusal = mend(&libraries, &tree).unwrap_err().to_string();
        assert!(
            refusal.contains("golang-github-modern-go-reflect2-dev"),
            "{refusal}"
        );
        assert!(
            vendored.join("old.go").exists(),
            "nothing is changed by a refusal"
        );
        std::fs::create_dir_all(libraries.join(MENDED)).unwrap();
        std::fs::write(libraries.join(MENDED).join("new.go"), "").unwrap();
        mend(&libraries, &tree).unwrap();
        assert!(vendored.join("new.go").exists() && !vendored.join("old.go").exists());
    }

    #[test]
    fn a_folder_with_two_of_three_programs_is_not_built() {
        let folder = tempfile::tempdir().unwrap();
        for program in &PROGRAMS[..2] {
            std::fs::write(folder.path().join(program), "").unwrap();
        }
        assert!(!are_built(folder.path()));
        std::fs::write(folder.path().join(PROGRAMS[2]), "").unwrap();
        assert!(are_built(folder.path()));
    }
}
