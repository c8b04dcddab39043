//! Examples; `tests/it/cron.rs` compares random schedules with a walk second by second.

use jiff::Timestamp;
use jiff::civil::date;

use super::{Exclusion, Schedule, time_zone};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn next(expression: &str, zone: &str, after: &str) -> Option<String> {
    let schedule = Schedule::parse(expression).unwrap();
    let zone = time_zone(zone).unwrap();
    let found = schedule.next_after(at(after), &zone, at("2026-01-01T00:00:00Z"));
    if let Some(found) = found {
        let last = schedule.last_until(found, &zone, at("2026-01-01T00:00:00Z"));
        assert_eq!(last, Some(found), "the last until the next is the next");
    }
    found.map(|at| at.to_string())
}

#[track_caller]
fn expect(expression: &str, zone: &str, after: &str, expected: &str) {
    assert_eq!(
        next(expression, zone, after).as_deref(),
        Some(expected),
        "{expression} in {zone} after {after}"
    );
}

#[test]
fn six_fields_are_read_in_their_zone() {
    expect(
        "0 30 8 * * 1-5",
        "Asia/Shanghai",
        "2026-11-21T00:00:00Z",
        "2026-11-23T00:30:00Z",
    );
    expect(
        "0 30 8 * * 1-5",
        "UTC",
        "2026-11-21T00:00:00Z",
        "2026-11-23T08:30:00Z",
    );
    expect(
        "15 */10 * * * *",
        "UTC",
        "2026-11-21T10:10:15Z",
        "2026-11-21T10:20:15Z",
    );
    expect(
        "0 5/20 3 * * ?",
        "UTC",
        "2026-11-21T03:05:00Z",
        "2026-11-21T03:25:00Z",
    );
    expect(
        "0 0 0 1,15 JAN-mar *",
        "UTC",
        "2026-03-01T00:00:00Z",
        "2026-03-15T00:00:00Z",
    );
    expect(
        "0 0 12 ? dec SUN",
        "UTC",
        "2026-11-21T00:00:00Z",
        "2026-12-06T12:00:00Z",
    );
    expect(
        "0 0 0 31 12 *",
        "Asia/Kathmandu",
        "2026-01-01T00:00:00Z",
        "2026-12-30T18:15:00Z",
    );
}

#[test]
fn parts_of_a_second_are_later_than_the_second() {
    expect(
        "* * * * * *",
        "UTC",
        "2026-11-21T10:10:15.5Z",
        "2026-11-21T10:10:16Z",
    );
    expect(
        "* * * * * *",
        "UTC",
        "2026-11-21T10:10:15Z",
        "2026-11-21T10:10:16Z",
    );
}

#[test]
fn restricted_days_of_month_and_week_add_up_and_an_open_one_narrows() {
    expect(
        "0 0 0 13 * 5",
        "UTC",
        "2026-11-01T00:00:00Z",
        "2026-11-06T00:00:00Z",
    );
    expect(
        "0 0 0 * * 5",
        "UTC",
        "2026-11-06T00:00:00Z",
        "2026-11-13T00:00:00Z",
    );
    // A step over everything counts as open, as in every cron: odd Fridays only.
    expect(
        "0 0 0 */2 * 5",
        "UTC",
        "2026-11-01T00:00:00Z",
        "2026-11-13T00:00:00Z",
    );
}

#[test]
fn descriptors_mean_their_expressions() {
    let after = "2026-11-21T10:10:15Z";
    expect("@hourly", "UTC", after, "2026-11-21T11:00:00Z");
    expect("@daily", "UTC", after, "2026-11-22T00:00:00Z");
    expect("@midnight", "Asia/Shanghai", after, "2026-11-21T16:00:00Z");
    expect("@weekly", "UTC", after, "2026-11-22T00:00:00Z");
    expect("@monthly", "UTC", after, "2026-12-01T00:00:00Z");
    expect("@yearly", "UTC", after, "2027-01-01T00:00:00Z");
    expect("@annually", "UTC", after, "2027-01-01T00:00:00Z");
}

#[test]
fn every_counts_from_its_anchor_so_that_a_restart_shifts_nothing() {
    expect(
        "@every 1h30m",
        "UTC",
        "2026-01-01T04:00:00Z",
        "2026-01-01T04:30:00Z",
    );
    expect(
        "@every 1.5h",
        "UTC",
        "2026-01-01T04:30:00Z",
        "2026-01-01T06:00:00Z",
    );
    expect(
        "@every 300ms",
        "UTC",
        "2026-01-01T00:00:00Z",
        "2026-01-01T00:00:01Z",
    );
    for text in [
        "@every",
        "@every 5",
        "@every -5m",
        "@every 5x",
        "@every 1..2s",
        "@every 999999h",
    ] {
        assert!(Schedule::parse(text).is_err(), "{text}");
    }
}

#[test]
fn a_date_keeps_its_year_and_comes_once() {
    let expression = "@date 2026-11-15 09:00:00";
    expect(
        expression,
        "Asia/Shanghai",
        "2026-11-01T00:00:00Z",
        "2026-11-15T01:00:00Z",
    );
    assert_eq!(
        next(expression, "Asia/Shanghai", "2026-11-15T01:00:00Z"),
        None
    );
    assert!(Schedule::parse(expression).unwrap().is_single());
    assert!(Schedule::parse("@date 2026-13-15 09:00:00").is_err());
}

