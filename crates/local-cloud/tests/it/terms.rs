//! The terms of a group: spot, machine types, public and kept addresses, pending time.

use crate::support::{request, start, start_with};
use cloud_api::model::GroupStatus;
use cloud_api::model::create::*;
use cloud_api::model::describe::ContainerGroup;
use cloud_api::model::manage::DeleteContainerGroupRequest;
use cloud_api::model::price::DescribeContainerGroupPriceRequest;
use cloud_api::model::region::*;
use local_cloud::backend::StartDelay;
use local_cloud::{Fault, FaultOrder};
use std::time::Duration;

async fn code(change: impl FnOnce(&mut CreateContainerGroupRequest)) -> String {
    let test = start().await;
    let mut request = request("bad");
    change(&mut request);
    let error = test.client.call(&request).await.unwrap_err();
    error.code().to_owned()
}

fn reasons(group: &ContainerGroup) -> Vec<&str> {
    group
        .events
        .iter()
        .map(|event| event.reason.as_str())
        .collect()
}

fn spot(name: &str) -> CreateContainerGroupRequest {
    CreateContainerGroupRequest {
        spot_strategy: Some("SpotAsPriceGo".to_owned()),
        ..request(name)
    }
}

#[tokio::test]
async fn a_spot_group_costs_a_share_and_ends_expired_when_it_is_taken_away() {
    let change = |config: &mut local_cloud::LocalCloudConfig| {
        config.spot_notice = Duration::from_millis(300);
    };
    let test = start_with(change, StartDelay::default()).await;
    let id = test.create(&spot("cheap")).await;
    let group = test.until(&id, GroupStatus::Running).await;
    assert_eq!(group.spot_strategy.as_deref(), Some("SpotAsPriceGo"));
    assert!((10..=40).contains(&group.discount.unwrap()));
    let price = DescribeContainerGroupPriceRequest {
        spot_strategy: Some("SpotAsPriceGo".to_owned()),
        zone_id: Some(group.zone_id.clone()),
        ..Default::default()
    };
    let price = test.client.call(&price).await.unwrap().price_info;
    let offered = &price.spot_prices.spot_price[0];
    assert!(offered.spot_price < offered.origin_price);
    let reclaim = FaultOrder {
        fault: Fault::SpotReclaim {
            group: Some(id.clone()),
            zone: None,
        },
        action: None,
        times: None,
        seconds: None,
    };
    test.cloud.order_fault(reclaim).unwrap();
    let group = test.until(&id, GroupStatus::Expired).await;
    assert!(
        reasons(&group).ends_with(&["SpotToBeReleased", "Killing", "BidFailed"]),
        "{:?}",
        reasons(&group)
    );
    assert!(group.expired_time.is_some());
    let bill = test.cloud.ledger().await.unwrap();
    assert!(bill.entries[0].until.is_some());
    let full = cloud_api::catalog::PriceList::default().per_second(
        cloud_api::catalog::DEFAULT_SIZE,
        false,
        0,
    );
    assert!(bill.entries[0].per_second < full);
}

#[tokio::test]
async fn spot_mistakes_have_their_documented_codes() {
    type Change = fn(&mut CreateContainerGroupRequest);
    let with = |request: &mut CreateContainerGroupRequest, strategy: &str| {
        request.spot_strategy = Some(strategy.to_owned());
    };
    assert_eq!(
        code(|request| with(request, "SpotWithPriceLimit")).await,
        "MissingParameter"
    );
    let cases: [(Change, &str); 4] = [
        (
            |request| request.cpu = Some(1.0),
            "InvalidSpotCpuMemorySpec",
        ),
        (
            |request| request.compute_category = vec!["economy".to_owned()],
            "FeatureBasedConstraintConflict",
        ),
        (
            |request| request.spot_duration = Some(99),
            "InvalidInstanceTypeForEciSpotDurationBuy",
        ),
        (
            |request| {
                request.spot_strategy = Some("SpotWithPriceLimit".to_owned());
                request.spot_price_limit = Some(0.001);
            },
            "Spot.NotMatched",
        ),
    ];
    for (change, expected) in cases {
        let found = code(|request| {
            with(request, "SpotAsPriceGo");
            change(request);
        })
        .await;
        assert_eq!(found, expected);
    }
}

