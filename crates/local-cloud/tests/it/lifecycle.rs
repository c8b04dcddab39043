//! From Scheduling to the end, on paper.

use crate::support::{ending, eventually, request, start, start_with};
use cloud_api::model::GroupStatus;
use cloud_api::model::create::{ContainerSpec, EnvironmentVarSpec};
use cloud_api::model::manage::DeleteContainerGroupRequest;
use local_cloud::backend::StartDelay;
use std::time::Duration;

#[tokio::test]
async fn a_job_succeeds_or_fails_by_its_exit_code() {
    let test = start().await;
    let good = test.create(&ending("good", "Never", "0@0.05")).await;
    let bad = test.create(&ending("bad", "Never", "3@0.05")).await;
    let good = test.until(&good, GroupStatus::Succeeded).await;
    assert!(good.succeeded_time.is_some());
    let bad = test.until(&bad, GroupStatus::Failed).await;
    let state = bad.containers[0].current_state.as_ref().unwrap();
    assert_eq!(
        (state.state.as_str(), state.exit_code),
        ("Terminated", Some(3))
    );
    assert!(bad.failed_time.is_some());
}

#[tokio::test]
async fn an_ended_group_costs_no_more_and_gives_its_place_back() {
    let test = start_with(
        |config| config.zones[0].stock_vcpu = Some(2.0),
        StartDelay::default(),
    )
    .await;
    let mut first = ending("first", "Never", "0@0.05");
    first.zone_id = Some("cn-hangzhou-h".to_owned());
    let id = test.create(&first).await;
    test.until(&id, GroupStatus::Succeeded).await;
    let mut second = request("second");
    second.zone_id = first.zone_id;
    eventually("stock is back", || async {
        test.client
            .call(&second)
            .await
            .map(|_| ())
            .map_err(|error| error.to_string())
    })
    .await;
    let ledger = test.cloud.ledger().await.unwrap();
    assert!(
        ledger
            .entries
            .iter()
            .find(|entry| entry.group_id == id)
            .unwrap()
            .until
            .is_some()
    );
}

#[tokio::test]
async fn a_failing_container_is_restarted_with_back_off() {
    let test = start().await;
    let id = test.create(&ending("crash", "Always", "1@0.01")).await;
    let group = eventually("three restarts", || async {
        let group = test.describe(&id).await.unwrap();
        if group.containers[0].restart_count >= 3 {
            Ok(group)
        } else {
            Err(format!("{group:?}"))
        }
    })
    .await;
    assert!(
        matches!(group.status, GroupStatus::Running | GroupStatus::Pending),
        "{:?}",
        group.status
    );
    assert_eq!(
        group.containers[0]
            .previous_state
            .as_ref()
            .unwrap()
            .exit_code,
        Some(1)
    );
    assert!(group.events.iter().any(|event| event.reason == "BackOff"));
}

#[tokio::test]
async fn on_failure_restarts_until_it_works_and_never_does_not() {
    let test = start().await;
    let id = test.create(&ending("fine", "OnFailure", "0@0.01")).await;
    let group = test.until(&id, GroupStatus::Succeeded).await;
    assert_eq!(group.containers[0].restart_count, 0);
}

#[tokio::test]
async fn init_containers_run_first_and_their_failure_is_the_group_s() {
    let test = start().await;
    let mut request = request("with-init");
    request.restart_policy = Some("Never".to_owned());
    let init = |exit: &str| ContainerSpec {
        name: "init".to_owned(),
        image: "busybox".to_owned(),
        environment_var: vec![EnvironmentVarSpec {
            key: "SIMULATED_EXIT".to_owned(),
            value: Some(exit.to_owned()),
            field_ref: None,
        }],
        ..Default::default()
    };
    request.init_container = vec![init("0@0.05")];
    let id = test.create(&request).await;
    let group = test.until(&id, GroupStatus::Running).await;
    assert_eq!(
        group.init_containers[0]
            .current_state
            .as_ref()
            .unwrap()
            .exit_code,
        Some(0)
    );
    request.init_container = vec![init("7@0.05")];
    let id = test.create(&request).await;
    let group = test.until(&id, GroupStatus::Failed).await;
    assert!(
        group
            .events
            .iter()
            .any(|event| event.reason == "InitContainerFailed")
    );
    assert_eq!(
        group.containers[0].current_state.as_ref().unwrap().state,
        "Waiting"
    );
}

#[tokio::test]
async fn the_active_deadline_ends_a_group() {
    let test = start().await;
    let mut request = request("short");
    request.active_deadline_seconds = Some(1);
    let id = test.create(&request).await;
    let group = test.until(&id, GroupStatus::Failed).await;
    assert!(
        group
            .events
            .iter()
            .any(|event| event.reason == "DeadlineExceeded")
    );
}

#[tokio::test]
async fn a_group_that_is_still_starting_can_be_deleted() {
    let delay = StartDelay {
        prepare: Duration::from_secs(3_600),
        ..Default::default()
    };
    let test = start_with(|_| {}, delay).await;
    let id = test.create(&request("slow")).await;
    test.until(&id, GroupStatus::Pending).await;
    let delete = DeleteContainerGroupRequest {
        container_group_id: id.clone(),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    test.until_gone(&id).await;
}

#[tokio::test]
async fn the_ledger_is_the_sum_of_size_price_and_seconds() {
    let test = start().await;
    for number in 0..5 {
        let mut request = ending(&format!("job-{number}"), "Never", "0@0.1");
        request.cpu = Some(0.25 * f64::from(1 << number));
        request.memory = Some(0.5 * f64::from(1 << number));
        let id = test.create(&request).await;
        if number % 2 == 0 {
            test.until(&id, GroupStatus::Succeeded).await;
        }
    }
    let ledger = test.cloud.ledger().await.unwrap();
    assert_eq!(ledger.entries.len(), 5);
    let halves: u128 = ledger
        .entries
        .iter()
        .map(|entry| {
            let seconds = entry.until.unwrap_or_else(jiff::Timestamp::now).as_second()
                - entry.from.as_second();
            let vcpu = u128::from(entry.size.vcpu_milli) * 4_900 * 2 / 1_000;
            (vcpu + u128::from(entry.size.memory_mib / 512) * 613)
                * u128::try_from(seconds).unwrap()
        })
        .sum();
    // Open entries may have grown by a second between the two looks at the clock.
    let amounts: u128 = ledger
        .entries
        .iter()
        .map(|entry| entry.per_second.0 * u128::from(entry.seconds))
        .sum();
    assert_eq!(ledger.total.0, amounts);
    assert!(halves * 5 >= amounts);
}
