//! The paths of a document and the operations on them.

use super::definitions::{group_version_kind, name_of};
use super::json::Json;
use super::{Dialect, Resource, Subresource};
use crate::Schema;

const META: &str = "io.k8s.apimachinery.pkg.apis.meta.v1";
const TYPES: [&str; 3] = ["application/json", "application/yaml", "application/vnd.kubernetes.protobuf"];
const PATCH_TYPES: [&str; 4] = [
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/apply-patch+yaml",
    "application/strategic-merge-patch+json",
];

/// A query parameter: name, type, description.
type Parameter = (&'static str, &'static str, &'static str);

const PRETTY: Parameter = ("pretty", "string", "If 'true', then the output is pretty printed.");
const DRY_RUN: Parameter =
    ("dryRun", "string", "When present, indicates that modifications should not be persisted. Valid values are: All.");
const FIELD_MANAGER: Parameter =
    ("fieldManager", "string", "The name of the actor or entity that makes these changes.");
const FIELD_VALIDATION: Parameter =
    ("fieldValidation", "string", "What to do with unknown or duplicate fields: Ignore, Warn (the default) or Strict.");
const FORCE: Parameter = ("force", "boolean", "Whether apply takes over fields that other managers own.");
const LIST: [Parameter; 10] = [
    ("allowWatchBookmarks", "boolean", "Whether a watch may have events of type BOOKMARK."),
    ("continue", "string", "Where to continue a list that came in parts."),
    ("fieldSelector", "string", "Selects objects by their fields. Defaults to everything."),
    ("labelSelector", "string", "Selects objects by their labels. Defaults to everything."),
    ("limit", "integer", "The most objects in one answer."),
    ("resourceVersion", "string", "The version that the answer may or must be of."),
    ("resourceVersionMatch", "string", "How resourceVersion is meant."),
    ("sendInitialEvents", "boolean", "Whether a watch starts with the objects that are there."),
    ("timeoutSeconds", "integer", "How long a list or watch may take."),
    ("watch", "boolean", "Whether to watch for changes instead of listing."),
];
const DELETE: [Parameter; 4] = [
    DRY_RUN,
    ("gracePeriodSeconds", "integer", "The seconds before the object is deleted; zero means at once."),
    ("orphanDependents", "boolean", "Deprecated: use propagationPolicy."),
    ("propagationPolicy", "string", "What becomes of dependents: Orphan, Background or Foreground."),
];

/// One operation on a path.
struct Operation<'a> {
    method: &'static str,
    /// `x-kubernetes-action`
    action: &'static str,
    id: String,
    tag: String,
    parameters: Vec<Parameter>,
    /// The definition of the body; patches and deletes have their own.
    body: Option<String>,
    /// The definition of the answer; none is text.
    answer: Option<String>,
    created: bool,
    group: &'a str,
    version: &'a str,
    kind: &'a str,
    /// Whether a definition made the resource.
    custom: bool,
}

impl Operation<'_> {
    /// The forms of answers: custom resources have none in protobuf.
    fn types(&self) -> &'static [&'static str] {
        if self.custom { &TYPES[..2] } else { &TYPES }
    }

    /// The forms of patches: kubectl sends custom resources the strategic one when it finds it here.
    fn patch_types(&self) -> &'static [&'static str] {
        if self.custom { &PATCH_TYPES[..3] } else { &PATCH_TYPES }
    }
}

fn is_custom(resource: &Resource) -> bool {
    Schema::builtin().kind(&resource.group, &resource.version, &resource.kind).is_none()
}

/// `RbacAuthorization` for `rbac.authorization.k8s.io`.
fn camel_group(group: &str) -> String {
    if group.is_empty() {
        return "Core".into();
    }
    let words = group.strip_suffix(".k8s.io").unwrap_or(group).split(['.', '-']);
    words.map(capital).collect()
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map_or_else(String::new, |first| first.to_ascii_uppercase().to_string() + chars.as_str())
}

fn root(group: &str, version: &str) -> String {
    if group.is_empty() { format!("/api/{version}/") } else { format!("/apis/{group}/{version}/") }
}

