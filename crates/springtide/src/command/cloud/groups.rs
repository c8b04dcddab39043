//! `springtide cloud groups`: the console's list and its buttons, through the OpenAPI like any other client.

use anyhow::Context;
use cloud_api::EciClient;
use cloud_api::model::describe::DescribeContainerGroupsRequest;
use cloud_api::model::manage::{
    DeleteContainerGroupRequest, RestartContainerGroupRequest, UpdateContainerGroupRequest,
};
use cloud_api::model::{ContainerGroup, ContainerSpec, Tag};
use serde_json::json;

use super::arguments::{GroupsArguments, GroupsCommand};
use crate::cli::Output;
use crate::cluster::eci_client;
use crate::printer;
use crate::status::ClusterStatus;

pub async fn run(status: &ClusterStatus, arguments: GroupsArguments) -> anyhow::Result<()> {
    let client = eci_client(&status.cloud)?;
    match arguments.command {
        None => list(&client, arguments.all, arguments.output).await,
        Some(GroupsCommand::Delete { ids }) => {
            for id in ids {
                delete(&client, &id).await?;
                printer::note(format!("container group {id} is being deleted"));
            }
            Ok(())
        }
        Some(GroupsCommand::Restart { ids }) => {
            for id in ids {
                let request = RestartContainerGroupRequest {
                    container_group_id: id.clone(),
                    ..Default::default()
                };
                let restarted = client.call(&request).await;
                restarted.with_context(|| format!("restart container group {id}"))?;
                printer::note(format!("container group {id} is restarting"));
            }
            Ok(())
        }
        Some(GroupsCommand::Update {
            id,
            image,
            tag,
            restart_policy,
        }) => update(&client, &id, &image, &tag, restart_policy).await,
    }
}

pub async fn delete(client: &EciClient, id: &str) -> anyhow::Result<()> {
    let request = DeleteContainerGroupRequest {
        container_group_id: id.to_string(),
        ..Default::default()
    };
    match client.call(&request).await {
        // Somebody else was faster.
        Err(error) if error.is_not_found() => Ok(()),
        other => other
            .map(|_| ())
            .with_context(|| format!("delete container group {id}")),
    }
}

async fn list(client: &EciClient, all: bool, output: Output) -> anyhow::Result<()> {
    let groups = client
        .all_container_groups(DescribeContainerGroupsRequest::default())
        .await
        .context("list the cloud's container groups")?;
    let shown: Vec<&ContainerGroup> = groups
        .iter()
        .filter(|group| all || !group.status.is_final())
        .collect();
    match output {
        Output::Json => printer::data(serde_json::to_string_pretty(&shown)?),
        Output::Text => printer::data(table(&shown)),
    }
    let hidden = groups.len() - shown.len();
    if hidden > 0 {
        printer::note(format!(
            "{hidden} ended groups are not shown; --all shows them"
        ));
    }
    Ok(())
}

/// The console's columns.
pub fn table(groups: &[&ContainerGroup]) -> String {
    let header = [
        "ID",
        "NAME",
        "STATUS",
        "EVENT",
        "SPEC",
        "ZONE",
        "ADDRESS",
        "PUBLIC",
        "CREATED",
        "SECURITY GROUP",
        "VSWITCH",
        "TAGS",
    ];
    let mut rows = vec![header.map(str::to_string)];
    rows.extend(groups.iter().map(|group| row(group)));
    let widths: Vec<usize> = (0..header.len())
        .map(|column| {
            let cells = rows.iter().map(|row| row[column].chars().count());
            cells.max().unwrap_or_default()
        })
        .collect();
    let lines = rows.iter().map(|row| {
        let cells = row.iter().zip(&widths);
        let padded: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        padded.join("  ").trim_end().to_string()
    });
    lines.collect::<Vec<_>>().join("\n")
}

