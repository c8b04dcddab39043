//! DescribeRegions, DescribeAvailableResource, ListUsage.

use super::filter::given;
use super::{Call, data_caches, image_caches};
use crate::gateway::refusal::Refusal;
use cloud_api::catalog::Size;
use cloud_api::instance_type;
use cloud_api::model::region::*;

/// What the quota says when there is none.
const NO_QUOTA: f64 = 1_000_000.0;

/// Most machine types in one answer.
const MAX_MACHINES: usize = 200;

pub(crate) fn regions(
    call: &Call<'_>,
    request: &DescribeRegionsRequest,
) -> Result<DescribeRegionsResponse, Refusal> {
    let config = &call.shared.config;
    let known = given(&request.region_id).is_none_or(|region| region == config.region);
    let zones: Vec<String> = config.zones.iter().map(|zone| zone.id.clone()).collect();
    let recommend_zones = {
        let state = call.shared.state();
        let has_stock = |id: &&String| state.pools.zones.get(*id).is_some_and(|zone| zone.has(1));
        zones.iter().filter(has_stock).cloned().collect()
    };
    let region = Region {
        region_id: config.region.clone(),
        region_endpoint: call.host.clone(),
        recommend_zones,
        zones,
    };
    Ok(DescribeRegionsResponse {
        regions: known.then_some(region).into_iter().collect(),
        ..Default::default()
    })
}

/// The names that are asked about, each with what it takes.
fn wanted(call: &Call<'_>, wanted: &DestinationResource) -> Result<Vec<(String, Size)>, Refusal> {
    let value = given(&wanted.value);
    let too_small = |size: &Size| {
        wanted.cores.is_some_and(|cores| size.vcpu() < cores)
            || wanted
                .memory
                .is_some_and(|memory| size.memory_gib() < memory)
    };
    let machines = instance_type::machine_types().filter(|(_, size)| !too_small(size));
    match (given(&wanted.category), value) {
        (Some("InstanceTypeFamily"), family) => {
            let families =
                machines.map(|(name, size)| (instance_type::family(&name).to_owned(), size));
            let mut families: Vec<_> = families
                .filter(|(name, _)| family.is_none_or(|family| family == name))
                .collect();
            families.dedup_by(|next, first| next.0 == first.0);
            Ok(families)
        }
        (Some("InstanceType"), Some(name)) => {
            let choices = super::market::choices(&Some(name.to_owned()))?;
            Ok(choices
                .iter()
                .map(|choice| (name.to_owned(), choice.size()))
                .collect())
        }
        (Some("InstanceType"), None) => Ok(machines.take(MAX_MACHINES).collect()),
        (Some(_), _) => Err(Refusal::invalid(
            "DestinationResource.Category",
            "it must be InstanceTypeFamily or InstanceType",
        )),
        (None, _) => {
            let size = match (wanted.cores, wanted.memory) {
                (Some(cores), Some(memory)) => Size::from_decimals(cores, memory),
                _ => None,
            };
            let size = size.and_then(|size| call.shared.catalog.round_up(size));
            let smallest = Size {
                vcpu_milli: 1,
                memory_mib: 1,
            };
            let name = size.map_or_else(|| "general".to_owned(), |size| size.to_string());
            Ok(vec![(name, size.unwrap_or(smallest))])
        }
    }
}

pub(crate) fn available(
    call: &Call<'_>,
    request: &DescribeAvailableResourceRequest,
) -> Result<DescribeAvailableResourceResponse, Refusal> {
    call.need(&["RegionId"])?;
    let destination = request.destination_resource.clone().unwrap_or_default();
    let wanted = wanted(call, &destination)?;
    let category = destination
        .category
        .unwrap_or_else(|| "InstanceType".to_owned());
    let state = call.shared.state();
    let zones = state
        .pools
        .zones
        .iter()
        .filter(|(id, _)| given(&request.zone_id).is_none_or(|zone| zone == *id));
    let available_zone = zones.map(|(id, zone)| {
        let resource = |(name, size): &(String, Size)| SupportedResource {
            value: name.clone(),
            status_category: if zone.has(u64::from(size.vcpu_milli)) {
                "WithStock"
            } else {
                "WithoutStock"
            }
            .to_owned(),
        };
        let supported_resources = SupportedResources {
            supported_resource: wanted.iter().map(resource).collect(),
        };
        let resource = AvailableResource {
            resource_type: category.clone(),
            supported_resources,
        };
        AvailableZone {
            region_id: call.shared.config.region.clone(),
            zone_id: id.clone(),
            available_resources: AvailableResources {
                available_resource: vec![resource],
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
    let state = call.shared.state();
    let used = state.pools.used() as f64 / 1_000.0;
    let (asked, automatic) = image_caches::counts(&state);
    let attributes = [
        ("UsedCpu", used),
        ("MaxCpu", call.shared.config.quota_vcpu.unwrap_or(NO_QUOTA)),
        ("UsedImageCacheCount", asked as f64),
        ("MaxImageCacheCount", image_caches::MAX_CACHES as f64),
        ("UsedAutoImageCacheCount", automatic as f64),
        ("MaxAutoImageCacheCount", image_caches::MAX_AUTOMATIC as f64),
        (
            "UsedDataCacheCount",
            state.resources.data_caches.len() as f64,
        ),
        ("MaxDataCacheCount", data_caches::MAX_CACHES as f64),
    ];
    Ok(ListUsageResponse {
        attributes: attributes
            .map(|(name, value)| (name.to_owned(), value))
            .into(),
        ..Default::default()
    })
}
