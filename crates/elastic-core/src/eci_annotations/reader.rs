//! Reads single annotations and collects what is wrong with them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::RangeInclusive;

use serde::Deserialize;

use super::table::REFUSED;
use super::{AcrInstance, Dns, Eip, Host, ScheduleStrategy, Spot};
use crate::eci_profile::Problem;
use crate::names::ECI_ANNOTATION_PREFIX;
use crate::quantity;

const GIB: i64 = 1 << 30;
/// Longest tag key and value.
const MAX_TAG_KEY: usize = 64;
const MAX_TAG_VALUE: usize = 128;

pub(super) struct Reader<'a> {
    annotations: &'a BTreeMap<String, String>,
    problems: Vec<Problem>,
}

/// The key on the pod; names with a slash have their prefix already.
fn key(name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("{ECI_ANNOTATION_PREFIX}{name}")
    }
}

impl<'a> Reader<'a> {
    pub(super) fn new(annotations: &'a BTreeMap<String, String>) -> Self {
        Self {
            annotations,
            problems: Vec::new(),
        }
    }

    pub(super) fn end<T>(self, value: T) -> Result<T, Vec<Problem>> {
        if self.problems.is_empty() {
            Ok(value)
        } else {
            Err(self.problems)
        }
    }

    pub(super) fn wrong(&mut self, name: &str, cause: impl Into<String>) {
        self.problems.push(Problem::new(key(name), cause));
    }

