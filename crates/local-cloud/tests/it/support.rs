//! A cloud with groups on paper, and a client for it.

use cloud_api::model::GroupStatus;
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest, EnvironmentVarSpec};
use cloud_api::model::describe::{ContainerGroup, DescribeContainerGroupsRequest};
use cloud_api::{ClientSources, Credentials, EciClient, EciConfig};
use local_cloud::backend::{GroupBackend, SimulatedBackend, StartDelay};
use local_cloud::{CloudSources, LocalCloud, LocalCloudConfig};
use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tokio::net::TcpListener;

pub const KEY: &str = "testid";
pub const SECRET: &str = "testsecret";
pub const REGION: &str = "cn-hangzhou";
const PATIENCE: Duration = Duration::from_secs(20);

pub struct TestCloud {
    pub cloud: LocalCloud,
    pub client: EciClient,
    /// Lives as long as the cloud.
    _directory: Option<TempDir>,
}

pub fn credentials() -> Credentials {
    Credentials::new(KEY, SECRET)
}

pub fn paper(delay: StartDelay) -> Arc<dyn GroupBackend> {
    Arc::new(SimulatedBackend::new(delay, Arc::new(jiff::Timestamp::now)))
}

pub fn client(endpoint: &str) -> EciClient {
    let config = EciConfig::new(endpoint, REGION, credentials()).without_limits();
    EciClient::new(config, ClientSources::system()).unwrap()
}

pub fn quick(directory: &Path) -> LocalCloudConfig {
    let mut config = LocalCloudConfig::new(directory.to_owned(), credentials());
    config.restart_backoff = Duration::from_millis(20);
    config.local_token = Some("local".to_owned());
    config
}

pub async fn open(config: LocalCloudConfig, backend: Arc<dyn GroupBackend>) -> LocalCloud {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    LocalCloud::start(config, backend, listener, CloudSources::system())
        .await
        .unwrap()
}

pub async fn start_with(
    change: impl FnOnce(&mut LocalCloudConfig),
    delay: StartDelay,
) -> TestCloud {
    let directory = tempfile::tempdir().unwrap();
    let mut config = quick(directory.path());
    change(&mut config);
    let cloud = open(config, paper(delay)).await;
    let client = client(&cloud.endpoint());
    TestCloud {
        cloud,
        client,
        _directory: Some(directory),
    }
}

pub async fn start() -> TestCloud {
    start_with(|_| {}, StartDelay::default()).await
}

/// A request for one container.
pub fn request(name: &str) -> CreateContainerGroupRequest {
    CreateContainerGroupRequest {
        container_group_name: name.to_owned(),
        container: vec![ContainerSpec {
            name: "main".to_owned(),
            image: "busybox:latest".to_owned(),
            ..Default::default()
        }],
        ..Default::default()
    }
}

/// The same, whose container ends after a while.
pub fn ending(name: &str, policy: &str, exit: &str) -> CreateContainerGroupRequest {
    let mut request = request(name);
    request.restart_policy = Some(policy.to_owned());
    request.container[0]
        .environment_var
        .push(EnvironmentVarSpec {
            key: "SIMULATED_EXIT".to_owned(),
            value: Some(exit.to_owned()),
            field_ref: None,
        });
    request
}

impl TestCloud {
    pub fn new(cloud: LocalCloud, client: EciClient) -> Self {
        Self {
            cloud,
            client,
            _directory: None,
        }
    }

    pub async fn create(&self, request: &CreateContainerGroupRequest) -> String {
        self.client.call(request).await.unwrap().container_group_id
    }

    pub async fn describe(&self, id: &str) -> Option<ContainerGroup> {
        describe(&self.client, id).await
    }

    pub async fn until(&self, id: &str, status: GroupStatus) -> ContainerGroup {
        eventually(&format!("{id} is {status:?}"), || async {
            let group = self.describe(id).await;
            match group {
                Some(group) if group.status == status => Ok(group),
                other => Err(format!("{other:?}")),
            }
        })
        .await
    }

    pub async fn until_gone(&self, id: &str) {
        eventually(&format!("{id} is gone"), || async {
            self.describe(id)
                .await
                .map_or(Ok(()), |group| Err(format!("{group:?}")))
        })
        .await;
    }
}

pub async fn describe(client: &EciClient, id: &str) -> Option<ContainerGroup> {
    let request = DescribeContainerGroupsRequest {
        container_group_ids: vec![id.to_owned()],
        ..Default::default()
    };
    client.call(&request).await.unwrap().container_groups.pop()
}

/// Waits for a condition; fails with the last state seen.
pub async fn eventually<T, F: Future<Output = Result<T, String>>>(
    what: &str,
    look: impl Fn() -> F,
) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(found) => return found,
            Err(last) if Instant::now() > deadline => {
                panic!("not within {PATIENCE:?}: {what}; last seen: {last}")
            }
            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
        }
    }
}
