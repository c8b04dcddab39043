//! DescribeContainerGroupMetric and DescribeMultiContainerGroupMetric.

use super::Call;
use super::filter::{MAX_IDS, given};
use crate::backend::{ContainerUsage, GroupPlan};
use crate::gateway::refusal::Refusal;
use crate::metrics::Sample;
use crate::shared::plan_of;
use cloud_api::model::GroupStatus;
use cloud_api::model::metrics::*;
use cloud_api::time;
use jiff::{SignedDuration, Timestamp};

const MAX_RECORDS: usize = 50;
const DEFAULT_WINDOW: SignedDuration = SignedDuration::from_mins(5);

pub(crate) async fn one(
    call: &Call<'_>,
    request: DescribeContainerGroupMetricRequest,
) -> Result<DescribeContainerGroupMetricResponse, Refusal> {
    call.need(&["ContainerGroupId"])?;
    let id = request.container_group_id;
    let plan = call
        .shared
        .state()
        .groups
        .get(&id)
        .map(plan_of)
        .ok_or_else(|| Refusal::no_group(&id))?;
    let period = match given(&request.period).unwrap_or("60").parse::<i64>() {
        Ok(period @ (15 | 30 | 60 | 600)) => period,
        _ => return Err(Refusal::invalid("Period", "it must be 15, 30, 60 or 600")),
    };
    let end = moment(given(&request.end_time), "EndTime")?.unwrap_or_else(|| call.shared.now());
    let start =
        moment(given(&request.start_time), "StartTime")?.unwrap_or_else(|| end - DEFAULT_WINDOW);
    let spans = (end.as_second() - start.as_second()) / period;
    if start > end || spans > 50 {
        let rule = format!("from StartTime to EndTime there may be at most {MAX_RECORDS} periods");
        return Err(Refusal::invalid("StartTime", rule));
    }
    let samples = if call.shared.backend.is_simulated() {
        paper_samples(call, &plan).await?
    } else {
        call.shared.samples.of(&id)
    };
    let records = pick(&samples, start, end, period);
    let records = records
        .into_iter()
        .map(|(before, now)| record(&plan, before, now))
        .collect();
    Ok(DescribeContainerGroupMetricResponse {
        container_group_id: id,
        records,
        ..Default::default()
    })
}

/// The last sample of every period, each with the one before it.
fn pick(
    samples: &[Sample],
    start: Timestamp,
    end: Timestamp,
    period: i64,
) -> Vec<(Option<&Sample>, &Sample)> {
    let mut picked: Vec<(i64, Option<&Sample>, &Sample)> = Vec::new();
    let mut before = None;
    for sample in samples {
        if (start..=end).contains(&sample.at) {
            let span = (sample.at.as_second() - start.as_second()) / period;
            if picked.last().is_some_and(|(last, ..)| *last == span) {
                picked.pop();
            }
            picked.push((span, before, sample));
        }
        before = Some(sample);
    }
    let skipped = picked.len().saturating_sub(MAX_RECORDS);
    picked
        .into_iter()
        .skip(skipped)
        .map(|(_, before, sample)| (before, sample))
        .collect()
}

fn moment(text: Option<&str>, name: &str) -> Result<Option<Timestamp>, Refusal> {
    let parse = |text| {
        time::parse(text)
            .ok_or_else(|| Refusal::invalid(name, "it must be a time such as 2024-01-02T03:04:05Z"))
    };
    text.map(parse).transpose()
}

pub(crate) async fn many(
    call: &Call<'_>,
    request: DescribeMultiContainerGroupMetricRequest,
) -> Result<DescribeMultiContainerGroupMetricResponse, Refusal> {
    call.need(&["RegionId", "ContainerGroupIds"])?;
    if request.container_group_ids.len() > MAX_IDS {
        return Err(Refusal::invalid(
            "ContainerGroupIds",
            format!("at most {MAX_IDS} ids are allowed"),
        ));
    }
    let mut monitor_datas = Vec::new();
    for id in request.container_group_ids {
        let running = {
            let state = call.shared.state();
            state
                .groups
                .get(&id)
                .filter(|group| group.status == GroupStatus::Running)
                .map(plan_of)
        };
        let Some(plan) = running else { continue };
        let newest = if call.shared.backend.is_simulated() {
            let mut samples = paper_samples(call, &plan).await?;
            samples.pop().map(|newest| (samples.pop(), newest))
        } else {
            call.shared.samples.newest(&id)
        };
        if let Some((before, now)) = newest {
            let records = vec![record(&plan, before.as_ref(), &now)];
            monitor_datas.push(MonitorData {
                container_group_id: id,
                records,
            });
        }
    }
    Ok(DescribeMultiContainerGroupMetricResponse {
        monitor_datas,
        ..Default::default()
    })
}

