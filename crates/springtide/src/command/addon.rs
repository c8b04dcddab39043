//! `springtide addon`: installs, shows and removes the elastic parts on any cluster.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context, bail};
use elastic_install::manifests::older::{self, Fit};
use elastic_install::manifests::{self, Mode, Options};
use elastic_install::names::{ADDON, CREDENTIALS, NAMESPACE, VERSION};
use elastic_install::uninstall::{Abandon, UninstallOptions, uninstall};
use elastic_install::{apply, built_in, chart, status};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client};

use crate::cli::{
    Abandoned, AddonArguments, AddonCommand, AddonInstallArguments, AddonMode, AddonOptions,
    CloudPlaceArguments, Output,
};
use crate::command::client_from;
use crate::command::cloud_of_cluster::CloudOfCluster;
use crate::printer;

/// The first version whose API has everything that is installed.
const OLDEST_MINOR: u32 = 28;

pub async fn run(arguments: AddonArguments) -> anyhow::Result<ExitCode> {
    let AddonArguments {
        kubeconfig,
        command,
    } = arguments;
    let client = async || client(kubeconfig.as_deref()).await;
    match command {
        AddonCommand::Install(arguments) => install(&client().await?, arguments, false).await?,
        AddonCommand::Upgrade(arguments) => install(&client().await?, arguments, true).await?,
        AddonCommand::Manifests {
            options,
            with_foreign_kinds,
            chart_dir,
        } => print_manifests(options, with_foreign_kinds, chart_dir.as_deref())?,
        AddonCommand::List { output } => list(&client().await?, output).await?,
        AddonCommand::Status { name: _, output } => show(&client().await?, output).await?,
        AddonCommand::Uninstall {
            name: _,
            abandon,
            timeout,
            cloud,
        } => {
            let abandon = Abandon {
                groups: abandon.contains(&Abandoned::Groups),
                elastic_workloads: abandon.contains(&Abandoned::ElasticWorkloads),
            };
            remove(&client().await?, abandon, timeout, cloud).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    match kubeconfig {
        Some(path) => client_from(path).await,
        None => Client::try_default()
            .await
            .context("find a cluster; name its kubeconfig with --kubeconfig or KUBECONFIG"),
    }
}

/// Flags over what is installed over the defaults.
fn merged(mut options: Options, flags: AddonOptions) -> Options {
    match flags.mode {
        Some(AddonMode::InCluster) => options.mode = Mode::InCluster,
        Some(AddonMode::Managed) => options.mode = Mode::Managed,
        None => {}
    }
    options.image = flags.image.unwrap_or(options.image);
    if let Some(replicas) = flags.replicas {
        options.replicas = replicas.to_string();
    }
    let named = [
        ("ECI_REGION", flags.cloud.region),
        ("ALIYUN_CLUSTERID", flags.cloud.cluster_id),
        ("ECI_ENDPOINT", flags.cloud.endpoint),
        ("ECI_VSWITCH", flags.v_switch),
        ("ECI_SECURITY_GROUP", flags.security_group),
    ];
    let given = named
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_string(), value?)));
    options.environment.extend(given);
    options.environment.extend(flags.set_env);
    options
}

async fn install(
    client: &Client,
    arguments: AddonInstallArguments,
    upgrade: bool,
) -> anyhow::Result<()> {
    let AddonInstallArguments {
        options,
        dry_run,
        any_version,
    } = arguments;
    let minor = check_version(client, any_version).await?;
    refuse_built_in(client).await?;
    let before = status::installed(client)
        .await
        .context("look for an earlier installation")?;
    let image_given = options.image.is_some();
    let mut wanted = match (before, upgrade) {
        (None, true) => {
            bail!("add-on {ADDON} is not installed; use `springtide addon install {ADDON}`")
        }
        (before, _) => merged(before.unwrap_or_default(), options),
    };
    if upgrade && !image_given {
        wanted.image = manifests::DEFAULT_IMAGE.to_string();
    }
    let region = wanted.environment.get("ECI_REGION");
    if wanted.mode == Mode::InCluster && region.is_none_or(String::is_empty) {
        bail!("--region is missing; name the cloud's region, such as --region cn-hangzhou");
    }
    let mut told = BTreeSet::new();
    for mut object in manifests::objects(&wanted) {
        match older::fit(&mut object, minor.unwrap_or(u32::MAX)) {
            Fit::Whole => {}
            Fit::Reduced(note) => {
                told.insert(note);
            }
            Fit::LeftOut(note) => {
                told.insert(note);
                continue;
            }
        }
        let outcome = apply::apply(client, &object, dry_run).await?;
        let note = if dry_run { " (dry run)" } else { "" };
        printer::data(format!("{} {outcome}{note}", apply::title(&object)));
    }
    for note in told {
        printer::note(note);
    }
    if dry_run {
        return Ok(());
    }
    tell_about_credentials(client).await?;
    if wanted.mode == Mode::Managed {
        printer::note(
            "managed mode: start `springtide virtual-node run --kubeconfig …` outside the cluster",
        );
    }
    printer::note(format!("Addon {ADDON}, version {VERSION} installed."));
    Ok(())
}

async fn refuse_built_in(client: &Client) -> anyhow::Result<()> {
    let marked = built_in::is_marked(client)
        .await
        .context("ask the cluster who runs its elastic parts")?;
    if marked {
        bail!("{}", built_in::REFUSAL);
    }
    Ok(())
}

