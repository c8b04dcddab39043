//! `springtide timeline`: where the seconds of an ElasticWorkload's last burst went.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::{Context, bail};
use elastic_core::ElasticWorkload;
use elastic_core::elastic_workload::ScaleMoments;
use elastic_core::names::POD_MOMENTS_ANNOTATION;
use elastic_core::timeline::{BurstMoments, PodMoments, Step, timeline};
use k8s_openapi::api::core::v1::{Event, Pod};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::ListParams;

use crate::cli::{Output, TimelineArguments};
use crate::data_dir::DataDir;
use crate::printer;

pub async fn run(arguments: TimelineArguments) -> anyhow::Result<ExitCode> {
    let TimelineArguments {
        cluster,
        name,
        namespace,
        kubeconfig,
        output,
    } = arguments;
    let client = match kubeconfig {
        Some(path) => super::client_from(&path).await?,
        None => super::client(&DataDir::new(&cluster.data_dir)).await?,
    };
    let burst = burst(&client, &namespace, &name).await?;
    let steps = timeline(&burst);
    if steps.is_empty() {
        bail!(
            "ElasticWorkload {namespace}/{name} shows no burst: its number of replicas has not risen yet, or its overflow pods are gone again"
        );
    }
    match output {
        Output::Json => printer::data(serde_json::to_string_pretty(&steps)?),
        Output::Text => printer::data(text(&steps)),
    }
    Ok(ExitCode::SUCCESS)
}

/// The moments of the last burst, from the objects that carry them.
pub(crate) async fn burst(
    client: &kube::Client,
    namespace: &str,
    name: &str,
) -> anyhow::Result<BurstMoments> {
    let workloads: Api<ElasticWorkload> = Api::namespaced(client.clone(), namespace);
    let workload = workloads
        .get(name)
        .await
        .with_context(|| format!("get ElasticWorkload {namespace}/{name}"))?;
    let status = workload.status.unwrap_or_default();
    // A fall is no burst; what is left of the rise before it are the pods that still live.
    let change = status.last_scale.filter(|change| change.to > change.from);
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let selector = status.selector;
    let list = pods
        .list(&ListParams::default().labels(&selector))
        .await
        .context("list the workload's pods")?;
    let since = change
        .as_ref()
        .and_then(|change| change.seen_at.as_ref())
        .map(|at| at.0);
    let of_burst: Vec<(&Pod, PodMoments)> = list
        .items
        .iter()
        .filter_map(|pod| Some((pod, moments(pod, since)?)))
        .collect();
    // The burst is over and its pods are gone; the workload has kept its moments.
    if of_burst.is_empty()
        && let Some(kept) = status.last_burst
    {
        return Ok(kept);
    }
    let names = of_burst
        .iter()
        .filter_map(|(pod, _)| pod.metadata.name.as_deref());
    let first_served = first_served(client, namespace, names.collect()).await?;
    let of_change = |moment: fn(&ScaleMoments) -> Option<&MicroTime>| {
        change.as_ref().and_then(moment).map(|at| at.0)
    };
    Ok(BurstMoments {
        crossed: of_change(|change| change.sampled_at.as_ref()),
        reported: of_change(|change| change.reported_at.as_ref()),
        scaled: since,
        distributed: of_change(|change| change.written_at.as_ref()),
        pods: of_burst.into_iter().map(|(_, moments)| moments).collect(),
        first_served,
        ..BurstMoments::default()
    })
}

/// When the first of these pods had answered its first request; on the local cluster the gateway says so by events.
async fn first_served(
    client: &kube::Client,
    namespace: &str,
    pods: HashSet<&str>,
) -> anyhow::Result<Option<jiff::Timestamp>> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    let list = events
        .list(&ListParams::default())
        .await
        .context("list the pods' events")?;
    let served = list.items.iter().filter(|event| {
        let pod = event.involved_object.name.as_deref();
        event.reason.as_deref() == Some(local_gateway::FIRST_REQUEST_REASON)
            && pod.is_some_and(|pod| pods.contains(pod))
    });
    Ok(served
        .filter_map(|event| Some(event.event_time.as_ref()?.0))
        .min())
}

/// A pod's moments, when it belongs to the last change.
fn moments(pod: &Pod, since: Option<jiff::Timestamp>) -> Option<PodMoments> {
    let text = pod
        .metadata
        .annotations
        .as_ref()?
        .get(POD_MOMENTS_ANNOTATION)?;
    let mut moments: PodMoments = serde_json::from_str(text).ok()?;
    let created = pod.metadata.creation_timestamp.as_ref()?.0;
    moments.created = moments.created.or(Some(created));
    // Creation times have whole seconds.
    let belongs = since.is_none_or(|since| created.as_second() >= since.as_second());
    belongs.then_some(moments)
}

fn text(steps: &[Step]) -> String {
    let mut text = format!(
        "{:>2}  {:<40} {:>10} {:>12} {:>12}",
        "#", "STEP", "TOOK", "SINCE START", "LAST POD"
    );
    for step in steps {
        let last = step
            .last_pod_milliseconds
            .map(|last| format!("{last} ms"))
            .unwrap_or_default();
        text += &format!(
            "\n{:>2}  {:<40} {:>7} ms {:>9} ms {:>12}",
            step.number, step.name, step.milliseconds, step.since_start_milliseconds, last
        );
    }
    text
}
