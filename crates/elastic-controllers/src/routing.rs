//! What routing depends on, kept up to date: the rules of `eci-profile`, the labels of namespaces and the policies.
//!
//! A profile that cannot be read changes nothing here; the virtual node is the one that tells about it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;

use elastic_core::eci_profile::{EciProfile, PROFILE_NAME, PROFILE_NAMESPACE, describe};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::core::PartialObjectMeta;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::policy_view::PolicyView;

type Labels = BTreeMap<String, String>;
type NamespaceMeta = PartialObjectMeta<Namespace>;

/// Rules and namespaces as they are known now. Cheap to clone.
#[derive(Clone)]
pub struct RoutingView {
    profile: watch::Receiver<Arc<EciProfile>>,
    namespaces: Store<NamespaceMeta>,
    policies: PolicyView,
}

impl RoutingView {
    /// The profile in force.
    pub fn profile(&self) -> Arc<EciProfile> {
        self.profile.borrow().clone()
    }

    /// A receiver that wakes when the profile changes.
    pub fn changes(&self) -> watch::Receiver<Arc<EciProfile>> {
        self.profile.clone()
    }

    /// The policies that give pods their places.
    pub(crate) fn policies(&self) -> &PolicyView {
        &self.policies
    }

    /// Labels of a namespace; `None` when it is not known (yet).
    pub fn namespace_labels(&self, name: &str) -> Option<Labels> {
        let found = self.namespaces.get(&ObjectRef::new(name))?;
        Some(found.metadata.labels.clone().unwrap_or_default())
    }
}

/// A view, and the task that keeps it up to date until `shutdown`. `initial` holds values of the profile's keys that hold
/// where the ConfigMap says nothing (see `elastic_core::eci_profile::Environment`).
pub fn follow_routing(
    client: Client,
    initial: BTreeMap<String, (String, String)>,
    shutdown: CancellationToken,
) -> (RoutingView, impl Future<Output = ()> + Send + 'static) {
    let (sender, profile) = watch::channel(Arc::new(EciProfile::default()));
    let (namespaces, writer) = reflector::store();
    let namespace_api: Api<NamespaceMeta> = Api::all(client.clone());
    let policies = PolicyView::new();
    let follow_policies = policies.clone();
    let following = async move {
        let stream = watcher(namespace_api, watcher::Config::default()).default_backoff();
        let mut namespaces = pin!(reflector::reflector(writer, stream));
        let follow_namespaces = async {
            while let Some(event) = namespaces.next().await {
                if let Err(error) = event {
                    tracing::warn!(%error, "watch of namespaces broke off, it is taken up again");
                }
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = follow_namespaces => {}
            () = follow_profile(client.clone(), initial, sender) => {}
            () = follow_policies.follow(client.clone(), shutdown.clone()) => {}
        }
    };
    let view = RoutingView {
        profile,
        namespaces,
        policies,
    };
    (view, following)
}

async fn follow_profile(
    client: Client,
    initial: BTreeMap<String, (String, String)>,
    sender: watch::Sender<Arc<EciProfile>>,
) {
    let api: Api<ConfigMap> = Api::namespaced(client, PROFILE_NAMESPACE);
    let only = watcher::Config::default().fields(&format!("metadata.name={PROFILE_NAME}"));
    let mut stream = pin!(watcher(api, only).default_backoff());
    while let Some(event) = stream.next().await {
        let map = match event {
            Ok(watcher::Event::Apply(map) | watcher::Event::InitApply(map)) => map,
            Ok(watcher::Event::Delete(_)) => ConfigMap::default(),
            Ok(watcher::Event::Init | watcher::Event::InitDone) => continue,
            Err(error) => {
                tracing::warn!(%error, "watch of eci-profile broke off, it is taken up again");
                continue;
            }
        };
        match EciProfile::parse_over(&map.data.unwrap_or_default(), &initial) {
            Ok(profile) => {
                sender.send_if_modified(|known| {
                    let changed = **known != profile;
                    if changed {
                        *known = Arc::new(profile);
                    }
                    changed
                });
            }
            Err(problems) => tracing::warn!(
                problems = describe(&problems),
                "eci-profile cannot be read, routing stays as it was"
            ),
        }
    }
}
