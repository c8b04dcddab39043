//! The cloud without sockets, files and threads: the same gateway, state and supervisors, asked by a function call, on
//! the clock and the seed it is given. For simulations that must go the same way every time. It keeps no records and
//! writes no ledger; its containers exist on paper.

use crate::actions::faults::FaultRefused;
use crate::backend::{SimulatedBackend, StartDelay};
use crate::cloud::StartError;
use crate::config::{CloudSources, LocalCloudConfig};
use crate::gateway::Gateway;
use crate::gateway::nonces::Nonces;
use crate::shared::{Shared, ask_to_delete, run_broom, run_writer};
use crate::state::State;
use crate::state::faults::FaultOrder;
use crate::state::pools::{Pools, milli};
use crate::state::resources::Resources;
use crate::store::Store;
use bytes::Bytes;
use cloud_api::model::GroupStatus;
use cloud_api::model::describe::Tag;
use http::{Request, Response};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// One group as the cloud has it.
#[derive(Clone, Debug, PartialEq)]
pub struct PaperGroup {
    /// Its id.
    pub id: String,
    /// Its status.
    pub status: GroupStatus,
    /// Its deletion was asked for.
    pub deleting: bool,
    /// Its tags.
    pub tags: Vec<Tag>,
}

/// A cloud on paper. Its tasks live on the runtime it was started on and end when it is dropped.
pub struct PaperCloud {
    shared: Arc<Shared>,
    gateway: Arc<Gateway>,
}

impl PaperCloud {
    /// Starts an empty one.
    pub fn start(
        config: LocalCloudConfig,
        delay: StartDelay,
        sources: CloudSources,
    ) -> Result<Self, StartError> {
        let pools = Pools::new(&config).map_err(|reason| StartError::Config { reason })?;
        let nothing = (BTreeMap::new(), HashMap::new(), Resources::default());
        let state = State::new(pools, nothing.0, nothing.1, nothing.2, sources.seed);
        let nonces = Nonces::in_memory((sources.now)().as_second());
        let backend = Arc::new(SimulatedBackend::new(delay, sources.now.clone()));
        let shared = Shared::new(config, backend, sources, state, Store::nowhere());
        let shared = Arc::new(shared);
        shared.tasks.spawn(run_writer(shared.clone()));
        shared.tasks.spawn(run_broom(shared.clone()));
        let gateway = Arc::new(Gateway::new(shared.clone(), nonces));
        Ok(Self { shared, gateway })
    }

    /// Answers one call of the OpenAPI; `None` when a fault lets the answer get lost.
    pub async fn answer(&self, request: Request<Bytes>) -> Option<Response<Bytes>> {
        self.gateway.answer(request).await
    }

    /// All groups, by id.
    pub fn groups(&self) -> Vec<PaperGroup> {
        let state = self.shared.state();
        let groups = state.groups.values();
        groups
            .map(|group| PaperGroup {
                id: group.id.clone(),
                status: group.status.clone(),
                deleting: group.deleting,
                tags: group.request.tag.clone(),
            })
            .collect()
    }

    /// Takes a group away as somebody at the console would.
    pub fn delete(&self, id: &str) {
        ask_to_delete(&mut self.shared.state(), id);
        self.shared.wake();
    }

    /// Changes a zone's stock of vCPU; `false` when there is no such zone.
    pub fn set_stock(&self, zone: &str, vcpu: Option<f64>) -> bool {
        let mut state = self.shared.state();
        let zone = state.pools.zones.get_mut(zone);
        zone.map(|zone| zone.stock = vcpu.map(milli)).is_some()
    }

    /// Orders a fault; answers with its id.
    pub fn order_fault(&self, order: FaultOrder) -> Result<String, FaultRefused> {
        self.shared.order_fault(order)
    }

    /// Ends all faults.
    pub fn clear_faults(&self) {
        self.shared.state().clear_faults();
        self.shared.wake();
    }
}

impl Drop for PaperCloud {
    fn drop(&mut self) {
        self.shared.shutdown.cancel();
        self.shared.tasks.close();
        self.shared.stop_writer.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cloud_api::Credentials;
    use cloud_api::client::{BoxError, BoxFuture, Transport};
    use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
    use cloud_api::{ClientSources, EciClient, EciConfig};
    use jiff::Timestamp;
    use std::path::PathBuf;

    struct Direct(Arc<PaperCloud>);

    impl Transport for Direct {
        fn send(
            &self,
            request: Request<Bytes>,
        ) -> BoxFuture<'_, Result<Response<Bytes>, BoxError>> {
            Box::pin(async move { self.0.answer(request).await.ok_or_else(|| "lost".into()) })
        }
    }

    fn cloud(seed: u64) -> (Arc<PaperCloud>, EciClient) {
        let credentials = Credentials::new("id", "secret");
        let config = LocalCloudConfig::new(PathBuf::new(), credentials.clone());
        let sources = CloudSources {
            now: Arc::new(Timestamp::now),
            seed,
        };
        let cloud = PaperCloud::start(config, StartDelay::default(), sources).unwrap();
        let cloud = Arc::new(cloud);
        let mut config = EciConfig::new("http://cloud", "cn-hangzhou", credentials);
        config.attempts = 1;
        let way = Arc::new(Direct(cloud.clone()));
        let client = EciClient::with_transport(config, ClientSources::system(), way).unwrap();
        (cloud, client)
    }

    fn request(token: &str) -> CreateContainerGroupRequest {
        CreateContainerGroupRequest {
            container_group_name: "web".to_owned(),
            client_token: Some(token.to_owned()),
            container: vec![ContainerSpec {
                name: "web".to_owned(),
                image: "shop:1".to_owned(),
                ..ContainerSpec::default()
            }],
            ..CreateContainerGroupRequest::default()
        }
    }

    #[tokio::test]
    async fn groups_are_made_from_the_seed_and_a_lost_answer_had_its_effect() {
        let mut ids = Vec::new();
        for _ in 0..2 {
            let (cloud, client) = cloud(7);
            let order = FaultOrder {
                fault: crate::Fault::LoseAnswer,
                action: None,
                times: Some(1),
                seconds: None,
            };
            cloud.order_fault(order).unwrap();
            assert!(client.call(&request("t")).await.is_err());
            let again = client.call(&request("t")).await.unwrap();
            let groups = cloud.groups();
            assert_eq!(groups.len(), 1);
            assert_eq!(groups[0].id, again.container_group_id);
            ids.push(again.container_group_id);
        }
        assert_eq!(ids[0], ids[1]);
    }
}
