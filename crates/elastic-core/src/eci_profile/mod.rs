//! The ConfigMap `kube-system/eci-profile`: what virtual nodes are made of and which pods go to them.
//!
//! Parsing is all or nothing: a profile with one bad value is refused with every bad key and its cause, so that the last
//! good one can stay in force. Keys that mean nothing here are no error; they are named in [`EciProfile::notes`].

mod environment;
mod selector;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

pub use environment::{Environment, Quota};
pub use selector::{Effect, Policy, Selector, matches};

/// Namespace of the profile.
pub const PROFILE_NAMESPACE: &str = "kube-system";
/// Name of the profile.
pub const PROFILE_NAME: &str = "eci-profile";
/// Most vSwitches of a cluster.
pub const MAX_V_SWITCHES: usize = 10;

/// Something wrong with one key.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// The key of the ConfigMap, the environment variable, or a path below one of them.
    pub key: String,
    /// What is wrong and what is expected.
    pub cause: String,
}

impl Problem {
    /// A problem with `key`.
    pub fn new(key: impl Into<String>, cause: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            cause: cause.into(),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.key, self.cause)
    }
}

/// All problems in one sentence, for an event or a condition.
pub fn describe(problems: &[Problem]) -> String {
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    texts.join("; ")
}

/// A profile whose every value has been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct EciProfile {
    /// The network; the cluster's own when absent.
    pub vpc_id: Option<String>,
    /// vSwitches in the order in which they are tried; empty for all the node knows.
    pub v_switch_ids: Vec<String>,
    /// Zones of vSwitches that the node does not know by itself (our own key `vSwitchZones`).
    pub v_switch_zones: BTreeMap<String, String>,
    /// Security group of pods that name none.
    pub security_group_id: Option<String>,
    /// Resource group of pods that name none.
    pub resource_group_id: Option<String>,
    /// Whether groups reach Services by ClusterIP.
    pub enable_cluster_ip: bool,
    /// Whether there is an arm64 virtual node besides.
    pub enable_linux_arm64_node: bool,
    /// Whether names are resolved by the network's own servers instead of the cluster's.
    pub enable_private_zone: bool,
    /// Feature gates as written.
    pub feature_gates: BTreeMap<String, bool>,
    /// Rules, in order.
    pub selectors: Vec<Selector>,
    /// Keys that were understood and change nothing here, with the reason.
    pub notes: Vec<Problem>,
}

impl Default for EciProfile {
    fn default() -> Self {
        Self {
            vpc_id: None,
            v_switch_ids: Vec::new(),
            v_switch_zones: BTreeMap::new(),
            security_group_id: None,
            resource_group_id: None,
            enable_cluster_ip: true,
            enable_linux_arm64_node: false,
            enable_private_zone: false,
            feature_gates: BTreeMap::new(),
            selectors: Vec::new(),
            notes: Vec::new(),
        }
    }
}

/// Gates that are known; none of them changes anything here.
const FEATURE_GATES: [&str; 3] = [
    "WaitForFirstConsumer",
    "MetricsVpcNet",
    "ProtectionFinalizers",
];

/// Switches that are understood but have nothing to switch here.
const WITHOUT_EFFECT: [(&str, &str); 4] = [
    (
        "enableHybridMode",
        "there is no hybrid mode; the key changes nothing",
    ),
    (
        "enableLogController",
        "logs are not collected by the virtual node; the key changes nothing",
    ),
    (
        "enablePVCController",
        "disks cannot be grown; the key changes nothing",
    ),
    (
        "enableReuseSSLKey",
        "pods get no TLS key of their own here; the key changes nothing",
    ),
];

impl EciProfile {
    /// Reads the data of the ConfigMap.
    pub fn parse(data: &BTreeMap<String, String>) -> Result<Self, Vec<Problem>> {
        Self::parse_over(data, &BTreeMap::new())
    }

    /// Reads the data of the ConfigMap over initial values (key, to the variable it came from and its value). A problem
    /// with an initial value is told under its variable.
    pub fn parse_over(
        data: &BTreeMap<String, String>,
        initial: &BTreeMap<String, (String, String)>,
    ) -> Result<Self, Vec<Problem>> {
        let mut reader = Reader {
            data,
            initial,
            problems: Vec::new(),
            read: BTreeSet::new(),
        };
        let mut profile = Self {
            vpc_id: reader.id("vpcId", "vpc-"),
            v_switch_ids: reader.v_switches(),
            v_switch_zones: reader.zones(),
            security_group_id: reader.id("securityGroupId", "sg-"),
            resource_group_id: reader.id("resourceGroupId", "rg-"),
            enable_cluster_ip: reader.switch("enableClusterIp", true),
            enable_linux_arm64_node: reader.switch("enableLinuxArm64Node", false),
            enable_private_zone: reader.switch("enablePrivateZone", false),
            feature_gates: reader.gates(),
            selectors: reader.selectors(),
            notes: Vec::new(),
        };
        for (key, why) in WITHOUT_EFFECT {
            if reader.switch(key, false) {
                profile.notes.push(Problem::new(key, why));
            }
        }
        reader.log_group();
        let (unread, problems) = reader.rest();
        if !problems.is_empty() {
            return Err(problems);
        }
        profile.notes.extend(unread);
        let unknown = profile
            .feature_gates
            .keys()
            .filter(|gate| !FEATURE_GATES.contains(&gate.as_str()));
        let notes: Vec<Problem> = unknown
            .map(|gate| Problem::new("featureGates", format!("{gate} is not a known gate")))
            .collect();
        profile.notes.extend(notes);
        Ok(profile)
    }
}