/// `rbacAuthorization_v1`
fn tag(group: &str, version: &str) -> String {
    let group = camel_group(group);
    format!("{}{}_{version}", group[..1].to_ascii_lowercase(), &group[1..])
}

/// The list of resources of a group and version.
pub(super) fn write_root(json: &mut Json, dialect: Dialect, group: &str, version: &str) {
    json.key(&root(group, version)).object(|json| {
        let operation = Operation {
            method: "get",
            action: "",
            id: format!("get{}{}APIResources", camel_group(group), capital(version)),
            tag: tag(group, version),
            parameters: Vec::new(),
            body: None,
            answer: Some(format!("{META}.APIResourceList")),
            created: false,
            group,
            version,
            kind: "",
            custom: false,
        };
        write_operation(json, dialect, &operation);
    });
}

/// All paths of a resource.
pub(super) fn write(json: &mut Json, dialect: Dialect, resource: &Resource) {
    let base = root(&resource.group, &resource.version);
    let plural = &resource.plural;
    let collection = if resource.namespaced {
        format!("{base}namespaces/{{namespace}}/{plural}")
    } else {
        format!("{base}{plural}")
    };
    let has = |verb: &str| resource.verbs.iter().any(|v| v == verb);
    if resource.namespaced && has("list") {
        write_path(json, dialect, &format!("{base}{plural}"), &[list(resource, true)]);
    }
    write_path(json, dialect, &collection, &of_collection(resource));
    let object = format!("{collection}/{{name}}");
    write_path(json, dialect, &object, &of_object(resource));
    for sub in &resource.subresources {
        let operations: Vec<Operation<'_>> =
            sub.verbs.iter().filter_map(|verb| of_subresource(resource, sub, verb)).collect();
        write_path(json, dialect, &format!("{object}/{}", sub.name), &operations);
    }
}

fn write_path(json: &mut Json, dialect: Dialect, path: &str, operations: &[Operation<'_>]) {
    if operations.is_empty() {
        return;
    }
    json.key(path).object(|json| {
        operations.iter().for_each(|operation| write_operation(json, dialect, operation));
        json.key("parameters").array(|json| {
            let in_path = [
                ("{name}", "name", "name of the object"),
                ("{namespace}", "namespace", "object name and auth scope, such as for teams and projects"),
            ];
            for (mark, name, description) in in_path {
                if path.contains(mark) {
                    parameter(json, dialect, "path", &(name, "string", description));
                }
            }
            parameter(json, dialect, "query", &PRETTY);
        });
    });
}

fn identifier(resource: &Resource, verb: &str, tail: &str) -> String {
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    format!("{verb}{}{}{scope}{tail}", camel_group(&resource.group), capital(&resource.version))
}

fn operation<'a>(resource: &'a Resource, method: &'static str, action: &'static str, verb: &str) -> Operation<'a> {
    Operation {
        method,
        action,
        id: identifier(resource, verb, &resource.kind),
        tag: tag(&resource.group, &resource.version),
        parameters: Vec::new(),
        body: None,
        answer: Some(name_of(resource)),
        created: false,
        group: &resource.group,
        version: &resource.version,
        kind: &resource.kind,
        custom: is_custom(resource),
    }
}

fn list(resource: &Resource, all_namespaces: bool) -> Operation<'_> {
    let mut operation = operation(resource, "get", "list", "list");
    if all_namespaces {
        let (group, version) = (camel_group(&resource.group), capital(&resource.version));
        operation.id = format!("list{group}{version}{}ForAllNamespaces", resource.kind);
    }
    operation.parameters = LIST.to_vec();
    operation.answer = Some(format!("{}List", name_of(resource)));
    operation
}

