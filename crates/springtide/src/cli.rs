//! Every flag of the program, as types.

mod forecast;

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::command::cloud::arguments::CloudArguments;
pub use forecast::{BacktestArguments, ForecastArguments, ForecastCommand, ForecastPeriod};

/// Elastic capacity for Kubernetes: steady load on nodes you own, peaks on serverless containers billed by the second.
#[derive(Debug, Parser)]
#[command(name = "springtide", version, arg_required_else_help = true)]
pub struct Arguments {
    /// What to log to standard error: error, warn, info, debug, or `crate=level,…`.
    #[arg(long, global = true, default_value = "warn", env = "SPRINGTIDE_LOG")]
    pub log: String,
    /// How log lines are written: text for people, json for collectors.
    #[arg(
        long,
        global = true,
        default_value = "text",
        env = "SPRINGTIDE_LOG_FORMAT"
    )]
    pub log_format: LogFormat,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a local cluster in the foreground until Ctrl-C.
    Up(UpArguments),
    /// Stop a cluster and remove everything it left running; its data stays.
    Down(DownArguments),
    /// Show a cluster: addresses, credentials' places, nodes, load balancers.
    Status(StatusArguments),
    /// Container images of a cluster.
    Image(ImageArguments),
    /// Put load on an HTTP address: virtual users with think time, rising and falling in steps.
    Load(LoadArguments),
    /// The main job, shown: a shop meets a flash sale, overflows on to serverless containers and comes back.
    Demo(DemoArguments),
    /// Where the seconds of an ElasticWorkload's last burst went.
    Timeline(TimelineArguments),
    /// What a forecast would have been worth for a load that is known.
    Forecast(ForecastArguments),
    /// Schedules of CronHorizontalPodAutoscalers.
    Cron(CronArguments),
    /// The elastic parts on any cluster: virtual nodes, controllers, admission webhook.
    VirtualNode(VirtualNodeArguments),
    /// The local cloud: container groups, faults on demand, users, network file systems, public addresses.
    Cloud(CloudArguments),
    /// Numbers from elsewhere as Prometheus metrics.
    Exporter(ExporterArguments),
    /// Install, look at and remove the elastic parts on any cluster.
    Addon(AddonArguments),
    /// Rights of the cloud's RAM users.
    RamUser(RamUserArguments),
    /// Print shell completions.
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
    /// Write man pages into a folder; used by `cargo xtask deb`.
    #[command(hide = true)]
    ManPages {
        /// The folder.
        folder: PathBuf,
    },
    /// Measure a burst several times; used by `cargo xtask bench burst`.
    #[command(hide = true)]
    BenchBurst {
        /// Repetitions.
        #[arg(long, default_value_t = 5)]
        repeat: u32,
    },
    /// Measure scaling; used by `cargo xtask bench scaling`.
    #[command(hide = true)]
    BenchScaling {
        /// Repetitions.
        #[arg(long, default_value_t = 3)]
        repeat: u32,
        /// What to measure.
        #[arg(long, value_enum, default_value_t = crate::demo::bench_scaling::Part::All)]
        part: crate::demo::bench_scaling::Part,
    },
    /// Measure the virtual node alone; used by `cargo xtask bench virtual-node`.
    #[command(hide = true)]
    BenchVirtualNode {
        /// Repetitions.
        #[arg(long, default_value_t = 5)]
        repeat: u32,
        /// Measure a scaled Deployment on this cluster instead, and on our own beside it.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
    },
}

/// How answers are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// Sentences and tables.
    #[default]
    Text,
    /// One JSON document.
    Json,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Which cluster is meant.
#[derive(Clone, Debug, Args)]
pub struct ClusterArguments {
    /// The cluster's data directory; another directory is another cluster.
    #[arg(
        long,
        global = true,
        default_value = "/var/lib/springtide",
        env = "SPRINGTIDE_DATA_DIR"
    )]
    pub data_dir: PathBuf,
}

