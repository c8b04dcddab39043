//! Every action once through the real client.

use crate::support::{TestCloud, request, start};
use cloud_api::model::GroupStatus;
use cloud_api::model::create::{ConfigFileToPath, ConfigFileVolumeSpec, VolumeMount, VolumeSpec};
use cloud_api::model::describe::{DescribeContainerGroupsRequest, Tag};
use cloud_api::model::events::DescribeContainerGroupEventsRequest;
use cloud_api::model::manage::*;
use cloud_api::model::metrics::*;
use cloud_api::model::price::DescribeContainerGroupPriceRequest;
use cloud_api::model::region::*;
use cloud_api::model::status::DescribeContainerGroupStatusRequest;
use cloud_api::model::tags::*;
use cloud_api::{ClientSources, EciClient, EciConfig, SignatureVersion};

fn tag(key: &str, value: &str) -> Tag {
    Tag {
        key: key.to_owned(),
        value: value.to_owned(),
    }
}

async fn running() -> (TestCloud, String) {
    let test = start().await;
    let mut request = request("web");
    request.cpu = Some(1.5);
    request.memory = Some(3.0);
    request.tag = vec![tag("team", "shop")];
    request.volume = vec![VolumeSpec {
        name: "settings".to_owned(),
        volume_type: "ConfigFileVolume".to_owned(),
        config_file_volume: Some(ConfigFileVolumeSpec {
            config_file_to_path: vec![ConfigFileToPath {
                path: "a/b.txt".to_owned(),
                content: "aGk=".to_owned(),
                mode: None,
            }],
            default_mode: None,
        }),
        ..Default::default()
    }];
    request.container[0].volume_mount = vec![VolumeMount {
        name: "settings".to_owned(),
        mount_path: "/etc/app".to_owned(),
        ..Default::default()
    }];
    let id = test.create(&request).await;
    test.until(&id, GroupStatus::Running).await;
    (test, id)
}

#[tokio::test]
async fn a_group_is_described_as_it_was_asked_for_and_granted() {
    let (test, id) = running().await;
    let group = test.describe(&id).await.unwrap();
    assert!(id.starts_with("eci-") && id.len() == 24, "{id}");
    assert_eq!(group.container_group_name, "web");
    assert_eq!((group.cpu, group.memory), (2.0, 4.0));
    assert_eq!(group.region_id, "cn-hangzhou");
    assert_eq!(group.zone_id, "cn-hangzhou-h");
    assert_eq!(group.intranet_ip.as_deref(), Some("10.4.1.1"));
    assert_eq!(group.instance_type.as_deref(), Some("simulated"));
    assert!(
        group.tags.contains(&tag("team", "shop")) && group.tags.contains(&tag("simulated", "true"))
    );
    assert_eq!(group.containers[0].volume_mounts[0].mount_path, "/etc/app");
    assert_eq!(
        group.volumes[0].config_file_volume_config_file_to_paths[0].path,
        "a/b.txt"
    );
    assert_eq!(
        group.containers[0].current_state.as_ref().unwrap().state,
        "Running"
    );
    assert!(group.containers[0].ready);
    let reasons: Vec<&str> = group
        .events
        .iter()
        .map(|event| event.reason.as_str())
        .collect();
    assert_eq!(
        reasons,
        [
            "AutoInstanceTypeMatch",
            "Simulated",
            "Pulling",
            "Pulled",
            "Created",
            "Started"
        ]
    );
}

#[tokio::test]
async fn the_old_signature_works_as_well() {
    let test = start().await;
    let mut config = EciConfig::new(
        test.cloud.endpoint(),
        "cn-hangzhou",
        crate::support::credentials(),
    );
    config.signature = SignatureVersion::V1;
    let client = EciClient::new(config, ClientSources::system()).unwrap();
    let id = client
        .call(&request("old"))
        .await
        .unwrap()
        .container_group_id;
    assert_eq!(
        crate::support::describe(&client, &id)
            .await
            .unwrap()
            .container_group_name,
        "old"
    );
}

