//! The metrics APIs of the add-on: off until somebody asks for them, and never taken from another server.
//!
//! The rules are in a ConfigMap that is followed; a bad one is told in an event on it and changes nothing. Certificates come
//! from the webhook's Secret, so there is one authority to renew.

use std::path::PathBuf;
use std::time::Duration;

use elastic_core::events::{EventKind, event};
use elastic_metrics::{
    AdapterConfig, CustomMetricsConfig, FrontProxy, Groups, KubeletOptions, MetricsTls,
    PrometheusOptions, PushedMetrics, REPLICA_LABELS, RelayOptions, Verb, run_custom_metrics,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use kube::api::PostParams;
use kube::{Api, Client, Resource};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::lead::chain;
use super::settings::Texts;
use super::webhook::{self, Keys};
use crate::names::{CONTROLLER, METRICS, METRICS_CONFIG, NAMESPACE};

/// Between looks at rules, certificates and authorities.
const LOOK: Duration = Duration::from_secs(10);
/// After a failure.
const RETRY: Duration = Duration::from_secs(5);
/// Between two looks at each kubelet.
const RESOLUTION_SECONDS: std::ops::RangeInclusive<u64> = 1..=300;

/// Where a pod finds its account's token.
const TOKEN_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";

/// What the environment says about metrics.
#[derive(Clone)]
struct Choice {
    groups: Groups,
    prometheus: Option<PrometheusOptions>,
    kubelets: KubeletOptions,
    /// By which several Prometheus that push the same series are told apart.
    replica_labels: Vec<String>,
    /// The account's own token, with which replicas tell each other what was pushed.
    token_file: PathBuf,
}

/// A variable without the blanks around it; empty when it is not set.
fn text<'e>(environment: &'e Texts, key: &str) -> &'e str {
    environment.get(key).map_or("", |text| text.trim())
}

/// The parts of a variable between commas.
fn list<'e>(environment: &'e Texts, key: &str) -> impl Iterator<Item = &'e str> {
    let parts = text(environment, key).split(',').map(str::trim);
    parts.filter(|part| !part.is_empty())
}

fn path(environment: &Texts, key: &str) -> Option<PathBuf> {
    let text = text(environment, key);
    (!text.is_empty()).then(|| text.into())
}

fn groups<'n>(names: impl Iterator<Item = &'n str>) -> Result<Groups, String> {
    let mut groups = Groups {
        custom: false,
        external: false,
        resource: false,
        pushed: false,
    };
    for name in names {
        match name {
            "custom" => groups.custom = true,
            "external" => groups.external = true,
            "resource" => groups.resource = true,
            "pushed" => groups.pushed = true,
            other => {
                return Err(format!(
                    "METRICS_APIS names {other:?}; a list of custom, external, resource and pushed is expected"
                ));
            }
        }
    }
    if groups.pushed && !groups.custom && !groups.external {
        let why =
            "METRICS_APIS names pushed without custom or external, which serve what is pushed";
        return Err(why.to_owned());
    }
    Ok(groups)
}

/// What the environment wants; none when it wants no API.
fn choice(environment: &Texts) -> Result<Option<Choice>, String> {
    let groups = groups(list(environment, "METRICS_APIS"))?;
    if !groups.custom && !groups.external && !groups.resource {
        return Ok(None);
    }
    Ok(Some(Choice {
        groups,
        prometheus: prometheus(environment)?,
        kubelets: kubelets(environment)?,
        replica_labels: replica_labels(environment),
        token_file: path(environment, "SERVICE_ACCOUNT_TOKEN_FILE")
            .unwrap_or_else(|| TOKEN_FILE.into()),
    }))
}

/// Reads `PUSHED_REPLICA_LABELS`.
fn replica_labels(environment: &Texts) -> Vec<String> {
    let given: Vec<String> = list(environment, "PUSHED_REPLICA_LABELS")
        .map(str::to_owned)
        .collect();
    match given.is_empty() {
        true => REPLICA_LABELS.map(str::to_owned).to_vec(),
        false => given,
    }
}

