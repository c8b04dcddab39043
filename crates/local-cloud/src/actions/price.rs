//! DescribeContainerGroupPrice: the list price of a size or a machine type per second, and spot prices per hour.

use super::Call;
use super::filter::given;
use super::market::{self, Offer};
use crate::gateway::refusal::Refusal;
use cloud_api::catalog::Category;
use cloud_api::instance_type::Choice;
use cloud_api::model::create::CreateContainerGroupRequest;
use cloud_api::model::price::*;
use cloud_api::money::Amount;

pub(crate) fn describe(
    call: &Call<'_>,
    request: DescribeContainerGroupPriceRequest,
) -> Result<DescribeContainerGroupPriceResponse, Refusal> {
    call.need(&["RegionId"])?;
    let offer = offer(call, &request)?;
    let prices = &call.shared.config.prices;
    let economy = offer.category == Some(Category::Economy);
    let gpus = offer.machine.as_deref().and_then(Choice::parse);
    let gpus = gpus.map_or(0, |choice| choice.gpus());
    let bare = match offer.machine {
        Some(_) => prices.machine_per_second(offer.size, gpus, 0),
        None => prices.per_second(offer.size, economy, 0),
    };
    let storage = Amount(offer.per_second.0 - bare.0);
    let details = match offer.machine {
        Some(_) => vec![("InstanceType", bare), ("EphemeralStorage", storage)],
        None => {
            let vcpu = prices.vcpu_per_second(offer.size, economy);
            let memory = Amount(bare.0 - vcpu.0);
            vec![
                ("Cpu", vcpu),
                ("Memory", memory),
                ("EphemeralStorage", storage),
            ]
        }
    };
    let detail = |(resource, amount): (&str, Amount)| DetailInfo {
        resource: resource.to_owned(),
        original_price: amount.as_cny(),
        discount_price: 0.0,
        trade_price: amount.as_cny(),
        ..Default::default()
    };
    let details = details
        .into_iter()
        .filter(|(_, amount)| *amount > Amount::ZERO);
    let price = Price {
        currency: "CNY".to_owned(),
        original_price: offer.per_second.as_cny(),
        discount_price: 0.0,
        trade_price: offer.per_second.as_cny(),
        detail_infos: DetailInfos {
            detail_info: details.map(detail).collect(),
        },
    };
    let price_info = PriceInfo {
        price,
        spot_prices: spot_prices(call, &request, &offer),
        ..Default::default()
    };
    Ok(DescribeContainerGroupPriceResponse {
        price_info,
        ..Default::default()
    })
}

/// What is asked about, as a group would get it.
fn offer(call: &Call<'_>, request: &DescribeContainerGroupPriceRequest) -> Result<Offer, Refusal> {
    let asked = CreateContainerGroupRequest {
        cpu: request.cpu,
        memory: request.memory,
        instance_type: request.instance_type.clone(),
        ephemeral_storage: request.ephemeral_storage,
        compute_category: request.compute_category.iter().cloned().collect(),
        spot_strategy: request.spot_strategy.clone(),
        ..Default::default()
    };
    let shared = call.shared;
    let offers = market::offers(&asked, &shared.catalog, &shared.config.prices)?;
    // There is at least one, or the request was refused.
    let first = offers.into_iter().next();
    first.ok_or_else(|| Refusal::internal("The market offers nothing."))
}

fn spot_prices(
    call: &Call<'_>,
    request: &DescribeContainerGroupPriceRequest,
    offer: &Offer,
) -> SpotPrices {
    if !offer.is_spot {
        return SpotPrices::default();
    }
    let now = call.shared.now();
    let zones = call.shared.config.zones.iter();
    let zones = zones.filter(|zone| given(&request.zone_id).is_none_or(|wanted| wanted == zone.id));
    SpotPrices {
        spot_price: zones
            .map(|zone| SpotPrice {
                zone_id: zone.id.clone(),
                instance_type: offer.machine.clone().unwrap_or_default(),
                spot_price: market::per_hour(market::spot_price(offer, &zone.id, now).0),
                origin_price: market::per_hour(offer.machine_per_second),
            })
            .collect(),
    }
}