#[derive(Clone, Debug, Args)]
pub struct UpArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    #[command(flatten)]
    pub size: SizeArguments,
    /// Address of the API server; port 0 takes a free one and keeps it.
    #[arg(long, default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Whether the local cloud refuses calls beyond the documented limits, as the real one does; by default it does,
    /// unless it is simulated.
    #[arg(long)]
    pub cloud_call_limits: Option<CallLimitsChoice>,
    /// Serve without virtual nodes, elastic controllers and webhook, so that they can be installed as an add-on.
    #[arg(long)]
    pub without_addon: bool,
    #[command(flatten)]
    pub metrics: MetricsArguments,
}

/// Where business metrics come from, for autoscalers; named as prometheus-adapter names its flags.
#[derive(Clone, Debug, Default, Args)]
pub struct MetricsArguments {
    /// Address of a Prometheus; `http://<service>.<namespace>.svc:<port>` means one in the cluster.
    #[arg(long)]
    pub prometheus_url: Option<String>,
    /// Rules in the format of prometheus-adapter's configuration file.
    #[arg(long, alias = "config", requires = "prometheus_url")]
    pub metrics_config: Option<PathBuf>,
    /// How queries are sent to Prometheus.
    #[arg(
        long,
        default_value = "post",
        ignore_case = true,
        requires = "prometheus_url"
    )]
    pub prometheus_verb: PrometheusVerb,
    /// A header for every request to Prometheus, as `name=value`; may be repeated.
    #[arg(long, requires = "prometheus_url")]
    pub prometheus_header: Vec<String>,
    /// A file with a bearer token for Prometheus; it is read anew for every request.
    #[arg(long, requires = "prometheus_url")]
    pub prometheus_token_file: Option<PathBuf>,
    /// A file with the authorities that vouch for Prometheus' certificate.
    #[arg(long, requires = "prometheus_url")]
    pub prometheus_ca_file: Option<PathBuf>,
    /// Between two looks at which series Prometheus has; 4s unless said otherwise.
    #[arg(long, value_parser = parse_duration, requires = "prometheus_url")]
    pub metrics_relist_interval: Option<Duration>,
    /// A label by which several Prometheus that push the same series are told apart, so that it counts once; may be repeated.
    /// prometheus_replica and __replica__ unless said otherwise.
    #[arg(long)]
    pub pushed_replica_label: Vec<String>,
}

/// How queries are sent to Prometheus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum PrometheusVerb {
    /// In the address.
    Get,
    /// In the body.
    #[default]
    Post,
}

/// How often the local cloud may be called.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum CallLimitsChoice {
    /// As often as the vendor's documentation says.
    #[default]
    Documented,
    /// Without limits, for measuring.
    None,
}

/// How big the cluster is.
#[derive(Clone, Debug, Args)]
pub struct SizeArguments {
    /// Number of worker nodes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(0..=50))]
    pub workers: u32,
    /// CPU each worker may use, for example `1`, `0.5` or `500m`.
    #[arg(long, default_value = "1", value_parser = parse_cpu)]
    pub worker_cpu: u64,
    /// Memory each worker may use, for example `1Gi`.
    #[arg(long, default_value = "1Gi", value_parser = parse_memory)]
    pub worker_memory: u64,
    /// Zones of the local cloud, each with a virtual node.
    #[arg(long, value_delimiter = ',', default_value = "cn-hangzhou-k")]
    pub zones: Vec<String>,
    /// Container groups exist only on paper (for scale tests); named so wherever it shows.
    #[arg(long)]
    pub simulated: bool,
    /// With --simulated: how long a group takes from created to running.
    #[arg(long, default_value = "0ms", value_parser = parse_duration)]
    pub simulated_start_delay: Duration,
    /// How often autoscalers decide.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub hpa_sync_period: Duration,
}

