//! DescribeContainerGroupPrice: what a size costs per second.

use super::{action, wire};

wire! {
    /// Asks what a size costs.
    pub struct DescribeContainerGroupPriceRequest {
        /// The region.
        pub region_id: String,
        /// The zone.
        pub zone_id: Option<String>,
        /// vCPU.
        pub cpu: Option<f64>,
        /// GiB.
        pub memory: Option<f64>,
        /// An instance type instead.
        pub instance_type: Option<String>,
        /// Extra scratch space in GiB.
        pub ephemeral_storage: Option<i64>,
        /// `economy` or `general`.
        pub compute_category: Option<String>,
        /// `NoSpot` and others.
        pub spot_strategy: Option<String>,
        /// The highest price per hour.
        pub spot_price_limit: Option<f64>,
        /// Hours for which a spot group is kept.
        pub spot_duration: Option<i64>,
    }

    /// What a size costs.
    pub struct DescribeContainerGroupPriceResponse {
        /// Names the call in the service's logs.
        pub request_id: String,
        /// The prices.
        pub price_info: PriceInfo,
    }

    /// The prices.
    pub struct PriceInfo {
        /// List price and price after discounts, per second.
        pub price: Price,
        /// What lowers the price.
        pub rules: PriceRules,
        /// Spot prices, zone by zone.
        pub spot_prices: SpotPrices,
    }

    /// What lowers the price.
    pub struct PriceRules {
        /// One entry per rule.
        pub rule: Vec<PriceRule>,
    }

    /// One thing that lowers the price.
    pub struct PriceRule {
        /// Its number.
        pub rule_id: i64,
        /// What it is.
        pub description: String,
    }

    /// A price per second.
    pub struct Price {
        /// `CNY`.
        pub currency: String,
        /// By the list.
        pub original_price: f64,
        /// Taken off.
        pub discount_price: f64,
        /// To be paid.
        pub trade_price: f64,
        /// What it is made of.
        pub detail_infos: DetailInfos,
    }

    /// What a price is made of.
    pub struct DetailInfos {
        /// One entry per resource.
        pub detail_info: Vec<DetailInfo>,
    }

    /// The price of one resource.
    pub struct DetailInfo {
        /// `Cpu`, `Memory`, `EphemeralStorage`, `InstanceType`.
        pub resource: String,
        /// By the list.
        pub original_price: f64,
        /// Taken off.
        pub discount_price: f64,
        /// To be paid.
        pub trade_price: f64,
        /// What lowers it.
        pub rules: PriceRules,
    }

    /// Spot prices.
    pub struct SpotPrices {
        /// One entry per zone.
        pub spot_price: Vec<SpotPrice>,
    }

    /// The spot price of a zone.
    pub struct SpotPrice {
        /// The zone.
        pub zone_id: String,
        /// The instance type.
        pub instance_type: String,
        /// Per hour now.
        pub spot_price: f64,
        /// Per hour by the list.
        pub origin_price: f64,
    }
}

action!(DescribeContainerGroupPriceRequest => DescribeContainerGroupPriceResponse, "DescribeContainerGroupPrice", read);
