//! DescribeContainerGroupPrice: the list price of a size, per second.

use super::Call;
use super::filter::given;
use crate::gateway::refusal::Refusal;
use cloud_api::catalog::{DEFAULT_SIZE, Size};
use cloud_api::model::price::*;
use cloud_api::money::Amount;

pub(crate) fn describe(
    call: &Call<'_>,
    request: DescribeContainerGroupPriceRequest,
) -> Result<DescribeContainerGroupPriceResponse, Refusal> {
    call.need(&["RegionId"])?;
    if given(&request.instance_type).is_some() {
        return Err(Refusal::unsupported(
            "InstanceType",
            "give Cpu and Memory instead",
        ));
    }
    let asked = match (request.cpu, request.memory) {
        (None, None) => Some(DEFAULT_SIZE),
        (cpu, memory) => Size::from_decimals(cpu.unwrap_or(0.001), memory.unwrap_or(0.001)),
    };
    let size = asked.and_then(|size| call.shared.catalog.round_up(size));
    let size = size.ok_or_else(|| {
        Refusal::new(
            400,
            "InvalidParameter.CPU.Memory",
            "There is no size for this much vCPU and memory.",
        )
    })?;
    let prices = &call.shared.config.prices;
    let economy = given(&request.compute_category) == Some("economy");
    let extra_gib = request
        .ephemeral_storage
        .and_then(|gib| u64::try_from(gib).ok())
        .unwrap_or_default();
    let total = prices.per_second(size, economy, extra_gib);
    let vcpu = prices.vcpu_per_second(size, economy);
    let with_memory = prices.per_second(size, economy, 0);
    let memory = Amount(with_memory.0 - vcpu.0);
    let storage = Amount(total.0 - with_memory.0);
    let details = [
        ("Cpu", vcpu),
        ("Memory", memory),
        ("EphemeralStorage", storage),
    ];
    let details = details
        .into_iter()
        .filter(|(_, amount)| *amount > Amount::ZERO);
    let price = Price {
        currency: "CNY".to_owned(),
        original_price: total.as_cny(),
        discount_price: 0.0,
        trade_price: total.as_cny(),
        detail_infos: DetailInfos {
            detail_info: details
                .map(|(resource, amount)| DetailInfo {
                    resource: resource.to_owned(),
                    original_price: amount.as_cny(),
                    discount_price: 0.0,
                    trade_price: amount.as_cny(),
                    ..Default::default()
                })
                .collect(),
        },
    };
    let price_info = PriceInfo {
        price,
        ..Default::default()
    };
    Ok(DescribeContainerGroupPriceResponse {
        price_info,
        ..Default::default()
    })
}