fn of_collection(resource: &Resource) -> Vec<Operation<'_>> {
    let has = |verb: &str| resource.verbs.iter().any(|v| v == verb);
    let mut operations = Vec::new();
    if has("list") {
        operations.push(list(resource, false));
    }
    if has("create") {
        let parameters = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        let body = Some(name_of(resource));
        operations.push(Operation { parameters, body, created: true, ..operation(resource, "post", "post", "create") });
    }
    if has("deletecollection") {
        let mut parameters = DELETE.to_vec();
        parameters.extend(LIST.iter().filter(|(name, ..)| !matches!(*name, "watch" | "allowWatchBookmarks")));
        let scope = if resource.namespaced { "Namespaced" } else { "" };
        let id = format!(
            "delete{}{}Collection{scope}{}",
            camel_group(&resource.group),
            capital(&resource.version),
            resource.kind
        );
        let (body, answer) = (Some(format!("{META}.DeleteOptions")), Some(format!("{META}.Status")));
        operations.push(Operation {
            parameters,
            id,
            body,
            answer,
            ..operation(resource, "delete", "deletecollection", "delete")
        });
    }
    operations
}

fn of_object(resource: &Resource) -> Vec<Operation<'_>> {
    let has = |verb: &str| resource.verbs.iter().any(|v| v == verb);
    let body = || Some(name_of(resource));
    let mut operations = Vec::new();
    if has("get") {
        operations.push(operation(resource, "get", "get", "read"));
    }
    if has("update") {
        let parameters = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION];
        operations.push(Operation {
            parameters,
            body: body(),
            created: true,
            ..operation(resource, "put", "put", "replace")
        });
    }
    if has("delete") {
        let (body, answer) = (Some(format!("{META}.DeleteOptions")), Some(format!("{META}.Status")));
        let parameters = DELETE.to_vec();
        operations.push(Operation { parameters, body, answer, ..operation(resource, "delete", "delete", "delete") });
    }
    if has("patch") {
        let parameters = vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION, FORCE];
        operations.push(Operation { parameters, created: true, ..operation(resource, "patch", "patch", "patch") });
    }
    operations
}

fn of_subresource<'a>(resource: &'a Resource, sub: &'a Subresource, verb: &str) -> Option<Operation<'a>> {
    let body = || {
        Schema::builtin()
            .kind(&sub.group, &sub.version, &sub.kind)
            .map_or_else(|| name_of(resource), |ty| ty.name().to_owned())
    };
    let connects = matches!(sub.name.as_str(), "exec" | "attach" | "portforward" | "proxy");
    let (method, action, word) = match verb {
        "get" if connects => ("get", "connect", "connect"),
        "create" if connects => ("post", "connect", "connect"),
        "get" => ("get", "get", "read"),
        "create" => ("post", "post", "create"),
        "update" => ("put", "put", "replace"),
        "patch" => ("patch", "patch", "patch"),
        "delete" => ("delete", "delete", "delete"),
        _ => return None,
    };
    let writes = matches!(method, "post" | "put" | "patch") && !connects;
    let method_word = if connects { capital(method) } else { String::new() };
    let scope = if resource.namespaced { "Namespaced" } else { "" };
    let tail = format!("{method_word}{scope}{}{}", resource.kind, capital(&sub.name));
    Some(Operation {
        method,
        action,
        id: format!("{word}{}{}{tail}", camel_group(&resource.group), capital(&resource.version)),
        tag: tag(&resource.group, &resource.version),
        parameters: if writes { vec![DRY_RUN, FIELD_MANAGER, FIELD_VALIDATION] } else { Vec::new() },
        body: (writes && method != "patch").then(body),
        answer: (!connects && sub.name != "log").then(body),
        created: writes,
        group: &sub.group,
        version: &sub.version,
        kind: &sub.kind,
        custom: is_custom(resource),
    })
}

fn write_operation(json: &mut Json, dialect: Dialect, operation: &Operation<'_>) {
    json.key(operation.method).object(|json| {
        json.key("tags").strings([operation.tag.as_str()]);
        json.key("description").string(&description(operation));
        json.key("operationId").string(&operation.id);
        bodies_and_parameters(json, dialect, operation);
        json.key("responses").object(|json| responses(json, dialect, operation));
        if dialect == Dialect::V2 {
            json.key("consumes")
                .strings(if operation.method == "patch" { operation.patch_types() } else { &["*/*"] }.iter().copied());
            json.key("produces").strings(operation.types().iter().copied());
            json.key("schemes").strings(["https"]);
        }
        if !operation.action.is_empty() {
            json.key("x-kubernetes-action").string(operation.action);
            json.key("x-kubernetes-group-version-kind");
            group_version_kind(json, operation.group, operation.version, operation.kind);
        }
    });
}

