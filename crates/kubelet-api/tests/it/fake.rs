//! A node with one pod `shop/web` whose container `main` echoes.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kubelet_api::{
    AttachRequest, Attributes, BackendError, ByteReader, ByteStream, ByteWriter, ContainerUsage,
    ExecRequest, ExecSession, KubeletServer, LogOptions, NodeBackend, PodUsage, ReviewError,
    Reviewer, ServerTls, Usage, User,
};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

#[derive(Default)]
pub struct EchoNode {
    /// Cancelled = the pod is no longer there.
    gone: CancellationToken,
}

fn missing(pod: &str) -> BackendError {
    BackendError::NotFound {
        message: format!("pod {pod:?} is not on this node"),
    }
}

#[async_trait]
impl NodeBackend for EchoNode {
    async fn pods(&self) -> Vec<Pod> {
        let mut pod = Pod::default();
        pod.metadata.name = Some("web".to_string());
        vec![pod]
    }

    async fn container_logs(
        &self,
        _namespace: &str,
        pod: &str,
        _container: &str,
        options: LogOptions,
    ) -> Result<ByteStream, BackendError> {
        if pod != "web" {
            return Err(missing(pod));
        }
        let lines = options.tail_lines.unwrap_or(3);
        let chunks = (0..lines).map(|line| Ok(Bytes::from(format!("line {line}\n"))));
        Ok(stream::iter(chunks.collect::<Vec<_>>()).boxed())
    }

    /// Echoes what it reads, then ends with the number of bytes as its exit code.
    async fn exec(
        &self,
        _namespace: &str,
        pod: &str,
        _container: &str,
        _request: ExecRequest,
    ) -> Result<ExecSession, BackendError> {
        if pod != "web" {
            return Err(missing(pod));
        }
        let (stdin, mut input) = tokio::io::duplex(1024);
        let (mut output, stdout) = tokio::io::duplex(1024);
        let exit = async move {
            let mut bytes = Vec::new();
            input.read_to_end(&mut bytes).await?;
            tokio::io::AsyncWriteExt::write_all(&mut output, &bytes).await?;
            Ok(i32::try_from(bytes.len()).unwrap_or(-1))
        };
        Ok(ExecSession {
            stdin: Some(Box::new(stdin)),
            stdout: Some(Box::new(stdout)),
            stderr: None,
            resize: None,
            exit: exit.boxed(),
        })
    }

    async fn attach(
        &self,
        _namespace: &str,
        _pod: &str,
        _container: &str,
        _request: AttachRequest,
    ) -> Result<ExecSession, BackendError> {
        Err(BackendError::Unsupported {
            message: "attach is not served by this node; use exec".to_string(),
        })
    }

    async fn check_pod(&self, _namespace: &str, pod: &str) -> Result<(), BackendError> {
        match pod {
            "web" if !self.gone.is_cancelled() => Ok(()),
            _ => Err(missing(pod)),
        }
    }

    async fn port_forward(
        &self,
        _namespace: &str,
        _pod: &str,
        port: u16,
    ) -> Result<(ByteReader, ByteWriter), BackendError> {
        if port == 81 {
            return Err(BackendError::BadRequest {
                message: "nothing listens on port 81".to_string(),
            });
        }
        let (near, far) = tokio::io::duplex(1024);
        let (reader, writer) = tokio::io::split(far);
        tokio::spawn(async move {
            let (mut input, mut output) = tokio::io::split(near);
            let _ = tokio::io::copy(&mut input, &mut output).await;
        });
        Ok((Box::new(reader), Box::new(writer)))
    }

    async fn usage(&self) -> Result<Vec<PodUsage>, BackendError> {
        let usage = Usage {
            cpu_nanos: 1_500_000_000,
            working_set_bytes: 7,
            ..Usage::default()
        };
        Ok(vec![PodUsage {
            namespace: "shop".to_string(),
            name: "web".to_string(),
            uid: "u".to_string(),
            total: usage.clone(),
            containers: vec![ContainerUsage {
                name: "main".to_string(),
                usage,
                ..ContainerUsage::default()
            }],
            ..PodUsage::default()
        }])
    }
}

/// A cluster that knows two tokens: of an administrator, and of somebody who may read metrics.
struct Cluster;

#[async_trait]
impl Reviewer for Cluster {
    async fn authenticate(&self, token: &str) -> Result<Option<User>, ReviewError> {
        let known = matches!(token, "admin" | "scraper");
        Ok(known.then(|| User {
            name: token.to_string(),
            ..User::default()
        }))
    }

    async fn authorize(&self, user: &User, wanted: &Attributes) -> Result<bool, ReviewError> {
        let certificate = user.name == "kube-apiserver-kubelet-client";
        let scrapes = wanted.subresource == "metrics" && wanted.verb == "get";
        Ok(wanted.node == "node" && (certificate || user.name == "admin" || scrapes))
    }
}

/// A running server, and what a client needs to reach it.
pub struct Served {
    pub keys: watch::Sender<ServerTls>,
    /// Of the same authority as the first ones.
    pub next_keys: ServerTls,
    pub address: std::net::SocketAddr,
    pub ca_pem: String,
    pub client_certificate_pem: String,
    pub client_key_pem: String,
    pub shutdown: CancellationToken,
    pub task: tokio::task::JoinHandle<()>,
    /// Cancelled = the pod is no longer there.
    pub gone: CancellationToken,
}

pub async fn serve() -> Served {
    let ca_key = KeyPair::generate().unwrap();
    let mut ca = CertificateParams::new(Vec::new()).unwrap();
    ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca_certificate = ca.self_signed(&ca_key).unwrap();
    let issuer = Issuer::new(ca, ca_key);
    let issue = |name: &str, alternative: Vec<String>| {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(alternative).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        let certificate = params.signed_by(&key, &issuer).unwrap();
        (certificate.pem(), key.serialize_pem())
    };
    let (certificate_pem, key_pem) = issue("node", vec!["127.0.0.1".to_string()]);
    let next = issue("node", vec!["127.0.0.1".to_string()]);
    let (client_certificate_pem, client_key_pem) =
        issue("kube-apiserver-kubelet-client", Vec::new());
    let ca_pem = ca_certificate.pem();
    let tls = ServerTls {
        certificate_pem,
        key_pem,
        client_ca_pem: ca_pem.clone(),
    };
    let next_keys = ServerTls {
        certificate_pem: next.0,
        key_pem: next.1,
        client_ca_pem: ca_pem.clone(),
    };
    let (keys, followed) = watch::channel(tls.clone());
    let gone = CancellationToken::new();
    let server = KubeletServer::new(
        "node",
        Arc::new(EchoNode { gone: gone.clone() }),
        &tls,
        Arc::new(Cluster),
    )
    .unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let shutdown = CancellationToken::new();
    let task = tokio::spawn(server.following(followed).serve(listener, shutdown.clone()));
    Served {
        keys,
        next_keys,
        address,
        ca_pem,
        client_certificate_pem,
        client_key_pem,
        shutdown,
        task,
        gone,
    }
}
