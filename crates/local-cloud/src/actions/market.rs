//! What a group may be made of and what that costs: sizes, machine types, spot prices by zone and hour.
//!
//! A spot price here is a share of the machine's list price, drawn from zone, size and hour, so that it moves,
//! differs by zone and is the same whenever one looks again.

use super::filter::given;
use super::place;
use crate::config::LocalCloudConfig;
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::record::{GroupRecord, SpotRecord};
use cloud_api::catalog::{Catalog, Category, PriceList, Size};
use cloud_api::instance_type::Choice;
use cloud_api::model::create::CreateContainerGroupRequest;
use cloud_api::money::Amount;
use jiff::{SignedDuration, Timestamp};

/// Most entries of `InstanceType`.
const MAX_CHOICES: usize = 5;
/// The lowest and the highest share of the list price that a spot price is, in hundredths.
const SHARES: std::ops::RangeInclusive<u64> = 10..=40;
const SECONDS_PER_HOUR: u64 = 3_600;

/// One thing that would do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    /// As billed.
    pub(crate) size: Size,
    pub(crate) machine: Option<String>,
    /// The class, when some were asked for.
    pub(crate) category: Option<Category>,
    /// By the list.
    pub(crate) per_second: Amount,
    /// The same as a machine type, of which spot prices are shares.
    pub(crate) machine_per_second: Amount,
    pub(crate) is_spot: bool,
}

impl Offer {
    /// What it is called: its size as `2-4Gi`, and its machine type.
    pub(crate) fn names(&self) -> Vec<String> {
        let size = format!("{}-{}Gi", self.size.vcpu(), self.size.memory_gib());
        std::iter::once(size).chain(self.machine.clone()).collect()
    }
}

/// Whether a strategy asks for a spot group.
pub(crate) fn is_spot(strategy: &Option<String>) -> bool {
    given(strategy).is_some_and(|strategy| strategy != "NoSpot")
}

/// What would do, best first.
pub(crate) fn offers(
    request: &CreateContainerGroupRequest,
    catalog: &Catalog,
    prices: &PriceList,
) -> Result<Vec<Offer>, Refusal> {
    let is_spot = is_spot(&request.spot_strategy);
    let extra_gib = request
        .ephemeral_storage
        .and_then(|gib| u64::try_from(gib).ok())
        .unwrap_or_default();
    let offer = |size: Size, category: Option<Category>| Offer {
        size,
        machine: None,
        category,
        per_second: prices.per_second(size, category == Some(Category::Economy), extra_gib),
        machine_per_second: prices.machine_per_second(size, 0, extra_gib),
        is_spot,
    };
    let choices = choices(&request.instance_type)?;
    let needed = place::needed(request);
    let gpus = place::needed_gpus(request);
    if gpus > 0 && choices.iter().all(|choice| choice.gpus() < gpus) {
        return Err(too_few_gpus(gpus));
    }
    if choices.is_empty() {
        let sizes = place::sizes(request, catalog, is_spot)?;
        let offers = sizes
            .into_iter()
            .map(|(size, category)| offer(size, category));
        return Ok(offers.collect());
    }
    let fits = |size: Size| size.vcpu() >= needed.0 && size.memory_gib() >= needed.1;
    let mut offers = Vec::new();
    for choice in choices.iter().filter(|choice| choice.gpus() >= gpus) {
        let Some(name) = choice.machine() else {
            let sizes = rounded(request, catalog, choice.size(), is_spot);
            let sizes = sizes.into_iter().filter(|(size, _)| fits(*size));
            offers.extend(sizes.map(|(size, category)| offer(size, category)));
            continue;
        };
        let size = choice.size();
        if fits(size) {
            let per_second = prices.machine_per_second(size, choice.gpus(), extra_gib);
            offers.push(Offer {
                machine: Some(name.to_owned()),
                per_second,
                machine_per_second: per_second,
                ..offer(size, None)
            });
        }
    }
    if offers.is_empty() {
        let message = format!(
            "The containers ask for {} vCPU and {} GiB, which none of the choices in InstanceType has.",
            needed.0, needed.1
        );
        return Err(Refusal::new(400, "InvalidParameter.CPU.Memory", message));
    }
    Ok(offers)
}

