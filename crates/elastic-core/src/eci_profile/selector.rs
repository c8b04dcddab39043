//! `selectors`: which pods go to virtual nodes although nothing in them says so, and what is added to pods that run there.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};
use serde::Deserialize;
use serde_json::Value;

use super::EciProfile;

type Labels = BTreeMap<String, String>;

/// How pods that match are placed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Only on virtual nodes.
    #[default]
    VirtualNodeOnly,
    /// On own nodes, and on virtual nodes when the scheduler finds no room there.
    NormalNodePrefer,
    /// Wherever the scheduler likes.
    Fair,
    /// Never on virtual nodes; later selectors are not asked.
    NormalNodeOnly,
}

/// Annotations and labels that are added to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Effect {
    /// Annotations.
    pub annotations: Labels,
    /// Labels.
    pub labels: Labels,
}

impl Effect {
    /// Whether it adds nothing.
    pub fn is_empty(&self) -> bool {
        self.annotations.is_empty() && self.labels.is_empty()
    }
}

/// One rule.
#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    /// Its name, unique in the list.
    pub name: String,
    /// The namespace's labels; any when absent.
    pub namespace_selector: Option<LabelSelector>,
    /// The pod's labels; any when absent.
    pub object_selector: Option<LabelSelector>,
    /// What is added to pods that run on virtual nodes.
    pub effect: Effect,
    /// How pods that match are placed.
    pub policy: Policy,
}

impl Selector {
    /// Whether it sends pods to virtual nodes. One without selectors only adds its effect to pods that go there anyway.
    pub fn routes(&self) -> bool {
        self.namespace_selector.is_some() || self.object_selector.is_some()
    }

    /// Whether a pod fits both selectors.
    pub fn fits(&self, pod: &Labels, namespace: &Labels) -> bool {
        let fits = |selector: &Option<LabelSelector>, labels: &Labels| {
            selector
                .as_ref()
                .is_none_or(|selector| matches(selector, labels))
        };
        fits(&self.namespace_selector, namespace) && fits(&self.object_selector, pod)
    }
}

impl EciProfile {
    /// The first rule that says where a pod goes.
    pub fn routing_selector(&self, pod: &Labels, namespace: &Labels) -> Option<&Selector> {
        self.selectors
            .iter()
            .find(|selector| selector.routes() && selector.fits(pod, namespace))
    }

    /// Whether any rule looks at a namespace.
    pub fn asks_for_namespaces(&self) -> bool {
        self.selectors
            .iter()
            .any(|selector| selector.namespace_selector.is_some())
    }

    /// What is added to a pod that runs on a virtual node: of all rules that fit, in their order, what neither the pod
    /// nor an earlier rule says already.
    pub fn effect_for(&self, labels: &Labels, annotations: &Labels, namespace: &Labels) -> Effect {
        let mut effect = Effect::default();
        let fitting = self.selectors.iter().filter(|selector| {
            selector.policy != Policy::NormalNodeOnly && selector.fits(labels, namespace)
        });
        let add = |to: &mut Labels, known: &Labels, from: &Labels| {
            for (key, value) in from {
                if !known.contains_key(key) {
                    to.entry(key.clone()).or_insert_with(|| value.clone());
                }
            }
        };
        for selector in fitting {
            add(
                &mut effect.annotations,
                annotations,
                &selector.effect.annotations,
            );
            add(&mut effect.labels, labels, &selector.effect.labels);
        }
        effect
    }
}

/// Whether labels fit a label selector; an operator that is not known fits nothing.
pub fn matches(selector: &LabelSelector, labels: &Labels) -> bool {
    let equal = selector.match_labels.iter().flatten();
    let mut required = selector.match_expressions.iter().flatten();
    equal
        .into_iter()
        .all(|(key, value)| labels.get(key) == Some(value))
        && required.all(|requirement| holds(requirement, labels))
}

fn holds(requirement: &LabelSelectorRequirement, labels: &Labels) -> bool {
    let value = labels.get(&requirement.key);
    let listed = value.is_some_and(|value| requirement.values.iter().flatten().any(|v| v == value));
    match requirement.operator.as_str() {
        "In" => listed,
        "NotIn" => !listed,
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        _ => false,
    }
}

/// Path below `selectors`, and what is wrong there.
type Wrong = (String, String);

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Written {
    name: Option<String>,
    namespace_selector: Option<Value>,
    object_selector: Option<Value>,
    effect: Option<Effect>,
    policy: Option<Value>,
}

