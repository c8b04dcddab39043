//! `springtide cloud`: what an operator of the real cloud does in its console, and what only a local one can do.

pub mod arguments;
mod control;
mod cost;
mod faults;
mod groups;
mod logs;
mod orphans;

use std::process::ExitCode;

use anyhow::Context;
use http::Method;
use serde_json::{Value, json};

use crate::data_dir::DataDir;
use crate::printer;
use crate::status::ClusterStatus;
use arguments::{CloudArguments, CloudCommand, EipCommand, NasCommand, UserCommand};
use control::Control;
pub(crate) use logs::client as log_client;

pub async fn run(arguments: CloudArguments) -> anyhow::Result<ExitCode> {
    let CloudArguments { cluster, command } = arguments;
    if let CloudCommand::Orphans {
        kubeconfig: Some(kubeconfig),
        place,
        delete,
        output,
    } = command
    {
        let place = orphans::Place::elsewhere(&kubeconfig, place).await?;
        orphans::run(&place, delete, output).await?;
        return Ok(ExitCode::SUCCESS);
    }
    let data_dir = DataDir::new(&cluster.data_dir);
    let Some(status) = ClusterStatus::read(&data_dir)? else {
        anyhow::bail!(
            "no cluster is served from {}; start one with `springtide up --data-dir {}`",
            data_dir.root().display(),
            data_dir.root().display()
        );
    };
    match command {
        CloudCommand::Groups(arguments) => groups::run(&status, arguments).await?,
        CloudCommand::Orphans { delete, output, .. } => {
            let place = orphans::Place::local(&data_dir, &status).await?;
            orphans::run(&place, delete, output).await?;
        }
        CloudCommand::Cost { by, output } => {
            cost::run(&Control::new(&status.cloud)?, by, output).await?;
        }
        CloudCommand::Fault(command) => faults::run(&Control::new(&status.cloud)?, command).await?,
        CloudCommand::User(command) => user(&Control::new(&status.cloud)?, command).await?,
        CloudCommand::Nas(command) => nas(&Control::new(&status.cloud)?, command).await?,
        CloudCommand::Logs(command) => logs::run(&status.cloud, command).await?,
        CloudCommand::Eip(command) => eip(&Control::new(&status.cloud)?, command).await?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints an answer as it is: these lists are short and read by scripts as often as by people.
fn print(answer: &Value) -> anyhow::Result<()> {
    printer::data(serde_json::to_string_pretty(answer)?);
    Ok(())
}

async fn user(control: &Control, command: UserCommand) -> anyhow::Result<()> {
    match command {
        UserCommand::Add { name, policy } => {
            let mut policies = Vec::new();
            for path in &policy {
                let read = || format!("read policy {}", path.display());
                let text = std::fs::read(path).with_context(read)?;
                let policy: Value = serde_json::from_slice(&text).with_context(read)?;
                policies.push(policy);
            }
            let body = json!({"name": name, "policies": policies});
            control.call(Method::POST, "users", &body).await?;
            printer::note(format!(
                "user {name} is there; `springtide cloud user key {name}` makes an access key"
            ));
        }
        UserCommand::List => {
            print(&control.call(Method::GET, "users", &Value::Null).await?["users"])?;
        }
        UserCommand::Delete { name } => {
            let path = format!("users/{name}");
            control.call(Method::DELETE, &path, &Value::Null).await?;
            printer::note(format!("user {name} is removed"));
        }
        UserCommand::Key { name } => {
            let path = format!("users/{name}/keys");
            print(&control.call(Method::POST, &path, &Value::Null).await?)?;
        }
        UserCommand::DisableKey { name, id } => switch(control, &name, &id, false).await?,
        UserCommand::EnableKey { name, id } => switch(control, &name, &id, true).await?,
        UserCommand::DeleteKey { name, id } => {
            let path = format!("users/{name}/keys/{id}");
            control.call(Method::DELETE, &path, &Value::Null).await?;
            printer::note(format!("access key {id} is removed"));
        }
        UserCommand::Session { name, lasting } => {
            let path = format!("users/{name}/sessions");
            let body = json!({"seconds": lasting.as_secs()});
            print(&control.call(Method::POST, &path, &body).await?)?;
        }
    }
    Ok(())
}

async fn switch(control: &Control, name: &str, id: &str, active: bool) -> anyhow::Result<()> {
    let path = format!("users/{name}/keys/{id}");
    let body = json!({"active": active});
    control.call(Method::PUT, &path, &body).await?;
    let state = if active { "on" } else { "off" };
    printer::note(format!("access key {id} is {state}"));
    Ok(())
}

async fn nas(control: &Control, command: NasCommand) -> anyhow::Result<()> {
    match command {
        NasCommand::Add { description } => {
            let body = json!({"description": description});
            print(&control.call(Method::POST, "file-systems", &body).await?)?;
        }
        NasCommand::List => {
            let answer = control
                .call(Method::GET, "file-systems", &Value::Null)
                .await?;
            print(&answer["fileSystems"])?;
        }
        NasCommand::MountTarget { id } => {
            let path = format!("file-systems/{id}/mount-targets");
            print(&control.call(Method::POST, &path, &Value::Null).await?)?;
        }
        NasCommand::Delete { id } => {
            let path = format!("file-systems/{id}");
            control.call(Method::DELETE, &path, &Value::Null).await?;
            printer::note(format!("file system {id} is removed with all its files"));
        }
    }
    Ok(())
}

async fn eip(control: &Control, command: EipCommand) -> anyhow::Result<()> {
    match command {
        EipCommand::Add { bandwidth } => {
            let body = json!({"bandwidth": bandwidth});
            print(&control.call(Method::POST, "eips", &body).await?)?;
        }
        EipCommand::List => {
            print(&control.call(Method::GET, "eips", &Value::Null).await?["eips"])?;
        }
        EipCommand::Delete { id } => {
            let path = format!("eips/{id}");
            control.call(Method::DELETE, &path, &Value::Null).await?;
            printer::note(format!("public address {id} is removed"));
        }
    }
    Ok(())
}
