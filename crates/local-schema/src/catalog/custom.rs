//! OpenAPI v3 documents for the group versions of custom resources.

use serde_json::{Map, Value, json};

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1.";
const SCALE: &str = "io.k8s.api.autoscaling.v1.Scale";
/// Definitions every document of custom resources carries.
const META_DEFINITIONS: [&str; 12] = [
    "DeleteOptions",
    "FieldsV1",
    "ListMeta",
    "ManagedFieldsEntry",
    "ObjectMeta",
    "OwnerReference",
    "Patch",
    "Preconditions",
    "Status",
    "StatusCause",
    "StatusDetails",
    "Time",
];
const WRITE_PARAMETERS: [&str; 3] = ["dryRun", "fieldManager", "fieldValidation"];
const LIST_PARAMETERS: [&str; 10] = [
    "allowWatchBookmarks",
    "continue",
    "fieldSelector",
    "labelSelector",
    "limit",
    "resourceVersion",
    "resourceVersionMatch",
    "sendInitialEvents",
    "timeoutSeconds",
    "watch",
];
const DELETE_PARAMETERS: [&str; 5] = [
    "dryRun",
    "gracePeriodSeconds",
    "ignoreStoreReadErrorWithClusterBreakingPotential",
    "orphanDependents",
    "propagationPolicy",
];

/// One kind of a custom group version.
#[derive(Clone, Copy, Debug)]
pub struct CustomKind<'a> {
    /// `Widget`
    pub kind: &'a str,
    /// `WidgetList`
    pub list_kind: &'a str,
    /// `widgets`
    pub plural: &'a str,
    /// False for cluster-scoped kinds.
    pub namespaced: bool,
    /// The version's `openAPIV3Schema`.
    pub schema: &'a Value,
    /// The version has a status subresource.
    pub status: bool,
    /// The version has a scale subresource.
    pub scale: bool,
}

/// The document of one custom group version.
pub fn custom_document(group: &str, version: &str, kinds: &[CustomKind<'_>]) -> Value {
    let mut paths = Map::new();
    let mut schemas = Map::new();
    import_shared(&mut schemas, kinds.iter().any(|kind| kind.scale));
    for kind in kinds {
        let writer = Writer {
            group,
            version,
            kind,
            definition: definition_name(group, version, kind.kind),
        };
        writer.schemas(&mut schemas);
        writer.paths(&mut paths);
    }
    json!({
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes CRD Swagger", "version": "v0.1.0"},
        "paths": paths,
        "components": {"schemas": schemas},
    })
}

/// `com.example.disc.v1.Gadget` for group `disc.example.com`.
fn definition_name(group: &str, version: &str, kind: &str) -> String {
    let mut labels: Vec<&str> = group.split('.').collect();
    labels.reverse();
    format!("{}.{version}.{kind}", labels.join("."))
}

/// Takes the shared definitions from a shipped document.
fn import_shared(schemas: &mut Map<String, Value>, scale: bool) {
    let Some(text) = super::document("apis/apps/v1") else {
        return;
    };
    let Ok(mut document) = serde_json::from_slice::<Value>(&text) else {
        return;
    };
    let shared = &mut document["components"]["schemas"];
    let mut take = |name: String| {
        if let Some(schema) = shared.get_mut(&name) {
            schemas.insert(name, schema.take());
        }
    };
    for name in META_DEFINITIONS {
        take(format!("{META}{name}"));
    }
    if scale {
        for suffix in ["", "Spec", "Status"] {
            take(format!("{SCALE}{suffix}"));
        }
    }
}

struct Writer<'a> {
    group: &'a str,
    version: &'a str,
    kind: &'a CustomKind<'a>,
    definition: String,
}