fn too_few_gpus(gpus: u32) -> Refusal {
    let message = format!(
        "The containers ask for {gpus} GPUs, which nothing in InstanceType has; name a machine type such as ecs.gn6i-c4g1.xlarge."
    );
    Refusal::new(400, "InvalidInstanceTypeForEciBuy", message)
}

/// The sizes that are billed for a wish, one for each class that was asked for and has one.
pub(crate) fn rounded(
    request: &CreateContainerGroupRequest,
    catalog: &Catalog,
    wish: Size,
    is_spot: bool,
) -> Vec<(Size, Option<Category>)> {
    let categories = request.compute_category.iter();
    let categories: Vec<Category> = categories
        .filter_map(|name| Category::parse(name))
        .collect();
    if is_spot || categories.is_empty() {
        let size = round(catalog, wish, is_spot);
        return size.map(|size| (size, None)).into_iter().collect();
    }
    let in_category = |category: Category| {
        let size = catalog.round_up_in(wish, category);
        size.map(|size| (size, Some(category)))
    };
    categories.into_iter().filter_map(in_category).collect()
}

/// The size that is billed for a wish.
fn round(catalog: &Catalog, wish: Size, is_spot: bool) -> Option<Size> {
    if is_spot {
        catalog.round_up_spot(wish)
    } else {
        catalog.round_up(wish)
    }
}

/// The entries of `InstanceType`.
pub(crate) fn choices(list: &Option<String>) -> Result<Vec<Choice>, Refusal> {
    let entries = given(list).unwrap_or_default().split(',').map(str::trim);
    let entries: Vec<&str> = entries.filter(|entry| !entry.is_empty()).collect();
    if entries.len() > MAX_CHOICES {
        return Err(Refusal::invalid(
            "InstanceType",
            format!("at most {MAX_CHOICES} can be given"),
        ));
    }
    let read = |entry: &&str| {
        Choice::parse(entry).ok_or_else(|| {
            let message = format!(
                "The instance type {entry} is not known here; use one such as ecs.c6.large or 2-4Gi."
            );
            Refusal::new(400, "InvalidInstanceTypeForEciBuy", message)
        })
    };
    entries.iter().map(read).collect()
}

/// The spot price of one second now, and the hundredths of the list price that it is.
pub(crate) fn spot_price(offer: &Offer, zone: &str, now: Timestamp) -> (Amount, i64) {
    let hour = now.as_second().div_euclid(SECONDS_PER_HOUR as i64);
    let text = format!("{zone}/{}/{hour}", offer.size);
    // FNV-1a: spread well enough, and the same on every machine.
    let hash = text.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let width = SHARES.end() - SHARES.start() + 1;
    let share = SHARES.start() + (hash >> 32) % width;
    let amount = (offer.machine_per_second.0 * u128::from(share)).div_ceil(100);
    (Amount(amount), i64::try_from(share).unwrap_or(i64::MAX))
}

/// The price of an hour in CNY.
pub(crate) fn per_hour(per_second: Amount) -> f64 {
    per_second.times(SECONDS_PER_HOUR).as_cny()
}

/// The terms of a group that takes an offer in a zone; `None` when the price is above its limit.
pub(crate) fn terms(
    request: &CreateContainerGroupRequest,
    offer: &Offer,
    zone: &str,
    now: Timestamp,
) -> Option<(Amount, Option<SpotRecord>)> {
    if !offer.is_spot {
        return Some((offer.per_second, None));
    }
    let (per_second, discount) = spot_price(offer, zone, now);
    let limit = match given(&request.spot_strategy) {
        Some("SpotWithPriceLimit") => request.spot_price_limit,
        _ => None,
    };
    if limit.is_some_and(|limit| per_hour(per_second) > limit) {
        return None;
    }
    let hours = request.spot_duration.unwrap_or(1).clamp(0, 24);
    let spot = SpotRecord {
        limit,
        protected_until: now + SignedDuration::from_hours(hours),
        release_at: None,
        discount,
    };
    Some((per_second, Some(spot)))
}

