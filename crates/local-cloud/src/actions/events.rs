//! DescribeContainerGroupEvents.

use super::Call;
use super::filter::{Filter, given, page};
use super::status::since;
use crate::gateway::refusal::Refusal;
use crate::state::record::{EventRecord, GroupRecord};
use cloud_api::model::events::*;
use cloud_api::time;

const PAGE: u32 = 200;
/// Reasons that a machine's own agent reports; everything else comes from the service.
const AGENT: [&str; 9] = [
    "Pulling",
    "Pulled",
    "Created",
    "Started",
    "Killing",
    "BackOff",
    "Unhealthy",
    "Failed",
    "SuccessfulMountVolume",
];

pub(crate) fn describe(
    call: &Call<'_>,
    request: DescribeContainerGroupEventsRequest,
) -> Result<DescribeContainerGroupEventsResponse, Refusal> {
    call.need(&["RegionId"])?;
    let wanted_source = given(&request.event_source);
    if wanted_source.is_some_and(|source| source != "EciService" && source != "K8sAgent") {
        return Err(Refusal::invalid(
            "EventSource",
            "it must be EciService or K8sAgent",
        ));
    }
    let filter = Filter {
        ids: &request.container_group_ids,
        zone: given(&request.zone_id),
        v_switch: given(&request.v_switch_id),
        resource_group: given(&request.resource_group_id),
        tags: &request.tag,
        ..Default::default()
    };
    let since = since(call, request.since_second);
    let is_wanted = |event: &&EventRecord| {
        let from_agent = AGENT.contains(&event.reason.as_str());
        wanted_source.is_none_or(|source| (source == "K8sAgent") == from_agent)
            && since.is_none_or(|second| event.last.as_second() >= second)
    };
    let state = call.shared.state();
    let page = page(
        &state.groups,
        &filter,
        request.limit,
        PAGE,
        request.next_token.as_deref(),
    )?;
    let data = page.groups.iter().map(|group| GroupEvents {
        container_group_id: group.id.clone(),
        name: group.request.container_group_name.clone(),
        namespace: String::new(),
        uuid: group.id.clone(),
        annotations: if group.simulated {
            r#"{"simulated":"true"}"#.to_owned()
        } else {
            "{}".to_owned()
        },
        events: group
            .events
            .iter()
            .filter(is_wanted)
            .map(|one| event(group, one))
            .collect(),
    });
    Ok(DescribeContainerGroupEventsResponse {
        data: data.collect(),
        next_token: page.next_token,
        total_count: page.total_count,
        ..Default::default()
    })
}

fn event(group: &GroupRecord, event: &EventRecord) -> PodEvent {
    let from_agent = AGENT.contains(&event.reason.as_str());
    let component = if from_agent { "kubelet" } else { "EciService" };
    PodEvent {
        event_type: if event.warning { "Warning" } else { "Normal" }.to_owned(),
        reason: event.reason.clone(),
        message: event.message.clone(),
        count: event.count,
        first_timestamp: time::format(event.first),
        last_timestamp: time::format(event.last),
        reporting_component: component.to_owned(),
        reporting_instance: "eci".to_owned(),
        metadata: EventMetadata {
            name: format!(
                "{}.{:x}",
                group.request.container_group_name,
                event.first.as_nanosecond()
            ),
            namespace: String::new(),
        },
        source: EventSource {
            component: component.to_owned(),
            host: "eci".to_owned(),
        },
        involved_object: InvolvedObject {
            api_version: "v1".to_owned(),
            kind: "Pod".to_owned(),
            name: group.request.container_group_name.clone(),
            namespace: String::new(),
            uid: group.id.clone(),
        },
    }
}
