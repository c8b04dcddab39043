//! `springtide forecast backtest`: what forecasts would have been worth, from a file of measurements.

use std::fmt::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use elastic_core::cron::time_zone;
use elastic_core::forecast::{
    BacktestPolicy, Grid, Outcome, PeriodChoice, Report, SimulationPolicy, backtest, parse_csv,
    parse_quantity, usual_step,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use serde_json::json;

use crate::cli::{BacktestArguments, ForecastArguments, ForecastCommand, ForecastPeriod, Output};
use crate::printer;

/// Replicas at the highest value when no capacity is said.
const REPLICAS_AT_PEAK: f64 = 20.0;

pub fn run(arguments: ForecastArguments) -> anyhow::Result<ExitCode> {
    let ForecastCommand::Backtest(arguments) = arguments.command;
    let load = read(&arguments)?;
    let capacity = capacity(&arguments, &load)?;
    let policy = policy(&arguments, capacity);
    let report = backtest(&load, &policy)
        .with_context(|| format!("backtest {}", arguments.csv.display()))?;
    match arguments.output {
        Output::Json => printer::data(serde_json::to_string_pretty(&json!({
            "stepSeconds": load.step_seconds(), "capacityPerReplica": capacity,
            "startupSeconds": arguments.startup_seconds, "targetPercent": arguments.target_percent,
            "quantile": arguments.quantile, "report": report,
        }))?),
        Output::Text => printer::data(text(&report, &arguments, capacity)),
    }
    Ok(ExitCode::SUCCESS)
}

fn read(arguments: &BacktestArguments) -> anyhow::Result<Grid> {
    let path = &arguments.csv;
    let text = if path.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())
    } else {
        std::fs::read_to_string(path)
    };
    let about = || format!("read the history {}", path.display());
    let samples = parse_csv(&text.with_context(about)?).with_context(about)?;
    let step = arguments.step_seconds.or_else(|| usual_step(&samples));
    let step = step.with_context(|| {
        format!(
            "{} holds one time only; a history needs more",
            path.display()
        )
    })?;
    let zone = time_zone(&arguments.time_zone).context("--time-zone")?;
    Grid::from_samples(&samples, step, &zone).with_context(about)
}

fn capacity(arguments: &BacktestArguments, load: &Grid) -> anyhow::Result<f64> {
    let Some(text) = &arguments.capacity_per_replica else {
        let highest = load.values().iter().flatten().copied().fold(0.0, f64::max);
        if highest <= 0.0 {
            bail!("the history never rises above 0; say --capacity-per-replica");
        }
        return Ok(highest / REPLICAS_AT_PEAK);
    };
    match parse_quantity(&IntOrString::String(text.clone())) {
        Some(capacity) if capacity > 0.0 => Ok(capacity),
        _ => bail!("--capacity-per-replica {text}: must be a quantity above 0, such as 2000 or 2k"),
    }
}

fn policy(arguments: &BacktestArguments, capacity_per_replica: f64) -> BacktestPolicy {
    let percent = |value: i64| i32::try_from(value).map_or(0.0, f64::from);
    BacktestPolicy {
        simulation: SimulationPolicy {
            capacity_per_replica,
            target_percent: percent(arguments.target_percent),
            startup_seconds: arguments.startup_seconds,
            sync_seconds: arguments.sync_seconds,
            min_replicas: arguments.min_replicas,
            max_replicas: arguments.max_replicas,
        },
        probability: percent(arguments.quantile) / 100.0,
        period: match arguments.period {
            ForecastPeriod::Auto => PeriodChoice::Auto,
            ForecastPeriod::Day => PeriodChoice::Day,
            ForecastPeriod::Week => PeriodChoice::Week,
        },
        days: arguments.days,
    }
}