fn description(operation: &Operation<'_>) -> String {
    let kind = operation.kind;
    match operation.action {
        "" => "get available resources".into(),
        "list" => format!("list or watch objects of kind {kind}"),
        "get" => format!("read the specified {kind}"),
        "post" => format!("create a {kind}"),
        "put" => format!("replace the specified {kind}"),
        "patch" => format!("partially update the specified {kind}"),
        "delete" => format!("delete a {kind}"),
        "deletecollection" => format!("delete collection of {kind}"),
        _ => format!("connect to {kind}"),
    }
}

fn bodies_and_parameters(json: &mut Json, dialect: Dialect, operation: &Operation<'_>) {
    let patches = operation.method == "patch";
    let body = if patches { Some(format!("{META}.Patch")) } else { operation.body.clone() };
    let reference = body.map(|name| dialect.reference(&name));
    let in_body = reference.as_ref().filter(|_| dialect == Dialect::V2);
    if in_body.is_some() || !operation.parameters.is_empty() {
        json.key("parameters").array(|json| {
            if let Some(reference) = in_body {
                json.object(|json| {
                    json.key("in").string("body");
                    json.key("name").string("body");
                    if operation.method != "delete" {
                        json.key("required").raw("true");
                    }
                    schema_reference(json, reference);
                });
            }
            operation.parameters.iter().for_each(|p| parameter(json, dialect, "query", p));
        });
    }
    if let (Dialect::V3, Some(reference)) = (dialect, &reference) {
        json.key("requestBody").object(|json| {
            json.key("content").object(|json| {
                let types = if patches { operation.patch_types() } else { &["*/*"] };
                types.iter().for_each(|ty| json.key(ty).object(|json| schema_reference(json, reference)));
            });
            if operation.method != "delete" {
                json.key("required").raw("true");
            }
        });
    }
}

fn schema_reference(json: &mut Json, reference: &str) {
    json.key("schema").object(|json| json.key("$ref").string(reference));
}

fn parameter(json: &mut Json, dialect: Dialect, place: &str, (name, ty, description): &Parameter) {
    json.object(|json| {
        json.key("description").string(description);
        json.key("in").string(place);
        json.key("name").string(name);
        if place == "path" {
            json.key("required").raw("true");
        }
        let typed = |json: &mut Json| {
            json.key("type").string(ty);
            json.key("uniqueItems").raw("true");
        };
        match dialect {
            Dialect::V2 => typed(json),
            Dialect::V3 => json.key("schema").object(typed),
        }
    });
}

fn responses(json: &mut Json, dialect: Dialect, operation: &Operation<'_>) {
    let reference = operation.answer.as_ref().map(|name| dialect.reference(name));
    let codes: &[(&str, &str)] = match (operation.method, operation.created) {
        ("post", true) => &[("200", "OK"), ("201", "Created"), ("202", "Accepted")],
        (_, true) => &[("200", "OK"), ("201", "Created")],
        ("delete", _) => &[("200", "OK"), ("202", "Accepted")],
        _ => &[("200", "OK")],
    };
    for (code, description) in codes {
        json.key(code).object(|json| {
            json.key("description").string(description);
            match (dialect, &reference) {
                (Dialect::V3, Some(reference)) => json.key("content").object(|json| {
                    operation
                        .types()
                        .iter()
                        .for_each(|ty| json.key(ty).object(|json| schema_reference(json, reference)));
                }),
                (Dialect::V2, Some(reference)) => schema_reference(json, reference),
                (Dialect::V3, None) => json.key("content").object(|json| {
                    json.key("*/*").object(|json| json.key("schema").object(|json| json.key("type").string("string")));
                }),
                (Dialect::V2, None) => json.key("schema").object(|json| json.key("type").string("string")),
            }
        });
    }
    json.key("401").object(|json| json.key("description").string("Unauthorized"));
}