#[tokio::test]
async fn machine_types_are_tried_in_order_and_billed_as_such() {
    let test = start().await;
    let sold_out = FaultOrder {
        fault: Fault::NoStock {
            zone: None,
            spec: Some("ecs.c6.large".to_owned()),
        },
        action: None,
        times: None,
        seconds: None,
    };
    test.cloud.order_fault(sold_out).unwrap();
    let mut wanted = request("machine");
    wanted.instance_type = Some("ecs.c6.large,ecs.g6.large".to_owned());
    let id = test.create(&wanted).await;
    let group = test.describe(&id).await.unwrap();
    assert_eq!(group.instance_type.as_deref(), Some("ecs.g6.large"));
    assert_eq!((group.cpu, group.memory), (2.0, 8.0));
    let price = DescribeContainerGroupPriceRequest {
        instance_type: Some("ecs.c5.large".to_owned()),
        ..Default::default()
    };
    let price = test.client.call(&price).await.unwrap().price_info.price;
    assert!((price.trade_price * 3_600.0 - 0.62).abs() < 0.000_1);
    assert_eq!(price.detail_infos.detail_info[0].resource, "InstanceType");
    assert_eq!(
        code(|request| request.instance_type = Some("ecs.zz1.large".to_owned())).await,
        "InvalidInstanceTypeForEciBuy"
    );
}

#[tokio::test]
async fn gpus_come_with_machines_and_are_shown_and_billed() {
    let test = start().await;
    let with_gpus = |gpus: i64, machines: Option<&str>| {
        let mut wanted = request("train");
        wanted.instance_type = machines.map(str::to_owned);
        wanted.container[0].gpu = Some(gpus);
        wanted
    };
    // The first has too few and is passed over.
    let machines = "ecs.gn6i-c4g1.xlarge,ecs.gn6i-c24g1.12xlarge";
    let id = test.create(&with_gpus(2, Some(machines))).await;
    let group = test.until(&id, GroupStatus::Running).await;
    let machine = "ecs.gn6i-c24g1.12xlarge";
    assert_eq!(group.instance_type.as_deref(), Some(machine));
    assert_eq!((group.cpu, group.memory), (48.0, 186.0));
    assert_eq!(group.containers[0].gpu, 2);
    assert!(
        reasons(&group).contains(&"GpuOnPaper"),
        "{:?}",
        reasons(&group)
    );
    let price = DescribeContainerGroupPriceRequest {
        instance_type: Some(machine.to_owned()),
        ..Default::default()
    };
    let price = test.client.call(&price).await.unwrap().price_info.price;
    let bill = test.cloud.ledger().await.unwrap();
    assert!((price.trade_price - bill.entries[0].per_second.as_cny()).abs() < 1e-9);
    let list = cloud_api::catalog::PriceList::default();
    assert!(bill.entries[0].per_second > list.gpus_per_second(2));
    let refused = [
        (1, None),
        (1, Some("2-4Gi,ecs.c6.large")),
        (2, Some("ecs.gn6i-c4g1.xlarge")),
    ];
    for (gpus, machines) in refused {
        let error = test.client.call(&with_gpus(gpus, machines)).await;
        let code = error.unwrap_err().code().to_owned();
        assert_eq!(code, "InvalidInstanceTypeForEciBuy", "{machines:?}");
    }
    let negative = test.client.call(&with_gpus(-1, None)).await.unwrap_err();
    assert!(
        negative.to_string().contains("Container.1.Gpu"),
        "{negative}"
    );
}

#[tokio::test]
async fn a_class_is_taken_where_it_covers_the_size_and_shown_with_the_group() {
    let test = start().await;
    let of = |name: &str, vcpu: f64, classes: &[&str]| {
        let mut wanted = request(name);
        (wanted.cpu, wanted.memory) = (Some(vcpu), Some(vcpu * 2.0));
        wanted.compute_category = classes.iter().map(|class| (*class).to_owned()).collect();
        wanted
    };
    let both = ["economy", "general"];
    for (name, vcpu, class) in [("small", 2.0, "economy"), ("large", 16.0, "general")] {
        let id = test.create(&of(name, vcpu, &both)).await;
        let group = test.describe(&id).await.unwrap();
        assert_eq!(group.compute_category.as_deref(), Some(class));
    }
    let refusal = test.client.call(&of("huge", 16.0, &both[..1])).await;
    let refusal = refusal.unwrap_err();
    assert_eq!(refusal.code(), "InvalidParameter.CPU.Memory");
    assert!(
        refusal.to_string().contains("economy has 0.25 to 8 vCPU"),
        "{refusal}"
    );
}

#[tokio::test]
async fn stock_can_be_asked_for_by_machine_and_by_family() {
    let test = start().await;
    test.cloud.set_stock("cn-hangzhou-i", Some(2.0));
    let ask = |category: &str, value: Option<&str>| DescribeAvailableResourceRequest {
        destination_resource: Some(DestinationResource {
            category: Some(category.to_owned()),
            value: value.map(str::to_owned),
            cores: Some(4.0),
            ..Default::default()
        }),
        ..Default::default()
    };
    let answer = test
        .client
        .call(&ask("InstanceType", Some("ecs.c6.xlarge")))
        .await
        .unwrap();
    let zones = &answer.available_zones.available_zone;
    let status = |index: usize| {
        let resource = &zones[index].available_resources.available_resource[0];
        resource.supported_resources.supported_resource[0]
            .status_category
            .as_str()
    };
    assert_eq!((status(0), status(1)), ("WithStock", "WithoutStock"));
    let answer = test
        .client
        .call(&ask("InstanceTypeFamily", None))
        .await
        .unwrap();
    let resource = &answer.available_zones.available_zone[0]
        .available_resources
        .available_resource[0];
    let families = &resource.supported_resources.supported_resource;
    assert!(families.iter().any(|family| family.value == "ecs.g7"));
}

