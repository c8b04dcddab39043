//! What the actions on caches, nodes and tasks have in common: pages of a table, tokens, tags, events.

use super::Call;
use super::filter::Tags;
use super::tokens::Token;
use crate::gateway::refusal::Refusal;
use crate::state::State;
use crate::state::resources::{Resource, Tagged};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cloud_api::model::Tag;
use cloud_api::model::describe::GroupEvent;
use cloud_api::time;
use jiff::Timestamp;

/// One page of rows.
pub(super) struct TablePage<T> {
    pub(super) rows: Vec<(String, T)>,
    pub(super) next_token: Option<String>,
    pub(super) total_count: u32,
}

/// Where a page begins and how long it is.
pub(super) struct Window<'a> {
    /// The parameter that says how long.
    pub(super) name: &'a str,
    pub(super) limit: Option<u32>,
    pub(super) default: u32,
    pub(super) most: u32,
    pub(super) next_token: Option<&'a str>,
}

/// Cuts a page out of the rows that match, in the order of their ids.
pub(super) fn page<T: Resource>(
    state: &State,
    window: &Window<'_>,
    matches: impl Fn(&str, &T) -> bool,
) -> Result<TablePage<T>, Refusal> {
    let limit = window.limit.unwrap_or(window.default);
    if !(1..=window.most).contains(&limit) {
        let rule = format!("it must be from 1 to {}", window.most);
        return Err(Refusal::invalid(window.name, rule));
    }
    let after = match window.next_token.filter(|token| !token.is_empty()) {
        Some(token) => super::filter::read_token(token)?,
        None => String::new(),
    };
    let mut page = TablePage {
        rows: Vec::new(),
        next_token: None,
        total_count: 0,
    };
    let rows = T::table(&state.resources).iter();
    for (id, row) in rows.filter(|(id, row)| matches(id, row)) {
        page.total_count += 1;
        if *id <= after {
            continue;
        }
        if page.rows.len() < limit as usize {
            page.rows.push((id.clone(), row.clone()));
        } else if page.next_token.is_none() {
            let last = page.rows.last();
            page.next_token = last.map(|(id, _)| URL_SAFE_NO_PAD.encode(id));
        }
    }
    Ok(page)
}

/// The row of that id; `kind` names it in the refusal.
pub(super) fn find<'s, T: Resource>(
    state: &'s State,
    kind: &str,
    id: &str,
) -> Result<&'s T, Refusal> {
    T::table(&state.resources).get(id).ok_or_else(|| {
        let message = format!("The {kind} {id} does not exist.");
        Refusal::new(404, "InvalidParameter.NotFound", message)
    })
}

/// Whether a row carries all of these tags.
pub(super) fn is_tagged<T: Tagged>(row: &T, wanted: &[Tag]) -> bool {
    Tags(wanted).are_on(row.tags())
}

/// Whether a filter is unset or says this.
pub(super) fn is(wanted: &Option<String>, value: &str) -> bool {
    super::filter::given(wanted).is_none_or(|wanted| wanted == value)
}

/// Does a change once for each client token, and waits until it is durable. Answers with the id the change gave.
pub(super) async fn once(
    call: &Call<'_>,
    token: Option<Token>,
    change: impl FnOnce(&mut State, Timestamp) -> Result<String, Refusal>,
) -> Result<String, Refusal> {
    let (id, version) = {
        let now = call.shared.now();
        let mut state = call.shared.state();
        let known = token.as_ref().map(|token| token.look_up(&state));
        match known.transpose()?.flatten() {
            Some(known) => (known, state.version),
            None => {
                let id = change(&mut state, now)?;
                if let Some(token) = token {
                    token.remember(&mut state, &id, now);
                }
                (id, state.version)
            }
        }
    };
    call.shared.durable(version).await?;
    Ok(id)
}

/// An ordinary event that happened once.
pub(super) fn event(reason: &str, message: String, at: Timestamp) -> GroupEvent {
    GroupEvent {
        event_type: "Normal".to_owned(),
        reason: reason.to_owned(),
        message,
        name: format!("{}.{:x}", reason.to_lowercase(), at.as_nanosecond()),
        count: 1,
        first_timestamp: time::format(at),
        last_timestamp: time::format(at),
    }
}
