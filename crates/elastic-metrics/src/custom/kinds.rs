//! Learns which kinds the cluster has.

use std::time::Duration;

use kube::Client;
use kube::discovery::{Discovery, Scope};

use crate::adapter::{KindRow, Kinds};
use crate::pushed::PUSHED;

/// Groups that are no objects; some of them are served here, and asking ourselves would only wait.
const NOT_OBJECTS: [&str; 4] = [
    "metrics.k8s.io",
    "custom.metrics.k8s.io",
    "external.metrics.k8s.io",
    PUSHED,
];
const TIMEOUT: Duration = Duration::from_secs(10);

/// All kinds; old servers are asked group by group.
pub(crate) async fn discover(client: &Client) -> Option<Kinds> {
    let asked = async {
        let at_once = Discovery::new(client.clone())
            .exclude(&NOT_OBJECTS)
            .run_aggregated()
            .await;
        match at_once {
            // Who does not know the question answers another one, in which no kinds are found.
            Ok(found) if found.groups().next().is_some() => Ok(found),
            _ => {
                Discovery::new(client.clone())
                    .exclude(&NOT_OBJECTS)
                    .run()
                    .await
            }
        }
    };
    match tokio::time::timeout(TIMEOUT, asked).await {
        Ok(Ok(found)) => Some(kinds(&found)),
        Ok(Err(error)) => {
            tracing::warn!(%error, "the cluster's kinds could not be listed; the ones known are used");
            None
        }
        Err(_) => {
            tracing::warn!(timeout = ?TIMEOUT, "the cluster's kinds were not listed in time; the ones known are used");
            None
        }
    }
}

fn kinds(found: &Discovery) -> Kinds {
    let rows = found
        .groups()
        .filter(|group| !NOT_OBJECTS.contains(&group.name()))
        .flat_map(|group| {
            group
                .recommended_resources()
                .into_iter()
                .map(|(resource, capabilities)| KindRow {
                    group: resource.group,
                    version: resource.version,
                    kind: resource.kind,
                    plural: resource.plural,
                    namespaced: capabilities.scope == Scope::Namespaced,
                })
        });
    Kinds::new(rows.collect())
}
