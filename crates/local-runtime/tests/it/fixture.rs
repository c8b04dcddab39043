//! Images made by hand, and the registries they are served from.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";

pub fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    format!(
        "sha256:{}",
        hash.as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    )
}

pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A tar of plain files.
pub fn tar_of(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

/// An image in pieces, as registries and archives hold them.
pub struct MadeImage {
    pub config: Vec<u8>,
    /// Uncompressed and compressed.
    pub layers: Vec<(Vec<u8>, Vec<u8>)>,
    pub manifest: Vec<u8>,
}

impl MadeImage {
    pub fn new(layers: Vec<Vec<u8>>) -> Self {
        let layers: Vec<(Vec<u8>, Vec<u8>)> = layers
            .into_iter()
            .map(|tar| (tar.clone(), gzip(&tar)))
            .collect();
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": {"Cmd": ["/bin/busybox", "cat", "/words"], "Env": null},
            "rootfs": {"type": "layers", "diff_ids": layers.iter().map(|(tar, _)| digest(tar)).collect::<Vec<_>>()},
        });
        let config = config.to_string().into_bytes();
        let describe = |bytes: &[u8], kind: &str| json!({"mediaType": kind, "digest": digest(bytes), "size": bytes.len()});
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": describe(&config, "application/vnd.oci.image.config.v1+json"),
            "layers": layers.iter().map(|(_, gz)| describe(gz, "application/vnd.oci.image.layer.v1.tar+gzip")).collect::<Vec<_>>(),
        });
        Self {
            config,
            layers,
            manifest: manifest.to_string().into_bytes(),
        }
    }

    /// busybox and a file with `words`, in two layers.
    pub fn saying(words: &str) -> Self {
        let busybox = std::fs::read("/bin/busybox")
            .or_else(|_| std::fs::read("/usr/bin/busybox"))
            .unwrap();
        Self::new(vec![
            tar_of(&[("bin/busybox", &busybox)]),
            tar_of(&[("words", words.as_bytes())]),
        ])
    }

    pub fn index(&self) -> Vec<u8> {
        let entry = |architecture: &str, bytes: &[u8]| {
            json!({"mediaType": MANIFEST, "digest": digest(bytes), "size": bytes.len(),
                "platform": {"os": "linux", "architecture": architecture}})
        };
        let own = if cfg!(target_arch = "aarch64") {
            "arm64"
        } else {
            "amd64"
        };
        json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry("s390x", b"other"), entry(own, &self.manifest)]})
            .to_string()
            .into_bytes()
    }

    /// As `docker save` wrote it for years.
    pub fn saved(&self, tag: &str) -> Vec<u8> {
        let config = format!(
            "{}.json",
            digest(&self.config).trim_start_matches("sha256:")
        );
        let names: Vec<String> = (0..self.layers.len())
            .map(|number| format!("{number}/layer.tar"))
            .collect();
        let manifest = json!([{"Config": config, "RepoTags": [tag], "Layers": names}]).to_string();
        let mut files: Vec<(&str, &[u8])> = vec![
            (&config, &self.config),
            ("manifest.json", manifest.as_bytes()),
        ];
        files.extend(
            names
                .iter()
                .zip(&self.layers)
                .map(|(name, (tar, _))| (name.as_str(), tar.as_slice())),
        );
        tar_of(&files)
    }

    /// An OCI layout.
    pub fn layout(&self, name: &str) -> Vec<u8> {
        let index = json!({"schemaVersion": 2, "manifests": [{"mediaType": MANIFEST, "digest": digest(&self.manifest),
            "size": self.manifest.len(), "annotations": {"io.containerd.image.name": name}}]})
        .to_string();
        let blob = |bytes: &[u8]| {
            format!(
                "blobs/sha256/{}",
                digest(bytes).trim_start_matches("sha256:")
            )
        };
        let mut blobs: Vec<(String, &[u8])> = vec![
            (blob(&self.config), &self.config),
            (blob(&self.manifest), &self.manifest),
        ];
        blobs.extend(self.layers.iter().map(|(_, gz)| (blob(gz), gz.as_slice())));
        let mut files: Vec<(&str, &[u8])> = vec![
            ("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            ("index.json", index.as_bytes()),
        ];
        files.extend(blobs.iter().map(|(name, bytes)| (name.as_str(), *bytes)));
        tar_of(&files)
    }
}

/// One HTTP exchange; gives status, headers and body.
pub fn http(
    address: SocketAddr,
    method: &str,
    path: &str,
    headers: &str,
    body: &[u8],
) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head, answer[end + 4..].to_vec())
}

/// Debian's `docker-registry` on a port of its own.
pub struct RealRegistry {
    pub address: SocketAddr,
    child: Child,
    _directory: tempfile::TempDir,
    authorization: String,
}

/// `user:secret`, as htpasswd writes it.
const HTPASSWD: &str = "user:$2b$04$B56BcnJlEAo2QeEqzIyD1Ocs1TzTmoavJJ8VvJe2kLURUvKzRzBpa\n";

impl RealRegistry {
    pub fn start(with_password: bool) -> Self {
        Self::start_with(with_password, "")
    }

