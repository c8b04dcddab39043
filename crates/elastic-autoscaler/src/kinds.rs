//! Where the API server serves a kind: its plural and the version to ask in. Only group and kind count, as upstream; the
//! version that an autoscaler names may be one that is no longer served.

use std::time::Duration;

use kube::Client;
use serde::Deserialize;

use crate::api::{ApiFailure, get};
use crate::shared::Shared;

/// How long a kind is taken as served where it was; one that is not found there is looked up again at once.
const FRESHNESS: Duration = Duration::from_secs(300);

/// A kind's place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) plural: String,
}

impl Place {
    fn new(group: &str, version: &str, plural: &str) -> Self {
        Place {
            group: group.to_owned(),
            version: version.to_owned(),
            plural: plural.to_owned(),
        }
    }

    /// The root of its paths.
    pub(crate) fn root(&self) -> String {
        let Place { group, version, .. } = self;
        match group.as_str() {
            "" => format!("/api/{version}"),
            _ => format!("/apis/{group}/{version}"),
        }
    }

    /// `deployments.apps`, `services`.
    pub(crate) fn resource(&self) -> String {
        match self.group.as_str() {
            "" => self.plural.clone(),
            group => format!("{}.{group}", self.plural),
        }
    }
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    versions: Vec<Version>,
    #[serde(default, rename = "preferredVersion")]
    preferred: Option<Version>,
}

#[derive(Deserialize)]
struct Version {
    version: String,
}

#[derive(Deserialize)]
struct Resources {
    #[serde(default)]
    resources: Vec<Resource>,
}

#[derive(Deserialize)]
struct Resource {
    name: String,
    kind: String,
}

/// What is known of kinds.
pub(crate) struct Kinds {
    places: Shared<Place, String>,
}

impl Default for Kinds {
    fn default() -> Self {
        Kinds {
            places: Shared::new(FRESHNESS),
        }
    }
}

fn question(group: &str, kind: &str) -> String {
    format!("{kind}.{group}")
}

impl Kinds {
    /// Where a kind is served.
    ///
    /// # Errors
    /// Upstream's sentence about a kind that is not.
    pub(crate) async fn find(
        &self,
        client: &Client,
        group: &str,
        kind: &str,
    ) -> Result<Place, String> {
        if let Some(place) = built_in(group, kind) {
            return Ok(place);
        }
        let question = question(group, kind);
        let found = self
            .places
            .get(&question, || look_up(client, group, kind))
            .await;
        if found.is_err() {
            self.places.forget(&question);
        }
        found
    }

    /// Looks a kind up anew next time, because it was not where it should be.
    pub(crate) fn forget(&self, group: &str, kind: &str) {
        self.places.forget(&question(group, kind));
    }
}

/// What every cluster serves, so that nothing need be asked.
fn built_in(group: &str, kind: &str) -> Option<Place> {
    let plural = match (group, kind) {
        ("apps", "Deployment" | "StatefulSet" | "ReplicaSet")
        | ("", "Service" | "Pod" | "Node" | "ReplicationController") => kind.to_lowercase() + "s",
        ("networking.k8s.io", "Ingress") => "ingresses".to_owned(),
        _ => return None,
    };
    Some(Place::new(group, "v1", &plural))
}

async fn look_up(client: &Client, group: &str, kind: &str) -> Result<Place, String> {
    let unknown = || match group {
        "" => format!("no matches for kind {kind:?} in version \"\""),
        _ => format!("no matches for kind {kind:?} in group {group:?}"),
    };
    let failed = |error: ApiFailure| match error.code {
        Some(404) => unknown(),
        _ => error.message,
    };
    let versions = match group {
        "" => vec!["v1".to_owned()],
        _ => {
            let path = format!("/apis/{group}");
            let group: Group = get(client, &path, "apigroups").await.map_err(failed)?;
            let preferred = group.preferred.map(|one| one.version);
            let others = group.versions.into_iter().map(|one| one.version);
            let mut versions: Vec<String> = preferred.into_iter().collect();
            let others: Vec<String> = others.filter(|one| !versions.contains(one)).collect();
            versions.extend(others);
            versions
        }
    };
    for version in versions {
        let mut place = Place::new(group, &version, "");
        let resources: Resources = get(client, &place.root(), "apiresources")
            .await
            .map_err(failed)?;
        let mut ours = resources.resources.into_iter();
        if let Some(found) = ours.find(|one| one.kind == kind && !one.name.contains('/')) {
            place.plural = found.name;
            return Ok(place);
        }
    }
    Err(unknown())
}