/// Reads the JSON array.
pub(super) fn parse(text: &str) -> Result<Vec<Selector>, Vec<Wrong>> {
    let entries: Vec<Value> = serde_json::from_str(text).map_err(|error| {
        let cause = format!("is not a JSON array of selectors ({error})");
        vec![(String::new(), cause)]
    })?;
    let mut wrongs = Vec::new();
    let mut selectors: Vec<Selector> = Vec::new();
    for (index, entry) in entries.into_iter().enumerate() {
        match one(entry) {
            Ok(selector) => {
                if selectors.iter().any(|known| known.name == selector.name) {
                    let cause = format!("{:?} is the name of an earlier selector", selector.name);
                    wrongs.push((format!("[{index}].name"), cause));
                }
                selectors.push(selector);
            }
            Err(found) => wrongs.extend(
                found
                    .into_iter()
                    .map(|(path, cause)| (format!("[{index}]{path}"), cause)),
            ),
        }
    }
    if wrongs.is_empty() {
        Ok(selectors)
    } else {
        Err(wrongs)
    }
}

fn one(entry: Value) -> Result<Selector, Vec<Wrong>> {
    let written: Written =
        serde_json::from_value(entry).map_err(|error| vec![(String::new(), error.to_string())])?;
    let mut wrongs = Vec::new();
    let name = written.name.unwrap_or_default();
    if name.trim().is_empty() {
        wrongs.push((".name".to_owned(), "is missing".to_owned()));
    }
    let mut read = |member: &str, value: Option<Value>| {
        let selector = label_selector(value?);
        selector
            .map_err(|(path, cause)| wrongs.push((format!(".{member}{path}"), cause)))
            .ok()
    };
    let namespace_selector = read("namespaceSelector", written.namespace_selector);
    let object_selector = read("objectSelector", written.object_selector);
    let policy = match written.policy.map_or(Ok(Policy::default()), policy) {
        Ok(policy) => policy,
        Err(cause) => {
            wrongs.push((".policy".to_owned(), cause));
            Policy::default()
        }
    };
    if !wrongs.is_empty() {
        return Err(wrongs);
    }
    Ok(Selector {
        name,
        namespace_selector,
        object_selector,
        effect: written.effect.unwrap_or_default(),
        policy,
    })
}

fn label_selector(value: Value) -> Result<LabelSelector, Wrong> {
    let members = value.as_object().into_iter().flat_map(|all| all.keys());
    if let Some(unknown) = members
        .into_iter()
        .find(|key| !matches!(key.as_str(), "matchLabels" | "matchExpressions"))
    {
        let cause = "is not a member of a label selector; expected matchLabels or matchExpressions";
        return Err((format!(".{unknown}"), cause.to_owned()));
    }
    let selector: LabelSelector =
        serde_json::from_value(value).map_err(|error| (String::new(), error.to_string()))?;
    for (index, requirement) in selector.match_expressions.iter().flatten().enumerate() {
        let path = |member: &str| format!(".matchExpressions[{index}].{member}");
        let values = requirement
            .values
            .as_ref()
            .is_some_and(|values| !values.is_empty());
        match requirement.operator.as_str() {
            "In" | "NotIn" if values => {}
            "In" | "NotIn" => return Err((path("values"), "is missing".to_owned())),
            "Exists" | "DoesNotExist" => {}
            other => {
                let cause = format!("{other:?} is not one of In, NotIn, Exists and DoesNotExist");
                return Err((path("operator"), cause));
            }
        }
    }
    Ok(selector)
}

/// `"normalNodePrefer"`, or `{"normalNodePrefer": {}}` as the CRD of the same name writes it.
fn policy(value: Value) -> Result<Policy, String> {
    let name = match &value {
        Value::String(name) => name.as_str(),
        Value::Object(members) if members.len() == 1 => {
            members.keys().next().map_or("", String::as_str)
        }
        _ => "",
    };
    match name {
        "virtualNodeOnly" => Ok(Policy::VirtualNodeOnly),
        "normalNodePrefer" => Ok(Policy::NormalNodePrefer),
        "fair" => Ok(Policy::Fair),
        "normalNodeOnly" => Ok(Policy::NormalNodeOnly),
        _ => Err(format!(
            "{value} is not one of virtualNodeOnly, normalNodePrefer, fair and normalNodeOnly"
        )),
    }
}
