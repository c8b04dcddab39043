//! Random schedules in random zones, compared with a walk over every second or minute of the time in question.

use std::collections::BTreeSet;

use elastic_core::cron::{Schedule, time_zone};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{Timestamp, ToSpan};
use proptest::prelude::*;

const ZONES: [&str; 12] = [
    "UTC",
    "Asia/Shanghai",
    "America/New_York",
    "Europe/Berlin",
    "Australia/Lord_Howe",
    "America/St_Johns",
    "America/Santiago",
    "Africa/Casablanca",
    "Asia/Kathmandu",
    "Asia/Gaza",
    "Pacific/Chatham",
    "Antarctica/Troll",
];

/// One field: its numbers, and how it is written.
#[derive(Clone, Debug)]
struct Field {
    numbers: BTreeSet<i8>,
    open: bool,
    text: String,
}

fn field(least: i8, most: i8) -> impl Strategy<Value = Field> {
    let all = move || (least..=most).collect::<BTreeSet<i8>>();
    prop_oneof![
        3 => Just(Field { numbers: all(), open: true, text: "*".into() }),
        1 => (1..=20i8).prop_map(move |step| Field {
            numbers: (least..=most).step_by(step as usize).collect(),
            open: true,
            text: format!("*/{step}"),
        }),
        2 => proptest::collection::btree_set(least..=most, 1..4).prop_map(|numbers| {
            let text = numbers.iter().map(i8::to_string).collect::<Vec<_>>().join(",");
            Field { numbers, open: false, text }
        }),
        2 => (least..=most, least..=most, 1..5i8).prop_map(|(one, other, step)| {
            let (first, last) = (one.min(other), one.max(other));
            Field {
                numbers: (first..=last).step_by(step as usize).collect(),
                open: false,
                text: format!("{first}-{last}/{step}"),
            }
        }),
        1 => (least..=most, 1..9i8).prop_map(move |(first, step)| Field {
            numbers: (first..=most).step_by(step as usize).collect(),
            open: false,
            text: format!("{first}/{step}"),
        }),
    ]
}

#[derive(Clone, Debug)]
struct Expression([Field; 6]);

impl Expression {
    fn text(&self) -> String {
        self.0.each_ref().map(|field| field.text.clone()).join(" ")
    }

    fn matches(&self, local: DateTime) -> bool {
        let [second, minute, hour, day, month, week] = &self.0;
        let has = |field: &Field, number: i8| field.numbers.contains(&number);
        let of_month = has(day, local.day());
        let of_week = has(week, local.weekday().to_sunday_zero_offset());
        let day_fits = if day.open || week.open {
            of_month && of_week
        } else {
            of_month || of_week
        };
        day_fits
            && has(second, local.second())
            && has(minute, local.minute())
            && has(hour, local.hour())
            && has(month, local.month())
    }
}

fn expression(seconds: impl Strategy<Value = Field>) -> impl Strategy<Value = Expression> {
    let rest = (
        field(0, 59),
        field(0, 23),
        field(1, 31),
        field(1, 12),
        field(0, 6),
    );
    (seconds, rest).prop_map(|(second, (minute, hour, day, month, week))| {
        Expression([second, minute, hour, day, month, week])
    })
}

fn whole_minute() -> impl Strategy<Value = Field> {
    Just(Field {
        numbers: BTreeSet::from([0]),
        open: false,
        text: "0".into(),
    })
}

/// All activations after `start` up to `start + steps`, by looking at each step. A local time counts at its first passing; those
/// that were left out count at the moment after.
fn walk(
    expression: &Expression,
    zone: &TimeZone,
    start: Timestamp,
    step_seconds: i64,
    steps: i64,
) -> Vec<Timestamp> {
    let mut found = Vec::new();
    let mut before = zone.to_datetime(start);
    for step in 1..=steps {
        let at = start + (step * step_seconds).seconds();
        let local = zone.to_datetime(at);
        let mut expected = before + step_seconds.seconds();
        let mut fires = false;
        // What the clocks left out, and the time itself.
        while expected <= local {
            fires |= expression.matches(expected) && is_first(zone, expected, at);
            expected += step_seconds.seconds();
        }
        if expected > local + step_seconds.seconds() {
            // The clocks went back: this time was there before, or comes for the first time.
            fires |= expression.matches(local) && is_first(zone, local, at);
        }
        if fires {
            found.push(at);
        }
        before = local;
    }
    found
}

