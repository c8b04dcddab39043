//! Follows the ConfigMap `kube-system/eci-profile`: reads, checks, and puts a good one in force for pods created from then
//! on. A bad one changes nothing; it is told by an event on the ConfigMap and by a condition on every virtual node.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use cloud_api::EciError;
use cloud_api::model::create::{ContainerSpec, CreateContainerGroupRequest};
use elastic_core::eci_profile::{EciProfile, PROFILE_NAME, PROFILE_NAMESPACE, Problem, describe};
use elastic_core::events::EventKind;
use elastic_core::names::ACCEPTED_PROFILE_ANNOTATION;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, ObjectReference};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, ResourceExt};
use serde_json::json;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Shared;
use crate::config::{ClusterSettings, FindZone, VSwitch};

/// Name of the group that is only checked and never made.
const CHECK_NAME: &str = "eci-profile-check";

/// Wait before a profile is looked at again whose ids could not be asked about.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What was given at the start and holds where the profile says nothing.
pub(super) struct Base {
    pub(super) v_switches: Vec<VSwitch>,
    pub(super) settings: ClusterSettings,
    pub(super) initial: BTreeMap<String, (String, String)>,
    pub(super) find_zone: Option<Arc<dyn FindZone>>,
}

impl Base {
    /// Asks for the zones of vSwitches that `data` names and nobody has described. What does not exist stays unknown.
    async fn learn(&mut self, data: &BTreeMap<String, String>) -> Result<(), Problem> {
        let Some(finder) = &self.find_zone else {
            return Ok(());
        };
        // What is wrong with the words is told when they are read.
        let profile = EciProfile::parse_over(data, &self.initial).unwrap_or_default();
        for id in profile.v_switch_ids {
            let described = profile.v_switch_zones.contains_key(&id);
            if described || self.v_switches.iter().any(|known| known.id == id) {
                continue;
            }
            let found = finder.zone(&id).await.map_err(|error| {
                Problem::new(
                    "vSwitchIds",
                    format!("the zone of {id} is not known: {error}"),
                )
            })?;
            if let Some(zone) = found {
                self.v_switches.push(VSwitch { id, zone });
            }
        }
        Ok(())
    }
}

/// The configuration that new pods get.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Effective {
    pub(crate) profile: EciProfile,
    pub(crate) v_switches: Vec<VSwitch>,
    pub(crate) settings: ClusterSettings,
}

/// What is in force, and what is wrong with the profile in the cluster when that is another one.
#[derive(Clone, Debug, Default)]
pub(super) struct InForce {
    pub(super) effective: Option<Arc<Effective>>,
    pub(super) problem: Option<String>,
}

