//! The flags of `springtide forecast`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Output;

#[derive(Debug, Args)]
pub struct ForecastArguments {
    #[command(subcommand)]
    pub command: ForecastCommand,
}

#[derive(Debug, Subcommand)]
pub enum ForecastCommand {
    /// Compare forecasts with what happened, and an autoscaler with and without them; see docs/elasticforecast.md.
    Backtest(BacktestArguments),
}

#[derive(Debug, Args)]
pub struct BacktestArguments {
    /// Lines `timestamp,value`; `-` reads standard input.
    pub csv: PathBuf,
    /// What one replica carries, in the unit of the values, such as 2000 or 2k; a twentieth of the highest value when absent.
    #[arg(long)]
    pub capacity_per_replica: Option<String>,
    /// How long a new replica takes until it serves.
    #[arg(long, default_value_t = 120, value_parser = clap::value_parser!(i64).range(0..=86_400))]
    pub startup_seconds: i64,
    /// What the autoscaler wants a replica to carry, in percent of its capacity.
    #[arg(long, default_value_t = 80, value_parser = clap::value_parser!(i64).range(1..=100))]
    pub target_percent: i64,
    /// The replicas are to suffice in this percentage of cases.
    #[arg(long, default_value_t = 95, value_parser = clap::value_parser!(i64).range(50..=99))]
    pub quantile: i64,
    /// `auto`, `day` or `week`; auto uses a period only when it stands out clearly.
    #[arg(long, default_value = "auto")]
    pub period: ForecastPeriod,
    /// Whose days and weeks the load follows, such as Asia/Shanghai.
    #[arg(long, default_value = "UTC")]
    pub time_zone: String,
    /// How many days at the end are compared.
    #[arg(long, default_value_t = 28, value_parser = clap::value_parser!(i64).range(1..=366))]
    pub days: i64,
    /// The length of a slot; the usual distance of the lines when absent.
    #[arg(long)]
    pub step_seconds: Option<i64>,
    /// The autoscaler's period.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(i64).range(1..=3600))]
    pub sync_seconds: i64,
    /// The autoscaler's least replicas.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i32).range(1..))]
    pub min_replicas: i32,
    /// The autoscaler's most replicas.
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(i32).range(1..))]
    pub max_replicas: i32,
    /// `text` or `json`.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

/// Which period a load has.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum ForecastPeriod {
    /// Found in the history.
    Auto,
    /// A day.
    Day,
    /// A week.
    Week,
}