#[derive(Debug, Args)]
pub struct DownArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Remove the data directory too: objects, images, ledger, keys.
    #[arg(long)]
    pub purge: bool,
}

#[derive(Debug, Args)]
pub struct StatusArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// `text` or `json`.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct ImageArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    #[command(subcommand)]
    pub command: ImageCommand,
}

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// Load an OCI or Docker archive.
    Load {
        /// The archive, plain or gzip.
        archive: PathBuf,
    },
    /// List images.
    List {
        /// `text` or `json`.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Build the sample shop's image from this program itself.
    BuildSample,
}

#[derive(Debug, Args)]
pub struct LoadArguments {
    /// Where requests go, `http://host[:port]/path`.
    pub url: String,
    /// Most users at once.
    #[arg(long, default_value_t = 100)]
    pub users: u32,
    /// Whole run: a third rising, a third at the top, a third falling.
    #[arg(long, default_value = "60s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Steps of the rise.
    #[arg(long, default_value_t = 10)]
    pub steps: u32,
    /// Mean pause of a user between answer and next request.
    #[arg(long, default_value = "1s", value_parser = parse_duration)]
    pub think_time: Duration,
    /// A request without a complete answer by then has failed.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub timeout: Duration,
    /// Count the values of this response header.
    #[arg(long)]
    pub count_header: Option<String>,
    /// Seed of the users' pauses.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// `text` or `json`.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct DemoArguments {
    /// Most users at once.
    #[arg(long, default_value_t = 1000)]
    pub users: u32,
    /// How long the load lasts.
    #[arg(long, default_value = "90s", value_parser = parse_duration)]
    pub duration: Duration,
    /// Where report.json and report.html are written.
    #[arg(long, default_value = ".")]
    pub report_dir: PathBuf,
    /// Leave the cluster up until Ctrl-C.
    #[arg(long)]
    pub keep: bool,
    /// Data directory of the demo's cluster; a temporary one is used and removed when absent.
    #[arg(long)]
    pub data_dir: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct TimelineArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// Name of the ElasticWorkload.
    pub name: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// Kubeconfig of another cluster than the local one.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// `text` or `json`.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct CronArguments {
    #[command(subcommand)]
    pub command: CronCommand,
}

#[derive(Debug, Subcommand)]
pub enum CronCommand {
    /// Show when jobs run next, of a manifest without any cluster, or of an object in a cluster.
    Next(CronNextArguments),
}

#[derive(Debug, Args)]
pub struct CronNextArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    /// A manifest's file (`-`: standard input), or the name of a CronHorizontalPodAutoscaler.
    pub object: String,
    /// Its namespace.
    #[arg(short, long, default_value = "default")]
    pub namespace: String,
    /// How many runs to show.
    #[arg(long, default_value_t = 10)]
    pub count: usize,
    /// Zone of schedules that name none; UTC when absent. The controller's own holds for objects it has seen.
    #[arg(long, env = "TZ")]
    pub time_zone: Option<String>,
    /// Kubeconfig of another cluster than the local one.
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// `text` or `json`.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Args)]
pub struct VirtualNodeArguments {
    #[command(subcommand)]
    pub command: VirtualNodeCommand,
}

#[derive(Debug, Subcommand)]
pub enum VirtualNodeCommand {
    /// Run one replica in the foreground until SIGTERM; several may run, one leads.
    ///
    /// Region, vSwitches, cluster id and keys come from ConfigMap kube-system/eci-profile, Secret
    /// kube-system/alibaba-addon-secret and the environment (ECI_REGION, ECI_VSWITCH, …); see docs/install.md.
    Run(VirtualNodeRunArguments),
}

