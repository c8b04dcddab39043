//! A thousand groups on paper.

use crate::support::{eventually, request, start_with};
use cloud_api::model::status::DescribeContainerGroupStatusRequest;
use futures::future::join_all;
use local_cloud::VSwitchConfig;
use local_cloud::backend::StartDelay;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_groups_run_and_go_within_seconds() {
    let change = |config: &mut local_cloud::LocalCloudConfig| {
        config.v_switches = vec![VSwitchConfig {
            id: "vsw-wide".to_owned(),
            zone: "cn-hangzhou-h".to_owned(),
            cidr: "10.4.0.0/16".to_owned(),
        }];
    };
    let test = start_with(change, StartDelay::default()).await;
    let start = Instant::now();
    let creates = join_all((0..1_000).map(|number| {
        let mut request = request(&format!("pod-{number}"));
        request.client_token = Some(format!("uid-{number}"));
        let client = test.client.clone();
        async move { client.call(&request).await }
    }))
    .await;
    let created = start.elapsed();
    assert!(
        creates.iter().all(Result::is_ok),
        "{:?}",
        creates.iter().find(|answer| answer.is_err())
    );
    eventually("all run", || async {
        let statuses = test
            .client
            .all_statuses(DescribeContainerGroupStatusRequest::default())
            .await
            .unwrap();
        let running = statuses
            .iter()
            .filter(|entry| entry.status.as_str() == "Running")
            .count();
        if running == 1_000 {
            Ok(())
        } else {
            Err(format!("{running} of {}", statuses.len()))
        }
    })
    .await;
    let running = start.elapsed();
    let query = Instant::now();
    test.client
        .all_statuses(DescribeContainerGroupStatusRequest::default())
        .await
        .unwrap();
    let query = query.elapsed();
    let delete = Instant::now();
    assert!(test.cloud.delete_all(Duration::from_secs(20)).await);
    let deleted = delete.elapsed();
    println!(
        "created {created:?}, running {running:?}, one status sweep {query:?}, deleted {deleted:?}"
    );
    // Far above what an idle machine needs: this build is unoptimised and shares its cores.
    assert!(running < Duration::from_secs(15), "{running:?}");
}