    /// Serves only TLS, with a certificate of its own authority; gives the authority's file too.
    pub fn start_encrypted() -> (Self, tempfile::NamedTempFile) {
        let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
        let file = |text: String| {
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), text).unwrap();
            file
        };
        let (certificate, secret) = (file(key.cert.pem()), file(key.signing_key.serialize_pem()));
        let tls = format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.path().display(),
            secret.path().display()
        );
        (Self::start_with(false, &tls), certificate)
    }

    fn start_with(with_password: bool, tls: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        std::fs::write(path("htpasswd"), HTPASSWD).unwrap();
        let auth = format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            path("htpasswd")
        );
        // The program cannot say which port it got, so a free one is looked for; whoever takes it first wins.
        for _ in 0..10 {
            let address = TcpListener::bind("127.0.0.1:0")
                .unwrap()
                .local_addr()
                .unwrap();
            let config = format!(
                "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n{tls}{}",
                path("data"),
                if with_password { &auth } else { "" },
            );
            std::fs::write(path("config.yml"), config).unwrap();
            let mut child = Command::new("docker-registry")
                .args(["serve", &path("config.yml")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("these tests need the Debian package docker-registry");
            if wait_listening(address, &mut child) {
                let authorization = if with_password {
                    "Authorization: Basic dXNlcjpzZWNyZXQ=\r\n".to_owned()
                } else {
                    String::new()
                };
                return Self {
                    address,
                    child,
                    _directory: directory,
                    authorization,
                };
            }
        }
        panic!("docker-registry never listened");
    }

    fn put(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> String {
        let (status, head, body) = http(
            self.address,
            method,
            path,
            &format!("{}{headers}", self.authorization),
            body,
        );
        assert!(
            (200..300).contains(&status),
            "{method} {path}: {head} {}",
            String::from_utf8_lossy(&body)
        );
        head
    }

    pub fn push(&self, repository: &str, tag: &str, image: &MadeImage) {
        for blob in image.layers.iter().map(|(_, gz)| gz).chain([&image.config]) {
            let head = self.put("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
            let location = head
                .lines()
                .find_map(|line| line.strip_prefix("Location: "))
                .unwrap();
            let path = location
                .split_once(&self.address.to_string())
                .map_or(location, |(_, path)| path);
            let target = format!("{path}&digest={}", digest(blob));
            self.put(
                "PUT",
                &target,
                "Content-Type: application/octet-stream\r\n",
                blob,
            );
        }
        self.put(
            "PUT",
            &format!("/v2/{repository}/manifests/{tag}"),
            &format!("Content-Type: {MANIFEST}\r\n"),
            &image.manifest,
        );
    }
}

impl Drop for RealRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn wait_listening(address: SocketAddr, child: &mut Child) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while Instant::now() < deadline {
        if TcpStream::connect(address).is_ok() {
            return true;
        }
        if child.try_wait().unwrap().is_some() {
            return false;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}

/// What a fake registry was asked: the request line and its headers.
pub type Asked = Vec<(String, String)>;
/// Answers a request line and headers with everything that goes over the wire.
type Answerer = Box<dyn FnMut(&str, &str) -> Vec<u8> + Send>;

/// A server that misbehaves as told; it ends with the test.
pub struct FakeRegistry {
    pub address: SocketAddr,
    asked: Arc<Mutex<Asked>>,
}

impl FakeRegistry {
    pub fn start(make: impl FnOnce(SocketAddr) -> Answerer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Asked>> = Arc::default();
        let (kept, mut answer) = (asked.clone(), make(address));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                let Some(Ok(request)) = lines.next() else {
                    continue;
                };
                let headers: Vec<String> = lines
                    .map_while(Result::ok)
                    .take_while(|line| !line.is_empty())
                    .collect();
                let headers = headers.join("\n").to_lowercase();
                kept.lock()
                    .unwrap()
                    .push((request.clone(), headers.clone()));
                let _ = stream.write_all(&answer(&request, &headers));
            }
        });
        Self { address, asked }
    }

    pub fn asked(&self) -> Asked {
        self.asked.lock().unwrap().clone()
    }
}

pub fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let mut bytes = format!(
        "HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n{headers}\r\n",
        body.len()
    )
    .into_bytes();
    bytes.extend_from_slice(body);
    bytes
}

/// What an honest registry with one image answers.
pub fn honest(image: &MadeImage) -> impl Fn(&str) -> Vec<u8> + Send + use<> {
    let mut blobs: Vec<(String, Vec<u8>)> = image
        .layers
        .iter()
        .map(|(_, gz)| (digest(gz), gz.clone()))
        .collect();
    blobs.push((digest(&image.config), image.config.clone()));
    let manifest = image.manifest.clone();
    move |request: &str| {
        if request.contains("/manifests/") {
            return answer(
                "200 OK",
                &format!("Content-Type: {MANIFEST}\r\n"),
                &manifest,
            );
        }
        match blobs.iter().find(|(digest, _)| request.contains(digest)) {
            Some((_, bytes)) => answer("200 OK", "", bytes),
            None => answer("404 Not Found", "", b""),
        }
    }
}

/// Everything below a directory that is not empty.
pub fn files_in(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect()
}