/// Puts a profile over what was given at the start. Every vSwitch needs a zone.
pub(super) fn resolve(profile: EciProfile, base: &Base) -> Result<Effective, Vec<Problem>> {
    let known = |id: &str| base.v_switches.iter().find(|known| known.id == id);
    let zone = |id: &str| {
        let written = profile.v_switch_zones.get(id).cloned();
        written.or_else(|| known(id).map(|known| known.zone.clone()))
    };
    let mut problems = Vec::new();
    let mut v_switches = Vec::new();
    for id in &profile.v_switch_ids {
        match zone(id).filter(|zone| !zone.is_empty()) {
            Some(zone) => v_switches.push(VSwitch {
                id: id.clone(),
                zone,
            }),
            None => problems.push(Problem::new(
                "vSwitchIds",
                format!("{id} is not known, so its zone is not either; correct it or add it to vSwitchZones"),
            )),
        }
    }
    if profile.v_switch_ids.is_empty() {
        v_switches.clone_from(&base.v_switches);
    }
    if v_switches.is_empty() && problems.is_empty() {
        problems.push(Problem::new(
            "vSwitchIds",
            "no vSwitch is known; list at least one",
        ));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let mut settings = base.settings.clone();
    settings.security_group = profile
        .security_group_id
        .clone()
        .or(settings.security_group);
    settings.resource_group = profile
        .resource_group_id
        .clone()
        .or(settings.resource_group);
    settings.vpc = profile.vpc_id.clone().or(settings.vpc);
    settings.cluster_ip = profile.enable_cluster_ip;
    if !settings.cluster_ip {
        // The DNS Service's own ClusterIP leads nowhere then.
        settings.cluster_dns.clone_from(&settings.direct_dns);
    }
    if profile.enable_private_zone {
        settings.cluster_dns.clear();
    }
    Ok(Effective {
        profile,
        v_switches,
        settings,
    })
}

pub(super) async fn follow(
    shared: Arc<Shared>,
    base: Base,
    in_force: watch::Sender<InForce>,
    shutdown: CancellationToken,
) {
    let api: Api<ConfigMap> = Api::namespaced(shared.client.clone(), PROFILE_NAMESPACE);
    let only = watcher::Config::default().fields(&format!("metadata.name={PROFILE_NAME}"));
    let mut stream = pin!(watcher(api, only).backoff(super::watch::Again::default()));
    let mut follower = Follower {
        shared,
        base,
        in_force,
        last: None,
        unanswered: None,
    };
    let mut listed = None;
    loop {
        let event = tokio::select! {
            biased;
            () = shutdown.cancelled() => return,
            event = stream.next() => event,
            () = tokio::time::sleep(ASK_AGAIN), if follower.unanswered.is_some() => {
                if let Some(map) = follower.unanswered.take() {
                    follower.take(map).await;
                }
                continue;
            }
        };
        match event {
            None => return,
            Some(Ok(watcher::Event::Init)) => listed = None,
            Some(Ok(watcher::Event::InitApply(map))) => listed = Some(map),
            Some(Ok(watcher::Event::InitDone)) => follower.take(listed.take()).await,
            Some(Ok(watcher::Event::Apply(map))) => follower.take(Some(map)).await,
            Some(Ok(watcher::Event::Delete(_))) => follower.take(None).await,
            Some(Err(error)) => {
                tracing::warn!(%error, "watch of eci-profile broke off, it is taken up again")
            }
        }
    }
}

struct Follower {
    shared: Arc<Shared>,
    base: Base,
    in_force: watch::Sender<InForce>,
    /// The data that was looked at last.
    last: Option<BTreeMap<String, String>>,
    /// The profile that waits for an answer about its ids.
    unanswered: Option<Option<ConfigMap>>,
}

impl Follower {
    async fn take(&mut self, map: Option<ConfigMap>) {
        let about = reference(map.as_ref());
        let data = map
            .as_ref()
            .and_then(|map| map.data.clone())
            .unwrap_or_default();
        if self.last.as_ref() == Some(&data) {
            return;
        }
        self.unanswered = None;
        if let Err(problem) = self.base.learn(&data).await {
            // Asked again every few seconds; told once.
            if self.in_force.borrow().problem.as_ref() != Some(&problem.to_string()) {
                let before = self.accepted_before(map.as_ref()).await;
                self.refuse(&about, &[problem], before);
            }
            self.unanswered = Some(map);
            return;
        }
        let outcome = match self.read(&data) {
            Ok(effective) => self.check(&data, effective).await,
            refused => refused,
        };
        match outcome {
            Ok(effective) => {
                self.accept(&about, effective);
                self.remember(map.as_ref(), &data).await;
            }
            Err(problems) => {
                let before = self.accepted_before(map.as_ref()).await;
                self.refuse(&about, &problems, before);
            }
        }
        self.last = Some(data);
    }

    /// Notes on the ConfigMap what was accepted, for a start that finds a bad one.
    async fn remember(&self, map: Option<&ConfigMap>, data: &BTreeMap<String, String>) {
        let Some(map) = map else { return };
        let text = json!(data).to_string();
        if map.annotations().get(ACCEPTED_PROFILE_ANNOTATION) == Some(&text) {
            return;
        }
        let maps: Api<ConfigMap> = Api::namespaced(self.shared.client.clone(), PROFILE_NAMESPACE);
        let note = json!({"metadata": {"annotations": {ACCEPTED_PROFILE_ANNOTATION: text}}});
        let written = maps
            .patch(PROFILE_NAME, &PatchParams::default(), &Patch::Merge(note))
            .await;
        if let Err(error) = written {
            tracing::warn!(%error, "the accepted eci-profile is not noted; a start that finds a bad one uses the environment");
        }
    }

    /// What an earlier life accepted last, as long as nothing is in force yet.
    async fn accepted_before(&mut self, map: Option<&ConfigMap>) -> Option<Effective> {
        if self.in_force.borrow().effective.is_some() {
            return None;
        }
        let text = map?.annotations().get(ACCEPTED_PROFILE_ANNOTATION)?;
        let data: BTreeMap<String, String> = serde_json::from_str(text).ok()?;
        self.base.learn(&data).await.ok()?;
        self.read(&data).ok()
    }

    fn read(&self, data: &BTreeMap<String, String>) -> Result<Effective, Vec<Problem>> {
        resolve(
            EciProfile::parse_over(data, &self.base.initial)?,
            &self.base,
        )
    }

    /// Asks the cloud whether it knows the ids, without making anything. When the cloud cannot say, they are believed.
    async fn check(
        &self,
        data: &BTreeMap<String, String>,
        effective: Effective,
    ) -> Result<Effective, Vec<Problem>> {
        if !["securityGroupId", "vSwitchIds"]
            .iter()
            .any(|key| data.contains_key(*key))
        {
            return Ok(effective);
        }
        let ids: Vec<&str> = effective
            .v_switches
            .iter()
            .map(|switch| switch.id.as_str())
            .collect();
        let request = CreateContainerGroupRequest {
            container_group_name: CHECK_NAME.to_owned(),
            v_switch_id: Some(ids.join(",")),
            security_group_id: effective.settings.security_group.clone(),
            cpu: Some(2.0),
            memory: Some(4.0),
            dry_run: Some(true),
            container: vec![ContainerSpec {
                name: "check".to_owned(),
                image: "check".to_owned(),
                ..ContainerSpec::default()
            }],
            ..CreateContainerGroupRequest::default()
        };
        match self.shared.cloud.call(&request).await {
            Err(error) => match unknown_id(&error) {
                Some(problem) => Err(vec![problem]),
                None => Ok(effective),
            },
            Ok(_) => Ok(effective),
        }
    }

    fn accept(&self, about: &ObjectReference, effective: Effective) {
        for note in &effective.profile.notes {
            let message = note.to_string();
            self.shared
                .events
                .tell_about(about, EventKind::Warning, "ProfileKeyIgnored", &message);
        }
        let first = self.in_force.borrow().effective.is_none();
        if !first {
            let message = "the profile is in force for pods created from now on";
            self.shared
                .events
                .tell_about(about, EventKind::Normal, "ProfileAccepted", message);
        }
        tracing::info!(
            v_switches = effective.v_switches.len(),
            "eci-profile is in force"
        );
        self.in_force.send_replace(InForce {
            effective: Some(Arc::new(effective)),
            problem: None,
        });
    }

    fn refuse(&self, about: &ObjectReference, problems: &[Problem], before: Option<Effective>) {
        let message = describe(problems);
        tracing::warn!(
            problems = message,
            "eci-profile is refused, the last good one stays in force"
        );
        let told = format!("{message}; the last good profile stays in force");
        self.shared
            .events
            .tell_about(about, EventKind::Warning, "ProfileRefused", &told);
        let fallback = || {
            // Nothing good was ever seen: what was given at the start has to do.
            let initial = before.map_or_else(|| self.read(&BTreeMap::new()), Ok);
            initial
                .or_else(|_| resolve(EciProfile::default(), &self.base))
                .ok()
                .map(Arc::new)
        };
        self.in_force.send_modify(|in_force| {
            in_force.problem = Some(message);
            if in_force.effective.is_none() {
                in_force.effective = fallback();
            }
        });
    }
}

fn unknown_id(error: &EciError) -> Option<Problem> {
    let message = error.service().map(|error| error.message.clone())?;
    let code = error.code();
    let key = if code.starts_with("InvalidSecurityGroupId") {
        "securityGroupId"
    } else if code.starts_with("InvalidVSwitchId") && !error.is_address_exhausted() {
        "vSwitchIds"
    } else {
        return None;
    };
    Some(Problem::new(
        key,
        format!("the cloud refuses it with {code}: {message}"),
    ))
}

fn reference(map: Option<&ConfigMap>) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("ConfigMap".to_owned()),
        namespace: Some(PROFILE_NAMESPACE.to_owned()),
        name: Some(PROFILE_NAME.to_owned()),
        uid: map.and_then(ResourceExt::uid),
        ..ObjectReference::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base() -> Base {
        let switch = |id: &str, zone: &str| VSwitch {
            id: id.into(),
            zone: zone.into(),
        };
        Base {
            v_switches: vec![switch("vsw-a", "a"), switch("vsw-b", "b")],
            settings: ClusterSettings {
                security_group: Some("sg-base".into()),
                cluster_dns: vec!["10.96.0.10".into()],
                direct_dns: vec!["10.10.0.1".into()],
                ..ClusterSettings::default()
            },
            initial: BTreeMap::new(),
            find_zone: None,
        }
    }

    fn resolved(pairs: &[(&str, &str)]) -> Result<Effective, Vec<Problem>> {
        let data = pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        resolve(EciProfile::parse(&data.collect()).unwrap(), &base())
    }

    #[test]
    fn the_profile_orders_and_limits_what_is_known() {
        let ids = |effective: Effective| {
            let zones = effective.v_switches.into_iter();
            zones
                .map(|switch| format!("{}/{}", switch.id, switch.zone))
                .collect::<Vec<_>>()
        };
        assert_eq!(ids(resolved(&[]).unwrap()), ["vsw-a/a", "vsw-b/b"]);
        let two = [("vSwitchIds", "vsw-c,vsw-b"), ("vSwitchZones", "vsw-c=c")];
        assert_eq!(ids(resolved(&two).unwrap()), ["vsw-c/c", "vsw-b/b"]);
    }

    #[test]
    fn a_v_switch_without_a_zone_is_refused_by_name() {
        let problems = resolved(&[("vSwitchIds", "vsw-a,vsw-x")]).unwrap_err();
        assert_eq!(problems.len(), 1);
        assert!(
            problems[0].cause.starts_with("vsw-x is not known"),
            "{problems:?}"
        );
        let empty = Base {
            v_switches: Vec::new(),
            ..base()
        };
        assert!(resolve(EciProfile::default(), &empty).is_err());
    }

    #[test]
    fn settings_come_from_the_profile_then_from_the_start() {
        let settings = resolved(&[("enablePrivateZone", "true"), ("enableClusterIp", "false")])
            .unwrap()
            .settings;
        assert_eq!(settings.security_group.as_deref(), Some("sg-base"));
        assert!(settings.cluster_dns.is_empty() && !settings.cluster_ip);
        let settings = resolved(&[("enableClusterIp", "false")]).unwrap().settings;
        assert_eq!(settings.cluster_dns, ["10.10.0.1"], "not by its ClusterIP");
        let settings = resolved(&[("securityGroupId", "sg-new"), ("vpcId", "vpc-1")])
            .unwrap()
            .settings;
        assert_eq!(settings.security_group.as_deref(), Some("sg-new"));
        assert_eq!(settings.vpc.as_deref(), Some("vpc-1"));
    }
}
