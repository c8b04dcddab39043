//! The bill: one line per group, exact to the last unit.

use crate::state::record::GroupRecord;
use cloud_api::catalog::Size;
use cloud_api::model::Tag;
use cloud_api::money::Amount;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// What one group costs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    /// The group.
    pub group_id: String,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<Tag>,
    /// The zone it ran in.
    pub zone: String,
    /// The rounded size.
    pub size: Size,
    /// The price of one second, in 10⁻⁹ CNY.
    pub per_second: Amount,
    /// Whether it existed on paper only.
    pub simulated: bool,
    /// When billing began (status `Pending`).
    pub from: Timestamp,
    /// When it ended (final status, or deletion); open while the group lives.
    pub until: Option<Timestamp>,
    /// Whole seconds, up to now for an open entry.
    pub seconds: u64,
    /// `per_second × seconds`, in 10⁻⁹ CNY.
    pub amount: Amount,
}

impl LedgerEntry {
    /// The line of a group; `None` while it has cost nothing.
    pub(crate) fn of(group: &GroupRecord, now: Timestamp) -> Option<Self> {
        let mut entry = Self {
            group_id: group.id.clone(),
            name: group.request.container_group_name.clone(),
            tags: group.request.tag.clone(),
            zone: group.zone.clone(),
            size: group.size,
            per_second: group.per_second,
            simulated: group.simulated,
            from: group.billed_from?,
            until: group.billed_until,
            seconds: 0,
            amount: Amount::ZERO,
        };
        entry.settle(now);
        Some(entry)
    }

    /// Works seconds and amount out anew, for an open entry up to now.
    pub(crate) fn settle(&mut self, now: Timestamp) {
        let until = self.until.unwrap_or(now);
        self.seconds = u64::try_from(until.as_second() - self.from.as_second()).unwrap_or_default();
        self.amount = self.per_second.times(self.seconds);
    }
}

/// The whole bill.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Ledger {
    /// Oldest first.
    pub entries: Vec<LedgerEntry>,
    /// The sum, in 10⁻⁹ CNY.
    pub total: Amount,
    /// The same for people.
    pub total_cny: String,
}

impl Ledger {
    pub(crate) fn new(mut entries: Vec<LedgerEntry>, now: Timestamp) -> Self {
        entries.iter_mut().for_each(|entry| entry.settle(now));
        entries.sort_by(|one, other| (one.from, &one.group_id).cmp(&(other.from, &other.group_id)));
        let total: Amount = entries.iter().map(|entry| entry.amount).sum();
        Self {
            entries,
            total,
            total_cny: total.to_string(),
        }
    }
}

/// The bill as the control API tells it: sums of everything, and the newest lines.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LedgerPage {
    /// The sum of all lines, in 10⁻⁹ CNY.
    pub total: Amount,
    /// What one more second costs as things are now, in 10⁻⁹ CNY.
    pub per_second: Amount,
    /// Groups that have cost anything.
    pub groups: u64,
    /// Those that go on costing.
    pub running: u64,
    /// Seconds of all of them.
    pub seconds: u64,
    /// Older lines that are only in the sums.
    pub omitted: u64,
    /// Oldest first.
    pub entries: Vec<LedgerEntry>,
}

impl LedgerPage {
    /// The sums of a bill with its newest lines, at most so many.
    pub(crate) fn of(mut ledger: Ledger, most: usize) -> Self {
        let open = ledger.entries.iter().filter(|entry| entry.until.is_none());
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let omitted = ledger.entries.len().saturating_sub(most);
        Self {
            total: ledger.total,
            per_second: open.clone().map(|entry| entry.per_second).sum(),
            groups: count(ledger.entries.len()),
            running: count(open.count()),
            seconds: ledger.entries.iter().map(|entry| entry.seconds).sum(),
            omitted: count(omitted),
            entries: ledger.entries.split_off(omitted),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::{at, record};
    use cloud_api::catalog::{Catalog, PriceList};
    use cloud_api::model::GroupStatus;
    use proptest::prelude::*;

    #[test]
    fn the_documented_bill_comes_out() {
        // Pending 10:49:30, released 11:20:05.
        let mut group = record("eci-a");
        group.set_status(
            GroupStatus::Pending,
            "2024-01-01T10:49:30Z".parse().unwrap(),
        );
        group.close_bill("2024-01-01T11:20:05Z".parse().unwrap());
        let entry = LedgerEntry::of(&group, at(0)).unwrap();
        assert_eq!(entry.seconds, 630 + 1_205);
        assert_eq!(entry.amount, Amount(122_520 * 1_835));
    }

    #[test]
    fn an_open_entry_grows_with_the_clock() {
        let mut group = record("eci-a");
        group.set_status(GroupStatus::Running, at(100));
        let entries = vec![LedgerEntry::of(&group, at(100)).unwrap()];
        assert_eq!(Ledger::new(entries.clone(), at(100)).total, Amount::ZERO);
        assert_eq!(Ledger::new(entries, at(110)).total, Amount(1_225_200));
    }

    #[test]
    fn a_page_has_the_sums_of_everything_and_the_newest_lines() {
        let entry = |id: &str, from: i64, until: Option<i64>| {
            let mut group = record(id);
            group.set_status(GroupStatus::Running, at(from));
            if let Some(until) = until {
                group.close_bill(at(until));
            }
            LedgerEntry::of(&group, at(100)).unwrap()
        };
        let entries = vec![
            entry("eci-c", 30, None),
            entry("eci-a", 10, Some(20)),
            entry("eci-b", 20, Some(30)),
        ];
        let page = LedgerPage::of(Ledger::new(entries, at(40)), 2);
        let shown: Vec<&str> = page
            .entries
            .iter()
            .map(|one| one.group_id.as_str())
            .collect();
        assert_eq!(shown, ["eci-b", "eci-c"]);
        assert_eq!((page.groups, page.running, page.omitted), (3, 1, 1));
        assert_eq!((page.seconds, page.total), (30, Amount(122_520 * 30)));
        assert_eq!(page.per_second, Amount(122_520));
    }

    proptest! {
        #[test]
        fn the_total_is_the_sum_of_size_price_and_seconds(
            groups in proptest::collection::vec((0usize..40, 0i64..1_000_000, 0i64..100_000), 0..60)
        ) {
            let (catalog, prices) = (Catalog::new(false), PriceList::default());
            let mut expected_halves = 0u128;
            let mut entries = Vec::new();
            for (number, (index, from, seconds)) in groups.into_iter().enumerate() {
                let mut group = record(&format!("eci-{number}"));
                group.size = catalog.sizes()[index % catalog.sizes().len()];
                group.per_second = prices.per_second(group.size, false, 0);
                group.set_status(GroupStatus::Pending, at(from));
                group.set_status(GroupStatus::Failed, at(from + seconds));
                entries.push(LedgerEntry::of(&group, at(0)).unwrap());
                let vcpu = u128::from(group.size.vcpu_milli) * 2 * 4_900 / 1_000;
                let memory = u128::from(group.size.memory_mib / 512) * 613;
                expected_halves += (vcpu + memory) * u128::try_from(seconds).unwrap();
            }
            let ledger = Ledger::new(entries, at(5_000_000));
            prop_assert_eq!(ledger.total.0, expected_halves * 5);
        }
    }
}
