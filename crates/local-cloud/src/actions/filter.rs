//! Which groups a description is about, and its pages.

use crate::gateway::refusal::Refusal;
use crate::state::record::GroupRecord;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloud_api::model::Tag;
use std::collections::BTreeMap;

/// Most ids in one request.
pub(super) const MAX_IDS: usize = 20;
const MAX_TAG_FILTERS: usize = 10;

/// All conditions of a description; joined by and.
#[derive(Default)]
pub(super) struct Filter<'a> {
    pub(super) ids: &'a [String],
    /// Most of them; [`MAX_IDS`] when 0.
    pub(super) most_ids: usize,
    pub(super) name: Option<&'a str>,
    pub(super) status: Option<&'a str>,
    pub(super) zone: Option<&'a str>,
    pub(super) v_switch: Option<&'a str>,
    pub(super) security_group: Option<&'a str>,
    pub(super) resource_group: Option<&'a str>,
    pub(super) compute_category: Option<&'a str>,
    pub(super) tags: &'a [Tag],
    pub(super) changed_since_second: Option<i64>,
}

/// Tags that are looked for; one without a value stands for any value.
pub(super) struct Tags<'a>(pub(super) &'a [Tag]);

impl Tags<'_> {
    /// Whether all of them are among these.
    pub(super) fn are_on(&self, own: &[Tag]) -> bool {
        let is_there = |wanted: &Tag| {
            own.iter().any(|own| {
                own.key == wanted.key && (wanted.value.is_empty() || own.value == wanted.value)
            })
        };
        self.0.iter().all(is_there)
    }
}

/// A text that was given and is not empty.
pub(super) fn given(text: &Option<String>) -> Option<&str> {
    text.as_deref().filter(|text| !text.is_empty())
}

impl Filter<'_> {
    /// The groups that come into question, in the order of their ids: those that are named, else all.
    fn candidates<'a>(
        &self,
        groups: &'a BTreeMap<String, GroupRecord>,
    ) -> Box<dyn Iterator<Item = &'a GroupRecord> + 'a> {
        if self.ids.is_empty() {
            return Box::new(groups.values());
        }
        let named: std::collections::BTreeSet<&String> = self.ids.iter().collect();
        let found: Vec<&GroupRecord> = named.into_iter().filter_map(|id| groups.get(id)).collect();
        Box::new(found.into_iter())
    }

    fn matches(&self, group: &GroupRecord) -> bool {
        let is = |wanted: Option<&str>, value: &str| wanted.is_none_or(|wanted| wanted == value);
        // What a delta leaves out, most of all groups, is told by one number.
        self.changed_since_second
            .is_none_or(|second| group.changed_at.as_second() >= second)
            && is(self.name, &group.request.container_group_name)
            && is(self.status, group.status.as_str())
            && is(self.zone, &group.zone)
            && is(self.v_switch, &group.v_switch)
            && is(
                self.security_group,
                group
                    .request
                    .security_group_id
                    .as_deref()
                    .unwrap_or_default(),
            )
            && is(
                self.resource_group,
                group
                    .request
                    .resource_group_id
                    .as_deref()
                    .unwrap_or_default(),
            )
            && is(
                self.compute_category,
                group
                    .request
                    .compute_category
                    .first()
                    .map_or("", String::as_str),
            )
            && Tags(self.tags).are_on(&group.request.tag)
    }

    fn check(&self) -> Result<(), Refusal> {
        let most = if self.most_ids == 0 {
            MAX_IDS
        } else {
            self.most_ids
        };
        if self.ids.len() > most {
            return Err(Refusal::invalid(
                "ContainerGroupIds",
                format!("at most {most} ids are allowed"),
            ));
        }
        if self.tags.len() > MAX_TAG_FILTERS {
            return Err(Refusal::invalid(
                "Tag",
                format!("at most {MAX_TAG_FILTERS} tags can be filtered by"),
            ));
        }
        Ok(())
    }
}

/// One page of groups.
pub(super) struct Page<'a> {
    pub(super) groups: Vec<&'a GroupRecord>,
    pub(super) next_token: Option<String>,
    pub(super) total_count: u32,
}

/// Cuts a page out of all groups, which are in the order of their ids. A group that comes or goes between two pages
/// makes none of the others appear twice or not at all.
pub(super) fn page<'a>(
    groups: &'a BTreeMap<String, GroupRecord>,
    filter: &Filter<'_>,
    limit: Option<u32>,
    largest: u32,
    next_token: Option<&str>,
) -> Result<Page<'a>, Refusal> {
    filter.check()?;
    let limit = limit.unwrap_or(largest);
    if !(1..=largest).contains(&limit) {
        return Err(Refusal::invalid(
            "Limit",
            format!("it must be from 1 to {largest}"),
        ));
    }
    let after = next_token
        .filter(|token| !token.is_empty())
        .map(read_token)
        .transpose()?
        .unwrap_or_default();
    let mut page = Page {
        groups: Vec::new(),
        next_token: None,
        total_count: 0,
    };
    for group in filter
        .candidates(groups)
        .filter(|group| filter.matches(group))
    {
        page.total_count += 1;
        if group.id <= after {
            continue;
        }
        if page.groups.len() < limit as usize {
            page.groups.push(group);
        } else if page.next_token.is_none() {
            page.next_token = page
                .groups
                .last()
                .map(|last| URL_SAFE_NO_PAD.encode(&last.id));
        }
    }
    Ok(page)
}

pub(super) fn read_token(token: &str) -> Result<String, Refusal> {
    let bytes = URL_SAFE_NO_PAD.decode(token).ok();
    bytes
        .and_then(|bytes| String::from_utf8(bytes).ok())
        .ok_or_else(|| Refusal::invalid("NextToken", "it was not given out by this service"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::state::record::tests::record;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn pages_cover_every_group_exactly_once(count in 0usize..60, limit in 1u32..=20) {
            let groups: BTreeMap<_, _> =
                (0..count).map(|number| format!("eci-{number:03}")).map(|id| (id.clone(), record(&id))).collect();
            let mut seen = Vec::new();
            let mut token: Option<String> = None;
            loop {
                let page = page(&groups, &Filter::default(), Some(limit), 20, token.as_deref()).unwrap();
                prop_assert_eq!(page.total_count as usize, count);
                seen.extend(page.groups.iter().map(|group| group.id.clone()));
                token = page.next_token;
                if token.is_none() {
                    break;
                }
            }
            prop_assert_eq!(seen, groups.keys().cloned().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_page_size_or_token_out_of_the_ordinary_is_refused() {
        let groups = BTreeMap::new();
        let refused = |limit, token| {
            page(&groups, &Filter::default(), Some(limit), 20, token)
                .map(|_| ())
                .unwrap_err()
        };
        assert!(refused(21, None).message.contains("\"Limit\""));
        assert!(refused(0, None).message.contains("\"Limit\""));
        assert!(refused(1, Some("%%%")).message.contains("\"NextToken\""));
    }
}