/// The minor version of a cluster that says one; an error when that is too old, unless any will do.
async fn check_version(client: &Client, any: bool) -> anyhow::Result<Option<u32>> {
    let version = client
        .apiserver_version()
        .await
        .context("ask the cluster for its version")?;
    let digits: String = version
        .minor
        .chars()
        .take_while(char::is_ascii_digit)
        .collect();
    let minor = digits.parse::<u32>().ok().filter(|_| version.major == "1");
    if minor.is_some_and(|minor| minor < OLDEST_MINOR) {
        let version = &version.git_version;
        if !any {
            bail!("the cluster is {version}; Kubernetes 1.{OLDEST_MINOR} or later is needed");
        }
        printer::note(format!(
            "the cluster is {version}, older than 1.{OLDEST_MINOR}: parts that need newer APIs will not work"
        ));
    }
    Ok(minor)
}

async fn tell_about_credentials(client: &Client) -> anyhow::Result<()> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let found = secrets
        .get_opt(CREDENTIALS)
        .await
        .context("look for the access key")?;
    if found.is_none() {
        printer::note(format!(
            "there is no Secret {NAMESPACE}/{CREDENTIALS}; unless the nodes have a RAM role, make it:\n    kubectl -n \
             {NAMESPACE} create secret generic {CREDENTIALS} --from-literal=access-key-id=… \
             --from-literal=access-key-secret=…"
        ));
    }
    Ok(())
}

fn print_manifests(
    options: AddonOptions,
    with_foreign_kinds: bool,
    chart_dir: Option<&Path>,
) -> anyhow::Result<()> {
    let Some(folder) = chart_dir else {
        let options = merged(Options::default(), options);
        printer::data(manifests::stream(&options, with_foreign_kinds)?.trim_end());
        return Ok(());
    };
    for (path, text) in chart::files()? {
        let path = folder.join(path);
        let write = || format!("write {}", path.display());
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).with_context(write)?;
        }
        std::fs::write(&path, text).with_context(write)?;
    }
    Ok(())
}

async fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let status = status::status(client).await?;
    match output {
        Output::Json => printer::data(serde_json::to_string_pretty(&serde_json::json!([
            {"name": ADDON, "version": status.version, "available": VERSION}
        ]))?),
        Output::Text => {
            printer::data(format!("{:<20}{:<14}AVAILABLE", "NAME", "INSTALLED"));
            let installed = status.version.as_deref().unwrap_or("-");
            printer::data(format!("{ADDON:<20}{installed:<14}{VERSION}"));
        }
    }
    Ok(())
}

async fn show(client: &Client, output: Output) -> anyhow::Result<()> {
    let status = status::status(client).await?;
    if output == Output::Json {
        printer::data(serde_json::to_string_pretty(&status)?);
        return Ok(());
    }
    let none = || "-".to_string();
    let lines = [
        (
            "version",
            status
                .version
                .unwrap_or_else(|| "not installed".to_string()),
        ),
        ("mode", status.mode.unwrap_or_else(none)),
        (
            "replicas",
            status
                .replicas
                .map_or_else(none, |(ready, wanted)| format!("{ready} of {wanted} ready")),
        ),
        ("leader", status.leader.unwrap_or_else(none)),
    ];
    for (title, value) in lines {
        printer::data(format!("{title:<10}{value}"));
    }
    for (node, ready) in status.nodes {
        let state = if ready { "Ready" } else { "NotReady" };
        printer::data(format!("{:<10}{node} {state}", "node"));
    }
    for object in status.missing {
        printer::data(format!("{:<10}{object}", "missing"));
    }
    Ok(())
}

async fn remove(
    client: &Client,
    abandon: Abandon,
    patience: std::time::Duration,
    cloud: CloudPlaceArguments,
) -> anyhow::Result<()> {
    let cloud = CloudOfCluster::find(client, cloud).await?;
    let cluster_id = cloud.cluster_id(client).await?;
    let eci = if abandon.groups {
        None
    } else {
        let why = "the cloud is asked whether container groups are left (or leave them with --abandon groups)";
        Some(cloud.eci(client, why).await?)
    };
    let options = UninstallOptions {
        cluster_id,
        abandon,
        patience,
    };
    uninstall(client, eci.as_ref(), &options, &mut |line| {
        printer::data(line)
    })
    .await?;
    printer::note(format!("Addon {ADDON} uninstalled."));
    Ok(())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Arguments, Command};

    fn flags(line: &[&str]) -> AddonOptions {
        let line = ["springtide", "addon", "install", "ack-virtual-node"]
            .iter()
            .chain(line);
        match Arguments::try_parse_from(line).unwrap().command {
            Command::Addon(AddonArguments {
                command: AddonCommand::Install(arguments),
                ..
            }) => arguments.options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn flags_beat_what_is_installed_and_the_rest_stays() {
        let mut before = Options::default();
        before
            .environment
            .insert("ECI_VSWITCH".into(), "vsw-edited".into());
        before
            .environment
            .insert("ECI_REGION".into(), "cn-beijing".into());
        before.replicas = "3".into();
        let after = merged(
            before,
            flags(&["--region", "cn-hangzhou", "--set-env", "ECI_QUOTA_CPU=1000"]),
        );
        assert_eq!(after.environment["ECI_VSWITCH"], "vsw-edited");
        assert_eq!(after.environment["ECI_REGION"], "cn-hangzhou");
        assert_eq!(after.environment["ECI_QUOTA_CPU"], "1000");
        assert_eq!(after.replicas, "3");
    }
}