#[tokio::test]
async fn status_comes_in_the_shape_of_a_pod_s() {
    let (test, id) = running().await;
    let request = DescribeContainerGroupStatusRequest {
        since_second: Some(60),
        ..Default::default()
    };
    let answer = test.client.call(&request).await.unwrap();
    assert_eq!((answer.total_count, answer.data.len()), (1, 1));
    let entry = &answer.data[0];
    assert_eq!(
        (entry.container_group_id.as_str(), entry.status.as_str()),
        (id.as_str(), "Running")
    );
    assert_eq!(
        (
            entry.pod_status.phase.as_str(),
            entry.pod_status.pod_ip.as_str()
        ),
        ("Running", "10.4.1.1")
    );
    let ready = entry
        .pod_status
        .conditions
        .iter()
        .find(|condition| condition.kind == "Ready")
        .unwrap();
    assert_eq!(ready.status, "True");
    assert!(
        entry.pod_status.container_statuses[0]
            .state
            .running
            .is_some()
    );
}

#[tokio::test]
async fn events_logs_and_commands_are_answered() {
    let (test, id) = running().await;
    let request = DescribeContainerGroupEventsRequest {
        container_group_ids: vec![id.clone()],
        event_source: Some("K8sAgent".to_owned()),
        ..Default::default()
    };
    let events = test
        .client
        .call(&request)
        .await
        .unwrap()
        .data
        .remove(0)
        .events;
    assert!(
        events.iter().any(|event| event.reason == "Started")
            && events.iter().all(|e| e.reason != "Simulated")
    );
    let log = DescribeContainerLogRequest {
        container_group_id: id.clone(),
        container_name: "main".to_owned(),
        timestamps: Some(true),
        ..Default::default()
    };
    let content = test.client.call(&log).await.unwrap().content;
    assert!(
        content.ends_with(&format!("simulated container main of {id}\n")),
        "{content}"
    );
    let exec = ExecContainerCommandRequest {
        container_group_id: id,
        container_name: "main".to_owned(),
        command: vec!["echo".to_owned(), "hi".to_owned()],
        sync: Some(true),
        ..Default::default()
    };
    let answer = test.client.call(&exec).await.unwrap();
    assert_eq!(
        answer.sync_response.as_deref(),
        Some("simulated: echo hi\n")
    );
}

#[tokio::test]
async fn metrics_come_for_one_group_and_for_many() {
    let (test, id) = running().await;
    let one = DescribeContainerGroupMetricRequest {
        container_group_id: id.clone(),
        period: Some("15".to_owned()),
        ..Default::default()
    };
    let records = test.client.call(&one).await.unwrap().records;
    assert_eq!(records.last().unwrap().cpu.limit, 2_000);
    let many = DescribeMultiContainerGroupMetricRequest {
        container_group_ids: vec![id.clone(), "eci-unknown".to_owned()],
        ..Default::default()
    };
    let datas = test.client.call(&many).await.unwrap().monitor_datas;
    assert_eq!(
        (datas.len(), datas[0].container_group_id.as_str()),
        (1, id.as_str())
    );
    let cpu = &datas[0].records[0].cpu;
    assert!(
        (90_000_000..110_000_000).contains(&cpu.usage_nano_cores),
        "{cpu:?}"
    );
}

#[tokio::test]
async fn price_stock_regions_and_usage_are_answered() {
    let (test, _) = running().await;
    let price = DescribeContainerGroupPriceRequest {
        cpu: Some(2.0),
        memory: Some(4.0),
        ..Default::default()
    };
    let price = test.client.call(&price).await.unwrap().price_info.price;
    assert_eq!(
        (price.currency.as_str(), price.trade_price),
        ("CNY", 0.00012252)
    );
    let regions = test
        .client
        .call(&DescribeRegionsRequest::default())
        .await
        .unwrap()
        .regions;
    assert_eq!(
        regions[0].zones,
        ["cn-hangzhou-h", "cn-hangzhou-i", "cn-hangzhou-j"]
    );
    assert!(test.cloud.set_stock("cn-hangzhou-i", Some(0.0)));
    let available = test
        .client
        .call(&DescribeAvailableResourceRequest::default())
        .await
        .unwrap();
    let stock: Vec<String> = available
        .available_zones
        .available_zone
        .iter()
        .map(|zone| {
            &zone.available_resources.available_resource[0]
                .supported_resources
                .supported_resource[0]
        })
        .map(|resource| resource.status_category.clone())
        .collect();
    assert_eq!(stock, ["WithStock", "WithoutStock", "WithStock"]);
    let usage = test
        .client
        .call(&ListUsageRequest::default())
        .await
        .unwrap();
    assert_eq!(usage.attributes["UsedCpu"], 2.0);
}

