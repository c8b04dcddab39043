//! What is refused at creation, and what the same client token gives.

use crate::support::{request, start, start_with};
use cloud_api::EciError;
use cloud_api::model::create::*;
use cloud_api::model::describe::Tag;
use futures::future::join_all;
use local_cloud::backend::StartDelay;
use local_cloud::{Fault, VSwitchConfig};
use std::collections::HashSet;

type Change = fn(&mut CreateContainerGroupRequest);

async fn refused(change: impl FnOnce(&mut CreateContainerGroupRequest)) -> (u16, String, String) {
    let test = start().await;
    let mut request = request("bad");
    change(&mut request);
    match test.client.call(&request).await.unwrap_err() {
        EciError::Service(error) => (error.http_status, error.code, error.message),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn missing_parameters_are_named() {
    let cases: [(Change, &str); 5] = [
        (
            |request| request.container_group_name.clear(),
            "\"ContainerGroupName\"",
        ),
        (|request| request.container.clear(), "\"Container.1.Name\""),
        (
            |request| request.container[0].name.clear(),
            "\"Container.1.Name\"",
        ),
        (
            |request| request.container[0].image.clear(),
            "\"Container.1.Image\"",
        ),
        (
            |request| {
                request.tag.push(Tag {
                    key: String::new(),
                    value: "v".to_owned(),
                })
            },
            "\"Tag.1.Key\"",
        ),
    ];
    for (change, name) in cases {
        let (status, code, message) = refused(change).await;
        assert_eq!(
            (status, code.as_str()),
            (400, "MissingParameter"),
            "{message}"
        );
        assert!(message.contains(name), "{message}");
    }
}

#[tokio::test]
async fn wrong_values_are_refused_and_named() {
    let volume = |path: &str, content: &str| VolumeSpec {
        name: "v".to_owned(),
        volume_type: "ConfigFileVolume".to_owned(),
        config_file_volume: Some(ConfigFileVolumeSpec {
            config_file_to_path: vec![ConfigFileToPath {
                path: path.to_owned(),
                content: content.to_owned(),
                mode: None,
            }],
            default_mode: None,
        }),
        ..Default::default()
    };
    type Boxed = Box<dyn FnOnce(&mut CreateContainerGroupRequest)>;
    let escape = volume("../etc/passwd", "aGk=");
    let garbage = volume("a", "no base64!");
    let cases: Vec<(Boxed, &str)> = vec![
        (
            Box::new(|request| request.container_group_name = "Bad_Name".to_owned()),
            "\"ContainerGroupName\"",
        ),
        (
            Box::new(|request| request.container[0].name = "../../x".to_owned()),
            "\"Container.1.Name\"",
        ),
        (
            Box::new(|request| request.restart_policy = Some("Sometimes".to_owned())),
            "\"RestartPolicy\"",
        ),
        (Box::new(|request| request.cpu = Some(-1.0)), "\"Cpu\""),
        (
            Box::new(move |request| request.volume = vec![escape]),
            "ConfigFileToPath.1.Path\"",
        ),
        (
            Box::new(move |request| request.volume = vec![garbage]),
            "ConfigFileToPath.1.Content\"",
        ),
        (
            Box::new(|request| {
                request.container[0].liveness_probe = Some(ProbeSpec {
                    period_seconds: Some(5),
                    ..Default::default()
                })
            }),
            "\"Container.1.LivenessProbe\"",
        ),
        (
            Box::new(|request| {
                request.container[0].volume_mount = vec![VolumeMount {
                    name: "none".to_owned(),
                    mount_path: "/x".to_owned(),
                    ..Default::default()
                }];
            }),
            "\"Container.1.VolumeMount.1.Name\"",
        ),
        (
            Box::new(|request| request.client_token = Some("x".repeat(65))),
            "\"ClientToken\"",
        ),
    ];
    for (change, name) in cases {
        let (status, code, message) = refused(change).await;
        assert_eq!(
            (status, code.as_str()),
            (400, "InvalidParameter"),
            "{message}"
        );
        assert!(message.contains(name), "{message}");
    }
}

#[tokio::test]
async fn documented_codes_are_used_for_documented_mistakes() {
    let cases: [(Change, u16, &str); 9] = [
        (
            // A dry run that overlooked it would call it sound.
            |request| {
                request.dry_run = Some(true);
                request.v_switch_id = Some("vsw-none".to_owned());
            },
            404,
            "InvalidVSwitchId.NotFound",
        ),
        (
            |request| request.cpu = Some(65.0),
            400,
            "InvalidParameter.CPU.Memory",
        ),
        (
            |request| request.container.push(request.container[0].clone()),
            400,
            "InvalidParameter.DuplicatedName",
        ),
        (
            |request| request.dry_run = Some(true),
            400,
            "DryRunOperation",
        ),
        (
            |request| request.v_switch_id = Some("vsw-none".to_owned()),
            404,
            "InvalidVSwitchId.NotFound",
        ),
        (
            |request| request.security_group_id = Some("sg-none".to_owned()),
            404,
            "InvalidSecurityGroupId.NotFound",
        ),
        (
            |request| request.region_id = "mars".to_owned(),
            404,
            "InvalidRegionId.NotFound",
        ),
        (
            |request| request.container[0].security_context_privileged = Some(true),
            400,
            "UnsupportedParameter",
        ),
        (
            |request| {
                request.zone_id = Some("cn-hangzhou-j".to_owned());
                request.v_switch_id = Some("vsw-local-h".to_owned());
            },
            403,
            "OperationDenied.VswZoneMisMatch",
        ),
    ];
    for (change, status, code) in cases {
        let (found_status, found_code, message) = refused(change).await;
        assert_eq!(
            (found_status, found_code.as_str()),
            (status, code),
            "{message}"
        );
    }
}

#[tokio::test]
async fn zones_are_tried_in_order_until_all_are_sold_out() {
    let test = start_with(
        |config| {
            config
                .zones
                .iter_mut()
                .for_each(|zone| zone.stock_vcpu = Some(4.0))
        },
        StartDelay::default(),
    )
    .await;
    let mut request = request("gg");
    request.v_switch_id = Some("vsw-local-j, vsw-local-h".to_owned());
    let mut zones = Vec::new();
    for _ in 0..4 {
        let id = test.create(&request).await;
        zones.push(test.describe(&id).await.unwrap().zone_id);
    }
    assert_eq!(
        zones,
        [
            "cn-hangzhou-j",
            "cn-hangzhou-j",
            "cn-hangzhou-h",
            "cn-hangzhou-h"
        ]
    );
    let error = test.client.call(&request).await.unwrap_err();
    assert!(error.is_out_of_stock(), "{error}");
    request.v_switch_id = None;
    request.zone_id = Some("cn-hangzhou-j,cn-hangzhou-i".to_owned());
    let id = test.create(&request).await;
    assert_eq!(test.describe(&id).await.unwrap().zone_id, "cn-hangzhou-i");
}

#[tokio::test]
async fn addresses_run_out_with_their_own_code() {
    let test = start_with(
        |config| {
            config.v_switches = vec![VSwitchConfig {
                id: "vsw-small".to_owned(),
                zone: "cn-hangzhou-h".to_owned(),
                cidr: "10.4.1.0/29".to_owned(),
            }];
        },
        StartDelay::default(),
    )
    .await;
    for _ in 0..4 {
        test.create(&request("gg")).await;
    }
    let error = test.client.call(&request("gg")).await.unwrap_err();
    assert!(error.is_address_exhausted(), "{error}");
}

#[tokio::test]
async fn the_quota_is_kept() {
    let test = start_with(
        |config| config.quota_vcpu = Some(3.0),
        StartDelay::default(),
    )
    .await;
    test.create(&request("gg")).await;
    let error = test.client.call(&request("gg")).await.unwrap_err();
    assert!(error.is_quota_exceeded(), "{error}");
}

#[tokio::test]
async fn one_token_makes_one_group_however_many_ask_at_once() {
    let test = start().await;
    let mut request = request("once");
    request.client_token = Some("token-1".to_owned());
    let answers = join_all((0..50).map(|_| test.client.call(&request))).await;
    let ids: HashSet<String> = answers
        .into_iter()
        .map(|answer| answer.unwrap().container_group_id)
        .collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(test.cloud.group_ids().len(), 1);
    request.cpu = Some(8.0);
    let error = test.client.call(&request).await.unwrap_err();
    assert!(error.is_token_conflict(), "{error}");
}

#[tokio::test]
async fn a_lost_answer_and_the_client_s_repetition_make_one_group() {
    let test = start().await;
    test.cloud
        .arrange_fault("CreateContainerGroup", Fault::LoseAnswer, 2);
    let mut request = request("once");
    request.client_token = Some("token-1".to_owned());
    let id = test.create(&request).await;
    assert_eq!(test.cloud.group_ids(), [id]);
}

#[tokio::test]
async fn a_refusal_asked_for_has_no_effect() {
    let test = start().await;
    let fault = Fault::Refuse {
        code: "OperationDenied.NoStock".to_owned(),
        http_status: 403,
    };
    test.cloud.arrange_fault("CreateContainerGroup", fault, 1);
    assert!(
        test.client
            .call(&request("gg"))
            .await
            .unwrap_err()
            .is_out_of_stock()
    );
    assert!(test.cloud.group_ids().is_empty());
    test.create(&request("gg")).await;
}
