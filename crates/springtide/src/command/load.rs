//! `springtide load`: runs the load tester and shows it.

use std::process::ExitCode;

use tokio_util::sync::CancellationToken;
use tool_load::{LatencyMillis, LoadPlan, LoadReport, Target, closed_steps};

use crate::cli::{LoadArguments, Output};
use crate::printer::{self, Step};

pub async fn run(arguments: LoadArguments) -> anyhow::Result<ExitCode> {
    let LoadArguments {
        url,
        users,
        duration,
        steps,
        think_time,
        timeout,
        count_header,
        seed,
        output,
    } = arguments;
    let plan = LoadPlan {
        target: Target::parse(&url)?,
        stages: closed_steps(users, steps, duration),
        think_time,
        request_timeout: timeout,
        count_header,
        seed,
    };
    let shutdown = CancellationToken::new();
    let step = Step::start(format!(
        "{users} users at the top, {} s",
        duration.as_secs()
    ));
    let mut run = tool_load::run(plan, shutdown.clone()).await?;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => shutdown.cancel(),
            changed = run.live.changed() => {
                if changed.is_err() {
                    break;
                }
                let now = run.live.borrow().clone();
                step.update(format!(
                    "{} s  {} users  {} requests/s  {} failed  p95 {:.0} ms",
                    now.second, now.users, now.requests, now.failures, now.response_time.p95
                ));
            }
        }
    }
    let report = run.report().await?;
    step.done(format!("{} requests", report.requests));
    match output {
        Output::Json => printer::data(serde_json::to_string_pretty(&report)?),
        Output::Text => printer::data(text(&report)),
    }
    Ok(if report.requests > 0 && report.failures.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn text(report: &LoadReport) -> String {
    let line = |name: &str, latency: &LatencyMillis| {
        format!(
            "{name:<28} p50 {:>8.1}  p90 {:>8.1}  p95 {:>8.1}  p99 {:>8.1}  p99.9 {:>8.1}  max {:>8.1} ms\n",
            latency.p50, latency.p90, latency.p95, latency.p99, latency.p999, latency.max
        )
    };
    let mut text = format!(
        "requests                     {} ({:.1}/s over {:.1} s, at most {} users)\nsuccess                      {:.4} %\n",
        report.requests,
        report.requests_per_second,
        report.duration_seconds,
        report.users_peak,
        report.success_rate * 100.0
    );
    text += &line("response time (intended)", &report.response_time);
    text += &line("service time (sent)", &report.service_time);
    for (cause, count) in &report.failures {
        text += &format!("failed: {cause:<20} {count}\n");
    }
    for (value, count) in &report.header_values {
        text += &format!("  {value:<40} {count}\n");
    }
    text.trim_end().to_string()
}