/// Groups on paper are not sampled; what they use now, and used a second ago, follows from their model.
async fn paper_samples(call: &Call<'_>, plan: &GroupPlan) -> Result<Vec<Sample>, Refusal> {
    let containers = call.shared.backend.usage(plan).await;
    let containers = containers.map_err(|error| Refusal::internal(error.to_string()))?;
    let at = call.shared.now();
    let origin = Sample {
        at: plan_start(call, plan).unwrap_or(at),
        containers: idle(&containers),
    };
    Ok(vec![origin, Sample { at, containers }])
}

fn plan_start(call: &Call<'_>, plan: &GroupPlan) -> Option<Timestamp> {
    let state = call.shared.state();
    let group = state.groups.get(&plan.id)?;
    group
        .containers
        .iter()
        .filter_map(|container| container.state.started_at())
        .min()
}

fn idle(containers: &[ContainerUsage]) -> Vec<ContainerUsage> {
    containers
        .iter()
        .map(|container| ContainerUsage {
            cpu_nanos: 0,
            ..container.clone()
        })
        .collect()
}

fn record(plan: &GroupPlan, before: Option<&Sample>, now: &Sample) -> MetricRecord {
    let limit = u64::from(plan.size.vcpu_milli);
    let memory_limit = u64::from(plan.size.memory_mib) * 1024 * 1024;
    let elapsed = before.map_or(0, |before| {
        now.at.as_nanosecond() - before.at.as_nanosecond()
    });
    let earlier = |name: &str| {
        let containers = before.iter().flat_map(|before| &before.containers);
        containers
            .into_iter()
            .find(|container| container.name == name)
            .map_or(0, |container| container.cpu_nanos)
    };
    let containers: Vec<ContainerMetric> = now
        .containers
        .iter()
        .map(|container| {
            // A container that was started anew counts from nothing.
            let used = container
                .cpu_nanos
                .checked_sub(earlier(&container.name))
                .unwrap_or(container.cpu_nanos);
            let rate = if elapsed > 0 {
                i128::from(used) * 1_000_000_000 / elapsed
            } else {
                0
            };
            ContainerMetric {
                name: container.name.clone(),
                cpu: CpuMetric {
                    usage_nano_cores: u64::try_from(rate).unwrap_or_default(),
                    usage_core_nano_seconds: container.cpu_nanos,
                    load: 0,
                    limit,
                },
                memory: memory(container, memory_limit),
            }
        })
        .collect();
    let sum = |member: fn(&ContainerMetric) -> u64| containers.iter().map(member).sum::<u64>();
    let working_set = sum(|container| container.memory.working_set);
    MetricRecord {
        timestamp: time::format(now.at),
        cpu: CpuMetric {
            usage_nano_cores: sum(|container| container.cpu.usage_nano_cores),
            usage_core_nano_seconds: sum(|container| container.cpu.usage_core_nano_seconds),
            load: 0,
            limit,
        },
        memory: MemoryMetric {
            usage_bytes: sum(|container| container.memory.usage_bytes),
            working_set,
            rss: sum(|container| container.memory.rss),
            cache: sum(|container| container.memory.cache),
            available_bytes: memory_limit.saturating_sub(working_set),
        },
        network: NetworkMetric::default(),
        containers,
    }
}

fn memory(container: &ContainerUsage, limit: u64) -> MemoryMetric {
    MemoryMetric {
        usage_bytes: container.usage_bytes,
        working_set: container.working_set_bytes,
        rss: container.rss_bytes,
        cache: container.usage_bytes.saturating_sub(container.rss_bytes),
        available_bytes: limit.saturating_sub(container.working_set_bytes),
    }
}