/// Reads `PROMETHEUS_URL`, `PROMETHEUS_VERB`, `PROMETHEUS_HEADERS`, `PROMETHEUS_TOKEN_FILE` and `PROMETHEUS_CA_FILE`.
fn prometheus(environment: &Texts) -> Result<Option<PrometheusOptions>, String> {
    let verb = match text(environment, "PROMETHEUS_VERB").to_lowercase().as_str() {
        "" | "post" => Verb::Post,
        "get" => Verb::Get,
        other => {
            return Err(format!(
                "PROMETHEUS_VERB is {other:?}; get or post is expected"
            ));
        }
    };
    let mut headers = Vec::new();
    for header in list(environment, "PROMETHEUS_HEADERS") {
        let pair = header
            .split_once('=')
            .ok_or_else(|| "PROMETHEUS_HEADERS is a list of name=value".to_owned())?;
        headers.push((pair.0.to_owned(), pair.1.to_owned()));
    }
    let url = text(environment, "PROMETHEUS_URL");
    Ok((!url.is_empty()).then(|| PrometheusOptions {
        url: url.to_owned(),
        verb,
        headers,
        token_file: path(environment, "PROMETHEUS_TOKEN_FILE"),
        authority_file: path(environment, "PROMETHEUS_CA_FILE"),
    }))
}

/// Reads `METRIC_RESOLUTION`, `KUBELET_CA_FILE` and `KUBELET_INSECURE_TLS`, which are named after flags of metrics-server and
/// kube-apiserver.
fn kubelets(environment: &Texts) -> Result<KubeletOptions, String> {
    let mut options = KubeletOptions::default();
    let resolution = text(environment, "METRIC_RESOLUTION");
    if !resolution.is_empty() {
        let seconds = resolution
            .strip_suffix('s')
            .and_then(|text| text.parse().ok());
        let seconds = seconds.filter(|seconds| RESOLUTION_SECONDS.contains(seconds));
        let seconds = seconds.ok_or_else(|| {
            format!(
                "METRIC_RESOLUTION is {resolution:?}; whole seconds from 1s to 300s are expected"
            )
        })?;
        options.interval = Duration::from_secs(seconds);
    }
    if let Some(path) = path(environment, "KUBELET_CA_FILE") {
        options.authority_file = path;
    }
    options.insecure_tls = match text(environment, "KUBELET_INSECURE_TLS") {
        "" | "false" => false,
        "true" => true,
        other => {
            return Err(format!(
                "KUBELET_INSECURE_TLS is {other:?}; true or false is expected"
            ));
        }
    };
    Ok(options)
}

/// What the server has to be started anew for.
#[derive(Clone, PartialEq, Eq)]
struct Wanted {
    keys: Keys,
    front_proxy: FrontProxy,
    rules: Option<String>,
}

