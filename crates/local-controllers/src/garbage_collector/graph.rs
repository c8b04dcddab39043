//! Who owns whom, by UID, as far as the watches have told.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use crate::shared::catalog::ServedResource;

/// The finalizer of an owner that goes after its dependents.
pub const FOREGROUND: &str = "foregroundDeletion";
/// The finalizer of an owner that leaves its dependents behind.
pub const ORPHAN: &str = "orphan";
/// So many UIDs are remembered as gone.
const GONE_MAX: usize = 10_000;

/// An object.
#[derive(Clone, Debug)]
pub struct Object {
    /// Its resource.
    pub resource: Arc<ServedResource>,
    /// Its namespace, empty for cluster-scoped ones.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Its version when last seen.
    pub version: Option<String>,
    /// Its owners.
    pub owners: Vec<OwnerReference>,
    /// Whether its deletion has begun.
    pub is_going: bool,
    /// Whether it waits for its dependents to go.
    pub has_foreground: bool,
    /// Whether it waits for its dependents to be let go.
    pub has_orphan: bool,
}

impl Object {
    /// Reads an object's metadata; `None` without a UID.
    pub fn read(resource: &Arc<ServedResource>, meta: &ObjectMeta) -> Option<Self> {
        let has = |wanted: &str| {
            meta.finalizers
                .iter()
                .flatten()
                .any(|finalizer| finalizer == wanted)
        };
        Some(Object {
            resource: Arc::clone(resource),
            namespace: meta.namespace.clone().unwrap_or_default(),
            name: meta.name.clone()?,
            uid: meta.uid.clone()?,
            version: meta.resource_version.clone(),
            owners: meta.owner_references.clone().unwrap_or_default(),
            is_going: meta.deletion_timestamp.is_some(),
            has_foreground: has(FOREGROUND),
            has_orphan: has(ORPHAN),
        })
    }

    /// Whether it goes after its dependents.
    pub fn goes_in_foreground(&self) -> bool {
        self.is_going && self.has_foreground
    }

    /// The path of the object.
    pub fn path(&self) -> String {
        self.resource.path(&self.namespace, &self.name)
    }
}

/// The graph.
#[derive(Debug, Default)]
pub struct Graph {
    objects: HashMap<String, Object>,
    /// Dependents by the UID of their owner, whether that is known or not.
    dependents: HashMap<String, HashSet<String>>,
    gone: HashSet<String>,
}

impl Graph {
    /// An object.
    pub fn get(&self, uid: &str) -> Option<&Object> {
        self.objects.get(uid)
    }

    /// The known dependents of an owner.
    pub fn dependents(&self, owner: &str) -> impl Iterator<Item = &Object> {
        self.dependents
            .get(owner)
            .into_iter()
            .flatten()
            .filter_map(|uid| self.objects.get(uid))
    }

    /// Whether a UID is known not to exist any more.
    pub fn is_gone(&self, uid: &str) -> bool {
        self.gone.contains(uid)
    }

    /// Remembers that a UID does not exist.
    pub fn mark_gone(&mut self, uid: &str) {
        if self.gone.len() >= GONE_MAX {
            // Forgetting costs a question to the API server at most.
            self.gone.clear();
        }
        self.gone.insert(uid.to_owned());
    }

    /// Takes over what a watch says. The UIDs that need a look follow from it.
    pub fn observe(&mut self, object: Object) -> Vec<String> {
        let mut look_at = Vec::new();
        let uid = object.uid.clone();
        let before = self.objects.get(&uid);
        let owners_changed = before.is_none_or(|before| before.owners != object.owners);
        let began_to_go = object.is_going && before.is_none_or(|before| !before.is_going);
        let has_doubtful_owner = object.owners.iter().any(|owner| {
            self.objects
                .get(&owner.uid)
                .is_none_or(Object::goes_in_foreground)
        });
        if (owners_changed && has_doubtful_owner)
            || (object.is_going && (object.has_orphan || object.has_foreground))
        {
            look_at.push(uid.clone());
        }
        if began_to_go && object.has_foreground {
            look_at.extend(self.dependents.get(&uid).into_iter().flatten().cloned());
        }
        if owners_changed {
            // An owner that waits for this one may not have to any more.
            let former = before
                .map(|before| before.owners.clone())
                .unwrap_or_default();
            self.unlink(&uid, &former, &mut look_at);
            for owner in &object.owners {
                self.dependents
                    .entry(owner.uid.clone())
                    .or_default()
                    .insert(uid.clone());
            }
        }
        self.objects.insert(uid, object);
        look_at
    }

    /// An object is gone. The UIDs that need a look follow from it.
    pub fn forget(&mut self, uid: &str) -> Vec<String> {
        let Some(object) = self.objects.remove(uid) else {
            return Vec::new();
        };
        self.mark_gone(uid);
        let mut look_at: Vec<String> = self
            .dependents
            .get(uid)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        self.unlink(uid, &object.owners, &mut look_at);
        look_at
    }

    /// Drops everything of a resource that is not served any more; nothing follows from that.
    pub fn drop_resource(&mut self, uids: impl IntoIterator<Item = String>) {
        for uid in uids {
            if let Some(object) = self.objects.remove(&uid) {
                self.unlink(&uid, &object.owners, &mut Vec::new());
            }
        }
    }

    fn unlink(&mut self, uid: &str, owners: &[OwnerReference], look_at: &mut Vec<String>) {
        for owner in owners {
            if let Some(siblings) = self.dependents.get_mut(&owner.uid) {
                siblings.remove(uid);
                if siblings.is_empty() {
                    self.dependents.remove(&owner.uid);
                }
            }
            if self
                .objects
                .get(&owner.uid)
                .is_some_and(Object::goes_in_foreground)
            {
                look_at.push(owner.uid.clone());
            }
        }
    }
}
