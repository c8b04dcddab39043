//! The shape of a table row and of a kind's own rules.

use jiff::Timestamp;
use local_schema::FieldError;
use serde_json::Value;

/// One served kind.
#[derive(Clone, Copy)]
pub struct KindRow {
    /// API group, empty for core.
    pub group: &'static str,
    /// Served versions, most preferred first.
    pub versions: &'static [&'static str],
    /// The version objects are stored in; rules other than conversion see this version only.
    pub storage_version: &'static str,
    /// `Pod`
    pub kind: &'static str,
    /// `pods`
    pub plural: &'static str,
    /// `pod`
    pub singular: &'static str,
    /// False for cluster-scoped kinds.
    pub namespaced: bool,
    /// `po`
    pub short_names: &'static [&'static str],
    /// `all`
    pub categories: &'static [&'static str],
    /// Verbs of the main resource as discovery lists them.
    pub verbs: &'static [&'static str],
    /// Subresources besides the main resource, in discovery order.
    pub subresources: &'static [Subresource],
    /// The group whose row stores the objects, when it is not this one: `events.k8s.io` shows the core group's Events.
    /// Such a row has one version, and its rules convert between it and the core shape.
    pub stored_under: Option<&'static str>,
    /// The hash that unaggregated discovery shows, empty for kinds that are never stored.
    pub storage_version_hash: &'static str,
    /// A `Warning` on every answer of this resource, reads included; empty for none.
    pub deprecation: &'static str,
    /// What only this kind does.
    pub rules: &'static dyn KindRules,
}

impl std::fmt::Debug for KindRow {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}.{}", self.plural, self.group)
    }
}

impl KindRow {
    /// True for kinds that are stored and can be read back; false for reviews and bindings.
    pub fn is_stored(&self) -> bool {
        self.verbs.contains(&"list")
    }

    /// The subresource of that name.
    pub fn subresource(&self, name: &str) -> Option<&'static Subresource> {
        self.subresources.iter().find(|one| one.name == name)
    }
}

/// A subresource as discovery shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subresource {
    /// `status`, `scale`, `log` …
    pub name: &'static str,
    /// Group of the kind it answers with; `None` = the parent's group.
    pub group: Option<&'static str>,
    /// Version of the kind it answers with; `None` = the parent's version.
    pub version: Option<&'static str>,
    /// Kind it answers with: `Pod`, `Scale`, `Eviction`.
    pub kind: &'static str,
    /// Verbs as discovery lists them.
    pub verbs: &'static [&'static str],
}

impl Subresource {
    /// A subresource whose kind is of the parent's group and version.
    pub const fn own(
        name: &'static str,
        kind: &'static str,
        verbs: &'static [&'static str],
    ) -> Self {
        Self {
            name,
            group: None,
            version: None,
            kind,
            verbs,
        }
    }
}

/// Where `/scale` finds its numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// JSON pointer, `/spec/replicas`.
    pub spec_replicas: &'static str,
    /// JSON pointer, `/status/replicas`.
    pub status_replicas: &'static str,
    /// JSON pointer to a LabelSelector object (rendered as a string) or to a string.
    pub selector: &'static str,
}

/// How `metadata.name` is checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRule {
    /// RFC 1123 subdomain, ≤ 253.
    Subdomain,
    /// RFC 1123 label, ≤ 63.
    Label,
    /// RFC 1035 label, ≤ 63.
    Rfc1035Label,
    /// Any single path segment (RBAC).
    PathSegment,
}

/// A printer column.
#[derive(Clone, Debug)]
pub struct Column {
    /// Heading, `Name`.
    pub name: &'static str,
    /// `string`, `integer`, `date` …
    pub kind: &'static str,
    /// `name` on the first column, else empty.
    pub format: &'static str,
    /// 0 = always shown, 1 = only with `-o wide`.
    pub priority: i32,
}