struct Running {
    wanted: Wanted,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

/// Serves until `shutdown`, when the environment wants it.
pub(super) async fn serve(
    client: Client,
    listener: std::net::TcpListener,
    names: Vec<String>,
    (identity, environment, pushed): (String, Texts, PushedMetrics),
    leads: watch::Receiver<bool>,
    shutdown: CancellationToken,
) {
    let choice = match choice(&environment) {
        Ok(Some(choice)) => choice,
        Ok(None) => return,
        Err(reason) => {
            tracing::error!(reason, "metrics APIs are not served");
            return;
        }
    };
    let mut running: Option<Running> = None;
    // Rules that were told already.
    let mut refused: Option<String> = None;
    loop {
        let pause = match wanted(&client, &names).await {
            Ok(wanted) if running.as_ref().is_some_and(|one| one.serves(&wanted)) => LOOK,
            Ok(wanted) => {
                let parsed = rules(&wanted);
                if let Err(reason) = &parsed
                    && refused != wanted.rules
                {
                    refused.clone_from(&wanted.rules);
                    tell(&client, reason).await;
                }
                // With bad rules from the start, ElasticMetrics are served all the same.
                if parsed.is_ok() || running.is_none() {
                    end(running.take()).await;
                    let rules = parsed.unwrap_or_default();
                    running = start(
                        &client,
                        &listener,
                        &choice,
                        (wanted, rules),
                        (&identity, &pushed),
                        &leads,
                        &shutdown,
                    );
                }
                RETRY
            }
            Err(error) => {
                tracing::warn!(error, "metrics APIs are not in order, trying again");
                RETRY
            }
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
    }
    end(running).await;
}

impl Running {
    fn serves(&self, wanted: &Wanted) -> bool {
        self.wanted == *wanted && !self.task.is_finished()
    }
}

async fn end(running: Option<Running>) {
    if let Some(running) = running {
        running.stop.cancel();
        let _ = running.task.await;
    }
}

fn start(
    client: &Client,
    listener: &std::net::TcpListener,
    choice: &Choice,
    (wanted, rules): (Wanted, Option<AdapterConfig>),
    (identity, pushed): (&str, &PushedMetrics),
    leads: &watch::Receiver<bool>,
    shutdown: &CancellationToken,
) -> Option<Running> {
    let listener = match listener.try_clone().and_then(TcpListener::from_std) {
        Ok(listener) => listener,
        Err(error) => {
            tracing::error!(%error, "the metrics APIs' listener cannot be shared");
            return None;
        }
    };
    let tls = MetricsTls {
        certificate_pem: wanted.keys.certificate.clone(),
        key_pem: wanted.keys.key.clone(),
        authority_pem: wanted.keys.authority.clone(),
        client_authority_pem: None,
    };
    let mut config = CustomMetricsConfig::new(None, tls, wanted.front_proxy.clone());
    config.namespace = NAMESPACE.to_owned();
    config.service = METRICS.to_owned();
    config.groups = choice.groups;
    config.prometheus.clone_from(&choice.prometheus);
    config.kubelets.clone_from(&choice.kubelets);
    config.rules = rules.filter(|_| choice.prometheus.is_some());
    config.leads = leads.clone();
    config.pushed = pushed.clone();
    config.replica_labels.clone_from(&choice.replica_labels);
    config.relay = Some(RelayOptions {
        identity: identity.to_owned(),
        token_file: choice.token_file.clone(),
    });
    let stop = shutdown.child_token();
    let serving = run_custom_metrics(client.clone(), config, listener, stop.clone());
    let task = tokio::spawn(async move {
        if let Err(error) = serving.await {
            tracing::error!(
                error = chain(&error),
                "metrics APIs are not served, trying again"
            );
        }
    });
    Some(Running { wanted, stop, task })
}

async fn wanted(client: &Client, names: &[String]) -> Result<Wanted, String> {
    let keys = webhook::keys(client, names, Timestamp::now())
        .await
        .map_err(|error| chain(&error))?;
    let front_proxy = FrontProxy::find(client)
        .await
        .map_err(|error| chain(&error))?;
    let front_proxy = front_proxy.ok_or(
        "the cluster publishes no front-proxy authority (ConfigMap kube-system/extension-apiserver-authentication)",
    )?;
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let map = maps
        .get_opt(METRICS_CONFIG)
        .await
        .map_err(|error| chain(&error))?;
    let rules = map.and_then(|map| map.data?.remove("config.yaml"));
    Ok(Wanted {
        keys,
        front_proxy,
        rules: rules.filter(|text| !text.trim().is_empty()),
    })
}

fn rules(wanted: &Wanted) -> Result<Option<AdapterConfig>, String> {
    let parsed = wanted
        .rules
        .as_deref()
        .map(AdapterConfig::parse)
        .transpose();
    parsed.map_err(|error| error.to_string())
}

/// On the ConfigMap, where its author looks.
async fn tell(client: &Client, reason: &str) {
    tracing::error!(
        reason,
        "metrics configuration cannot be used; what was used before stays"
    );
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), NAMESPACE);
    let Ok(Some(map)) = maps.get_opt(METRICS_CONFIG).await else {
        return;
    };
    let about = map.object_ref(&());
    let event = event(
        &about,
        CONTROLLER,
        EventKind::Warning,
        "BadConfiguration",
        reason,
        Timestamp::now(),
    );
    let events: Api<Event> = Api::namespaced(client.clone(), NAMESPACE);
    if let Err(error) = events.create(&PostParams::default(), &event).await {
        tracing::debug!(%error, "event about the metrics configuration could not be posted");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Texts {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn nothing_is_served_unless_it_is_asked_for() {
        assert!(choice(&environment(&[])).unwrap().is_none());
        assert!(
            choice(&environment(&[
                ("METRICS_APIS", " "),
                ("PROMETHEUS_URL", "http://x")
            ]))
            .unwrap()
            .is_none()
        );
        let external = choice(&environment(&[("METRICS_APIS", "external")]))
            .unwrap()
            .unwrap();
        assert!(
            external.groups.external && !external.groups.custom && external.prometheus.is_none()
        );
        assert!(!external.groups.pushed);
        assert!(choice(&environment(&[("METRICS_APIS", "pushed")])).is_err());
        let pushed = choice(&environment(&[("METRICS_APIS", "external,pushed")]));
        assert!(pushed.unwrap().unwrap().groups.pushed);
    }

    #[test]
    fn the_environment_says_how_kubelets_are_asked() {
        let wanted = choice(&environment(&[
            ("METRICS_APIS", "resource"),
            ("METRIC_RESOLUTION", "30s"),
            ("KUBELET_CA_FILE", "/ca"),
            ("KUBELET_INSECURE_TLS", "true"),
        ]));
        let Choice {
            groups, kubelets, ..
        } = wanted.unwrap().unwrap();
        assert!(groups.resource && !groups.custom && !groups.external);
        assert_eq!(kubelets.interval, Duration::from_secs(30));
        assert!(kubelets.insecure_tls && kubelets.authority_file == std::path::Path::new("/ca"));
        let usual = choice(&environment(&[("METRICS_APIS", "resource")]));
        assert!(!usual.unwrap().unwrap().kubelets.insecure_tls);
    }

    #[test]
    fn the_environment_says_how_senders_of_the_same_series_are_told_apart() {
        let labels = |named: &str| {
            let texts = environment(&[
                ("METRICS_APIS", "custom,pushed"),
                ("PUSHED_REPLICA_LABELS", named),
            ]);
            choice(&texts).unwrap().unwrap().replica_labels
        };
        assert_eq!(labels(" "), ["prometheus_replica", "__replica__"]);
        assert_eq!(
            labels("replica, pod_of_prometheus"),
            ["replica", "pod_of_prometheus"]
        );
    }

    #[test]
    fn the_environment_says_how_prometheus_is_asked() {
        let all = environment(&[
            ("METRICS_APIS", "custom, external"),
            ("PROMETHEUS_URL", "https://prometheus.monitoring.svc:9090"),
            ("PROMETHEUS_VERB", "GET"),
            ("PROMETHEUS_HEADERS", "X-Scope-OrgID=shop,X-B=c"),
            ("PROMETHEUS_TOKEN_FILE", "/token"),
        ]);
        let options = choice(&all).unwrap().unwrap().prometheus.unwrap();
        assert_eq!((options.verb, options.headers.len()), (Verb::Get, 2));
        assert!(options.token_file.is_some() && options.authority_file.is_none());
        for (key, value) in [
            ("METRICS_APIS", "resources"),
            ("METRIC_RESOLUTION", "15"),
            ("METRIC_RESOLUTION", "0s"),
            ("KUBELET_INSECURE_TLS", "yes"),
            ("PROMETHEUS_VERB", "put"),
            ("PROMETHEUS_HEADERS", "x"),
        ] {
            let mut wrong = all.clone();
            wrong.insert(key.to_owned(), value.to_owned());
            let refusal = choice(&wrong).err().unwrap();
            assert!(refusal.contains(key), "{key}: {refusal}");
        }
    }
}
