//! DescribeRegions, DescribeAvailableResource, ListUsage.

use super::Call;
use super::filter::given;
use crate::gateway::refusal::Refusal;
use cloud_api::catalog::Size;
use cloud_api::model::region::*;
use std::collections::BTreeMap;

/// What the quota says when there is none.
const NO_QUOTA: f64 = 1_000_000.0;

pub(crate) fn regions(call: &Call<'_>) -> DescribeRegionsResponse {
    let zones: Vec<String> = call
        .shared
        .config
        .zones
        .iter()
        .map(|zone| zone.id.clone())
        .collect();
    let region = Region {
        region_id: call.shared.config.region.clone(),
        region_endpoint: call.host.clone(),
        recommend_zones: zones.clone(),
        zones,
    };
    DescribeRegionsResponse {
        regions: vec![region],
        ..Default::default()
    }
}

pub(crate) fn available(
    call: &Call<'_>,
    request: &DescribeAvailableResourceRequest,
) -> Result<DescribeAvailableResourceResponse, Refusal> {
    call.need(&["RegionId"])?;
    let wanted = request.destination_resource.clone().unwrap_or_default();
    let size = match (wanted.cores, wanted.memory) {
        (Some(cores), Some(memory)) => Size::from_decimals(cores, memory),
        _ => None,
    };
    let size = size.and_then(|size| call.shared.catalog.round_up(size));
    let vcpu = size.map_or(1, |size| u64::from(size.vcpu_milli));
    let state = call.shared.state();
    let zones = state
        .pools
        .zones
        .iter()
        .filter(|(id, _)| given(&request.zone_id).is_none_or(|zone| zone == *id));
    let available_zone = zones.map(|(id, zone)| {
        let status = if zone.has(vcpu) {
            "WithStock"
        } else {
            "WithoutStock"
        };
        let resource = SupportedResource {
            value: size.map_or_else(|| "general".to_owned(), |size| size.to_string()),
            status_category: status.to_owned(),
        };
        AvailableZone {
            region_id: call.shared.config.region.clone(),
            zone_id: id.clone(),
            available_resources: AvailableResources {
                available_resource: vec![AvailableResource {
                    resource_type: wanted
                        .category
                        .clone()
                        .unwrap_or_else(|| "InstanceType".to_owned()),
                    supported_resources: SupportedResources {
                        supported_resource: vec![resource],
                    },
                }],
            },
        }
    });
    let available_zones = AvailableZones {
        available_zone: available_zone.collect(),
    };
    Ok(DescribeAvailableResourceResponse {
        available_zones,
        ..Default::default()
    })
}

pub(crate) fn usage(call: &Call<'_>) -> Result<ListUsageResponse, Refusal> {
    call.need(&["RegionId"])?;
    let used = call.shared.state().pools.used() as f64 / 1_000.0;
    let attributes = BTreeMap::from([
        ("UsedCpu".to_owned(), used),
        (
            "MaxCpu".to_owned(),
            call.shared.config.quota_vcpu.unwrap_or(NO_QUOTA),
        ),
        ("UsedImageCacheCount".to_owned(), 0.0),
        ("MaxImageCacheCount".to_owned(), 0.0),
    ]);
    Ok(ListUsageResponse {
        attributes,
        ..Default::default()
    })
}