fn text(report: &Report, arguments: &BacktestArguments, capacity: f64) -> String {
    let percent = |share: Option<f64>| {
        share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
    };
    let mut out = String::new();
    let mut line =
        |text: String| writeln!(out, "{text}").expect("writing into a string cannot fail");
    line(format!(
        "Learned from {:.1} days, compared {:.1} days; {} slots without a value. One replica carries {capacity:.1}, starts in {} s.",
        report.learned_days, report.compared_days, report.missing_slots, arguments.startup_seconds
    ));
    let strength = report
        .period_strength
        .map(|strength| format!(" (autocorrelation {strength:.2})"));
    line(format!(
        "Period: {}{}",
        report.period,
        strength.unwrap_or_default()
    ));
    line(format!(
        "Error (WAPE): forecast {}, seasonal-naive {}",
        percent(report.wape),
        percent(report.seasonal_naive_wape)
    ));
    line(format!(
        "Load below the {} % quantile: {}",
        arguments.quantile,
        percent(report.quantile_held)
    ));
    line(String::new());
    line(format!(
        "{:<34}{:>14}{:>14}",
        "", "reactive", "with forecast"
    ));
    let mut row = |name: &str, show: &dyn Fn(&Outcome) -> String| {
        line(format!(
            "{name:<34}{:>14}{:>14}",
            show(&report.reactive),
            show(&report.with_forecast)
        ));
    };
    row("replica-hours", &|outcome| {
        format!("{:.1}", outcome.replica_hours)
    });
    row("unmet demand", &|outcome| {
        format!("{:.1}", outcome.unmet_demand)
    });
    row("unmet share of the demand", &|outcome| {
        format!("{:.3} %", outcome.unmet_share * 100.0)
    });
    row("under-provisioned minutes", &|outcome| {
        format!("{:.0}", outcome.under_provisioned_minutes)
    });
    row("over-provisioned replica-minutes", &|outcome| {
        format!("{:.0}", outcome.over_provisioned_replica_minutes)
    });
    row("changes of the replicas", &|outcome| {
        outcome.rescales.to_string()
    });
    line(String::new());
    line(verdict(report));
    out.trim_end().to_owned()
}

/// What the numbers say, in a sentence.
fn verdict(report: &Report) -> String {
    if report.forecast_slots == 0 {
        return "No period stands out clearly, so nothing is forecast: the autoscaler alone decides.".to_owned();
    }
    let (alone, with) = (&report.reactive, &report.with_forecast);
    let cost = (with.replica_hours / alone.replica_hours.max(f64::MIN_POSITIVE) - 1.0) * 100.0;
    let is_better = report.wape < report.seasonal_naive_wape;
    let error = if is_better { "better" } else { "no better" };
    let gain = if alone.unmet_demand == 0.0 {
        "the autoscaler alone leaves no demand unmet, so there is nothing to gain".to_owned()
    } else {
        let share = (1.0 - with.unmet_demand / alone.unmet_demand) * 100.0;
        format!("the unmet demand changes by {:+.1} %", -share)
    };
    format!(
        "The forecast is {error} than repeating the last period; {gain}, for {cost:+.1} % replica-hours."
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcome(replica_hours: f64, unmet_demand: f64) -> Outcome {
        Outcome {
            replica_hours,
            unmet_share: 0.0,
            unmet_demand,
            under_provisioned_minutes: 0.0,
            over_provisioned_replica_minutes: 0.0,
            rescales: 0,
        }
    }

    fn report(forecast_slots: usize, unmet: (f64, f64)) -> Report {
        Report {
            period: "Day",
            period_strength: Some(0.9),
            learned_days: 7.0,
            compared_days: 7.0,
            missing_slots: 0,
            forecast_slots,
            wape: Some(0.1),
            seasonal_naive_wape: Some(0.2),
            quantile_held: Some(0.95),
            reactive: outcome(100.0, unmet.0),
            with_forecast: outcome(110.0, unmet.1),
        }
    }

    #[test]
    fn the_verdict_says_when_a_forecast_is_worth_nothing() {
        assert!(verdict(&report(0, (5.0, 5.0))).starts_with("No period"));
        assert!(verdict(&report(9, (0.0, 0.0))).contains("nothing to gain, for +10.0 %"));
        assert!(verdict(&report(9, (8.0, 2.0))).contains("changes by -75.0 %"));
    }
}
