//! Tags after the fact.

use super::describe::Tag;
use super::{Action, EmptyResponse, action, wire};

/// The resource type of container groups in the tag actions.
pub const CONTAINER_GROUP: &str = "containergroup";
/// The resource type of image caches in the tag actions.
pub const IMAGE_CACHE: &str = "imagecache";
/// The resource type of data caches in the tag actions.
pub const DATA_CACHE: &str = "datacache";
/// The resource type of virtual nodes in the tag actions.
pub const VIRTUAL_NODE: &str = "virtualnode";

wire! {
    /// Puts tags on resources.
    pub struct TagResourcesRequest {
        /// The region.
        pub region_id: String,
        /// [`CONTAINER_GROUP`] and the others.
        pub resource_type: String,
        /// The resources.
        pub resource_id: Vec<String>,
        /// The tags.
        pub tag: Vec<Tag>,
    }

    /// Takes tags off resources.
    pub struct UntagResourcesRequest {
        /// The region.
        pub region_id: String,
        /// [`CONTAINER_GROUP`] and the others.
        pub resource_type: String,
        /// The resources.
        pub resource_id: Vec<String>,
        /// The keys to take off.
        pub tag_key: Vec<String>,
        /// Take all off.
        pub all: Option<bool>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Asks which resources carry which tags.
    pub struct ListTagResourcesRequest {
        /// The region.
        pub region_id: String,
        /// [`CONTAINER_GROUP`] and the others.
        pub resource_type: String,
        /// Only these.
        pub resource_id: Vec<String>,
        /// Only resources with these tags.
        pub tag: Vec<Tag>,
        /// Page size.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of tags.
    pub struct ListTagResourcesResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// One entry per resource and tag.
        pub tag_resources: Vec<TagResource>,
        /// Present while more pages follow.
        pub next_token: Option<String>,
    }

    /// A tag of a resource.
    pub struct TagResource {
        /// The resource.
        pub resource_id: String,
        /// Its type.
        pub resource_type: String,
        /// The tag's key.
        pub tag_key: String,
        /// The tag's value.
        pub tag_value: String,
    }
}

impl Action for TagResourcesRequest {
    const NAME: &'static str = "TagResources";
    // Putting the same tags on again changes nothing.
    const REPEATABLE: bool = true;
    type Response = EmptyResponse;
}

action!(UntagResourcesRequest => EmptyResponse, "UntagResources", write);
action!(ListTagResourcesRequest => ListTagResourcesResponse, "ListTagResources", read);