impl Writer<'_> {
    fn gvk(&self, kind: &str) -> Value {
        json!([{"group": self.group, "version": self.version, "kind": kind}])
    }

    fn schemas(&self, schemas: &mut Map<String, Value>) {
        let mut schema = self.kind.schema.clone();
        if !schema.is_object() {
            schema = json!({"type": "object"});
        }
        if !schema["properties"].is_object() {
            schema["properties"] = json!({});
        }
        let list = definition_name(self.group, self.version, self.kind.list_kind);
        let meta =
            |name: &str| json!({"allOf": [{"$ref": format!("#/components/schemas/{META}{name}")}]});
        schema["properties"]["apiVersion"] = json!({"type": "string"});
        schema["properties"]["kind"] = json!({"type": "string"});
        schema["properties"]["metadata"] = meta("ObjectMeta");
        schema["x-kubernetes-group-version-kind"] = self.gvk(self.kind.kind);
        schemas.insert(self.definition.clone(), schema);
        schemas.insert(
            list,
            json!({
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "kind": {"type": "string"},
                    "items": {"type": "array", "items": {"$ref": format!("#/components/schemas/{}", self.definition)}},
                    "metadata": meta("ListMeta"),
                },
                "x-kubernetes-group-version-kind": self.gvk(self.kind.list_kind),
            }),
        );
    }

    fn paths(&self, paths: &mut Map<String, Value>) {
        let base = format!("/apis/{}/{}", self.group, self.version);
        let plural = self.kind.plural;
        let list = definition_name(self.group, self.version, self.kind.list_kind);
        let status = format!("{META}Status");
        let namespaced = self.kind.namespaced;
        let collection = if namespaced {
            let everywhere = json!({
                "get": self.operation("list", "list", "ForAllNamespaces", &list, &[], None, &["200"]),
                "parameters": parameters(&[&LIST_PARAMETERS[..], &["pretty"]].concat()),
            });
            paths.insert(format!("{base}/{plural}"), sort_parameters(everywhere));
            format!("{base}/namespaces/{{namespace}}/{plural}")
        } else {
            format!("{base}/{plural}")
        };
        let own = Some(self.definition.as_str());
        let places: &[&str] = if namespaced { &["namespace"] } else { &[] };
        let mut item = json!({
            "get": self.operation("list", "list", "", &list, &LIST_PARAMETERS, None, &["200"]),
            "post": self.operation("post", "create", "", &self.definition, &WRITE_PARAMETERS, own, &["200", "201", "202"]),
            "delete": self.operation("deletecollection", "deleteCollection", "", &status, &LIST_PARAMETERS, None, &["200"]),
        });
        item["parameters"] = path_parameters(places);
        paths.insert(collection.clone(), item);
        let places: &[&str] = if namespaced {
            &["name", "namespace"]
        } else {
            &["name"]
        };
        let mut item = self.item("", &self.definition);
        item["delete"] = self.operation(
            "delete",
            "delete",
            "",
            &status,
            &DELETE_PARAMETERS,
            Some(&format!("{META}DeleteOptions")),
            &["200", "202"],
        );
        item["parameters"] = path_parameters(places);
        paths.insert(format!("{collection}/{{name}}"), item);
        for (name, suffix, wanted, schema) in [
            (
                "status",
                "Status",
                self.kind.status,
                self.definition.as_str(),
            ),
            ("scale", "Scale", self.kind.scale, SCALE),
        ] {
            if wanted {
                let mut item = self.item(suffix, schema);
                item["parameters"] = path_parameters(places);
                paths.insert(format!("{collection}/{{name}}/{name}"), item);
            }
        }
    }

    /// Read, replace and patch of one object or subresource.
    fn item(&self, suffix: &str, schema: &str) -> Value {
        let patch_parameters = [&WRITE_PARAMETERS[..], &["force"]].concat();
        let mut patch = self.operation(
            "patch",
            "patch",
            suffix,
            schema,
            &patch_parameters,
            None,
            &["200"],
        );
        let reference = json!({"schema": {"$ref": format!("#/components/schemas/{META}Patch")}});
        patch["requestBody"] = json!({"content": {
            "application/apply-patch+yaml": reference,
            "application/json-patch+json": reference,
            "application/merge-patch+json": reference,
        }, "required": true});
        json!({
            "get": self.operation("get", "read", suffix, schema, &["resourceVersion"], None, &["200"]),
            "put": self.operation("put", "replace", suffix, schema, &WRITE_PARAMETERS, Some(schema), &["200", "201"]),
            "patch": patch,
        })
    }

    #[allow(clippy::too_many_arguments)] // one argument for each part of an OpenAPI operation
    fn operation(
        &self,
        action: &str,
        verb: &str,
        suffix: &str,
        schema: &str,
        queries: &[&str],
        body: Option<&str>,
        codes: &[&str],
    ) -> Value {
        let mut title = String::new();
        let mut tag = String::new();
        for (index, label) in self.group.split('.').enumerate() {
            title.push_str(&capital(label));
            tag.push_str(&if index == 0 {
                label.to_string()
            } else {
                capital(label)
            });
        }
        let scope = if self.kind.namespaced && suffix != "ForAllNamespaces" {
            "Namespaced"
        } else {
            ""
        };
        let collection = if action == "deletecollection" {
            "Collection"
        } else {
            ""
        };
        let verb = verb.trim_end_matches("Collection");
        let id = format!(
            "{verb}{title}{}{collection}{scope}{}{suffix}",
            capital(self.version),
            self.kind.kind
        );
        let content = |schema: &str| {
            let reference = json!({"schema": {"$ref": format!("#/components/schemas/{schema}")}});
            json!({"application/json": reference, "application/yaml": reference})
        };
        let mut responses = Map::new();
        for code in codes {
            responses.insert((*code).to_string(), json!({"content": content(schema)}));
        }
        responses.insert("401".to_string(), json!({}));
        let mut operation = json!({
            "tags": [format!("{tag}_{}", self.version)],
            "operationId": id,
            "responses": responses,
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind":
                {"group": self.group, "version": self.version, "kind": self.kind.kind},
        });
        if !queries.is_empty() {
            operation["parameters"] = parameters(queries);
        }
        if let Some(body) = body {
            operation["requestBody"] = json!({"content": content(body)});
            if action != "delete" {
                operation["requestBody"]["required"] = json!(true);
            }
        }
        operation
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) => first.to_uppercase().chain(letters).collect(),
        None => String::new(),
    }
}