fn is_first(zone: &TimeZone, local: DateTime, at: Timestamp) -> bool {
    match zone.to_ambiguous_timestamp(local).offset() {
        AmbiguousOffset::Fold { before, .. } => zone.to_offset(at) == before,
        _ => true,
    }
}

fn listed(
    schedule: &Schedule,
    zone: &TimeZone,
    start: Timestamp,
    end: Timestamp,
) -> Vec<Timestamp> {
    let mut found = Vec::new();
    let mut at = start;
    while let Some(next) = schedule
        .next_after(at, zone, start)
        .filter(|next| *next <= end)
    {
        assert_eq!(schedule.last_until(next, zone, start), Some(next));
        let between = next - 1.second();
        assert_eq!(
            schedule.last_until(between, zone, start),
            schedule.last_until(at, zone, start),
            "nothing between {at} and {next}"
        );
        found.push(next);
        at = next;
    }
    found
}

fn compare(expression: &Expression, zone_name: &str, start: Timestamp, step: i64, steps: i64) {
    let zone = time_zone(zone_name).unwrap();
    let schedule = Schedule::parse(&expression.text()).unwrap();
    let end = start + (step * steps).seconds();
    let expected = walk(expression, &zone, start, step, steps);
    let found = listed(&schedule, &zone, start, end);
    assert_eq!(
        found,
        expected,
        "{} in {zone_name} from {start}",
        expression.text()
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn around_a_change_of_the_clocks_every_second_is_right(
        expression in expression(field(0, 59)),
        zone_index in 0..ZONES.len(),
        skipped in 0..8usize,
    ) {
        let zone = time_zone(ZONES[zone_index]).unwrap();
        let from: Timestamp = "2025-01-01T00:00:00Z".parse().unwrap();
        let change = zone.following(from).nth(skipped);
        let change = change.map_or(from, |change| change.timestamp());
        compare(&expression, ZONES[zone_index], change - 2.hours(), 1, 4 * 3600);
    }

    #[test]
    fn a_month_of_minutes_is_right(
        expression in expression(whole_minute()),
        zone_index in 0..ZONES.len(),
        hour in 0..40_000i64,
    ) {
        let start: Timestamp = "2024-02-01T00:00:00Z".parse().unwrap();
        compare(&expression, ZONES[zone_index], start + hour.hours(), 60, 30 * 1440);
    }
}

#[test]
fn a_whole_year_of_working_days_has_every_one_of_them_on_both_sides_of_the_changes() {
    for (zone_name, year) in [
        ("America/New_York", 2026),
        ("Europe/Berlin", 2028),
        ("Asia/Shanghai", 2027),
    ] {
        let zone = time_zone(zone_name).unwrap();
        let schedule = Schedule::parse("0 30 8 * * MON-FRI").unwrap();
        let first = jiff::civil::date(year, 1, 1);
        let midnight = first.to_zoned(zone.clone()).unwrap().timestamp();
        let start = midnight - 1.second();
        let end = first
            .checked_add(1.year())
            .unwrap()
            .to_zoned(zone.clone())
            .unwrap()
            .timestamp();
        let runs = listed(&schedule, &zone, start, end);
        let locals: Vec<String> = runs
            .iter()
            .map(|at| zone.to_datetime(*at).to_string())
            .collect();
        let days = first.series(1.day()).take_while(|day| day.year() == year);
        let working = days.filter(|day| (1..=5).contains(&day.weekday().to_sunday_zero_offset()));
        let expected: Vec<String> = working.map(|day| day.at(8, 30, 0, 0).to_string()).collect();
        assert_eq!(locals, expected, "{zone_name} {year}");
    }
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_fall_over(text in "[@0-9*/,?a-zA-Z -]{0,40}", free in ".{0,40}") {
        let _ = Schedule::parse(&text);
        let _ = Schedule::parse(&free);
        let _ = elastic_core::cron::Exclusion::parse(&free);
        let _ = time_zone(&free);
    }
}
