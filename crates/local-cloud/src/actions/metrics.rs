//! DescribeContainerGroupMetric and DescribeMultiContainerGroupMetric.

use super::Call;
use super::filter::{MAX_IDS, given};
use crate::backend::{ContainerUsage, GroupPlan, InterfaceUsage};
use crate::gateway::refusal::Refusal;
use crate::metrics::Sample;
use crate::shared::plan_of;
use cloud_api::catalog::FREE_EPHEMERAL_GIB;
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
        paper_samples(call, &plan, start, end, period).await?
    } else {
        call.shared.samples.of(&id)
    };
    let records = pick(&samples, start, end, period);
    let records = records
        .into_iter()
        .map(|(before, now)| record(&plan, before, now, true))
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
            let now = call.shared.now();
            let mut samples = paper_samples(call, &plan, now, now, 1).await?;
            samples.pop().map(|newest| (samples.pop(), newest))
        } else {
            call.shared.samples.newest(&id)
        };
        if let Some((before, now)) = newest {
            let records = vec![record(&plan, before.as_ref(), &now, false)];
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

/// Groups on paper are not sampled; what they used at a moment follows from their model: each period's end, the
/// newest being now, after an origin at which nothing had been used.
async fn paper_samples(
    call: &Call<'_>,
    plan: &GroupPlan,
    start: Timestamp,
    end: Timestamp,
    period: i64,
) -> Result<Vec<Sample>, Refusal> {
    let containers = call.shared.backend.usage(plan).await;
    let containers = containers.map_err(|error| Refusal::internal(error.to_string()))?;
    let now = call.shared.now();
    let origin = plan_start(call, plan).unwrap_or(now);
    let lived = (now.as_second() - origin.as_second()).max(1) as f64;
    let mut samples = vec![Sample {
        at: origin,
        containers: scaled(&containers, 0.0),
        interfaces: Vec::new(),
    }];
    let (first, last) = (start.as_second(), end.min(now).as_second());
    let ends = (1..).map(|span| first + span * period);
    for second in ends.take_while(|second| *second < last) {
        if let Ok(at) = Timestamp::from_second(second)
            && at > origin
        {
            let share = (second - origin.as_second()) as f64 / lived;
            samples.push(Sample {
                at,
                containers: scaled(&containers, share.clamp(0.0, 1.0)),
                interfaces: Vec::new(),
            });
        }
    }
    samples.push(Sample {
        at: now,
        containers,
        interfaces: Vec::new(),
    });
    Ok(samples)
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

/// The same containers after a share of their processor time.
fn scaled(containers: &[ContainerUsage], share: f64) -> Vec<ContainerUsage> {
    containers
        .iter()
        .map(|container| ContainerUsage {
            cpu_nanos: (container.cpu_nanos as f64 * share) as u64,
            ..container.clone()
        })
        .collect()
}

fn record(plan: &GroupPlan, before: Option<&Sample>, now: &Sample, single: bool) -> MetricRecord {
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
        network: NetworkMetric {
            interfaces: now.interfaces.iter().map(interface).collect(),
        },
        filesystem: vec![root_file_system(plan, single)],
        disk: Vec::new(),
        containers,
    }
}

fn interface(usage: &InterfaceUsage) -> InterfaceMetric {
    let [rx_bytes, rx_packets, rx_errors, rx_drops] = usage.received;
    let [tx_bytes, tx_packets, tx_errors, tx_drops] = usage.sent;
    InterfaceMetric {
        name: usage.name.clone(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_drops,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_drops,
    }
}

/// The scratch space that the group has; what of it is used is not measured.
fn root_file_system(plan: &GroupPlan, single: bool) -> FilesystemMetric {
    let extra = plan.request.ephemeral_storage.unwrap_or_default();
    let gib = FREE_EPHEMERAL_GIB + u64::try_from(extra).unwrap_or_default();
    FilesystemMetric {
        fs_name: "/".to_owned(),
        category: single.then(|| "System".to_owned()),
        capacity: gib << 30,
        usage: 0,
        available: gib << 30,
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