#[derive(Debug, Args)]
pub struct VirtualNodeRunArguments {
    /// Kubeconfig of the cluster (managed mode); without one, the pod's own account is used (in-cluster mode).
    #[arg(long, env = "KUBECONFIG")]
    pub kubeconfig: Option<PathBuf>,
    /// Address under which the API server reaches this replica; InternalIP of the virtual nodes.
    #[arg(long, env = "POD_IP", default_value = "127.0.0.1")]
    pub node_address: IpAddr,
    /// Address the kubelet API listens on; the node address when absent.
    #[arg(long)]
    pub kubelet_bind: Option<IpAddr>,
    /// Port of the first virtual node's kubelet API; further nodes take the ones after it. 0 takes any.
    #[arg(long, env = "KUBELET_PORT", default_value_t = 10250)]
    pub kubelet_port: u16,
    /// Where the admission webhook listens.
    #[arg(long, default_value = "0.0.0.0:9443")]
    pub webhook_listen: SocketAddr,
    /// Where the custom and external metrics APIs listen, when METRICS_APIS names them.
    #[arg(long, default_value = "0.0.0.0:4443")]
    pub metrics_listen: SocketAddr,
    /// URL under which the API server reaches the webhook, for managed mode; without it, managed mode serves none.
    #[arg(long)]
    pub webhook_url: Option<String>,
    /// Where /healthz, /readyz and /metrics listen.
    #[arg(long, default_value = "0.0.0.0:8080")]
    pub health_listen: SocketAddr,
    /// Name of this replica, different from all others'; host name and process id when absent.
    #[arg(long, env = "POD_NAME")]
    pub identity: Option<String>,
    /// How long a silent leader still leads.
    #[arg(long, default_value = "15s", value_parser = parse_duration)]
    pub lease_duration: Duration,
    /// A leader that cannot renew its lease for this long stops.
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    pub renew_deadline: Duration,
    /// Between two tries.
    #[arg(long, default_value = "2s", value_parser = parse_duration)]
    pub retry_period: Duration,
    /// Metadata service that hands out a RAM role's keys.
    #[arg(
        long,
        default_value = "http://100.100.100.200",
        env = "ECI_METADATA_ENDPOINT",
        hide = true
    )]
    pub metadata_endpoint: String,
}

#[derive(Debug, Args)]
pub struct AddonArguments {
    /// Kubeconfig of the cluster; the usual places are looked at when absent.
    #[arg(long, global = true)]
    pub kubeconfig: Option<PathBuf>,
    #[command(subcommand)]
    pub command: AddonCommand,
}

#[derive(Debug, Subcommand)]
pub enum AddonCommand {
    /// Install, or bring to what the flags say; doing it again changes nothing.
    Install(AddonInstallArguments),
    /// Bring an installed add-on to this program's version; settings stay.
    Upgrade(AddonInstallArguments),
    /// Print what `install` would apply, as YAML.
    Manifests {
        #[command(flatten)]
        options: AddonOptions,
        /// With the kinds of OpenKruise and of the vendor's scheduler; only for clusters that have neither, because
        /// `kubectl apply` would overwrite theirs.
        #[arg(long)]
        with_foreign_kinds: bool,
        /// Write a Helm chart into this directory instead; used by `cargo xtask generate`.
        #[arg(long, hide = true)]
        chart_dir: Option<PathBuf>,
    },
    /// List add-ons, with the version that is installed.
    List {
        /// `text` or `json`.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Show how an add-on does: replicas, leader, nodes, what is missing.
    Status {
        /// The add-on.
        name: AddonName,
        /// `text` or `json`.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Drain and remove: pods and container groups first, verified in the cloud, then nodes and objects.
    Uninstall {
        /// The add-on.
        name: AddonName,
        /// What may stay; without it everything goes or nothing is said to be done.
        #[arg(long, value_delimiter = ',')]
        abandon: Vec<Abandoned>,
        /// Longest wait for each step.
        #[arg(long, default_value = "5m", value_parser = parse_duration)]
        timeout: Duration,
        #[command(flatten)]
        cloud: CloudPlaceArguments,
    },
}

/// Add-ons there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AddonName {
    /// Virtual nodes, ElasticWorkload and the admission webhook.
    AckVirtualNode,
}

/// What may stay behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Abandoned {
    /// Container groups in the cloud; they go on being billed.
    Groups,
    /// ElasticWorkload objects and their definition.
    ElasticWorkloads,
}

