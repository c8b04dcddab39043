//! The actions, one module per subject.

pub(crate) mod commits;
pub(crate) mod create;
pub(crate) mod data_caches;
pub(crate) mod describe;
pub(crate) mod eips;
pub(crate) mod events;
pub(crate) mod faults;
mod filter;
pub(crate) mod image_caches;
pub(crate) mod inside;
pub(crate) mod manage;
pub(crate) mod market;
pub(crate) mod metrics;
pub(crate) mod operations;
mod place;
pub(crate) mod price;
pub(crate) mod region;
pub(crate) mod status;
mod table;
pub(crate) mod tags;
mod terms;
mod tokens;
mod validate;
pub(crate) mod virtual_nodes;
pub(crate) mod vpc;

use crate::gateway::refusal::Refusal;
use crate::gateway::tickets::Tickets;
use crate::shared::Shared;
use cloud_api::unflatten::unflatten;
use serde::de::DeserializeOwned;
use std::sync::Arc;

/// One call that has been let in.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Arc<Shared>,
    pub(crate) tickets: &'a Tickets,
    /// The action's own parameters.
    pub(crate) parameters: &'a [(String, String)],
    /// The `Host` header, for addresses in answers.
    pub(crate) host: String,
}

impl Call<'_> {
    /// Reads the request, and checks the region if one is named.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Refusal> {
        let region = self.parameter("RegionId");
        if region.is_some_and(|region| region != self.shared.config.region) {
            let message = format!(
                "The region does not exist here; this is {}.",
                self.shared.config.region
            );
            return Err(Refusal::new(404, "InvalidRegionId.NotFound", message));
        }
        let pairs = self
            .parameters
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()));
        Ok(unflatten(pairs)?)
    }

    fn parameter(&self, name: &str) -> Option<&str> {
        let found = self.parameters.iter().find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Refuses a request that lacks one of these.
    pub(crate) fn need(&self, names: &[&str]) -> Result<(), Refusal> {
        let missing = names.iter().find(|name| self.parameter(name).is_none());
        missing.map_or(Ok(()), |name| Err(Refusal::missing(name)))
    }
}
