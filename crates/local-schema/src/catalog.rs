//! The shipped OpenAPI v3 documents and the types of the built-in kinds.
//!
//! Documents stay compressed in the binary and are unpacked only when somebody asks for one; types come from a compact
//! table that is read once. It refuses to know which kinds are served: that is the table of `local-kinds`.

mod custom;

use std::io::Read;

pub use crate::types::{TypeRef, custom_type};
pub use custom::{CustomKind, custom_document};

macro_rules! documents {
    ($($path:literal => $file:literal),+ $(,)?) => {
        &[$(($path, include_bytes!(concat!("../openapi/", $file, ".json.gz")) as &[u8])),+]
    };
}

const DOCUMENTS: &[(&str, &[u8])] = documents! {
    "api/v1" => "api_v1",
    "apis/admissionregistration.k8s.io/v1" => "apis_admissionregistration.k8s.io_v1",
    "apis/apiextensions.k8s.io/v1" => "apis_apiextensions.k8s.io_v1",
    "apis/apiregistration.k8s.io/v1" => "apis_apiregistration.k8s.io_v1",
    "apis/apps/v1" => "apis_apps_v1",
    "apis/authentication.k8s.io/v1" => "apis_authentication.k8s.io_v1",
    "apis/authorization.k8s.io/v1" => "apis_authorization.k8s.io_v1",
    "apis/autoscaling/v1" => "apis_autoscaling_v1",
    "apis/autoscaling/v2" => "apis_autoscaling_v2",
    "apis/batch/v1" => "apis_batch_v1",
    "apis/certificates.k8s.io/v1" => "apis_certificates.k8s.io_v1",
    "apis/coordination.k8s.io/v1" => "apis_coordination.k8s.io_v1",
    "apis/discovery.k8s.io/v1" => "apis_discovery.k8s.io_v1",
    "apis/events.k8s.io/v1" => "apis_events.k8s.io_v1",
    "apis/flowcontrol.apiserver.k8s.io/v1" => "apis_flowcontrol.apiserver.k8s.io_v1",
    "apis/metrics.k8s.io/v1beta1" => "apis_metrics.k8s.io_v1beta1",
    "apis/networking.k8s.io/v1" => "apis_networking.k8s.io_v1",
    "apis/node.k8s.io/v1" => "apis_node.k8s.io_v1",
    "apis/policy/v1" => "apis_policy_v1",
    "apis/rbac.authorization.k8s.io/v1" => "apis_rbac.authorization.k8s.io_v1",
    "apis/resource.k8s.io/v1" => "apis_resource.k8s.io_v1",
    "apis/scheduling.k8s.io/v1" => "apis_scheduling.k8s.io_v1",
    "apis/storage.k8s.io/v1" => "apis_storage.k8s.io_v1",
    "version" => "version",
};

/// The paths of all shipped documents as `/openapi/v3` names them: `api/v1`, `apis/apps/v1`, `version`.
pub fn group_versions() -> impl Iterator<Item = &'static str> {
    DOCUMENTS.iter().map(|(path, _)| *path)
}

/// The document of a path as [`group_versions`] names it, gzip-compressed.
pub fn compressed_document(path: &str) -> Option<&'static [u8]> {
    DOCUMENTS
        .iter()
        .find(|(one, _)| *one == path)
        .map(|(_, bytes)| *bytes)
}

/// The JSON text of a document, unpacked anew on each call.
pub fn document(path: &str) -> Option<Vec<u8>> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(compressed_document(path)?)
        .read_to_end(&mut text)
        .ok()?;
    Some(text)
}

/// The type of a built-in kind.
pub fn type_of(group: &str, version: &str, kind: &str) -> Option<TypeRef> {
    TypeRef::builtin(group, version, kind)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    #[test]
    fn every_document_is_json_with_a_patch_operation_where_kinds_can_be_patched() {
        for path in group_versions() {
            let text = document(path).unwrap();
            let document: Value = serde_json::from_slice(&text).unwrap();
            assert_eq!(document["openapi"], "3.0.0", "{path}");
        }
        let text = document("apis/coordination.k8s.io/v1").unwrap();
        let document: Value = serde_json::from_slice(&text).unwrap();
        let patch = &document["paths"]["/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases/{name}"]
            ["patch"];
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Lease");
        assert!(
            patch["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one["name"] == "fieldValidation")
        );
    }

    #[test]
    fn a_path_that_is_not_shipped_has_no_document() {
        assert!(document("apis/nothing/v1").is_none());
        assert!(type_of("apps", "v1", "Deployment").is_some());
    }
}