/// Which cloud is meant; the installed controller's settings hold where nothing is said.
#[derive(Clone, Debug, Args)]
pub struct CloudPlaceArguments {
    /// Region id.
    #[arg(long, env = "ECI_REGION")]
    pub region: Option<String>,
    /// The cluster's id in the cloud; the UID of namespace kube-system when nobody says another.
    #[arg(long, env = "ALIYUN_CLUSTERID")]
    pub cluster_id: Option<String>,
    /// Where container instances are asked for, instead of the region's endpoint.
    #[arg(long, env = "ECI_ENDPOINT")]
    pub endpoint: Option<String>,
}

#[derive(Clone, Debug, Args)]
pub struct AddonOptions {
    /// The add-on.
    pub name: AddonName,
    /// Where the controller runs: as a Deployment, or outside with `springtide virtual-node run --kubeconfig`.
    #[arg(long)]
    pub mode: Option<AddonMode>,
    /// The controller's image.
    #[arg(long)]
    pub image: Option<String>,
    /// Replicas of the controller.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=10))]
    pub replicas: Option<u32>,
    #[command(flatten)]
    pub cloud: CloudPlaceArguments,
    /// vSwitches, in the order in which zones are tried.
    #[arg(long, env = "ECI_VSWITCH")]
    pub v_switch: Option<String>,
    /// Default security group.
    #[arg(long, env = "ECI_SECURITY_GROUP")]
    pub security_group: Option<String>,
    /// Further variables of the controller, `NAME=VALUE`.
    #[arg(long = "set-env", value_parser = parse_variable)]
    pub set_env: Vec<(String, String)>,
}

/// Where the controller runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum AddonMode {
    /// As a Deployment with two replicas.
    InCluster,
    /// Outside the cluster, with a kubeconfig.
    Managed,
}

#[derive(Debug, Args)]
pub struct AddonInstallArguments {
    #[command(flatten)]
    pub options: AddonOptions,
    /// Only say what would be done; the server checks it.
    #[arg(long)]
    pub dry_run: bool,
    /// Go on when the cluster is older than Kubernetes 1.28, which is not supported.
    #[arg(long)]
    pub any_version: bool,
}

#[derive(Debug, Args)]
pub struct ExporterArguments {
    #[command(subcommand)]
    pub command: ExporterCommand,
}

#[derive(Debug, Subcommand)]
pub enum ExporterCommand {
    /// Ask the log service at an interval and serve what it answers.
    Sls(ExporterSlsArguments),
}

#[derive(Debug, Args)]
pub struct ExporterSlsArguments {
    /// What to ask: a YAML file (docs/log-service.md).
    #[arg(long)]
    pub config: PathBuf,
    /// Where Prometheus finds /metrics.
    #[arg(long, default_value = "127.0.0.1:9118")]
    pub listen: SocketAddr,
    /// Where the log service is, instead of what the file or the region says.
    #[arg(long, env = "SLS_ENDPOINT")]
    pub endpoint: Option<String>,
    /// Region id, instead of what the file says.
    #[arg(long, env = "SLS_REGION")]
    pub region: Option<String>,
    /// A mounted Secret with the files access-key-id and access-key-secret, read again when they change; without it the
    /// key comes from the environment.
    #[arg(long, conflicts_with = "local")]
    pub credentials_dir: Option<PathBuf>,
    /// Ask the log service of the local cluster in --data-dir, with its key.
    #[arg(long, conflicts_with_all = ["endpoint", "region"])]
    pub local: bool,
    /// Only check the file.
    #[arg(long)]
    pub check: bool,
    #[command(flatten)]
    pub cluster: ClusterArguments,
}

