//! The typed requests and answers of every action that Springtide uses, named as the interface names them.
//!
//! Requests are flattened to text parameters ([`crate::flatten`]) and read back ([`crate::unflatten`]); answers are
//! JSON. Member names follow from the field names; the few odd ones are renamed in place. Members that nobody sets
//! here (a real service knows hundreds) are ignored on reading.

pub mod commit;
pub mod create;
pub mod data_cache;
pub mod describe;
pub mod events;
pub mod image_cache;
pub mod manage;
pub mod metrics;
pub mod operations;
pub mod price;
pub mod ram;
pub mod region;
pub mod status;
pub mod tags;
pub mod virtual_node;
pub mod vpc;

pub use create::{
    ContainerSpec, CreateContainerGroupRequest, CreateContainerGroupResponse, VolumeSpec,
};
pub use describe::{
    ContainerGroup, DescribeContainerGroupsRequest, DescribeContainerGroupsResponse, Tag,
};
pub use status::GroupStatus;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// One action of the interface: its name, how it may be retried, and what it answers.
pub trait Action: Serialize + DeserializeOwned + Send + Sync {
    /// The action's name on the wire.
    const NAME: &'static str;
    /// The version of the product's interface that the action belongs to.
    const VERSION: &'static str = crate::API_VERSION;
    /// Whether repeating the action changes nothing, even without a client token.
    const REPEATABLE: bool;
    /// The answer.
    type Response: Answer + DeserializeOwned + Send;

    /// The token that makes a repeated call the same call; empty when there is none.
    fn client_token(&self) -> &str {
        ""
    }
}

/// A value that may travel as a member of a request or an answer.
pub trait Member {
    /// Whether the member is left out.
    fn is_absent(&self) -> bool {
        false
    }
}

impl<T> Member for Option<T> {
    fn is_absent(&self) -> bool {
        self.is_none()
    }
}

impl<T> Member for Vec<T> {}
impl<K, V> Member for std::collections::BTreeMap<K, V> {}
impl Member for String {}
impl Member for bool {}
impl Member for f64 {}
impl Member for i64 {}
impl Member for u64 {}
impl Member for u32 {}
impl Member for u16 {}
impl Member for GroupStatus {}

/// An answer to an action.
pub trait Answer: Serialize {
    /// Names the call.
    fn set_request_id(&mut self, request_id: &str);
}

/// Writes the attributes that every structure on the wire has: the interface's letter case, defaults for what is
/// left out, and leaving out what is unset.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident {
        $($(#[$field_meta:meta])* pub $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        pub struct $name {$(
            $(#[$field_meta])*
            #[serde(skip_serializing_if = "crate::model::Member::is_absent")]
            pub $field: $type,
        )*}

        impl crate::model::Member for $name {}
    )*};
}

/// Ties answers to the member that names the call.
macro_rules! answers {
    ($($($part:ident)::+),* $(,)?) => {$(
        impl Answer for $($part)::+ {
            fn set_request_id(&mut self, request_id: &str) {
                self.request_id = request_id.to_owned();
            }
        }
    )*};
}

answers! {
    self::EmptyResponse, create::CreateContainerGroupResponse, describe::DescribeContainerGroupsResponse,
    status::DescribeContainerGroupStatusResponse, events::DescribeContainerGroupEventsResponse,
    manage::DescribeContainerLogResponse, manage::ExecContainerCommandResponse,
    metrics::DescribeContainerGroupMetricResponse, metrics::DescribeMultiContainerGroupMetricResponse,
    price::DescribeContainerGroupPriceResponse, region::DescribeRegionsResponse,
    region::DescribeAvailableResourceResponse, region::ListUsageResponse, tags::ListTagResourcesResponse,
    image_cache::CreateImageCacheResponse, image_cache::DescribeImageCachesResponse,
    data_cache::CreateDataCacheResponse, data_cache::DescribeDataCachesResponse, commit::CommitContainerResponse,
    commit::DescribeCommitContainerTaskResponse, operations::CreateInstanceOpsTaskResponse,
    operations::DescribeInstanceOpsRecordsResponse, virtual_node::CreateVirtualNodeResponse,
    virtual_node::DescribeVirtualNodesResponse,
    vpc::DescribeVSwitchesResponse, ram::RamResponse,
}

/// Ties a request to its action's name and answer.
macro_rules! action {
    ($request:ident => $response:ty, $name:literal, read) => {
        impl crate::model::Action for $request {
            const NAME: &'static str = $name;
            const REPEATABLE: bool = true;
            type Response = $response;
        }
    };
    ($request:ident => $response:ty, $name:literal, write) => {
        impl crate::model::Action for $request {
            const NAME: &'static str = $name;
            const REPEATABLE: bool = false;
            type Response = $response;

            fn client_token(&self) -> &str {
                self.client_token.as_deref().unwrap_or_default()
            }
        }
    };
}

pub(crate) use {action, wire};

/// A list of texts that travels as a JSON array inside one parameter.
pub mod json_list {
    use serde::{Deserialize, Deserializer, Serializer, de::Error, ser};

    /// Writes the array; an empty list is left out.
    pub fn serialize<S: Serializer>(list: &[String], serializer: S) -> Result<S::Ok, S::Error> {
        if list.is_empty() {
            return serializer.serialize_none();
        }
        serializer.serialize_str(&serde_json::to_string(list).map_err(ser::Error::custom)?)
    }

    /// Reads the array.
    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<String>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&text).map_err(|_| D::Error::custom("a JSON array of texts"))
    }
}

wire! {
    /// The answer of an action that only says that it was done.
    pub struct EmptyResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
    }

    /// The body of every refused call.
    pub struct ErrorResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The endpoint's host.
        pub host_id: String,
        /// The documented error code.
        pub code: String,
        /// What is wrong, for people.
        pub message: String,
        /// Where to read on.
        pub recommend: String,
    }
}
