//! Resolver and hosts file.

use cloud_api::model::create::{CreateContainerGroupRequest, DnsConfigSpec, HostAlias, NameValue};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::ResourceExt;

use crate::config::ClusterSettings;

pub(super) fn resolver(
    pod: &Pod,
    spec: &PodSpec,
    settings: &ClusterSettings,
    request: &mut CreateContainerGroupRequest,
) {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let mut config = DnsConfigSpec::default();
    if policy.starts_with("ClusterFirst") && !settings.cluster_dns.is_empty() {
        let namespace = pod.namespace().unwrap_or_else(|| "default".to_owned());
        let domain = &settings.cluster_domain;
        config.name_server = settings.cluster_dns.clone();
        config.search = vec![
            format!("{namespace}.svc.{domain}"),
            format!("svc.{domain}"),
            domain.clone(),
        ];
        config.option = vec![NameValue {
            name: "ndots".to_owned(),
            value: Some("5".to_owned()),
        }];
    }
    if let Some(own) = &spec.dns_config {
        append(&mut config.name_server, own.nameservers.iter().flatten());
        append(&mut config.search, own.searches.iter().flatten());
        for option in own.options.iter().flatten() {
            let Some(name) = option.name.clone() else {
                continue;
            };
            config.option.retain(|known| known.name != name);
            config.option.push(NameValue {
                name,
                value: option.value.clone(),
            });
        }
    }
    if config == DnsConfigSpec::default() {
        request.dns_policy = Some("Default".to_owned());
    } else {
        request.dns_policy = Some("None".to_owned());
        request.dns_config = Some(config);
    }
    let aliases = spec.host_aliases.iter().flatten();
    request.host_aliase = aliases
        .map(|alias| HostAlias {
            ip: alias.ip.clone(),
            hostname: alias.hostnames.clone().unwrap_or_default(),
        })
        .collect();
}

fn append<'a>(list: &mut Vec<String>, more: impl Iterator<Item = &'a String>) {
    for text in more {
        if !list.contains(text) {
            list.push(text.clone());
        }
    }
}
