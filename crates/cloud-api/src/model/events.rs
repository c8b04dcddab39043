//! DescribeContainerGroupEvents.

use super::describe::Tag;
use super::{action, json_list, wire};

wire! {
    /// Asks for the events of groups.
    pub struct DescribeContainerGroupEventsRequest {
        /// The region.
        pub region_id: String,
        /// Only these groups.
        #[serde(with = "json_list")]
        pub container_group_ids: Vec<String>,
        /// `EciService` or `K8sAgent`.
        pub event_source: Option<String>,
        /// Only events of the last so many seconds.
        pub since_second: Option<u64>,
        /// Only this zone.
        pub zone_id: Option<String>,
        /// Only this vSwitch.
        pub v_switch_id: Option<String>,
        /// Only this resource group.
        pub resource_group_id: Option<String>,
        /// Only groups that carry all of these tags.
        pub tag: Vec<Tag>,
        /// Page size, at most 200.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of events, group by group.
    pub struct DescribeContainerGroupEventsResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The groups.
        pub data: Vec<GroupEvents>,
        /// Present while more pages follow.
        pub next_token: Option<String>,
        /// Matching groups over all pages.
        pub total_count: u32,
    }

    /// The events of one group.
    pub struct GroupEvents {
        /// The group.
        pub container_group_id: String,
        /// Its name.
        pub name: String,
        /// The namespace, when the group stands for a pod.
        pub namespace: String,
        /// The identity of the pod it stands for.
        #[serde(rename = "uuid")]
        pub uuid: String,
        /// Annotations as a JSON text.
        pub annotations: String,
        /// The newest 50 events.
        pub events: Vec<PodEvent>,
    }

    /// An event in the shape of a pod's.
    pub struct PodEvent {
        /// `Normal` or `Warning`.
        #[serde(rename = "Type")]
        pub event_type: String,
        /// In one word.
        pub reason: String,
        /// In a sentence.
        pub message: String,
        /// How often.
        pub count: u32,
        /// First seen.
        pub first_timestamp: String,
        /// Last seen.
        pub last_timestamp: String,
        /// Who says so.
        pub reporting_component: String,
        /// Which one of them.
        pub reporting_instance: String,
        /// The event object's name.
        pub metadata: EventMetadata,
        /// Who says so, in the older form.
        pub source: EventSource,
        /// What it is about.
        #[serde(rename = "involvedObject")]
        pub involved_object: InvolvedObject,
    }

    /// The event object's name.
    pub struct EventMetadata {
        /// The name.
        pub name: String,
        /// The namespace.
        pub namespace: String,
    }

    /// Who says so.
    pub struct EventSource {
        /// The component.
        pub component: String,
        /// The host.
        pub host: String,
    }

    /// What an event is about.
    pub struct InvolvedObject {
        /// The version.
        pub api_version: String,
        /// The kind.
        pub kind: String,
        /// The name.
        pub name: String,
        /// The namespace.
        pub namespace: String,
        /// The identity.
        pub uid: String,
    }
}

action!(DescribeContainerGroupEventsRequest => DescribeContainerGroupEventsResponse, "DescribeContainerGroupEvents", read);
