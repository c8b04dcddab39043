//! The flags of `springtide cloud`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use crate::cli::{CloudPlaceArguments, ClusterArguments, Output, parse_duration};

/// The local cloud: its container groups, faults on demand, users, network file systems, public addresses.
#[derive(Debug, Args)]
pub struct CloudArguments {
    #[command(flatten)]
    pub cluster: ClusterArguments,
    #[command(subcommand)]
    pub command: CloudCommand,
}

#[derive(Debug, Subcommand)]
pub enum CloudCommand {
    /// List container groups, or delete, restart, update them.
    #[command(args_conflicts_with_subcommands = true)]
    Groups(GroupsArguments),
    /// List groups of a cluster whose pod does not live in it any more: the local one, or any with the add-on.
    Orphans {
        /// Another cluster than the local one; its add-on says where its cloud is.
        #[arg(long)]
        kubeconfig: Option<PathBuf>,
        #[command(flatten)]
        place: CloudPlaceArguments,
        /// Delete them.
        #[arg(long)]
        delete: bool,
        /// `text` or `json`.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// What container groups have cost so far, to the last unit, and what an hour costs as things are now.
    Cost {
        /// What each row is.
        #[arg(long, default_value = "group")]
        by: CostBy,
        /// `text` or `json`.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// Let things go wrong on purpose.
    #[command(subcommand)]
    Fault(FaultCommand),
    /// RAM users with policies, their access keys, and keys for a while.
    #[command(subcommand)]
    User(UserCommand),
    /// Network file systems: directories that containers mount as NFSVolume.
    #[command(subcommand)]
    Nas(NasCommand),
    /// Public addresses, on paper.
    #[command(subcommand)]
    Eip(EipCommand),
    /// The log service: logstores, queries, and devices that write.
    #[command(subcommand)]
    Logs(LogsCommand),
}

/// How costs are added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CostBy {
    /// Not at all.
    Group,
    /// By the namespace of their pods.
    Namespace,
    /// By the zone they ran in.
    Zone,
}

impl CostBy {
    /// The flag's word.
    pub fn name(self) -> &'static str {
        match self {
            Self::Group => "group",
            Self::Namespace => "namespace",
            Self::Zone => "zone",
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum LogsCommand {
    /// Make a logstore, and its project when there is none yet.
    Create {
        #[command(flatten)]
        place: LogstorePlace,
        /// How many days logs are kept.
        #[arg(long, default_value_t = 7)]
        ttl: u32,
        /// An indexed field, as `name=text`, `name=long` or `name=double`; without any, all fields are columns in SQL.
        #[arg(long, value_parser = parse_pair)]
        field: Vec<(String, String)>,
    },
    /// Ask for logs, or for rows with `search | select …`.
    Query {
        #[command(flatten)]
        place: LogstorePlace,
        /// The query.
        query: String,
        /// How far back to look.
        #[arg(long, default_value = "5m", value_parser = parse_duration)]
        last: Duration,
    },
    /// Be the devices of a chat service: replay one day of a demand curve, each active device writing heartbeats.
    Replay(ReplayArguments),
}

/// Which logstore.
#[derive(Debug, Args)]
pub struct LogstorePlace {
    /// The project.
    #[arg(long)]
    pub project: String,
    /// The logstore.
    #[arg(long)]
    pub logstore: String,
}

#[derive(Debug, Args)]
pub struct ReplayArguments {
    #[command(flatten)]
    pub place: LogstorePlace,
    /// The curve: a CSV file with the columns timestamp and value.
    #[arg(long)]
    pub curve: PathBuf,
    /// The day of it to replay.
    #[arg(long)]
    pub day: String,
    /// How long the day takes.
    #[arg(long, default_value = "2m", value_parser = parse_duration)]
    pub lasting: Duration,
    /// Active devices at the day's highest demand.
    #[arg(long, default_value_t = 8_000, value_parser = clap::value_parser!(u32).range(1..=200_000))]
    pub peak: u32,
    /// Between two heartbeats of one device.
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    pub heartbeat: Duration,
}

#[derive(Debug, Args)]
pub struct GroupsArguments {
    #[command(subcommand)]
    pub command: Option<GroupsCommand>,
    /// Ended groups too.
    #[arg(long)]
    pub all: bool,
    /// `text` or `json`.
    #[arg(short, long, default_value = "text")]
    pub output: Output,
}

#[derive(Debug, Subcommand)]
pub enum GroupsCommand {
    /// Delete groups.
    Delete {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Start all containers of groups anew.
    Restart {
        /// Their ids.
        #[arg(required = true)]
        ids: Vec<String>,
    },
    /// Change a group in place; containers that stay the same go on running.
    Update {
        /// Its id.
        id: String,
        /// Another image for a container, as `container=image`.
        #[arg(long, value_parser = parse_pair)]
        image: Vec<(String, String)>,
        /// A tag to add or change, as `key=value`.
        #[arg(long, value_parser = parse_pair)]
        tag: Vec<(String, String)>,
        /// Always, OnFailure or Never.
        #[arg(long)]
        restart_policy: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum FaultCommand {
    /// Order a fault.
    Add(FaultArguments),
    /// List faults.
    List {
        /// `text` or `json`.
        #[arg(short, long, default_value = "text")]
        output: Output,
    },
    /// End faults.
    Clear {
        /// Their ids; all of them when none is given.
        ids: Vec<String>,
    },
}

#[derive(Debug, Args)]
pub struct FaultArguments {
    #[command(subcommand)]
    pub kind: FaultKind,
    /// How often it hits; without end when left out.
    #[arg(long, global = true, value_parser = clap::value_parser!(u64).range(1..))]
    pub times: Option<u64>,
    /// How long it lasts; without end when left out.
    #[arg(long = "for", global = true, value_parser = parse_duration)]
    pub lasting: Option<Duration>,
}

#[derive(Debug, Subcommand)]
pub enum FaultKind {
    /// There is no stock.
    NoStock {
        /// Only in this zone.
        #[arg(long)]
        zone: Option<String>,
        /// Only of this machine type (`ecs.c6.large`) or size (`2-4Gi`).
        #[arg(long)]
        spec: Option<String>,
    },
    /// There are no addresses.
    NoAddresses {
        /// Only in this zone.
        #[arg(long)]
        zone: Option<String>,
        /// Only in this vSwitch.
        #[arg(long)]
        v_switch: Option<String>,
    },
    /// Calls are refused as too many.
    Throttle {
        /// Only this action.
        #[arg(long)]
        action: Option<String>,
    },
    /// Calls wait before they are carried out.
    Latency {
        /// How long.
        #[arg(long, value_parser = parse_duration)]
        delay: Duration,
        /// Only this action.
        #[arg(long)]
        action: Option<String>,
    },
    /// Calls take effect, but their answers are lost.
    LoseAnswer {
        /// Only this action.
        #[arg(long)]
        action: Option<String>,
    },
    /// Calls are refused with a code of your choice.
    Refuse {
        /// Such as OperationDenied.NoStock.
        #[arg(long)]
        code: String,
        /// The HTTP status.
        #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(400..600))]
        http_status: u16,
        /// Only this action.
        #[arg(long)]
        action: Option<String>,
    },
    /// Nothing answers: every call is refused as unavailable.
    Down,
    /// A group ends Failed: the one named now, else those that are created from now on.
    InstanceFailure {
        /// This group.
        #[arg(long)]
        group: Option<String>,
        /// Only new groups in this zone.
        #[arg(long)]
        zone: Option<String>,
    },
    /// Spot groups are taken away: the one named, else all there are.
    SpotReclaim {
        /// This group.
        #[arg(long)]
        group: Option<String>,
        /// Only groups in this zone.
        #[arg(long)]
        zone: Option<String>,
    },
    /// Groups are refused because their security group does not fit.
    SecurityGroup {
        /// Only this one.
        #[arg(long)]
        id: Option<String>,
    },
}

#[derive(Debug, Subcommand)]
pub enum UserCommand {
    /// Make a user, or give one other policies.
    Add {
        /// The name.
        name: String,
        /// A file with a policy as the vendor writes it; several are joined.
        #[arg(long, required = true)]
        policy: Vec<PathBuf>,
    },
    /// List users with their policies and keys.
    List,
    /// Remove a user with its keys.
    Delete {
        /// The name.
        name: String,
    },
    /// Make an access key; its secret is shown only now.
    Key {
        /// The user.
        name: String,
    },
    /// Switch an access key off.
    DisableKey {
        /// The user.
        name: String,
        /// The key.
        id: String,
    },
    /// Switch an access key on again.
    EnableKey {
        /// The user.
        name: String,
        /// The key.
        id: String,
    },
    /// Remove an access key.
    DeleteKey {
        /// The user.
        name: String,
        /// The key.
        id: String,
    },
    /// Make a key for a while, as an assumed role has one.
    Session {
        /// The user.
        name: String,
        /// How long it is good, from 15m to 12h.
        #[arg(long = "for", default_value = "1h", value_parser = parse_duration)]
        lasting: Duration,
    },
}

#[derive(Debug, Subcommand)]
pub enum NasCommand {
    /// Make a file system with one mount target.
    Add {
        /// What it is for.
        #[arg(long, default_value = "")]
        description: String,
    },
    /// List file systems, their mount targets and directories.
    List,
    /// Add a mount target.
    MountTarget {
        /// The file system.
        id: String,
    },
    /// Remove a file system with all its files.
    Delete {
        /// The file system.
        id: String,
    },
}

#[derive(Debug, Subcommand)]
pub enum EipCommand {
    /// Make a public address.
    Add {
        /// Mbit/s.
        #[arg(long, default_value_t = 5)]
        bandwidth: u32,
    },
    /// List public addresses.
    List,
    /// Remove a public address.
    Delete {
        /// Its id.
        id: String,
    },
}

/// `key=value`.
fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_string(), value.to_string())),
        _ => Err(format!("{text:?} is not of the form name=value")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_cut_at_the_first_equals_sign() {
        assert_eq!(
            parse_pair("a=b=c"),
            Ok(("a".to_string(), "b=c".to_string()))
        );
        assert!(parse_pair("=b").unwrap_err().contains("name=value"));
        assert!(parse_pair("a").is_err());
    }
}