/// Whether the market has risen above what a group is ready to pay.
fn is_outbid(group: &GroupRecord, prices: &PriceList, now: Timestamp) -> bool {
    let Some(spot) = &group.spot else {
        return false;
    };
    let Some(limit) = spot.limit else {
        return false;
    };
    if group.status.is_final() || spot.release_at.is_some() || now < spot.protected_until {
        return false;
    }
    let gpus = group.machine.as_deref().and_then(Choice::parse);
    let gpus = gpus.map_or(0, |choice| choice.gpus());
    let machine_per_second = prices.machine_per_second(group.size, gpus, 0);
    let offer = Offer {
        size: group.size,
        machine: group.machine.clone(),
        category: None,
        per_second: machine_per_second,
        machine_per_second,
        is_spot: true,
    };
    per_hour(spot_price(&offer, &group.zone, now).0) > limit
}

/// Tells spot groups that are outbid that they are taken away.
pub(crate) fn take_back_outbid(state: &mut State, config: &LocalCloudConfig, now: Timestamp) {
    let outbid: Vec<String> = state
        .groups
        .values()
        .filter(|group| is_outbid(group, &config.prices, now))
        .map(|group| group.id.clone())
        .collect();
    for id in outbid {
        take_back(state, &id, config, now);
    }
}