#[tokio::test]
async fn tags_are_put_on_found_and_taken_off() {
    let (test, id) = running().await;
    let put = TagResourcesRequest {
        resource_type: CONTAINER_GROUP.to_owned(),
        resource_id: vec![id.clone()],
        tag: vec![tag("team", "chat"), tag("new", "")],
        ..Default::default()
    };
    test.client.call(&put).await.unwrap();
    let find = DescribeContainerGroupsRequest {
        tag: vec![tag("team", "chat")],
        ..Default::default()
    };
    assert_eq!(
        test.client.all_container_groups(find).await.unwrap().len(),
        1
    );
    let find = DescribeContainerGroupsRequest {
        tag: vec![tag("team", "shop")],
        ..Default::default()
    };
    assert_eq!(
        test.client.all_container_groups(find).await.unwrap().len(),
        0
    );
    let take = UntagResourcesRequest {
        resource_type: CONTAINER_GROUP.to_owned(),
        resource_id: vec![id.clone()],
        tag_key: vec!["team".to_owned()],
        ..Default::default()
    };
    test.client.call(&take).await.unwrap();
    let list = ListTagResourcesRequest {
        resource_type: CONTAINER_GROUP.to_owned(),
        resource_id: vec![id],
        ..Default::default()
    };
    let keys: Vec<String> = test
        .client
        .call(&list)
        .await
        .unwrap()
        .tag_resources
        .into_iter()
        .map(|tag| tag.tag_key)
        .collect();
    assert_eq!(keys, ["new", "simulated"]);
}

#[tokio::test]
async fn restart_and_update_lead_to_new_runs() {
    let (test, id) = running().await;
    let restart = RestartContainerGroupRequest {
        container_group_id: id.clone(),
        ..Default::default()
    };
    test.client.call(&restart).await.unwrap();
    let group = test.until(&id, GroupStatus::Running).await;
    assert_eq!(group.containers[0].restart_count, 1);
    let mut container = request("web").container;
    container[0].image = "busybox:2".to_owned();
    let update = UpdateContainerGroupRequest {
        container_group_id: id.clone(),
        update_type: Some("IncrementalUpdate".to_owned()),
        container,
        ..Default::default()
    };
    test.client.call(&update).await.unwrap();
    let group = test.until(&id, GroupStatus::Running).await;
    assert_eq!(group.containers[0].image, "busybox:2");
    assert_eq!(group.containers[0].restart_count, 2);
    let error = test.client.call(&update).await.unwrap_err();
    assert_eq!(error.code(), "NoNeedUpdate");
}

#[tokio::test]
async fn a_deleted_group_is_gone_and_so_is_its_hold_on_everything() {
    let (test, id) = running().await;
    let delete = DeleteContainerGroupRequest {
        container_group_id: id.clone(),
        client_token: Some("d".to_owned()),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    test.until_gone(&id).await;
    test.client
        .call(&delete)
        .await
        .expect("the same token gives the same answer");
    let again = DeleteContainerGroupRequest {
        client_token: None,
        ..delete
    };
    assert!(test.client.call(&again).await.unwrap_err().is_not_found());
    let usage = test
        .client
        .call(&ListUsageRequest::default())
        .await
        .unwrap();
    assert_eq!(usage.attributes["UsedCpu"], 0.0);
    let ledger = test.cloud.ledger().await.unwrap();
    assert_eq!(ledger.entries.len(), 1);
    assert!(ledger.entries[0].until.is_some() && ledger.entries[0].simulated);
}