#[tokio::test]
async fn a_public_address_comes_and_goes_with_its_group() {
    let test = start_with(
        |config| config.public_cidr = "198.18.0.0/29".to_owned(),
        StartDelay::default(),
    )
    .await;
    let mut wanted = request("public");
    wanted.auto_create_eip = Some(true);
    let mut ids = Vec::new();
    for _ in 0..4 {
        ids.push(test.create(&wanted).await);
    }
    let address = test.describe(&ids[0]).await.unwrap().internet_ip.unwrap();
    assert!(address.starts_with("198.18.0."), "{address}");
    let error = test.client.call(&wanted).await.unwrap_err();
    assert_eq!(error.code(), "EipPurchaseFlowControl");
    let delete = DeleteContainerGroupRequest {
        container_group_id: ids[0].clone(),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    test.until_gone(&ids[0]).await;
    let id = test.create(&wanted).await;
    assert_eq!(test.describe(&id).await.unwrap().internet_ip, Some(address));
    let mut unknown = request("unknown");
    unknown.eip_instance_id = Some("eip-none".to_owned());
    let error = test.client.call(&unknown).await.unwrap_err();
    assert_eq!(error.code(), "InvalidParameter");
}

#[tokio::test]
async fn a_fixed_address_waits_for_the_next_group_of_its_name() {
    let test = start().await;
    let mut fixed = request("db-0");
    fixed.fixed_ip = Some("true".to_owned());
    let first = test.create(&fixed).await;
    let address = test.describe(&first).await.unwrap().intranet_ip;
    let delete = DeleteContainerGroupRequest {
        container_group_id: first.clone(),
        ..Default::default()
    };
    test.client.call(&delete).await.unwrap();
    test.until_gone(&first).await;
    let mut thief = request("thief");
    thief.private_ip_address = address.clone();
    let error = test.client.call(&thief).await.unwrap_err();
    assert_eq!(error.code(), "PrivateIpAddress.Already.InUse");
    let second = test.create(&fixed).await;
    assert_eq!(test.describe(&second).await.unwrap().intranet_ip, address);
}

#[tokio::test]
async fn of_two_groups_of_one_name_one_address_is_kept_and_the_other_is_free() {
    let small = |config: &mut local_cloud::LocalCloudConfig| {
        config.v_switches.truncate(1);
        config.v_switches[0].cidr = "10.4.1.0/29".to_owned();
    };
    let test = start_with(small, StartDelay::default()).await;
    let mut fixed = request("db-0");
    fixed.fixed_ip = Some("true".to_owned());
    for id in [test.create(&fixed).await, test.create(&fixed).await] {
        let delete = DeleteContainerGroupRequest {
            container_group_id: id.clone(),
            ..Default::default()
        };
        test.client.call(&delete).await.unwrap();
        test.until_gone(&id).await;
    }
    for _ in 0..3 {
        test.create(&request("other")).await;
    }
    let error = test.client.call(&request("other")).await.unwrap_err();
    assert!(error.is_address_exhausted(), "{error}");
}

#[tokio::test]
async fn what_this_cloud_lacks_is_refused_by_name() {
    type Change = fn(&mut CreateContainerGroupRequest);
    let cases: [(Change, &str); 6] = [
        (
            |request| request.os_type = Some("Windows".to_owned()),
            "UnsupportedParameter",
        ),
        (
            |request| request.ipv6_address_count = Some(1),
            "Ipv6AddressNotSupportVsw",
        ),
        (
            |request| request.max_pending_minute = Some(5),
            "InvalidParameter",
        ),
        (
            |request| request.core_pattern = Some("|/bin/x".to_owned()),
            "InvalidParameter",
        ),
        (
            |request| {
                let volume = VolumeSpec {
                    name: "d".to_owned(),
                    volume_type: "DiskVolume".to_owned(),
                    ..Default::default()
                };
                request.volume = vec![volume];
            },
            "DiskVolume.NotSupport",
        ),
        (
            |request| {
                let sysctl = NameValue {
                    name: "kernel.panic".to_owned(),
                    value: Some("1".to_owned()),
                };
                request.security_context = Some(GroupSecurityContext {
                    sysctl: vec![sysctl],
                });
            },
            "InvalidParameter",
        ),
    ];
    for (change, expected) in cases {
        assert_eq!(code(change).await, expected);
    }
}
