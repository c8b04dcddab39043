//! Custom resources and their definitions against the recordings.

use local_schema::catalog::{CustomKind, custom_document};
use local_schema::structural::{default_crd, validate_crd};
use local_schema::{FieldError, Structural, decode, type_of};
use serde_json::{Value, json};

use crate::golden;

fn causes(errors: &[FieldError]) -> Vec<Value> {
    let mut causes: Vec<Value> = errors
        .iter()
        .map(|error| json!({"reason": error.kind.reason(), "message": error.message(), "field": error.path}))
        .collect();
    causes.sort_by_key(ToString::to_string);
    causes
}

fn recorded(exchange: &Value) -> Vec<Value> {
    let mut causes = exchange["response"]["body"]["details"]["causes"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    causes.sort_by_key(ToString::to_string);
    causes
}

#[test]
fn recorded_custom_resources_are_pruned_defaulted_and_refused_alike() {
    let exchanges = golden::scenario("structural");
    let structural = Structural::new(
        &exchanges[1]["request"]["body"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"],
    );
    let mut wrong = Vec::new();
    let mut equal = 0;
    for exchange in &exchanges[3..] {
        let status = exchange["response"]["status"].as_u64().unwrap();
        let is_json = golden::content_type(exchange) == "application/json";
        if exchange["request"]["method"] != "POST" || !is_json || status == 409 {
            continue;
        }
        let number = &exchange["n"];
        let response = &exchange["response"]["body"];
        let message = golden::message(exchange);
        let about_names = message.contains("metadata.name")
            || message.contains("API version")
            || message.contains("kind: Invalid");
        let strict = exchange["request"]["path"]
            .as_str()
            .unwrap()
            .contains("Strict");
        match (status, structural.decode(&golden::body(exchange))) {
            (400 | 422, _) if about_names => {}
            (400, Err(error)) if message.ends_with(&error.to_string()) => equal += 1,
            (400, Ok(decoded))
                if strict
                    && message.ends_with(&format!(
                        "strict decoding error: {}",
                        decoded.problems.join(", ")
                    )) =>
            {
                equal += 1
            }
            (201 | 422, Ok(mut decoded)) => {
                structural.default(&mut decoded.object);
                let errors = structural.validate(&decoded.object, None);
                if status == 422 {
                    if causes(&errors) == recorded(exchange) {
                        equal += 1;
                    } else {
                        wrong.push(format!(
                            "{number}: {} instead of {}",
                            json!(causes(&errors)),
                            json!(recorded(exchange))
                        ));
                    }
                } else if errors.is_empty() && decoded.object["spec"] == response["spec"] {
                    equal += 1;
                } else {
                    wrong.push(format!(
                        "{number}: {} {:?} instead of {}",
                        decoded.object["spec"], errors, response["spec"]
                    ));
                }
            }
            (status, result) => wrong.push(format!(
                "{number}: {result:?} instead of {status} {message}"
            )),
        }
    }
    assert!(
        wrong.is_empty(),
        "{equal} equal, not equal:\n{}",
        wrong.join("\n")
    );
    assert!(equal > 50, "{equal}");
}

#[test]
fn recorded_definitions_are_refused_alike() {
    let kind = type_of("apiextensions.k8s.io", "v1", "CustomResourceDefinition").unwrap();
    let mut wrong = Vec::new();
    let mut equal = 0;
    for exchange in &golden::scenario("invalid-crds")[2..] {
        let status = exchange["response"]["status"].as_u64().unwrap();
        // Rules in CEL are compiled upstream; costs, types and syntax of expressions are not looked at here.
        let cel = golden::message(exchange);
        let compiled = cel.contains("compilation failed")
            || cel.contains("cel expression")
            || cel.contains("rule cost")
            || cel.contains("messageExpression must");
        if exchange["request"]["method"] != "POST" || !matches!(status, 201 | 422) || compiled {
            continue;
        }
        let mut crd = decode::decode(&golden::body(exchange), &kind)
            .unwrap()
            .object;
        default_crd(&mut crd);
        let errors = validate_crd(&crd);
        if causes(&errors) == recorded(exchange) {
            equal += 1;
        } else {
            wrong.push(format!(
                "{} {}:\n  {}\n  instead of\n  {}",
                exchange["n"],
                exchange["note"],
                json!(causes(&errors)),
                json!(recorded(exchange))
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{equal} equal, not equal:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_recorded_openapi_document_of_a_custom_group_comes_out_equal() {
    let exchanges = golden::scenario("crd-group");
    let versions = &exchanges[1]["request"]["body"]["spec"]["versions"];
    let version = versions
        .as_array()
        .unwrap()
        .iter()
        .find(|version| version["name"] == "v1")
        .unwrap();
    let kind = CustomKind {
        kind: "Gadget",
        list_kind: "GadgetList",
        plural: "gadgets",
        namespaced: true,
        schema: &version["schema"]["openAPIV3Schema"],
        status: true,
        scale: true,
    };
    let mut document = custom_document("disc.golden.example.com", "v1", &[kind]);
    let mut wanted = exchanges[6]["response"]["body"].clone();
    // Upstream lists there every group version that is served at the moment.
    for document in [&mut document, &mut wanted] {
        let options = &mut document["components"]["schemas"]["io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions"];
        options
            .as_object_mut()
            .unwrap()
            .remove("x-kubernetes-group-version-kind");
    }
    assert_eq!(document, wanted);
}

#[test]
fn recorded_validation_rules_decide_alike() {
    let exchanges = golden::scenario("cel");
    let schema =
        &exchanges[1]["request"]["body"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let structural = Structural::new(schema);
    let stored = |exchange: &Value| exchange["response"]["body"].clone();
    let mut live: Option<Value> = None;
    let mut wrong = Vec::new();
    let mut equal = 0;
    for exchange in &exchanges[3..=26] {
        let status = exchange["response"]["status"].as_u64().unwrap();
        let (mut new, old) = match exchange["request"]["method"].as_str().unwrap() {
            "POST" => (exchange["request"]["body"].clone(), None),
            _ => {
                let mut new = live.clone().unwrap();
                local_schema::patch::merge(&mut new, exchange["request"]["body"].clone());
                (new, live.clone())
            }
        };
        structural.default(&mut new);
        let errors = structural.validate(&new, old.as_ref());
        let found = causes(&errors);
        if found == recorded(exchange) {
            equal += 1;
        } else {
            wrong.push(format!(
                "{}: {}\n  instead of {}",
                exchange["n"],
                json!(found),
                json!(recorded(exchange))
            ));
        }
        if status < 300 {
            live = Some(stored(exchange));
        }
    }
    assert!(
        wrong.is_empty(),
        "{equal} equal, not equal:\n{}",
        wrong.join("\n")
    );
}
