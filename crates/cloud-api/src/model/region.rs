//! Regions, zones with and without stock, and how much of the quota is used.

use super::{action, wire};
use std::collections::BTreeMap;

wire! {
    /// Asks for the regions.
    pub struct DescribeRegionsRequest {
        /// Only this one.
        pub region_id: Option<String>,
    }

    /// The regions.
    pub struct DescribeRegionsResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The regions.
        pub regions: Vec<Region>,
    }

    /// A region.
    pub struct Region {
        /// Its id.
        pub region_id: String,
        /// Where its service listens.
        pub region_endpoint: String,
        /// Its zones.
        pub zones: Vec<String>,
        /// The zones with most stock.
        pub recommend_zones: Vec<String>,
    }

    /// Asks where something can be had.
    pub struct DescribeAvailableResourceRequest {
        /// The region.
        pub region_id: String,
        /// Only this zone.
        pub zone_id: Option<String>,
        /// What is looked for.
        pub destination_resource: Option<DestinationResource>,
        /// On which terms.
        pub spot_resource: Option<SpotResource>,
    }

    /// On which terms something is looked for.
    pub struct SpotResource {
        /// `NoSpot` and others.
        pub spot_strategy: Option<String>,
        /// The highest price per hour.
        pub spot_price_limit: Option<f64>,
        /// Hours for which a spot group is kept.
        pub spot_duration: Option<i64>,
    }

    /// What is looked for.
    pub struct DestinationResource {
        /// `InstanceTypeFamily` or `InstanceType`.
        pub category: Option<String>,
        /// Its name.
        pub value: Option<String>,
        /// vCPU.
        pub cores: Option<f64>,
        /// GiB.
        pub memory: Option<f64>,
    }

    /// Where it can be had.
    pub struct DescribeAvailableResourceResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The zones.
        pub available_zones: AvailableZones,
    }

    /// The zones.
    pub struct AvailableZones {
        /// One entry per zone.
        pub available_zone: Vec<AvailableZone>,
    }

    /// One zone.
    pub struct AvailableZone {
        /// The region.
        pub region_id: String,
        /// The zone.
        pub zone_id: String,
        /// What it has.
        pub available_resources: AvailableResources,
    }

    /// What a zone has.
    pub struct AvailableResources {
        /// One entry per kind.
        pub available_resource: Vec<AvailableResource>,
    }

    /// One kind of resource.
    pub struct AvailableResource {
        /// The kind.
        #[serde(rename = "Type")]
        pub resource_type: String,
        /// What is known of it.
        pub supported_resources: SupportedResources,
    }

    /// What is known of a kind of resource.
    pub struct SupportedResources {
        /// One entry per name.
        pub supported_resource: Vec<SupportedResource>,
    }

    /// One resource.
    pub struct SupportedResource {
        /// Its name.
        pub value: String,
        /// `WithStock`, `ClosedWithStock`, `WithoutStock`, `ClosedWithoutStock`.
        pub status_category: String,
    }

    /// Asks how much of the quota is used.
    pub struct ListUsageRequest {
        /// The region.
        pub region_id: String,
    }

    /// How much of the quota is used.
    pub struct ListUsageResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// `UsedCpu`, `MaxCpu` and others.
        pub attributes: BTreeMap<String, f64>,
    }
}

action!(DescribeRegionsRequest => DescribeRegionsResponse, "DescribeRegions", read);
action!(DescribeAvailableResourceRequest => DescribeAvailableResourceResponse, "DescribeAvailableResource", read);
action!(ListUsageRequest => ListUsageResponse, "ListUsage", read);
