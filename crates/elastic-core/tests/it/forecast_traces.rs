//! Forecasts over real demand: the taxis of New York, which have a clear week, and a load balancer's requests, which at
//! five minutes have no clear period.

use std::io::Read as _;

use elastic_core::forecast::{
    BacktestPolicy, Grid, PeriodChoice, Report, SimulationPolicy, backtest, parse_csv, usual_step,
};

const TAXIS: &[u8] = include_bytes!("../data/traces/nab-nyc-taxi-demand-30min-2014.csv.gz");
const REQUESTS: &[u8] = include_bytes!("../data/traces/nab-elb-request-count-5min-2014.csv.gz");

fn load(packed: &[u8]) -> Grid {
    let mut text = String::new();
    flate2::read::GzDecoder::new(packed)
        .read_to_string(&mut text)
        .unwrap();
    let samples = parse_csv(&text).unwrap();
    Grid::from_samples(
        &samples,
        usual_step(&samples).unwrap(),
        &jiff::tz::TimeZone::UTC,
    )
    .unwrap()
}

fn run(load: &Grid, capacity_per_replica: f64, period: PeriodChoice, days: i64) -> Report {
    starting(300, 80.0, load, capacity_per_replica, period, days)
}

/// Replicas that take so long to start, kept so full by the autoscaler.
fn starting(
    startup_seconds: i64,
    target_percent: f64,
    load: &Grid,
    capacity_per_replica: f64,
    period: PeriodChoice,
    days: i64,
) -> Report {
    let policy = BacktestPolicy {
        simulation: SimulationPolicy {
            capacity_per_replica,
            target_percent,
            startup_seconds,
            sync_seconds: 60,
            min_replicas: 1,
            max_replicas: 1000,
        },
        probability: 0.95,
        period,
        days,
    };
    backtest(load, &policy).unwrap()
}

#[test]
fn the_week_of_the_taxis_is_found_and_beats_repeating_last_week() {
    let report = run(&load(TAXIS), 2000.0, PeriodChoice::Auto, 14);
    assert_eq!(report.period, "Week");
    let (ours, naive) = (report.wape.unwrap(), report.seasonal_naive_wape.unwrap());
    assert!(ours < naive, "forecast {ours}, seasonal-naive {naive}");
    assert_eq!(report.forecast_slots, 14 * 48);
    // The band was learned from other days than those it is held against.
    let held = report.quantile_held.unwrap();
    assert!((0.8..=1.0).contains(&held), "{held}");
}

#[test]
fn slow_replicas_gain_from_the_forecast_and_quick_ones_only_pay_for_it() {
    let taxis = load(TAXIS);
    let slow = starting(1200, 90.0, &taxis, 2000.0, PeriodChoice::Auto, 7);
    let (alone, with) = (&slow.reactive, &slow.with_forecast);
    assert!(alone.unmet_demand > 0.0, "{slow:?}");
    assert!(with.unmet_demand < alone.unmet_demand / 2.0, "{slow:?}");
    // What it costs is told, and is no multiple.
    assert!(with.replica_hours < 1.5 * alone.replica_hours, "{slow:?}");
    // The curve is so smooth that a quick start and some room to spare leave nothing to gain.
    let quick = run(&taxis, 2000.0, PeriodChoice::Auto, 7);
    assert_eq!(quick.reactive.unmet_demand, 0.0, "{quick:?}");
    assert!(quick.with_forecast.replica_hours > quick.reactive.replica_hours);
}

#[test]
fn requests_without_a_clear_period_are_left_to_the_autoscaler() {
    let load = load(REQUESTS);
    assert!(load.missing() > 0);
    let report = run(&load, 20.0, PeriodChoice::Auto, 3);
    assert_eq!((report.period, report.wape), ("None", None));
    assert_eq!(report.reactive, report.with_forecast);
    assert!(report.seasonal_naive_wape.unwrap() > 0.3, "{report:?}");
}

#[test]
fn a_period_that_is_forced_on_bursts_shows_how_bad_it_is() {
    let report = run(&load(REQUESTS), 20.0, PeriodChoice::Day, 3);
    assert_eq!(report.period, "Day");
    assert!(report.period_strength.unwrap() < 0.3);
    assert!(report.wape.unwrap() > 0.3, "{report:?}");
}