fn row(group: &ContainerGroup) -> [String; 12] {
    let or_dash = |text: Option<&str>| {
        text.filter(|text| !text.is_empty())
            .unwrap_or("-")
            .to_string()
    };
    let machine = group.instance_type.as_deref();
    let spec = match machine.filter(|machine| machine.starts_with("ecs.")) {
        Some(machine) => machine.to_string(),
        None => format!("{}-{}Gi", group.cpu, group.memory),
    };
    let tags: Vec<String> = group
        .tags
        .iter()
        .map(|tag| format!("{}={}", tag.key, tag.value))
        .collect();
    [
        group.container_group_id.clone(),
        group.container_group_name.clone(),
        group.status.as_str().to_string(),
        or_dash(group.events.last().map(|event| event.reason.as_str())),
        spec,
        group.zone_id.clone(),
        or_dash(group.intranet_ip.as_deref()),
        or_dash(group.internet_ip.as_deref()),
        group.creation_time.clone(),
        group.security_group_id.clone(),
        group.v_switch_id.clone(),
        or_dash(Some(&tags.join(","))),
    ]
}

async fn update(
    client: &EciClient,
    id: &str,
    images: &[(String, String)],
    tags: &[(String, String)],
    restart_policy: Option<String>,
) -> anyhow::Result<()> {
    if images.is_empty() && tags.is_empty() && restart_policy.is_none() {
        anyhow::bail!("nothing to change; give --image, --tag or --restart-policy");
    }
    let named = DescribeContainerGroupsRequest {
        container_group_ids: vec![id.to_string()],
        ..Default::default()
    };
    let found = client.call(&named).await;
    let found = found.with_context(|| format!("look container group {id} up"))?;
    let Some(group) = found.container_groups.into_iter().next() else {
        anyhow::bail!("there is no container group {id}; `springtide cloud groups` lists them");
    };
    let request = UpdateContainerGroupRequest {
        container_group_id: id.to_string(),
        update_type: Some("IncrementalUpdate".to_string()),
        container: with_images(&group, images)?,
        tag: with_tags(&group, tags),
        restart_policy,
        ..Default::default()
    };
    let updated = client.call(&request).await;
    updated.with_context(|| format!("update container group {id}"))?;
    printer::note(format!("container group {id} is updating"));
    Ok(())
}

/// The group's containers with other images; none when none changes. Lists are replaced whole by the interface, so
/// all that a description tells of a container goes back as it is.
fn with_images(
    group: &ContainerGroup,
    images: &[(String, String)],
) -> anyhow::Result<Vec<ContainerSpec>> {
    if images.is_empty() {
        return Ok(Vec::new());
    }
    let unknown = images
        .iter()
        .find(|(name, _)| !group.containers.iter().any(|one| one.name == *name));
    if let Some((name, _)) = unknown {
        let known: Vec<&str> = group
            .containers
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        anyhow::bail!(
            "the group has no container {name}; it has {}",
            known.join(", ")
        );
    }
    let hidden = group.containers.iter().any(|container| {
        let mut variables = container.environment_vars.iter();
        variables.any(|variable| variable.value.is_none() && variable.value_from.is_none())
    });
    if hidden {
        anyhow::bail!(
            "the group hides values of its environment, so its containers cannot be sent back whole"
        );
    }
    let mut specs = Vec::new();
    for container in &group.containers {
        let mut spec = spec(container)?;
        if let Some((_, image)) = images.iter().find(|(name, _)| *name == container.name) {
            spec.image = image.clone();
        }
        specs.push(spec);
    }
    Ok(specs)
}

/// A described container as it would be asked for.
fn spec(container: &cloud_api::model::describe::ContainerInfo) -> anyhow::Result<ContainerSpec> {
    let probe = |probe: &Option<cloud_api::model::describe::ProbeInfo>| {
        probe.as_ref().map(|probe| {
            let exec = (!probe.execs.is_empty()).then(|| json!({"Command": probe.execs}));
            json!({
                "HttpGet": probe.http_get, "TcpSocket": probe.tcp_socket, "Exec": exec,
                "InitialDelaySeconds": probe.initial_delay_seconds, "PeriodSeconds": probe.period_seconds,
                "TimeoutSeconds": probe.timeout_seconds, "SuccessThreshold": probe.success_threshold,
                "FailureThreshold": probe.failure_threshold,
            })
        })
    };
    let environment: Vec<_> = container
        .environment_vars
        .iter()
        .map(|variable| {
            let field = variable
                .value_from
                .as_ref()
                .map(|from| from.field_ref.clone());
            json!({"Key": variable.key, "Value": variable.value, "FieldRef": field})
        })
        .collect();
    let security = container.security_context.as_ref().map(|context| {
        let added = context
            .capability
            .as_ref()
            .map(|own| json!({"Add": own.adds}));
        json!({
            "RunAsUser": context.run_as_user, "Capability": added,
            "ReadOnlyRootFilesystem": context.read_only_root_filesystem,
        })
    });
    let some = |number: f64| (number > 0.0).then_some(number);
    let flag = |flag: bool| flag.then_some(true);
    serde_json::from_value(json!({
        "Name": container.name, "Image": container.image, "ImagePullPolicy": container.image_pull_policy,
        "Cpu": some(container.cpu), "Memory": some(container.memory), "Command": container.commands,
        "Arg": container.args, "WorkingDir": container.working_dir, "Port": container.ports,
        "EnvironmentVar": environment, "VolumeMount": container.volume_mounts, "SecurityContext": security,
        "LivenessProbe": probe(&container.liveness_probe), "ReadinessProbe": probe(&container.readiness_probe),
        "Stdin": flag(container.stdin), "StdinOnce": flag(container.stdin_once), "Tty": flag(container.tty),
    }))
    .context("write the group's containers down again")
}