fn parameters(names: &[&str]) -> Value {
    let parameter = |name: &&str| {
        let kind = match *name {
            "allowWatchBookmarks"
            | "sendInitialEvents"
            | "watch"
            | "force"
            | "orphanDependents"
            | "ignoreStoreReadErrorWithClusterBreakingPotential" => "boolean",
            "limit" | "timeoutSeconds" | "gracePeriodSeconds" => "integer",
            _ => "string",
        };
        json!({"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": true}})
    };
    Value::Array(names.iter().map(parameter).collect())
}

/// Parameters of a collection for all namespaces stand in one alphabetical list.
fn sort_parameters(mut item: Value) -> Value {
    if let Some(list) = item["parameters"].as_array_mut() {
        list.sort_by(|one, other| one["name"].as_str().cmp(&other["name"].as_str()));
    }
    item
}

fn path_parameters(places: &[&str]) -> Value {
    let mut list: Vec<Value> = places
        .iter()
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string", "uniqueItems": true}}))
        .collect();
    list.extend(
        parameters(&["pretty"])
            .as_array()
            .cloned()
            .unwrap_or_default(),
    );
    Value::Array(list)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_custom_document_lets_kubectl_find_the_patch_operation() {
        let schema = json!({"type": "object", "properties": {"spec": {"type": "object"}}});
        let kind = CustomKind {
            kind: "Gadget",
            list_kind: "GadgetList",
            plural: "gadgets",
            namespaced: true,
            schema: &schema,
            status: true,
            scale: true,
        };
        let document = custom_document("disc.example.com", "v1", &[kind]);
        let path = "/apis/disc.example.com/v1/namespaces/{namespace}/gadgets/{name}";
        let patch = &document["paths"][path]["patch"];
        assert_eq!(
            patch["operationId"],
            "patchDiscExampleComV1NamespacedGadget"
        );
        assert_eq!(patch["x-kubernetes-group-version-kind"]["kind"], "Gadget");
        assert_eq!(document["paths"].as_object().unwrap().len(), 5);
        assert!(document["components"]["schemas"]["com.example.disc.v1.GadgetList"].is_object());
    }
}
