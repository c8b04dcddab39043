//! `springtide exporter sls`: numbers of the log service as Prometheus metrics.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use cloud_api::log::LogClient;
use cloud_api::log::client::LogClientConfig;
use cloud_api::{ClientSources, Credentials};
use elastic_install::operator::credentials::from_environment;
use elastic_metrics::log_exporter::config::{ExporterConfig, ExporterFile};
use elastic_metrics::log_exporter::run_log_exporter;
use jiff::Timestamp;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::cli::{ExporterArguments, ExporterCommand, ExporterSlsArguments};
use crate::data_dir::DataDir;
use crate::printer;
use crate::status::ClusterStatus;

/// Between two looks at a mounted Secret.
const REFRESH: Duration = Duration::from_secs(10);

pub async fn run(arguments: ExporterArguments) -> anyhow::Result<ExitCode> {
    let ExporterCommand::Sls(arguments) = arguments.command;
    let config = read(&arguments.config)?;
    if arguments.check {
        printer::note(format!("{} is right", arguments.config.display()));
        return Ok(ExitCode::SUCCESS);
    }
    let client = client(&arguments, &config)?;
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener.with_context(|| {
        format!(
            "listen on {}; choose another address with --listen",
            arguments.listen
        )
    })?;
    let address = listener
        .local_addr()
        .context("read the listener's address")?;
    printer::note(format!(
        "{} queries, served at http://{address}/metrics",
        config.queries.len()
    ));
    let shutdown = CancellationToken::new();
    let ended = shutdown.clone();
    let waiting = async move {
        let signal = super::wait_for_signal().await;
        ended.cancel();
        signal
    };
    let refreshing = refresh(client.clone(), arguments.credentials_dir, shutdown.clone());
    let now = Arc::new(Timestamp::now);
    let serving = run_log_exporter(client, config, listener, now, shutdown);
    let (signal, (), ()) = tokio::join!(waiting, refreshing, serving);
    signal?;
    Ok(ExitCode::SUCCESS)
}

fn read(path: &Path) -> anyhow::Result<ExporterConfig> {
    let reading = || format!("use {}", path.display());
    let text = std::fs::read_to_string(path).with_context(reading)?;
    let file: ExporterFile = serde_yaml::from_str(&text).with_context(reading)?;
    file.check().with_context(reading)
}

fn client(arguments: &ExporterSlsArguments, config: &ExporterConfig) -> anyhow::Result<LogClient> {
    if arguments.local {
        let data_dir = DataDir::new(&arguments.cluster.data_dir);
        let Some(status) = ClusterStatus::read(&data_dir)? else {
            bail!(
                "no cluster is served from {0}; start one with `springtide up --data-dir {0}`",
                data_dir.root().display()
            );
        };
        return super::cloud::log_client(&status.cloud);
    }
    let region = arguments.region.as_ref().or(config.region.as_ref());
    let Some(region) = region else {
        bail!(
            "no region: set `region` in {}, or --region",
            arguments.config.display()
        );
    };
    let endpoint = arguments.endpoint.as_ref().or(config.endpoint.as_ref());
    let endpoint = match endpoint {
        Some(endpoint) => endpoint.clone(),
        None => format!("https://{region}.log.aliyuncs.com"),
    };
    let credentials = match &arguments.credentials_dir {
        Some(folder) => from_folder(folder)?,
        None => match from_environment(&super::environment())? {
            Some((credentials, _)) => credentials,
            None => bail!(
                "no access key: set ALIBABA_CLOUD_ACCESS_KEY_ID and ALIBABA_CLOUD_ACCESS_KEY_SECRET, or mount a Secret and \
                 name it with --credentials-dir"
            ),
        },
    };
    let config = LogClientConfig::new(endpoint, region, credentials);
    LogClient::new(config, ClientSources::system()).context("use the log service's endpoint")
}

/// An access key from a mounted Secret; the files have the names that the add-on's Secret has.
fn from_folder(folder: &Path) -> anyhow::Result<Credentials> {
    let text = |name: &str| {
        let path = folder.join(name);
        let text =
            std::fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let text = text.trim().to_string();
        if text.is_empty() {
            bail!("{} is empty", path.display());
        }
        Ok(text)
    };
    let mut credentials = Credentials::new(text("access-key-id")?, text("access-key-secret")?);
    if folder.join("security-token").exists() {
        credentials.security_token = Some(text("security-token")?);
    }
    Ok(credentials)
}

/// Takes a rotated key up.
async fn refresh(client: LogClient, folder: Option<PathBuf>, shutdown: CancellationToken) {
    let Some(folder) = folder else {
        return;
    };
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(REFRESH) => {}
        }
        match from_folder(&folder) {
            Ok(credentials) => client.set_credentials(credentials),
            Err(error) => tracing::warn!(
                error = format!("{error:#}"),
                "the access key cannot be read again"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_s_mistakes_name_the_field() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("exporter.yaml");
        let refused = |text: &str| {
            std::fs::write(&path, text).unwrap();
            format!("{:#}", read(&path).unwrap_err())
        };
        let missing = refused("queries:\n- name: a\n  project: p\n  logstore: l\n");
        assert!(missing.contains("query"), "{missing}");
        let unknown = refused(
            "queries:\n- name: a\n  project: p\n  logstore: l\n  query: '* | select 1'\n  intervall: 5s\n",
        );
        assert!(unknown.contains("intervall"), "{unknown}");
        let wrong = refused(
            "queries:\n- name: a\n  project: p\n  logstore: l\n  query: '* | select 1'\n  interval: 5\n",
        );
        assert!(wrong.contains("interval"), "{wrong}");
    }

    #[test]
    fn a_mounted_secret_is_read_and_its_gaps_are_told() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("access-key-id"), "id\n").unwrap();
        let error = format!("{:#}", from_folder(folder.path()).unwrap_err());
        assert!(error.contains("access-key-secret"), "{error}");
        std::fs::write(folder.path().join("access-key-secret"), "secret").unwrap();
        assert_eq!(
            from_folder(folder.path()).unwrap(),
            Credentials::new("id", "secret")
        );
    }
}