/// Reads keys and collects what is wrong with them.
struct Reader<'a> {
    data: &'a BTreeMap<String, String>,
    initial: &'a BTreeMap<String, (String, String)>,
    problems: Vec<Problem>,
    read: BTreeSet<&'static str>,
}

impl<'a> Reader<'a> {
    /// The value, trimmed, with the name it is told under; an empty value counts as absent.
    fn value(&mut self, key: &'static str) -> Option<(&'a str, String)> {
        self.read.insert(key);
        let written = self.data.get(key).map(|value| (value, key.to_owned()));
        let initial = || {
            let (variable, value) = self.initial.get(key)?;
            Some((value, variable.clone()))
        };
        let (value, name) = written
            .filter(|(value, _)| !value.trim().is_empty())
            .or_else(initial)?;
        Some((value.trim(), name)).filter(|(value, _)| !value.is_empty())
    }

    fn wrong(&mut self, key: impl Into<String>, cause: impl Into<String>) {
        self.problems.push(Problem::new(key, cause));
    }

    fn id(&mut self, key: &'static str, prefix: &str) -> Option<String> {
        let (value, name) = self.value(key)?;
        if let Err(cause) = check_id(value, prefix) {
            self.wrong(name, cause);
        }
        Some(value.to_owned())
    }

    fn switch(&mut self, key: &'static str, default: bool) -> bool {
        match self.value(key) {
            None => default,
            Some(("true" | "True" | "TRUE", _)) => true,
            Some(("false" | "False" | "FALSE", _)) => false,
            Some((other, name)) => {
                self.wrong(name, format!("{other:?} is neither \"true\" nor \"false\""));
                default
            }
        }
    }

    fn v_switches(&mut self) -> Vec<String> {
        let Some((value, name)) = self.value("vSwitchIds") else {
            return Vec::new();
        };
        let ids: Vec<&str> = value.split(',').map(str::trim).collect();
        if ids.len() > MAX_V_SWITCHES {
            let cause = format!(
                "at most {MAX_V_SWITCHES} vSwitches may be listed, found {}",
                ids.len()
            );
            self.wrong(name.as_str(), cause);
        }
        let mut known: Vec<String> = Vec::new();
        for id in ids {
            if let Err(cause) = check_id(id, "vsw-") {
                self.wrong(name.as_str(), cause);
            } else if known.iter().any(|known| known == id) {
                self.wrong(name.as_str(), format!("{id} is listed twice"));
            }
            known.push(id.to_owned());
        }
        known
    }

    fn zones(&mut self) -> BTreeMap<String, String> {
        self.pairs("vSwitchZones", "<vSwitch>=<zone>")
            .into_iter()
            .collect()
    }

    fn gates(&mut self) -> BTreeMap<String, bool> {
        let pairs = self.pairs("featureGates", "<gate>=true or <gate>=false");
        let mut gates = BTreeMap::new();
        for (gate, value) in pairs {
            match value.as_str() {
                "true" => gates.insert(gate, true),
                "false" => gates.insert(gate, false),
                _ => {
                    let cause =
                        format!("{value:?} of gate {gate} is neither \"true\" nor \"false\"");
                    self.wrong("featureGates", cause);
                    None
                }
            };
        }
        gates
    }

    fn pairs(&mut self, key: &'static str, expected: &str) -> Vec<(String, String)> {
        let Some((value, name)) = self.value(key) else {
            return Vec::new();
        };
        let mut pairs = Vec::new();
        for text in value
            .split(',')
            .map(str::trim)
            .filter(|text| !text.is_empty())
        {
            match text.split_once('=') {
                Some((left, right)) if !left.trim().is_empty() && !right.trim().is_empty() => {
                    pairs.push((left.trim().to_owned(), right.trim().to_owned()));
                }
                _ => self.wrong(name.as_str(), format!("{text:?} is not {expected}")),
            }
        }
        pairs
    }

    fn selectors(&mut self) -> Vec<Selector> {
        let Some((value, name)) = self.value("selectors") else {
            return Vec::new();
        };
        selector::parse(value).unwrap_or_else(|problems| {
            self.problems
                .extend(problems.into_iter().map(|(path, cause)| Problem {
                    key: format!("{name}{path}"),
                    cause,
                }));
            Vec::new()
        })
    }

    fn log_group(&mut self) {
        let group = self.value("slsMachineGroup").is_some();
        if self.switch("enableLogController", false) && !group {
            self.wrong(
                "slsMachineGroup",
                "is needed when enableLogController is on",
            );
        }
    }

    /// Keys nobody asked for, and the problems.
    fn rest(self) -> (Vec<Problem>, Vec<Problem>) {
        let unread = self
            .data
            .keys()
            .filter(|key| !self.read.contains(key.as_str()))
            .map(|key| Problem::new(key, "is not a key of eci-profile and is ignored"))
            .collect();
        (unread, self.problems)
    }
}

fn check_id(id: &str, prefix: &str) -> Result<(), String> {
    let sound =
        |character: char| character.is_ascii_alphanumeric() || character == '-' || character == '_';
    match id.strip_prefix(prefix) {
        Some(rest) if !rest.is_empty() && rest.chars().all(sound) => Ok(()),
        _ => Err(format!(
            "{id:?} is no id; expected {prefix} with letters, digits and dashes"
        )),
    }
}

#[cfg(test)]
mod tests;
