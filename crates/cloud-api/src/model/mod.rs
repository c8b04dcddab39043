//! The typed requests and answers of every action that Springtide uses, named as the interface names them.
//!
//! Requests are flattened to text parameters ([`crate::flatten`]) and read back ([`crate::unflatten`]); answers are
//! JSON. Member names follow from the field names; the few odd ones are renamed in place. Members that nobody sets
//! here (a real service knows hundreds) are ignored on reading.

pub mod create;
pub mod describe;
pub mod events;
pub mod manage;
pub mod metrics;
pub mod price;
pub mod region;
pub mod status;
pub mod tags;

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
    /// Whether repeating the action changes nothing, even without a client token.
    const REPEATABLE: bool;
    /// The answer.
    type Response: Serialize + DeserializeOwned + Send;

    /// The token that makes a repeated call the same call; empty when there is none.
    fn client_token(&self) -> &str {
        ""
    }
}

/// Writes the attributes that every structure on the wire has.
macro_rules! wire {
    ($($(#[$meta:meta])* pub struct $name:ident { $($body:tt)* })*) => {$(
        $(#[$meta])*
        #[derive(Clone, Debug, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(default, rename_all = "PascalCase")]
        pub struct $name { $($body)* }
    )*};
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
