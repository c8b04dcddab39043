//! Data caches: data that groups find already there.

use super::describe::{GroupEvent, Tag};
use super::{EmptyResponse, action, wire};
use std::collections::BTreeMap;

wire! {
    /// Asks for a new data cache.
    pub struct CreateDataCacheRequest {
        /// The region.
        pub region_id: String,
        /// GiB, default 20.
        pub size: Option<i64>,
        /// The name.
        pub name: Option<String>,
        /// The path that groups see.
        pub path: Option<String>,
        /// Where the data comes from.
        pub data_source: Option<DataSource>,
        /// The bucket, default `default`.
        pub bucket: Option<String>,
        /// Days until it goes; for ever when unset or 0.
        pub retention_days: Option<i64>,
        /// The vSwitch.
        pub v_switch_id: Option<String>,
        /// The security group.
        pub security_group_id: Option<String>,
        /// A public address to load through.
        pub eip_instance_id: Option<String>,
        /// A public address to make.
        pub eip_create_param: Option<EipCreateParam>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// Up to 20 tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Where data comes from.
    pub struct DataSource {
        /// `URL`, `NAS`, `OSS`, `SNAPSHOT`.
        #[serde(rename = "Type")]
        pub source_type: String,
        /// What that type needs; a key may hold dots.
        pub options: BTreeMap<String, String>,
    }

    /// A public address to make.
    pub struct EipCreateParam {
        /// Mbit/s.
        pub bandwidth: Option<i64>,
        /// `BGP` or `BGP_PRO`.
        #[serde(rename = "ISP")]
        pub isp: Option<String>,
        /// A bandwidth that several addresses share.
        pub common_bandwidth_package: Option<String>,
        /// `PayByBandwidth` or `PayByTraffic`.
        pub internet_charge_type: Option<String>,
        /// The pool of addresses.
        pub public_ip_address_pool_id: Option<String>,
    }

    /// The new data cache.
    pub struct CreateDataCacheResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// `edc-…`.
        pub data_cache_id: String,
    }

    /// Copies a data cache to a region.
    pub struct CopyDataCacheRequest {
        /// The region.
        pub region_id: String,
        /// The cache.
        pub data_cache_id: String,
        /// The region of the copy.
        pub destination_region_id: String,
        /// The copy's name.
        pub name: Option<String>,
        /// The copy's path.
        pub path: Option<String>,
        /// The copy's bucket.
        pub bucket: Option<String>,
        /// Days until the copy goes.
        pub retention_days: Option<i64>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// The tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Changes a data cache that is `Available` or `UpdateFailed`.
    pub struct UpdateDataCacheRequest {
        /// The region.
        pub region_id: String,
        /// The cache.
        pub data_cache_id: String,
        /// GiB.
        pub size: Option<i64>,
        /// The name.
        pub name: Option<String>,
        /// Where the data comes from.
        pub data_source: Option<DataSource>,
        /// The bucket.
        pub bucket: Option<String>,
        /// Days until it goes.
        pub retention_days: Option<i64>,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// The tags.
        pub tag: Vec<Tag>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }

    /// Asks for data caches; filters are joined by and.
    pub struct DescribeDataCachesRequest {
        /// The region.
        pub region_id: String,
        /// Only these.
        pub data_cache_id: Vec<String>,
        /// Only this bucket.
        pub bucket: Option<String>,
        /// Only this path.
        pub path: Option<String>,
        /// Only this resource group.
        pub resource_group_id: Option<String>,
        /// Only caches that carry all of these tags.
        pub tag: Vec<Tag>,
        /// Page size, at most 20.
        pub limit: Option<u32>,
        /// Where the page before ended.
        pub next_token: Option<String>,
    }

    /// One page of data caches.
    pub struct DescribeDataCachesResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The caches.
        pub data_caches: Vec<DataCache>,
        /// Present while more pages follow.
        pub next_token: Option<String>,
        /// Matching caches over all pages.
        pub total_count: u32,
    }

    /// A data cache as it stands.
    pub struct DataCache {
        /// `edc-…`.
        pub data_cache_id: String,
        /// The name given.
        pub name: String,
        /// The bucket.
        pub bucket: String,
        /// The path that groups see.
        pub path: String,
        /// Where the data comes from.
        pub data_source: DataSourceInfo,
        /// GiB.
        pub size: i64,
        /// `Loading`, `Creating`, `Available`, `Failed`, `Updating`, `UpdateFailed`.
        pub status: String,
        /// Such as `100%`.
        pub progress: String,
        /// `s-…`.
        pub snapshot_id: String,
        /// The fast copy.
        pub flash_snapshot_id: Option<String>,
        /// The group that loaded the data.
        pub container_group_id: String,
        /// When it was asked for.
        pub creation_time: String,
        /// When it goes.
        pub expire_date_time: Option<String>,
        /// When a group last used it.
        pub last_matched_time: Option<String>,
        /// The region.
        pub region_id: String,
        /// The resource group.
        pub resource_group_id: Option<String>,
        /// What happened to it.
        pub events: Vec<GroupEvent>,
        /// Its tags.
        pub tags: Vec<Tag>,
    }

    /// Where data came from.
    pub struct DataSourceInfo {
        /// `URL`, `NAS`, `OSS`, `SNAPSHOT`.
        #[serde(rename = "Type")]
        pub source_type: String,
        /// A JSON text.
        pub options: String,
    }

    /// Deletes a data cache, named by its id or by bucket and path.
    pub struct DeleteDataCacheRequest {
        /// The region.
        pub region_id: String,
        /// The cache.
        pub data_cache_id: Option<String>,
        /// Its bucket.
        pub bucket: Option<String>,
        /// Its path.
        pub path: Option<String>,
        /// Makes a repeated call the same call.
        pub client_token: Option<String>,
    }
}

action!(CreateDataCacheRequest => CreateDataCacheResponse, "CreateDataCache", write);
action!(CopyDataCacheRequest => CreateDataCacheResponse, "CopyDataCache", write);
action!(UpdateDataCacheRequest => EmptyResponse, "UpdateDataCache", write);
action!(DescribeDataCachesRequest => DescribeDataCachesResponse, "DescribeDataCaches", read);
action!(DeleteDataCacheRequest => EmptyResponse, "DeleteDataCache", write);