/// What only one kind does. Every method has the generic answer as its default.
///
/// Objects are JSON trees in the storage version; `old` is the stored state.
pub trait KindRules: Sync + Send {
    /// Upstream's `SetDefaults_…` functions, in a served version, after decoding and before admission.
    fn default(&self, _version: &str, _object: &mut Value) {}
    /// What a create drops or sets (upstream `PrepareForCreate`): for example status is removed.
    /// Generic metadata (uid, creationTimestamp, generation = 1) is set by the registry.
    fn prepare_for_create(&self, _object: &mut Value) {}
    /// What an update may not touch (upstream `PrepareForUpdate`). Status is restored by the registry for kinds
    /// with a status subresource before this is called.
    fn prepare_for_update(&self, _new: &mut Value, _old: &Value) {}
    /// Upstream `PrepareForUpdate` of the status strategy; everything but status and metadata was restored already.
    fn prepare_for_status_update(&self, _new: &mut Value, _old: &Value) {}
    /// Upstream `Validate…`; metadata was validated by the registry.
    fn validate_create(&self, _object: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// Upstream `Validate…Update`.
    fn validate_update(&self, new: &Value, _old: &Value) -> Vec<FieldError> {
        self.validate_create(new)
    }
    /// Upstream `Validate…StatusUpdate`.
    fn validate_status_update(&self, _new: &Value, _old: &Value) -> Vec<FieldError> {
        Vec::new()
    }
    /// Upstream `PrepareForUpdate` of any other subresource's strategy (`ephemeralcontainers`, `resize`, `finalize`):
    /// restores what that subresource may not change.
    fn prepare_for_subresource_update(&self, _subresource: &str, _new: &mut Value, _old: &Value) {}
    /// Upstream `Validate…Update` of any other subresource's strategy.
    fn validate_subresource_update(
        &self,
        _subresource: &str,
        _new: &Value,
        _old: &Value,
    ) -> Vec<FieldError> {
        Vec::new()
    }
    /// `Warning` header texts.
    fn warnings(&self, _new: &Value, _old: Option<&Value>) -> Vec<String> {
        Vec::new()
    }
    /// How the name is checked.
    fn name_rule(&self) -> NameRule {
        NameRule::Subdomain
    }
    /// True when `metadata.generation` follows changes outside metadata and status (most kinds with a spec and status).
    fn has_generation(&self) -> bool {
        false
    }
    /// True when PUT without a resourceVersion overwrites whatever is stored.
    fn allows_unconditional_update(&self) -> bool {
        true
    }
    /// True when a PUT on a missing name creates it (Leases, Endpoints, Events …).
    fn allows_create_on_update(&self) -> bool {
        false
    }
    /// Table columns; empty = the generic Name and Created At.
    fn columns(&self) -> &'static [Column] {
        &[]
    }
    /// One row's cells, as many as [`KindRules::columns`].
    fn cells(&self, _object: &Value, _now: Timestamp) -> Vec<Value> {
        Vec::new()
    }
    /// Field selector labels besides `metadata.name` and `metadata.namespace`.
    fn selectable_fields(&self) -> &'static [&'static str] {
        &[]
    }
    /// The value a field selector compares with; absent fields are empty text.
    fn selectable_field(&self, _object: &Value, _field: &str) -> String {
        String::new()
    }
    /// From a served version to the storage version.
    fn to_storage(&self, _version: &str, _object: &mut Value) {}
    /// From the storage version to a served version.
    fn to_version(&self, _version: &str, _object: &mut Value) {}
    /// Seconds of grace for a delete, `None` when the kind goes at once (everything but Pods).
    fn grace_period_seconds(&self, _object: &Value, _requested: Option<i64>) -> Option<i64> {
        None
    }
    /// Where `/scale` finds its numbers.
    fn scale_paths(&self) -> Option<ScalePaths> {
        None
    }
}

/// A kind without rules of its own.
pub struct Plain;
impl KindRules for Plain {}
