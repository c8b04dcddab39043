//! Image caches: images that groups find already there.

use super::create::{AcrRegistry, RegistryCredential};
use super::describe::{GroupEvent, Tag};
use super::{EmptyResponse, action, wire};

wire! {
    /// Asks for a new image cache.
    pub struct CreateImageCacheRequest {
        /// The region.
        pub region_id: String,
        /// The name.
        pub image_cache_name: String,
        /// The images.
        pub image: Vec<String>,
        /// The zone.
        pub zone_id: Option<String>,
        /// The vSwitch.
        pub v_switch_id: Option<String>,
        /// The security group.
        pub security_group_id: Option<String>,
        /// A public address to pull through.
        pub eip_instance_id: Option<String>,
        /// GiB, default 20.
        pub image_cache_size: Option<i64>,
        /// Days until it goes; for ever when unset.
        pub retention_days: Option<i64>,
        /// Logins for registries.
        pub image_registry_credential: Vec<RegistryCredential>,
        /// Registries of the vendor that need no password.
        pub acr_registry_info: Vec<AcrRegistry>,
        /// Registries with self-signed certificates, comma separated.
        pub insecure_registry: Option<String>,
        /// Registries that speak plain HTTP, comma separated.
        pub plain_http_registry: Option<String>,
        /// Start from a cache that fits.
        pub auto_match_image_cache: Option<bool>,
        /// Keep a fast copy.
        pub flash: Option<bool>,
        /// Fast copies.
        pub flash_copy_count: Option<i64>,
        /// Ordinary copies.
        pub standard_copy_count: Option<i64>,
        /// Empty, or `LRU`.
        pub elimination_strategy: Option<String>,
        /// Annotations as a JSON text.
        pub annotations: Option<String>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// Up to 20 tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// The new image cache.
    pub struct CreateImageCacheResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// `imc-…`.
        pub image_cache_id: String,
        /// The group that pulls the images.
        pub container_group_id: String,
    }

    /// Changes an image cache that is `Ready` or `UpdateFailed`.
    pub struct UpdateImageCacheRequest {
        /// The region.
        pub region_id: String,
        /// The cache.
        pub image_cache_id: String,
        /// The name.
        pub image_cache_name: Option<String>,
        /// The images.
        pub image: Vec<String>,
        /// GiB.
        pub image_cache_size: Option<i64>,
        /// Days until it goes.
        pub retention_days: Option<i64>,
        /// Logins for registries.
        pub image_registry_credential: Vec<RegistryCredential>,
        /// Empty, or `LRU`.
        pub elimination_strategy: Option<String>,
        /// Keep a fast copy.
        pub flash: Option<bool>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// The tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Asks for image caches; filters are joined by and.
    pub struct DescribeImageCachesRequest {
        /// The region.
        pub region_id: String,
        /// Only this one.
        pub image_cache_id: Option<String>,
        /// Only this name.
        pub image_cache_name: Option<String>,
        /// Only the one with this snapshot.
        pub snapshot_id: Option<String>,
        /// Only those that hold this image.
        pub image: Option<String>,
        /// Only those that hold some of these images, at most 100; best first.
        pub match_image: Vec<String>,
        /// An image must be the same in name and tag.
        pub image_full_match: Option<bool>,
        /// At least so many of the images must be held.
        pub image_match_count_request: Option<i64>,
        /// Only this resource group.
        pub resource_group_id: Option<String>,
        /// Only caches that carry all of these tags.
        pub tag: Vec<Tag>,
        /// Page size.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of image caches.
    pub struct DescribeImageCachesResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The caches.
        pub image_caches: Vec<ImageCache>,
        /// Present while more pages follow.
        pub next_token: Option<String>,
        /// Matching caches over all pages.
        pub total_count: u32,
    }

    /// An image cache as it stands.
    pub struct ImageCache {
        /// `imc-…`.
        pub image_cache_id: String,
        /// The name given.
        pub image_cache_name: String,
        /// The group that pulled the images.
        pub container_group_id: String,
        /// `s-…`.
        pub snapshot_id: String,
        /// The fast copy.
        pub flash_snapshot_id: Option<String>,
        /// The images.
        pub images: Vec<String>,
        /// GiB.
        pub image_cache_size: i64,
        /// `Preparing`, `Creating`, `Ready`, `Failed`, `Updating`, `UpdateFailed`.
        pub status: String,
        /// Such as `100%`.
        pub progress: String,
        /// When it was asked for.
        pub creation_time: String,
        /// When it goes.
        pub expire_date_time: Option<String>,
        /// When a group last used it.
        pub last_matched_time: Option<String>,
        /// Empty, or `LRU`.
        pub elimination_strategy: Option<String>,
        /// The region.
        pub region_id: String,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// What happened to it.
        pub events: Vec<GroupEvent>,
        /// Its tags.
        pub tags: Vec<Tag>,
    }

    /// Deletes an image cache.
    pub struct DeleteImageCacheRequest {
        /// The region.
        pub region_id: String,
        /// The cache.
        pub image_cache_id: String,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }
}

action!(CreateImageCacheRequest => CreateImageCacheResponse, "CreateImageCache", write);
action!(UpdateImageCacheRequest => EmptyResponse, "UpdateImageCache", write);
action!(DescribeImageCachesRequest => DescribeImageCachesResponse, "DescribeImageCaches", read);
action!(DeleteImageCacheRequest => EmptyResponse, "DeleteImageCache", write);
