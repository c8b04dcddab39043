//! Faults on demand.

use crate::support::{client, open, paper, quick, request, start};
use cloud_api::model::GroupStatus;
use cloud_api::model::describe::DescribeContainerGroupsRequest;
use local_cloud::backend::StartDelay;
use local_cloud::{Fault, FaultOrder};
use std::time::{Duration, Instant};

fn order(fault: Fault, times: Option<u64>) -> FaultOrder {
    FaultOrder {
        fault,
        action: None,
        times,
        seconds: None,
    }
}

#[tokio::test]
async fn stock_and_addresses_run_out_where_they_are_told_to() {
    let test = start().await;
    let zone = Some("cn-hangzhou-h".to_owned());
    test.cloud
        .order_fault(order(Fault::NoStock { zone, spec: None }, Some(1)))
        .unwrap();
    let v_switch = Some("vsw-local-i".to_owned());
    test.cloud
        .order_fault(order(
            Fault::NoAddresses {
                zone: None,
                v_switch,
            },
            Some(1),
        ))
        .unwrap();
    let id = test.create(&request("third-choice")).await;
    assert_eq!(test.describe(&id).await.unwrap().zone_id, "cn-hangzhou-j");
    let id = test.create(&request("first-choice")).await;
    assert_eq!(test.describe(&id).await.unwrap().zone_id, "cn-hangzhou-h");
    test.cloud
        .order_fault(order(
            Fault::NoAddresses {
                zone: None,
                v_switch: None,
            },
            None,
        ))
        .unwrap();
    let error = test.client.call(&request("none")).await.unwrap_err();
    assert!(error.is_address_exhausted(), "{error}");
}

#[tokio::test]
async fn an_instance_fails_now_or_when_it_comes() {
    let test = start().await;
    let first = test.create(&request("first")).await;
    test.until(&first, GroupStatus::Running).await;
    let fault = Fault::InstanceFailure {
        group: Some(first.clone()),
        zone: None,
    };
    test.cloud.order_fault(order(fault, None)).unwrap();
    let failed = test.until(&first, GroupStatus::Failed).await;
    assert!(
        failed
            .events
            .iter()
            .any(|event| event.reason == "SystemFailure.Reboot")
    );
    test.cloud
        .order_fault(order(
            Fault::InstanceFailure {
                group: None,
                zone: None,
            },
            Some(1),
        ))
        .unwrap();
    let second = test.create(&request("second")).await;
    test.until(&second, GroupStatus::Failed).await;
    let third = test.create(&request("third")).await;
    test.until(&third, GroupStatus::Running).await;
}

#[tokio::test]
async fn calls_wait_and_are_refused_as_ordered() {
    let test = start().await;
    test.cloud
        .order_fault(order(Fault::Latency { delay_ms: 200 }, Some(1)))
        .unwrap();
    let began = Instant::now();
    test.client
        .call(&DescribeContainerGroupsRequest::default())
        .await
        .unwrap();
    assert!(began.elapsed() >= Duration::from_millis(200));
    test.cloud.order_fault(order(Fault::Down, Some(1))).unwrap();
    let fault = Fault::SecurityGroup {
        id: Some("sg-local".to_owned()),
    };
    test.cloud.order_fault(order(fault, Some(1))).unwrap();
    let error = test.client.call(&request("gg")).await.unwrap_err();
    assert_eq!(error.code(), "ServiceUnavailable");
    let error = test.client.call(&request("gg")).await.unwrap_err();
    assert_eq!(error.code(), "OperationDenied.SecurityGroupMisMatch");
    assert!(test.cloud.group_ids().is_empty());
}

#[tokio::test]
async fn orders_that_cannot_be_meant_are_refused_and_say_what_can() {
    let test = start().await;
    let refused = |fault| {
        test.cloud
            .order_fault(order(fault, None))
            .unwrap_err()
            .to_string()
    };
    let zone = Some("mars".to_owned());
    assert!(refused(Fault::NoStock { zone, spec: None }).contains("cn-hangzhou-h"));
    assert!(refused(Fault::Latency { delay_ms: 0 }).contains("delayMs"));
    let group = Some("eci-none".to_owned());
    assert!(refused(Fault::InstanceFailure { group, zone: None }).contains("eci-none"));
    let zero = order(Fault::Down, Some(0));
    assert!(
        test.cloud
            .order_fault(zero)
            .unwrap_err()
            .to_string()
            .contains("at least 1")
    );
    let id = test.create(&request("plain")).await;
    let reclaim = Fault::SpotReclaim {
        group: Some(id),
        zone: None,
    };
    assert!(refused(reclaim).contains("no spot group"));
}

#[tokio::test]
async fn a_fault_outlives_the_process() {
    let directory = tempfile::tempdir().unwrap();
    let cloud = open(quick(directory.path()), paper(StartDelay::default())).await;
    cloud
        .order_fault(order(
            Fault::NoStock {
                zone: None,
                spec: None,
            },
            None,
        ))
        .unwrap();
    cloud.shutdown().await;
    let cloud = open(quick(directory.path()), paper(StartDelay::default())).await;
    let error = client(&cloud.endpoint())
        .call(&request("gg"))
        .await
        .unwrap_err();
    assert!(error.is_out_of_stock(), "{error}");
}