    /// The trimmed value; an empty one counts as absent.
    fn value(&self, name: &str) -> Option<&'a str> {
        let value = self.annotations.get(&key(name))?.trim();
        Some(value).filter(|value| !value.is_empty())
    }

    pub(super) fn text(&mut self, name: &str) -> Option<String> {
        self.value(name).map(str::to_owned)
    }

    pub(super) fn switch(&mut self, name: &str) -> Option<bool> {
        match self.value(name)?.to_ascii_lowercase().as_str() {
            "true" => Some(true),
            "false" => Some(false),
            other => {
                self.wrong(name, format!("{other:?} is neither \"true\" nor \"false\""));
                None
            }
        }
    }

    pub(super) fn number(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value = self.value(name)?;
        let number = value.parse().ok().filter(|number| range.contains(number));
        if number.is_none() {
            let (least, most) = (range.start(), range.end());
            self.wrong(
                name,
                format!("{value:?} is not a whole number from {least} to {most}"),
            );
        }
        number
    }

    pub(super) fn list(&mut self, name: &str, most: usize) -> Vec<String> {
        let Some(value) = self.value(name) else {
            return Vec::new();
        };
        let parts = value
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty());
        let list: Vec<String> = parts.map(str::to_owned).collect();
        if list.len() > most {
            self.wrong(
                name,
                format!("at most {most} may be listed, found {}", list.len()),
            );
        }
        list
    }

    pub(super) fn ids(&mut self, name: &str, prefix: &str, most: usize) -> Option<String> {
        let list = self.list(name, most);
        for id in list.iter().filter(|id| !id.starts_with(prefix)) {
            self.wrong(name, format!("{id:?} is no id; expected {prefix}…"));
        }
        (!list.is_empty()).then(|| list.join(","))
    }

    pub(super) fn address(&mut self, name: &str) -> Option<String> {
        let value = self.value(name)?;
        if value.parse::<IpAddr>().is_err() {
            self.wrong(name, format!("{value:?} is no address"));
        }
        Some(value.to_owned())
    }

    fn one_of(&mut self, name: &str, allowed: &[&str]) -> Option<&'a str> {
        let value = self.value(name)?;
        if !allowed.contains(&value) {
            let cause = format!("{value:?} is not one of {}", allowed.join(", "));
            self.wrong(name, cause);
            return None;
        }
        Some(value)
    }

    pub(super) fn strategy(&mut self) -> ScheduleStrategy {
        match self.one_of(
            "eci-schedule-strategy",
            &["VSwitchOrdered", "VSwitchRandom"],
        ) {
            Some("VSwitchOrdered") => ScheduleStrategy::Ordered,
            _ => ScheduleStrategy::Random,
        }
    }

    pub(super) fn categories(&mut self) -> Vec<String> {
        let list = self.list("eci-compute-category", 2);
        for one in list
            .iter()
            .filter(|one| !matches!(one.as_str(), "economy" | "general"))
        {
            self.wrong(
                "eci-compute-category",
                format!("{one:?} is not one of economy, general"),
            );
        }
        list
    }

    pub(super) fn spot(&mut self) -> Option<Spot> {
        let allowed = ["NoSpot", "SpotAsPriceGo", "SpotWithPriceLimit"];
        let strategy = self
            .one_of("eci-spot-strategy", &allowed)
            .filter(|one| *one != "NoSpot");
        let price_limit = self.price();
        let duration_hours = self.number("eci-spot-duration", 0..=6);
        let fallback = self.switch("eci-spot-fallback");
        match (strategy, price_limit) {
            (Some("SpotWithPriceLimit"), None) if self.value("eci-spot-price-limit").is_none() => {
                self.wrong("eci-spot-price-limit", "is needed with SpotWithPriceLimit");
            }
            (Some("SpotWithPriceLimit"), _) | (_, None) => {}
            (_, Some(_)) => {
                self.wrong("eci-spot-price-limit", "is for SpotWithPriceLimit only");
            }
        }
        Some(Spot {
            strategy: strategy?.to_owned(),
            price_limit,
            duration_hours,
            fallback: fallback == Some(true),
        })
    }

    fn price(&mut self) -> Option<f64> {
        let value = self.value("eci-spot-price-limit")?;
        let decimals = value
            .split_once('.')
            .map_or(0, |(_, decimals)| decimals.len());
        let price = value.parse::<f64>().ok();
        let price = price.filter(|price| price.is_finite() && *price > 0.0 && decimals <= 3);
        if price.is_none() {
            let cause = format!("{value:?} is not a price with at most three decimals");
            self.wrong("eci-spot-price-limit", cause);
        }
        price
    }

    pub(super) fn fail_fast(&mut self) -> bool {
        let allowed = ["fail-back", "fail-over", "fail-fast"];
        let reschedule = self.switch("eci-reschedule-enable");
        let fail = self.switch("pod-fail-on-create-err");
        match self.one_of("eci-fail-strategy", &allowed) {
            Some(strategy) => strategy == "fail-fast",
            None => fail == Some(true) || reschedule == Some(false),
        }
    }

    pub(super) fn tags(&mut self, most: usize) -> Vec<(String, String)> {
        const NAME: &str = "eci-custom-tags";
        let mut tags = Vec::new();
        for text in self.list(NAME, most) {
            match text.split_once(':') {
                Some((tag, value)) if !tag.trim().is_empty() => {
                    let (tag, value) = (tag.trim(), value.trim());
                    let reserved = tag.starts_with("aliyun") || tag.starts_with("acs:");
                    if reserved || tag.len() > MAX_TAG_KEY || value.len() > MAX_TAG_VALUE {
                        self.wrong(
                            NAME,
                            format!("{text:?} is too long or begins with a reserved word"),
                        );
                    }
                    tags.push((tag.to_owned(), value.to_owned()));
                }
                _ => self.wrong(NAME, format!("{text:?} is not <key>:<value>")),
            }
        }
        tags
    }

    fn json<T: for<'de> Deserialize<'de>>(&mut self, name: &str, expected: &str) -> Option<T> {
        let value = self.value(name)?;
        match serde_json::from_str(value) {
            Ok(read) => Some(read),
            Err(error) => {
                self.wrong(name, format!("is not {expected} ({error})"));
                None
            }
        }
    }

    pub(super) fn hosts(&mut self) -> Vec<Host> {
        #[derive(Deserialize)]
        struct Written {
            host: String,
            ip: String,
        }
        const NAME: &str = "eci-custom-hosts";
        let written: Vec<Written> = self
            .json(NAME, "a JSON array of {\"host\", \"ip\"}")
            .unwrap_or_default();
        for one in written
            .iter()
            .filter(|one| one.ip.parse::<IpAddr>().is_err())
        {
            self.wrong(NAME, format!("{:?} is no address", one.ip));
        }
        let host = |one: Written| Host {
            ip: one.ip,
            host: one.host,
        };
        written.into_iter().map(host).collect()
    }

    pub(super) fn dns(&mut self) -> Option<Dns> {
        #[derive(Deserialize)]
        struct Choice {
            name: String,
            value: Option<String>,
        }
        #[derive(Deserialize)]
        #[serde(default)]
        #[derive(Default)]
        struct Written {
            nameservers: Vec<String>,
            searches: Vec<String>,
            options: Vec<Choice>,
        }
        let written: Written = self.json(
            "eci-custom-dnsconfig",
            "a JSON object with nameservers, searches and options",
        )?;
        let options = written.options.into_iter();
        Some(Dns {
            nameservers: written.nameservers,
            searches: written.searches,
            options: options.map(|one| (one.name, one.value)).collect(),
        })
    }

    pub(super) fn acr(&mut self) -> Vec<AcrInstance> {
        let mut ids = self.list("acr-instance-ids", 10);
        ids.extend(self.list("acr-instance-id", 1));
        let services = self.list("acr-service-arns", 10);
        let users = self.list("acr-user-arns", 10);
        for (name, roles) in [("acr-service-arns", &services), ("acr-user-arns", &users)] {
            if !roles.is_empty() && roles.len() != ids.len() {
                let cause = format!("{} roles for {} registries", roles.len(), ids.len());
                self.wrong(name, cause);
            }
        }
        let instance = |(index, text): (usize, &String)| {
            let (region, id) = match text.split_once(':') {
                Some((region, id)) => (Some(region.to_owned()), id.to_owned()),
                None => (None, text.clone()),
            };
            AcrInstance {
                region,
                id,
                service_arn: services.get(index).cloned(),
                user_arn: users.get(index).cloned(),
            }
        };
        ids.iter().enumerate().map(instance).collect()
    }

    pub(super) fn eip(&mut self) -> Eip {
        let eip = Eip {
            instance_id: self.text("eci-eip-instanceid"),
            create: self.switch("eci-with-eip") == Some(true),
            bandwidth: self.number("eip-bandwidth", 1..=1_000),
            isp: self
                .one_of("eip-isp", &["BGP", "BGP_PRO"])
                .map(str::to_owned),
            common_bandwidth_package: self.text("eip-common-bandwidth-package-id"),
        };
        if eip.create && eip.instance_id.is_some() {
            self.wrong(
                "eci-eip-instanceid",
                "cannot be combined with eci-with-eip; remove one",
            );
        }
        eip
    }

    /// `40M`, in bits per second.
    pub(super) fn bandwidth(&mut self, name: &str) -> Option<i64> {
        let value = self.value(name)?;
        match quantity::units(value) {
            Ok(bits) if bits > 0 => Some(bits),
            _ => {
                self.wrong(name, format!("{value:?} is not a bandwidth such as 40M"));
                None
            }
        }
    }

    pub(super) fn gib(&mut self, name: &str) -> Option<i64> {
        let value = self.value(name)?;
        match quantity::units(value) {
            Ok(bytes) if bytes > 0 => Some(bytes / GIB + i64::from(bytes % GIB > 0)),
            _ => {
                self.wrong(name, format!("{value:?} is not an amount such as 50Gi"));
                None
            }
        }
    }

    pub(super) fn core_pattern(&mut self) -> Option<String> {
        let pattern = self.text("eci-core-pattern")?;
        if pattern.starts_with('|') {
            self.wrong("eci-core-pattern", "must not start with a pipe sign");
        }
        Some(pattern)
    }

    pub(super) fn refuse_what_has_no_parameter(&mut self) {
        for (name, instead) in REFUSED {
            let value = self.value(name);
            // Nothing is collected anyway, so asking for nothing is granted.
            let granted = *name == "eci-sls-enable" && value == Some("false");
            if value.is_some() && !granted {
                self.wrong(name, format!("is not supported: {instead}"));
            }
        }
    }
}