#[derive(Debug, Args)]
pub struct RamUserArguments {
    #[command(subcommand)]
    pub command: RamUserCommand,
}

#[derive(Debug, Subcommand)]
pub enum RamUserCommand {
    /// Print the least policy an add-on needs; with --user, make it and attach it with the key in the environment.
    Grant {
        /// The add-on.
        #[arg(long)]
        addon: AddonName,
        /// RAM user that gets the policy.
        #[arg(long)]
        user: Option<String>,
        /// Where the access service listens.
        #[arg(long, default_value = cloud_api::model::ram::ENDPOINT, env = "RAM_ENDPOINT")]
        endpoint: String,
    },
}

/// `NAME=VALUE`.
fn parse_variable(text: &str) -> Result<(String, String), String> {
    let is_pods = |name: &str| {
        let mut names = elastic_install::manifests::POD_VARIABLES.iter();
        names.any(|(known, _)| *known == name)
    };
    match text.split_once('=') {
        Some((name, _)) if is_pods(name) => {
            Err(format!("{name} is set by Kubernetes; leave it out"))
        }
        Some((name, value)) if !name.is_empty() => Ok((name.to_string(), value.to_string())),
        _ => Err(format!(
            "{text:?} is not NAME=VALUE; write for example ECI_QUOTA_CPU=1000"
        )),
    }
}

/// `90s`, `2m`, `500ms`, `1m30s`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write for example 90s, 2m or 500ms");
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let digits = rest
            .find(|c: char| !(c.is_ascii_digit() || c == '.'))
            .ok_or_else(wrong)?;
        let number: f64 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit())
            .unwrap_or(rest.len());
        let unit = match &rest[..end] {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return Err(wrong()),
        };
        total += Duration::try_from_secs_f64(number * unit).map_err(|_| wrong())?;
        rest = &rest[end..];
    }
    Ok(total)
}

/// Cores or `500m`, in thousandths of a core.
fn parse_cpu(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not an amount of CPU; write for example 1, 0.5 or 500m");
    let milli = match text.strip_suffix('m') {
        Some(milli) => milli.parse::<f64>().map_err(|_| wrong())?,
        None => text.parse::<f64>().map_err(|_| wrong())? * 1000.0,
    };
    if (10.0..=1_024_000.0).contains(&milli) {
        Ok(milli.round() as u64)
    } else {
        Err(wrong())
    }
}

/// `512Mi`, `1Gi`, `500M` or bytes.
fn parse_memory(text: &str) -> Result<u64, String> {
    let wrong = || {
        format!(
            "{text:?} is not an amount of memory of at least 16Mi; write for example 512Mi or 1Gi"
        )
    };
    let split = text
        .find(|c: char| !(c.is_ascii_digit() || c == '.'))
        .unwrap_or(text.len());
    let number: f64 = text[..split].parse().map_err(|_| wrong())?;
    let unit = match &text[split..] {
        "" => 1.0,
        "Ki" => 1024.0,
        "Mi" => 1024.0 * 1024.0,
        "Gi" => 1024.0 * 1024.0 * 1024.0,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        _ => return Err(wrong()),
    };
    let bytes = number * unit;
    if (16.0 * 1024.0 * 1024.0..1e15).contains(&bytes) {
        Ok(bytes.round() as u64)
    } else {
        Err(wrong())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }

    #[test]
    fn durations_cpu_and_memory_are_read_and_odd_ones_refused_with_an_example() {
        assert_eq!(parse_duration("1m30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse_duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(parse_duration("5").unwrap_err().contains("90s"));
        assert!(parse_duration("").is_err());
        assert_eq!(parse_cpu("0.5"), Ok(500));
        assert_eq!(parse_cpu("250m"), Ok(250));
        assert!(parse_cpu("-1").is_err());
        assert_eq!(parse_memory("1Gi"), Ok(1 << 30));
        assert!(parse_memory("1").unwrap_err().contains("512Mi"));
    }
}
