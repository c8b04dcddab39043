//! CronJobs with their Jobs, pods and events.

use serde_json::{Value, json};

use super::world::World;

const CRON_JOBS: &str = "/apis/batch/v1/namespaces/default/cronjobs";
const JOBS: &str = "/apis/batch/v1/namespaces/default/jobs";
const PODS: &str = "/api/v1/namespaces/default/pods";
const EVENTS: &str = "/api/v1/namespaces/default/events";

fn cron_job(name: &str, schedule: &str, policy: &str, labels: Value) -> Value {
    json!({
        "metadata": {"name": name},
        "spec": {
            "schedule": schedule, "concurrencyPolicy": policy, "successfulJobsHistoryLimit": 1,
            "jobTemplate": {"metadata": {"labels": {"made": "by-cron"}}, "spec": {"template": {
                "metadata": {"labels": labels},
                "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}}}}
        }
    })
}

fn count(list: &Value) -> usize {
    list["items"].as_array().map_or(0, Vec::len)
}

fn has_event(list: &Value, reason: &str) -> bool {
    let mut items = list["items"].as_array().into_iter().flatten();
    items.any(|event| event["reason"] == reason)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn jobs_are_made_on_time_and_old_ones_go_until_it_is_suspended_and_deleted() {
    let world = World::with_nodes().await;
    let body = cron_job("report", "@every 1s", "Forbid", json!({}));
    world.act("POST", CRON_JOBS, body).await;
    let path = format!("{CRON_JOBS}/report");
    let succeeded = |cron: &Value| cron["status"]["lastSuccessfulTime"].is_string();
    world.until(&path, "a job has succeeded", succeeded).await;
    let retired = |events: &Value| {
        ["SuccessfulCreate", "SawCompletedJob", "SuccessfulDelete"]
            .iter()
            .all(|reason| has_event(events, reason))
    };
    world.until(EVENTS, "old jobs are retired", retired).await;
    let jobs = world.act("GET", JOBS, Value::Null).await;
    let job = &jobs["items"][0];
    assert_eq!(job["metadata"]["labels"]["made"], "by-cron");
    assert_eq!(job["metadata"]["ownerReferences"][0]["kind"], "CronJob");
    let made_for =
        &job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"];
    assert!(made_for.as_str().unwrap().ends_with('Z'), "{made_for}");

    let suspend = json!({"spec": {"suspend": true}});
    world.act("PATCH", &path, suspend).await;
    let idle = |cron: &Value| cron["status"].get("active").is_none();
    world.until(&path, "running jobs end", idle).await;
    let limit = |jobs: &Value| count(jobs) == 1;
    world.until(JOBS, "the history has its limit", limit).await;
    world
        .act("DELETE", &path, json!({"propagationPolicy": "Background"}))
        .await;
    world
        .until(JOBS, "its jobs go with it", |jobs| count(jobs) == 0)
        .await;
    world
        .until(PODS, "and their pods", |pods| count(pods) == 0)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_job_makes_the_next_one_wait_or_is_replaced() {
    let world = World::with_nodes().await;
    let manual = json!({"manual": "1"});
    let body = cron_job("waits", "@every 1s", "Forbid", manual.clone());
    world.act("POST", CRON_JOBS, body).await;
    let told = |events: &Value| has_event(events, "JobAlreadyActive");
    world.until(EVENTS, "the next one waits", told).await;
    assert_eq!(count(&world.act("GET", JOBS, Value::Null).await), 1);
    world
        .act(
            "DELETE",
            &format!("{CRON_JOBS}/waits"),
            json!({"propagationPolicy": "Background"}),
        )
        .await;
    world
        .until(JOBS, "its job goes", |jobs| count(jobs) == 0)
        .await;

    let body = cron_job("replaces", "@every 1s", "Replace", manual);
    world.act("POST", CRON_JOBS, body).await;
    let path = format!("{CRON_JOBS}/replaces");
    let active = |cron: &Value| cron["status"]["active"][0]["name"].is_string();
    let cron = world.until(&path, "a job runs", active).await;
    let first = cron["status"]["active"][0]["name"].clone();
    let another = |cron: &Value| {
        let active = &cron["status"]["active"];
        active.as_array().map(Vec::len) == Some(1) && active[0]["name"] != first
    };
    world
        .until(&path, "another one runs instead", another)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_time_zone_that_does_not_exist_is_told() {
    let world = World::with_nodes().await;
    let mut body = cron_job("lost", "0 8 * * *", "Allow", json!({}));
    body["spec"]["timeZone"] = json!("Mars/Base");
    world.act("POST", CRON_JOBS, body).await;
    let told = |events: &Value| has_event(events, "UnknownTimeZone");
    world.until(EVENTS, "the zone is told", told).await;
}
