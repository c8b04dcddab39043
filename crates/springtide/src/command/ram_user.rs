//! `springtide ram-user grant`: the least rights an add-on needs, printed and given.

use std::process::ExitCode;

use anyhow::{Context, bail};
use cloud_api::{ClientSources, EciClient, EciConfig};
use elastic_install::operator::credentials::from_environment;
use elastic_install::ram;

use crate::cli::{RamUserArguments, RamUserCommand};
use crate::printer;

/// The access service is the same for all regions; its client wants a region all the same.
const ANY_REGION: &str = "cn-hangzhou";

pub async fn run(arguments: RamUserArguments) -> anyhow::Result<ExitCode> {
    let RamUserCommand::Grant {
        addon: _,
        user,
        endpoint,
    } = arguments.command;
    printer::data(serde_json::to_string_pretty(&ram::policy())?);
    let Some(user) = user else {
        printer::note("printed only; name a RAM user with --user to make and attach the policy");
        return Ok(ExitCode::SUCCESS);
    };
    let Some((credentials, _)) = from_environment(&super::environment())? else {
        bail!(
            "the policy is printed above but not given: set ALIBABA_CLOUD_ACCESS_KEY_ID and \
             ALIBABA_CLOUD_ACCESS_KEY_SECRET of somebody who may manage RAM"
        );
    };
    let config = EciConfig::new(&endpoint, ANY_REGION, credentials);
    let client = EciClient::new(config, ClientSources::system()).context("use --endpoint")?;
    ram::grant(&client, &user).await?;
    printer::note(format!(
        "Ram policy {} granted to ram user {user} successfully.",
        ram::policy_name()
    ));
    Ok(ExitCode::SUCCESS)
}
