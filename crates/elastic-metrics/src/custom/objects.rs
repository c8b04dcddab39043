//! Which objects a selector picks: names and labels of a kind are watched from the first question on.

use std::collections::{BTreeMap, HashMap};
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use futures::StreamExt;
use kube::api::ApiResource;
use kube::core::DynamicObject;
use kube::core::PartialObjectMeta;
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::adapter::{GroupResource, KindRow};
use crate::selector::Selector;

/// Most kinds that are watched.
const MAX_KINDS: usize = 16;
/// The first question about a kind waits this long for its list.
const FIRST_LIST: Duration = Duration::from_secs(8);

type Labels = BTreeMap<String, String>;
type Names = BTreeMap<(String, String), Labels>;

#[derive(Clone)]
struct Followed {
    names: Arc<RwLock<Names>>,
    listed: watch::Receiver<bool>,
}

/// See the module.
pub(crate) struct Objects {
    client: Client,
    shutdown: CancellationToken,
    kinds: Mutex<HashMap<GroupResource, Followed>>,
}

impl Objects {
    pub(crate) fn new(client: Client, shutdown: CancellationToken) -> Self {
        Self {
            client,
            shutdown,
            kinds: Mutex::default(),
        }
    }

    /// Names of the objects that `selector` picks.
    pub(crate) async fn names(
        &self,
        kind: &KindRow,
        namespace: Option<&str>,
        selector: &Selector,
    ) -> Result<Vec<String>, String> {
        let mut followed = self.followed(kind)?;
        let listed = followed.listed.wait_for(|listed| *listed);
        match tokio::time::timeout(FIRST_LIST, listed).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err("the server is stopping".to_owned()),
            Err(_) => {
                return Err(format!(
                    "the cluster's {} could not be listed in time",
                    kind.resource()
                ));
            }
        }
        let names = followed
            .names
            .read()
            .unwrap_or_else(PoisonError::into_inner);
        let fits = |(key, labels): &(&(String, String), &Labels)| {
            namespace.is_none_or(|namespace| key.0 == namespace) && selector.matches(labels)
        };
        let from = (namespace.unwrap_or_default().to_owned(), String::new());
        let within = names
            .range(from..)
            .take_while(|(key, _)| namespace.is_none_or(|namespace| key.0 == namespace));
        Ok(within.filter(fits).map(|(key, _)| key.1.clone()).collect())
    }

    fn followed(&self, kind: &KindRow) -> Result<Followed, String> {
        let mut kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let resource = kind.resource();
        if let Some(followed) = kinds.get(&resource) {
            return Ok(followed.clone());
        }
        if kinds.len() >= MAX_KINDS {
            return Err(format!(
                "selectors are used for {MAX_KINDS} kinds already; ask for {resource} by name"
            ));
        }
        let names = Arc::new(RwLock::new(Names::new()));
        let (done, listed) = watch::channel(false);
        // Ends with the server: the token is its.
        tokio::spawn(follow(
            self.client.clone(),
            kind.clone(),
            names.clone(),
            done,
            self.shutdown.clone(),
        ));
        let followed = Followed { names, listed };
        kinds.insert(resource, followed.clone());
        Ok(followed)
    }
}

async fn follow(
    client: Client,
    kind: KindRow,
    names: Arc<RwLock<Names>>,
    done: watch::Sender<bool>,
    shutdown: CancellationToken,
) {
    let resource = ApiResource {
        group: kind.group.clone(),
        version: kind.version.clone(),
        api_version: kind.api_version(),
        kind: kind.kind.clone(),
        plural: kind.plural.clone(),
    };
    let api: Api<PartialObjectMeta<DynamicObject>> = Api::all_with(client, &resource);
    let mut changes = pin!(watcher(api, watcher::Config::default()).default_backoff());
    let mut listed = Names::new();
    loop {
        let change = tokio::select! {
            () = shutdown.cancelled() => return,
            change = changes.next() => match change {
                Some(change) => change,
                None => return,
            },
        };
        let write = || names.write().unwrap_or_else(PoisonError::into_inner);
        match change {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(object)) => {
                drop(listed.insert(key(&object), object.labels().clone()))
            }
            Ok(Event::InitDone) => {
                *write() = std::mem::take(&mut listed);
                done.send_replace(true);
            }
            Ok(Event::Apply(object)) => drop(write().insert(key(&object), object.labels().clone())),
            Ok(Event::Delete(object)) => drop(write().remove(&key(&object))),
            Err(error) => {
                tracing::warn!(kind = kind.kind, %error, "watch of objects with metrics broke off, it is taken up again")
            }
        }
    }
}

fn key(object: &PartialObjectMeta<DynamicObject>) -> (String, String) {
    (object.namespace().unwrap_or_default(), object.name_any())
}