/// The group's tags with these added or changed; none when none changes.
fn with_tags(group: &ContainerGroup, tags: &[(String, String)]) -> Vec<Tag> {
    if tags.is_empty() {
        return Vec::new();
    }
    let is_new =
        |own: &&Tag| !tags.iter().any(|(key, _)| *key == own.key) && own.key != "simulated";
    let kept = group.tags.iter().filter(is_new).cloned();
    let added = tags.iter().map(|(key, value)| Tag {
        key: key.clone(),
        value: value.clone(),
    });
    kept.chain(added).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group() -> ContainerGroup {
        serde_json::from_value(json!({
            "ContainerGroupId": "eci-a", "ContainerGroupName": "default-web", "Status": "Running", "Cpu": 2.0, "Memory": 4.0,
            "ZoneId": "z", "IntranetIp": "10.4.1.1", "CreationTime": "2024-01-02T03:04:05Z", "SecurityGroupId": "sg",
            "VSwitchId": "vsw", "Tags": [{"Key": "a", "Value": "1"}, {"Key": "simulated", "Value": "true"}],
            "Events": [{"Reason": "Pulled"}, {"Reason": "Started"}],
            "Containers": [{
                "Name": "main", "Image": "old", "Commands": ["sh"], "Args": ["-c"], "Cpu": 0.5, "Ports": [{"Port": 80, "Protocol": "TCP"}],
                "EnvironmentVars": [{"Key": "K", "Value": "v"}], "VolumeMounts": [{"Name": "v", "MountPath": "/v"}],
                "ReadinessProbe": {"Execs": ["true"], "PeriodSeconds": 3},
            }],
        }))
        .unwrap()
    }

    #[test]
    fn a_row_has_the_console_s_columns() {
        let text = table(&[&group()]);
        let line = text.lines().nth(1).unwrap();
        for part in [
            "eci-a",
            "default-web",
            "Running",
            "Started",
            "2-4Gi",
            "10.4.1.1",
            "sg",
            "vsw",
            "a=1",
        ] {
            assert!(line.contains(part), "{part} in {line}");
        }
    }

    #[test]
    fn another_image_leaves_the_rest_of_a_container_as_it_is() {
        let images = [("main".to_string(), "new".to_string())];
        let spec = with_images(&group(), &images).unwrap().remove(0);
        assert_eq!(
            (spec.image.as_str(), spec.cpu, spec.memory),
            ("new", Some(0.5), None)
        );
        assert_eq!(
            (spec.command, spec.arg),
            (vec!["sh".to_string()], vec!["-c".to_string()])
        );
        assert_eq!(spec.port[0].port, 80);
        assert_eq!(spec.environment_var[0].value.as_deref(), Some("v"));
        assert_eq!(
            spec.readiness_probe.unwrap().exec.unwrap().command,
            ["true"]
        );
        let wrong = [("side".to_string(), "new".to_string())];
        assert!(
            with_images(&group(), &wrong)
                .unwrap_err()
                .to_string()
                .contains("it has main")
        );
    }

    #[test]
    fn tags_are_added_and_changed_and_the_cloud_s_own_is_not_sent_back() {
        let tags = with_tags(&group(), &[("a".to_string(), "2".to_string())]);
        assert_eq!(
            tags,
            [Tag {
                key: "a".to_string(),
                value: "2".to_string()
            }]
        );
    }
}
