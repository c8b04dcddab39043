//! Forecasts of a load with a daily or weekly shape, and what to do with them: a regular grid from samples, the test for
//! a period, the forecast with quantiles, the replicas to have ready, and the comparison with what happened.
//!
//! A forecast only ever asks for more than the reactive autoscaler. A load without a clear period is left to the
//! autoscaler alone, and so is one whose history is too short.

mod backtest;
mod crd;
mod csv;
mod declared;
mod error;
mod grid;
mod kind;
mod model;
mod plan;
mod publish;
mod season;
mod simulate;
mod startup;
mod validation;

pub use backtest::{BacktestError, BacktestPolicy, Outcome, Report, backtest};
pub use crd::custom_resource_definition;
pub use csv::{CsvError, parse_csv};
pub use declared::{DeclaredTime, declared_times};
pub use error::ErrorMeasure;
pub use grid::{Grid, GridError, Sample, usual_step};
pub use kind::{
    CsvSource, ElasticForecast, ElasticForecastSpec, ElasticForecastStatus, ForecastError,
    ForecastMode, ForecastSource, ForecastValue, HistoryStatus, KeyReference, PeriodChoice,
    PrometheusSource, ScaleTarget, Window,
};
pub use model::Model;
pub use plan::{Plan, Policy, QuantileValue, State, Verdict, horizon_slots, plan};
pub use publish::{FORECAST_METRIC, REPLICAS_METRIC, Series, parse_quantity, quantity, series};
pub use season::{PeriodLength, Season, detect};
pub use simulate::{Simulation, SimulationPolicy, simulate};
pub use startup::{Startup, StartupSource, startup};
pub use validation::{validate, zone};
