//! `springtide cloud logs`: the local log service by hand, and the devices of the example that write to it.

use std::time::Duration;

use anyhow::{Context, bail};
use cloud_api::log::client::LogClientConfig;
use cloud_api::log::model::{GetLogsRequest, Logstore};
use cloud_api::log::{Log, LogClient, LogGroup};
use cloud_api::{ClientSources, Credentials};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use tokio::time::{Instant, MissedTickBehavior};
use tool_load::curve::{Curve, reporting};

use super::arguments::{LogsCommand, LogstorePlace, ReplayArguments};
use crate::printer::{self, Step};
use crate::status::CloudStatus;

const TICK: Duration = Duration::from_secs(1);
/// Rooms of the chat that devices are spread over.
const ROOMS: u32 = 20;

pub async fn run(cloud: &CloudStatus, command: LogsCommand) -> anyhow::Result<()> {
    let client = client(cloud)?;
    match command {
        LogsCommand::Create { place, ttl, field } => create(&client, &place, ttl, &field).await,
        LogsCommand::Query { place, query, last } => ask(&client, &place, query, last).await,
        LogsCommand::Replay(arguments) => replay(&client, arguments).await,
    }
}

/// A client of a cluster's log service.
pub(crate) fn client(cloud: &CloudStatus) -> anyhow::Result<LogClient> {
    if cloud.sls.endpoint.is_empty() {
        bail!("the cluster was started by a version without a log service; start it again");
    }
    let credentials = Credentials::new(&cloud.access_key_id, &cloud.access_key_secret);
    let endpoint = format!("http://{}", cloud.sls.endpoint);
    let config = LogClientConfig::new(endpoint, &cloud.region, credentials);
    LogClient::new(config, ClientSources::system()).context("set up the log service's client")
}

async fn create(
    client: &LogClient,
    place: &LogstorePlace,
    ttl: u32,
    fields: &[(String, String)],
) -> anyhow::Result<()> {
    let LogstorePlace { project, logstore } = place;
    match client.create_project(project, "made by springtide").await {
        Err(error) if error.code() != "ProjectAlreadyExist" => return Err(error.into()),
        _ => {}
    }
    client
        .create_logstore(project, &Logstore::new(logstore, ttl))
        .await?;
    if !fields.is_empty() {
        let keys: Map<String, Value> = fields
            .iter()
            .map(|(name, kind)| (name.clone(), json!({"type": kind, "doc_value": true})))
            .collect();
        let index = json!({"line": {"caseSensitive": false}, "keys": keys});
        client.create_index(project, logstore, &index).await?;
    }
    printer::note(format!("logstore {logstore} of project {project} is there"));
    Ok(())
}

async fn ask(
    client: &LogClient,
    place: &LogstorePlace,
    query: String,
    last: Duration,
) -> anyhow::Result<()> {
    let now = Timestamp::now().as_second();
    let seconds = i64::try_from(last.as_secs()).unwrap_or(i64::MAX);
    let request = GetLogsRequest::new(query, now.saturating_sub(seconds).max(0), now + 1);
    let answer = client
        .get_logs(&place.project, &place.logstore, &request)
        .await?;
    if !answer.is_complete() {
        printer::note("only a part of the logs was looked at; ask for a shorter time with --last");
    }
    printer::data(serde_json::to_string_pretty(&answer.data)?);
    Ok(())
}

async fn replay(client: &LogClient, arguments: ReplayArguments) -> anyhow::Result<()> {
    let ReplayArguments {
        place,
        curve,
        day,
        lasting,
        peak,
        heartbeat,
    } = arguments;
    let read = || format!("use curve {}", curve.display());
    let text = std::fs::read_to_string(&curve).with_context(read)?;
    let curve = Curve::parse(&text, &day).with_context(read)?;
    let period = u32::try_from(heartbeat.as_secs())
        .unwrap_or(u32::MAX)
        .max(1);
    let step = Step::start(format!("{day} of the curve in {} s", lasting.as_secs()));
    let started = Instant::now();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut written = 0usize;
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            _ = ticks.tick() => {}
        }
        let elapsed = started.elapsed();
        if elapsed >= lasting {
            break;
        }
        let share = elapsed.as_secs_f64() / lasting.as_secs_f64();
        let active = active(curve.at(share), peak);
        let now = Timestamp::now();
        let group = heartbeats(active, now, period);
        if !group.logs.is_empty() {
            client
                .put_logs(&place.project, &place.logstore, &group)
                .await?;
        }
        written += group.logs.len();
        step.update(format!("{} of the day, {active} devices", clock(share)));
    }
    step.done(format!("{written} heartbeats written"));
    Ok(())
}

fn active(share: f64, peak: u32) -> u32 {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a share from 0 to 1 of a number of this type"
    )]
    let active = (share.clamp(0.0, 1.0) * f64::from(peak)).round() as u32;
    active
}

/// Time of day at a share of it.
fn clock(share: f64) -> String {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "minutes of one day"
    )]
    let minutes = (share.clamp(0.0, 1.0) * 1_440.0) as u32;
    format!("{:02}:{:02}", minutes / 60, minutes % 60)
}

fn heartbeats(active: u32, now: Timestamp, period: u32) -> LogGroup {
    let time = u32::try_from(now.as_second()).unwrap_or_default();
    let pair = |key: &str, value: String| (key.to_string(), value);
    let log = |device: u32| Log {
        time,
        time_ns: 0,
        contents: vec![
            pair("device_id", format!("device-{device:06}")),
            pair("event", "heartbeat".to_string()),
            pair("room", format!("room-{:02}", device % ROOMS)),
        ],
    };
    LogGroup {
        logs: reporting(active, time.into(), period).map(log).collect(),
        topic: "chat".to_string(),
        source: "devices".to_string(),
        tags: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_device_writes_once_in_a_period() {
        let now = Timestamp::from_second(1_704_164_645).unwrap();
        let logs: usize = (0..5)
            .map(|second| {
                heartbeats(103, now + jiff::SignedDuration::from_secs(second), 5)
                    .logs
                    .len()
            })
            .sum();
        assert_eq!(logs, 103);
        assert_eq!(
            (active(0.5, 8_000), active(2.0, 10), clock(0.75)),
            (4_000, 10, "18:00".to_string())
        );
    }
}
