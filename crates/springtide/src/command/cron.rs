//! `springtide cron next`: when the jobs of a CronHorizontalPodAutoscaler run next, from a manifest or from a cluster.

use std::io::Read;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use elastic_core::CronHorizontalPodAutoscaler;
use elastic_core::cron_horizontal_pod_autoscaler::{
    DEFAULT_TIME_ZONE, JobState, NextRun, Schedules, Situation, plan, upcoming,
};
use jiff::Timestamp;
use kube::{Api, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::cli::{CronArguments, CronCommand, CronNextArguments, Output};
use crate::data_dir::DataDir;
use crate::printer;

const KIND: &str = "CronHorizontalPodAutoscaler";

pub async fn run(arguments: CronArguments) -> anyhow::Result<ExitCode> {
    let CronCommand::Next(arguments) = arguments.command;
    let objects = if is_file(&arguments.object) {
        from_file(&arguments.object)?
    } else {
        vec![from_cluster(&arguments).await?]
    };
    let default_zone = arguments.time_zone.as_deref().unwrap_or(DEFAULT_TIME_ZONE);
    let now = Timestamp::now();
    let answers: Vec<Answer> = objects
        .iter()
        .map(|object| answer(object, default_zone, now, arguments.count))
        .collect();
    match arguments.output {
        Output::Json => printer::data(serde_json::to_string_pretty(&answers)?),
        Output::Text => answers
            .iter()
            .for_each(|answer| printer::data(text(answer))),
    }
    let sound = answers.iter().all(|answer| answer.problems.is_empty());
    Ok(if sound {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// What is said of one object.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    name: String,
    next_runs: Vec<NextRun>,
    /// Jobs that cannot be read, and why.
    problems: Vec<String>,
    /// What is understood, but perhaps not as it was meant.
    warnings: Vec<String>,
}

fn answer(
    object: &CronHorizontalPodAutoscaler,
    default_zone: &str,
    now: Timestamp,
    count: usize,
) -> Answer {
    let status = object.status.clone().unwrap_or_default();
    // The zone that the controller found, when it has looked at the object.
    let unnamed = |name: &str| {
        let job = object.spec.jobs.iter().find(|job| job.name == name);
        job.is_some_and(|job| job.time_zone.is_none()) && object.spec.time_zone.is_none()
    };
    let mut seen = status.conditions.iter().filter(|one| unnamed(&one.name));
    let found = seen.find_map(|one| one.time_zone.clone());
    let default_zone = found.as_deref().unwrap_or(default_zone);
    let situation = Situation {
        spec: &object.spec,
        schedules: &Schedules::read(&object.spec, default_zone),
        status: &status,
        generation: object.metadata.generation,
        created: object.creation_timestamp().map_or(now, |at| at.0),
        now,
        holder: "",
        ahead: None,
        default_zone,
    };
    let planned = plan(&situation, &mut String::new);
    let conditions = planned.status.conditions.iter();
    let refused = conditions.filter(|one| {
        one.state == JobState::Failed && one.message.starts_with("Failed to update cron hpa job")
    });
    let five = planned.events.iter();
    let five = five.filter(|event| event.reason == "FiveFieldSchedule");
    Answer {
        name: object.name_any(),
        next_runs: upcoming(&situation, count),
        problems: refused.map(|one| one.message.clone()).collect(),
        warnings: five.map(|event| event.message.clone()).collect(),
    }
}

fn text(answer: &Answer) -> String {
    let mut text = format!(
        "{:<20}  {:<40} {:<24} {:>5}",
        "UTC", "LOCAL TIME", "JOB", "SIZE"
    );
    for run in &answer.next_runs {
        let size = run
            .target_size
            .map_or("end".to_owned(), |size| size.to_string());
        let at = run.time.0;
        text += &format!(
            "\n{at:<20}  {:<40} {:<24} {size:>5}",
            run.local_time, run.job
        );
    }
    if answer.next_runs.is_empty() {
        text += &format!("\n{} has no runs to come", answer.name);
    }
    for problem in &answer.problems {
        text += &format!("\nproblem: {problem}");
    }
    for warning in &answer.warnings {
        text += &format!("\nwarning: {warning}");
    }
    text
}

fn is_file(object: &str) -> bool {
    let ends = [".yaml", ".yml", ".json"].iter();
    object == "-" || object.contains('/') || ends.clone().any(|end| object.ends_with(end))
}

fn from_file(path: &str) -> anyhow::Result<Vec<CronHorizontalPodAutoscaler>> {
    let text = if path == "-" {
        let mut text = String::new();
        std::io::stdin()
            .read_to_string(&mut text)
            .context("read standard input")?;
        text
    } else {
        std::fs::read_to_string(Path::new(path)).with_context(|| format!("read {path}"))?
    };
    let objects = parse(&text).with_context(|| format!("read {path}"))?;
    if objects.is_empty() {
        bail!("{path} holds no {KIND}");
    }
    Ok(objects)
}

fn parse(text: &str) -> anyhow::Result<Vec<CronHorizontalPodAutoscaler>> {
    let mut objects = Vec::new();
    for document in serde_yaml::Deserializer::from_str(text) {
        let value = Value::deserialize(document).context("it is not YAML")?;
        if value["kind"] == KIND {
            let name = value["metadata"]["name"].clone();
            let object = serde_json::from_value(value);
            objects.push(object.with_context(|| format!("{KIND} {name}"))?);
        }
    }
    Ok(objects)
}

async fn from_cluster(
    arguments: &CronNextArguments,
) -> anyhow::Result<CronHorizontalPodAutoscaler> {
    let client = match &arguments.kubeconfig {
        Some(path) => super::client_from(path).await?,
        None => super::client(&DataDir::new(&arguments.cluster.data_dir)).await?,
    };
    let (namespace, name) = (&arguments.namespace, &arguments.object);
    let objects: Api<CronHorizontalPodAutoscaler> = Api::namespaced(client, namespace);
    let found = objects.get(name).await;
    found.with_context(|| {
        format!("get {KIND} {namespace}/{name}; a file's name ends in .yaml, .yml or .json")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MANIFEST: &str =
        include_str!("../../../../examples/tidal-cron/50-cronhorizontalpodautoscaler.yaml");

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_manifest_shows_its_runs_in_local_time() {
        let objects = parse(&format!("kind: Other\n---\n{MANIFEST}")).unwrap();
        let answer = answer(&objects[0], "UTC", at("2026-11-20T00:00:00Z"), 2);
        let shown = text(&answer);
        assert!(
            shown.contains("2026-11-20 20:00:00 Asia/Shanghai"),
            "{shown}"
        );
        assert_eq!(answer.next_runs.len(), 2);
        assert!(answer.problems.is_empty() && answer.warnings.is_empty());
    }

    #[test]
    fn what_is_wrong_or_unusual_is_said() {
        let text = r#"{"kind": "CronHorizontalPodAutoscaler", "metadata": {"name": "x"}, "spec": {
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "web"},
            "jobs": [{"name": "bad", "schedule": "x", "targetSize": 1}, {"name": "five", "schedule": "0 9 * * 1", "targetSize": 1}]}}"#;
        let object = &parse(text).unwrap()[0];
        let answer = answer(object, "UTC", at("2026-11-20T00:00:00Z"), 3);
        assert!(answer.problems[0].contains("job bad"), "{answer:?}");
        assert!(answer.warnings[0].contains("five fields"), "{answer:?}");
        assert!(parse("kind: CronHorizontalPodAutoscaler\nspec: 3").is_err());
    }
}