#[test]
fn five_fields_are_read_as_a_crontab_means_them() {
    // The original engine takes this for minute 9 of every hour in January.
    expect(
        "0 9 * * 1",
        "UTC",
        "2026-11-21T00:00:00Z",
        "2026-11-23T09:00:00Z",
    );
    expect(
        "*/5 * * * *",
        "UTC",
        "2026-11-21T00:01:00Z",
        "2026-11-21T00:05:00Z",
    );
    expect(
        "0 9 * * 7",
        "UTC",
        "2026-11-21T00:00:00Z",
        "2026-11-22T09:00:00Z",
    );
    expect(
        "0 9 * * 5-7",
        "UTC",
        "2026-11-21T10:00:00Z",
        "2026-11-22T09:00:00Z",
    );
    assert!(Schedule::parse("0 9 * * 1").unwrap().has_five_fields());
    assert!(!Schedule::parse("0 0 9 * * 1").unwrap().has_five_fields());
}

#[test]
fn leap_days_are_found_over_eight_years_and_what_never_comes_is_never() {
    expect(
        "0 0 0 29 2 *",
        "UTC",
        "2096-03-01T00:00:00Z",
        "2104-02-29T00:00:00Z",
    );
    expect(
        "0 0 0 29 2 *",
        "UTC",
        "2026-03-01T00:00:00Z",
        "2028-02-29T00:00:00Z",
    );
    assert_eq!(next("0 0 0 31 2 *", "UTC", "2026-03-01T00:00:00Z"), None);
}

#[test]
fn a_time_in_the_gap_acts_once_right_after_it() {
    let zone = "America/New_York";
    expect(
        "0 30 2 * * *",
        zone,
        "2026-03-08T06:00:00Z",
        "2026-03-08T07:00:00Z",
    );
    expect(
        "0 30 2 * * *",
        zone,
        "2026-03-08T07:00:00Z",
        "2026-03-09T06:30:00Z",
    );
    // Several times in the gap, and the moment after it, are one activation.
    expect(
        "0 */20 2,3 * * *",
        zone,
        "2026-03-08T06:59:59Z",
        "2026-03-08T07:00:00Z",
    );
    expect(
        "0 */20 2,3 * * *",
        zone,
        "2026-03-08T07:00:00Z",
        "2026-03-08T07:20:00Z",
    );
}

#[test]
fn a_time_that_comes_twice_acts_at_the_first() {
    let zone = "America/New_York";
    expect(
        "0 30 1 * * *",
        zone,
        "2026-11-01T05:00:00Z",
        "2026-11-01T05:30:00Z",
    );
    expect(
        "0 30 1 * * *",
        zone,
        "2026-11-01T05:30:00Z",
        "2026-11-02T06:30:00Z",
    );
    let schedule = Schedule::parse("0 30 1 * * *").unwrap();
    let zone = time_zone(zone).unwrap();
    let second_passing = at("2026-11-01T06:10:00Z");
    let last = schedule.last_until(second_passing, &zone, second_passing);
    assert_eq!(last, Some(at("2026-11-01T05:30:00Z")));
}

#[test]
fn a_day_that_a_country_left_out_acts_at_its_end() {
    // Samoa went from 29 to 31 December 2011.
    expect(
        "0 0 12 30 12 *",
        "Pacific/Apia",
        "2011-12-30T09:00:00Z",
        "2011-12-30T10:00:00Z",
    );
}

#[test]
fn what_cannot_be_read_names_the_field_and_the_remedy() {
    for (text, part) in [
        (
            "0 0 0 * * 7",
            "field day-of-week cannot be \"7\": it goes from 0 to 6, Sunday is 0",
        ),
        ("0 60 0 * * *", "field minute"),
        ("0 0 0 L * *", "field day-of-month"),
        ("0 0 0 * XYZ *", "JAN-DEC"),
        ("0 0 0 15W * *", "field day-of-month"),
        ("0 0 0 * * 5#2", "field day-of-week"),
        ("*/0 0 0 * * *", "a step must be 1 or more"),
        ("0 9-5 0 * * *", "must not run backwards"),
        ("0 , 0 * * *", "it is empty"),
        ("0 0 0 *", "found 4"),
        ("", "found 0"),
        ("@sometimes", "@yearly"),
    ] {
        let said = Schedule::parse(text).unwrap_err().to_string();
        assert!(said.contains(part), "{text}: {said}");
    }
    assert!(
        time_zone("Asia/Peking")
            .unwrap_err()
            .to_string()
            .contains("Asia/Shanghai")
    );
}

#[test]
fn exclusions_compare_dates_and_nothing_else() {
    let holiday = Exclusion::parse("* * * 15 11 *").unwrap();
    assert!(holiday.has(date(2026, 11, 15)) && holiday.has(date(2027, 11, 15)));
    assert!(!holiday.has(date(2026, 11, 16)) && !holiday.has(date(2026, 12, 15)));
    // The hour of an expression does not narrow the day.
    assert!(
        Exclusion::parse("0 0 9 15 11 *")
            .unwrap()
            .has(date(2026, 11, 15))
    );
    let fridays = Exclusion::parse("* * * * * 5").unwrap();
    assert!(fridays.has(date(2026, 11, 20)) && !fridays.has(date(2026, 11, 21)));
    for text in [
        "@date 2026-12-25 00:00:00",
        "@date 2026-12-25",
        "2026-12-25",
    ] {
        let one = Exclusion::parse(text).unwrap();
        assert!(
            one.has(date(2026, 12, 25)) && !one.has(date(2027, 12, 25)),
            "{text}"
        );
    }
    assert!(Exclusion::parse("@every 1h").is_err());
    assert!(Exclusion::parse("whenever").is_err());
}
