//! Content negotiation as upstream does it: the first acceptable entry of `Accept` wins.

use crate::status::ApiError;

/// The form an object is wanted in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// As it is.
    Object,
    /// `as=Table` of the given meta version.
    Table(MetaVersion),
    /// `as=PartialObjectMetadata`.
    Metadata(MetaVersion),
    /// `as=PartialObjectMetadataList`.
    MetadataList(MetaVersion),
}

/// Version of the meta.k8s.io group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MetaVersion {
    /// v1
    V1,
    /// v1beta1
    V1Beta1,
}

impl MetaVersion {
    /// `meta.k8s.io/v1`
    pub fn api_version(self) -> &'static str {
        match self {
            Self::V1 => "meta.k8s.io/v1",
            Self::V1Beta1 => "meta.k8s.io/v1beta1",
        }
    }
}

/// What the answer is written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The form.
    pub form: Form,
    /// YAML instead of JSON.
    pub yaml: bool,
}

/// One entry of an `Accept` header.
#[derive(Clone, Debug)]
pub struct Clause {
    /// `application/json`
    pub media: String,
    /// Parameters but `q`.
    pub parameters: Vec<(String, String)>,
    /// Weight.
    pub weight: f32,
}

impl Clause {
    /// A parameter, empty when absent.
    pub fn parameter(&self, name: &str) -> &str {
        self.parameters
            .iter()
            .find(|(one, _)| one == name)
            .map_or("", |(_, value)| value.as_str())
    }
}

/// The entries of an `Accept` header, most wanted first.
pub fn clauses(header: &str) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = header
        .split(',')
        .filter(|one| !one.trim().is_empty())
        .map(|one| {
            let mut parts = one.split(';').map(str::trim);
            let media = parts.next().unwrap_or_default().to_ascii_lowercase();
            let mut weight = 1.0;
            let mut parameters = Vec::new();
            for part in parts {
                let (name, value) = part.split_once('=').unwrap_or((part, ""));
                if name == "q" {
                    weight = value.parse().unwrap_or(1.0);
                } else {
                    parameters.push((name.to_string(), value.trim_matches('"').to_string()));
                }
            }
            Clause {
                media,
                parameters,
                weight,
            }
        })
        .collect();
    clauses.sort_by(|a, b| b.weight.total_cmp(&a.weight));
    clauses
}

const KNOWN: &[&str] = &[
    "application/json",
    "application/yaml",
    "application/vnd.kubernetes.protobuf",
];
/// Media types named in a 406.
pub const OBJECT_TYPES: &str =
    "application/json, application/yaml, application/vnd.kubernetes.protobuf";

fn form_of(clause: &Clause) -> Option<Form> {
    let wanted = clause.parameter("as");
    if wanted.is_empty() {
        return Some(Form::Object);
    }
    if clause.parameter("g") != "meta.k8s.io" {
        return None;
    }
    let version = match clause.parameter("v") {
        "v1" => MetaVersion::V1,
        "v1beta1" => MetaVersion::V1Beta1,
        _ => return None,
    };
    match wanted {
        "Table" => Some(Form::Table(version)),
        "PartialObjectMetadata" => Some(Form::Metadata(version)),
        "PartialObjectMetadataList" => Some(Form::MetadataList(version)),
        _ => None,
    }
}

/// Chooses; `streams` lists the additional types of the path for the refusal.
pub fn negotiate(header: &str, list: bool) -> Result<Accepted, ApiError> {
    let json = Accepted {
        form: Form::Object,
        yaml: false,
    };
    let clauses = clauses(header);
    if clauses.is_empty() {
        return Ok(json);
    }
    for clause in &clauses {
        match clause.media.as_str() {
            "*/*" => return Ok(json),
            "application/json" | "application/yaml" => {
                if let Some(form) = form_of(clause) {
                    return Ok(Accepted {
                        form,
                        yaml: clause.media == "application/yaml",
                    });
                }
            }
            _ => {}
        }
    }
    if clauses
        .iter()
        .any(|clause| KNOWN.contains(&clause.media.as_str()))
    {
        return Err(ApiError::not_acceptable(OBJECT_TYPES));
    }
    Err(unacceptable(list))
}

fn unacceptable(list: bool) -> ApiError {
    let streams = if list {
        ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    } else {
        ""
    };
    go_restful(&format!("{OBJECT_TYPES}{streams}"))
}

/// The refusal of the router before upstream's own negotiation.
pub fn go_restful(available: &str) -> ApiError {
    ApiError::new(
        http::StatusCode::NOT_ACCEPTABLE,
        "NotAcceptable",
        format!("406: Not Acceptable\n\nAvailable representations: {available}"),
        Some(serde_json::json!({})),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_form_that_can_be_made_wins() {
        let header = "application/json;as=Foo;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1;g=meta.k8s.io,application/json";
        assert_eq!(
            negotiate(header, true).unwrap().form,
            Form::Table(MetaVersion::V1)
        );
        assert_eq!(
            negotiate("application/vnd.kubernetes.protobuf,application/json", true)
                .unwrap()
                .form,
            Form::Object
        );
        assert!(negotiate("application/json;as=Table;v=v2;g=meta.k8s.io", false).is_err());
        assert!(negotiate("text/plain", false).is_err());
    }
}