/// Tells a spot group that it is taken away; `false` when it is none, or was told before.
pub(crate) fn take_back(
    state: &mut State,
    id: &str,
    config: &LocalCloudConfig,
    now: Timestamp,
) -> bool {
    let notice = SignedDuration::try_from(config.spot_notice).unwrap_or(SignedDuration::ZERO);
    let told = state.change(id, now, |group| {
        let is_final = group.status.is_final();
        let Some(spot) = group
            .spot
            .as_mut()
            .filter(|spot| spot.release_at.is_none() && !is_final)
        else {
            return false;
        };
        spot.release_at = Some(now + notice);
        let message = format!(
            "Spot instance will be released in {} seconds.",
            notice.as_secs()
        );
        group.note(true, "SpotToBeReleased", message, now);
        true
    });
    let told = told.unwrap_or(false);
    if told {
        state.prod(id);
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::{at, record};
    use proptest::prelude::*;

    fn request(spot: Option<&str>, instance_type: Option<&str>) -> CreateContainerGroupRequest {
        CreateContainerGroupRequest {
            spot_strategy: spot.map(str::to_owned),
            instance_type: instance_type.map(str::to_owned),
            ..Default::default()
        }
    }

    fn offered(request: &CreateContainerGroupRequest) -> Result<Vec<Offer>, Refusal> {
        offers(request, &Catalog::new(true), &PriceList::default())
    }

    #[test]
    fn choices_are_offered_in_their_order_and_too_small_ones_are_left_out() {
        let mut request = request(None, Some("ecs.c6.large, 4-8Gi,ecs.g7.xlarge"));
        let sizes = |request: &CreateContainerGroupRequest| -> Vec<String> {
            let offers = offered(request).unwrap();
            offers.iter().map(|offer| offer.size.to_string()).collect()
        };
        assert_eq!(
            sizes(&request),
            ["2 vCPU 4 GiB", "4 vCPU 8 GiB", "4 vCPU 16 GiB"]
        );
        request.container.push(cloud_api::model::ContainerSpec {
            memory: Some(9.0),
            ..Default::default()
        });
        assert_eq!(sizes(&request), ["4 vCPU 16 GiB"]);
        request.container[0].memory = Some(99.0);
        assert_eq!(
            offered(&request).unwrap_err().code,
            "InvalidParameter.CPU.Memory"
        );
    }

    #[test]
    fn unknown_machines_and_too_many_are_refused() {
        let code = |text| offered(&request(None, Some(text))).unwrap_err().code;
        assert_eq!(code("ecs.zz1.large"), "InvalidInstanceTypeForEciBuy");
        assert_eq!(
            code("1-2Gi,1-2Gi,1-2Gi,1-2Gi,1-2Gi,1-2Gi"),
            "InvalidParameter"
        );
    }

    #[test]
    fn gpus_need_a_machine_that_has_them() {
        let mut request = request(None, Some("ecs.c6.large,ecs.gn6i-c4g1.xlarge"));
        request.container.push(cloud_api::model::ContainerSpec {
            gpu: Some(1),
            ..Default::default()
        });
        let offer = offered(&request).unwrap().remove(0);
        assert_eq!(offer.machine.as_deref(), Some("ecs.gn6i-c4g1.xlarge"));
        let prices = PriceList::default();
        let bare = prices.machine_per_second(offer.size, 0, 0);
        assert_eq!(offer.per_second.0 - bare.0, prices.gpus_per_second(1).0);
        request.container[0].gpu = Some(2);
        let refusal = offered(&request).unwrap_err();
        assert_eq!(refusal.code, "InvalidInstanceTypeForEciBuy");
        request.container[0].gpu = Some(1);
        request.instance_type = None;
        let refusal = offered(&request).unwrap_err();
        assert!(refusal.message.contains("1 GPUs"), "{refusal}");
        assert_eq!(refusal.code, "InvalidInstanceTypeForEciBuy");
    }

    #[test]
    fn classes_are_offered_in_their_order_where_they_cover_the_size() {
        let offered_in = |vcpu: f64, classes: &[&str]| {
            let request = CreateContainerGroupRequest {
                cpu: Some(vcpu),
                memory: Some(vcpu * 2.0),
                compute_category: classes.iter().map(|class| (*class).to_owned()).collect(),
                ..Default::default()
            };
            let offers = offered(&request)?.into_iter();
            let shown = |offer: Offer| (offer.size.to_string(), offer.category.unwrap().name());
            Ok::<_, Refusal>(offers.map(shown).collect::<Vec<_>>())
        };
        let of = |size: &str, class| (size.to_owned(), class);
        assert_eq!(
            offered_in(2.0, &["economy", "general"]).unwrap(),
            [of("2 vCPU 4 GiB", "economy"), of("2 vCPU 4 GiB", "general")]
        );
        assert_eq!(
            offered_in(16.0, &["economy", "general"]).unwrap(),
            [of("16 vCPU 32 GiB", "general")]
        );
        assert_eq!(
            offered_in(0.5, &["general"]).unwrap(),
            [of("1 vCPU 2 GiB", "general")]
        );
        let refusal = offered_in(16.0, &["economy"]).unwrap_err();
        assert_eq!(refusal.code, "InvalidParameter.CPU.Memory");
        assert!(refusal.message.contains("economy"), "{refusal}");
    }

    #[test]
    fn a_limit_under_the_market_finds_no_place_and_one_above_it_does() {
        let mut request = request(Some("SpotWithPriceLimit"), None);
        let offer = offered(&request).unwrap().remove(0);
        request.spot_price_limit = Some(0.001);
        assert!(terms(&request, &offer, "z", at(0)).is_none());
        request.spot_price_limit = Some(10.0);
        let (price, spot) = terms(&request, &offer, "z", at(0)).unwrap();
        assert!(price < offer.machine_per_second);
        assert_eq!(spot.unwrap().protected_until, at(3_600));
    }

    #[test]
    fn only_unprotected_groups_with_a_limit_are_outbid() {
        let mut group = record("a");
        let prices = PriceList::default();
        let mut spot = SpotRecord {
            limit: Some(0.001),
            protected_until: at(100),
            release_at: None,
            discount: 10,
        };
        assert!(!is_outbid(&group, &prices, at(200)));
        group.spot = Some(spot.clone());
        assert!(!is_outbid(&group, &prices, at(99)));
        assert!(is_outbid(&group, &prices, at(100)));
        spot.limit = None;
        group.spot = Some(spot);
        assert!(!is_outbid(&group, &prices, at(100)));
    }

    proptest! {
        #[test]
        fn spot_prices_are_a_share_of_the_list_and_stay_for_an_hour(second in 0i64..10_000_000, zone in "[a-z]{1,8}") {
            let offer = offered(&request(Some("SpotAsPriceGo"), None)).unwrap().remove(0);
            let (amount, share) = spot_price(&offer, &zone, at(second));
            prop_assert!((10..=40).contains(&share));
            prop_assert!(amount.0 * 100 >= offer.machine_per_second.0 * 10);
            prop_assert!(amount < offer.machine_per_second);
            prop_assert_eq!(spot_price(&offer, &zone, at(second - second % 3_600)).0, amount);
        }
    }
}
