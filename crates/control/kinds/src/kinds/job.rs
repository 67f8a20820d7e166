//! Jobs: pods that run to an end, and the policies of success and failure.

mod status;

use super::{pod, workload};
use crate::{
    check::{Errors, Seen, condition, name, number, selector},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;

pub struct Job;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Status", "string", "", 0, "Status of the job."),
    Column::new(
        "Completions",
        "string",
        "",
        0,
        "The number of pods which reached phase Succeeded. The value increases monotonically for a given spec. \
         However, it may decrease in reaction to scale down of elastic indexed jobs.",
    ),
    Column::new("Duration", "string", "", 0, "Time required to complete the job."),
    column::AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    Column::new(
        "Selector",
        "string",
        "",
        1,
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. \
         More info: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

impl Strategy for Job {
    fn default(&self, _api_version: &str, object: &mut Value) {
        default_labels(object);
        let Some(spec) = tree::child(object, "spec") else { return };
        if !tree::has(spec, "completions") && !tree::has(spec, "parallelism") {
            tree::set(spec, "completions", 1);
        }
        tree::default_to(spec, "parallelism", 1);
        let backoff = if tree::has(spec, "backoffLimitPerIndex") { i32::MAX } else { 6 };
        tree::default_to(spec, "backoffLimit", backoff);
        tree::default_to(spec, "completionMode", "NonIndexed");
        tree::default_to(spec, "suspend", false);
        tree::default_to(spec, "manualSelector", false);
        let replacement = if tree::has(spec, "podFailurePolicy") { "Failed" } else { "TerminatingOrFailed" };
        tree::default_to(spec, "podReplacementPolicy", replacement);
        default_template_and_policy(spec);
    }

    fn prepare_create(&self, object: &mut Value) {
        if object["spec"]["manualSelector"] != true {
            generate_selector(object);
        }
    }

    /// The generated labels are no part of what is checked of the metadata.
    fn read_back(&self, object: &mut Value) {
        default_labels(object);
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            generated_selector(errors, object);
            validate_spec(errors, &Path::new("spec"), &object["spec"], true);
            host_names_fit(errors, object);
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| {
            validate_spec(errors, &Path::new("spec"), &new["spec"], true);
            unchanged(errors, &new["spec"], &old["spec"], may_be_moved(old));
        })
    }

    fn validate_subresource_update(&self, _subresource: &str, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| status::validate(errors, new, old))
    }

    fn orphans_by_default(&self) -> bool {
        true
    }

    fn warning_of_orphans(&self) -> Option<&'static str> {
        Some(
            "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove \
             them or set propagationPolicy=Orphan to suppress this warning",
        )
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = workload::name_warnings(new, old);
        if old.is_none_or(|old| old["spec"] != new["spec"]) {
            warnings.extend(spec_warning(&new["spec"]));
        }
        warnings.extend(pod::template_warnings("spec.template", &new["spec"]["template"], new, old));
        warnings
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let spec = &object["spec"];
        let mut cells = vec![
            workload::name(object),
            status_word(object).into(),
            completions(object).into(),
            duration(&object["status"], now).into(),
            column::age(object, now),
        ];
        cells.extend(workload::wide_cells(&spec["template"], Some(workload::selector_text(&spec["selector"]))));
        cells
    }
}

/// What is told of a job with so many indexes that not all that failed can be told.
pub(super) fn spec_warning(spec: &Value) -> Option<String> {
    let many = tree::int(spec, "completions") > MANY_INDEXES && tree::int(spec, "parallelism") > FEW_OF_MANY;
    let words = "In Indexed Jobs with a number of completions higher than 10^5 and a parallelism higher than 10^4, \
                 Kubernetes might not be able to track completedIndexes when a big number of indexes fail";
    (many && tree::text(spec, "completionMode") == "Indexed").then(|| words.to_owned())
}

/// The pods of an indexed job are named after it and their index, and so are their hosts.
fn host_names_fit(errors: &mut Errors, object: &Value) {
    let (spec, name) = (&object["spec"], tree::text(&object["metadata"], "name"));
    let completions = tree::int(spec, "completions");
    if tree::text(spec, "completionMode") != "Indexed" || completions <= 0 {
        return;
    }
    let host = format!("{name}-{}", completions - 1);
    if pintle_types::names::check_dns1123_label(&host).is_err() {
        let words = format!("will not able to create pod with invalid DNS label: {host}");
        errors.invalid(&Path::new("metadata.name"), name, &words);
    }
}

/// A job without labels has those of its template.
fn default_labels(object: &mut Value) {
    let labels = object["spec"]["template"]["metadata"]["labels"].clone();
    if !tree::is_empty(&labels)
        && let Some(metadata) = tree::child(object, "metadata")
    {
        tree::default_empty(metadata, "labels", labels);
    }
}

/// Defaults that the template of a cron job gets, too.
pub(super) fn default_template_and_policy(spec: &mut Value) {
    if let Some(policy) = tree::existing(spec, "podFailurePolicy") {
        for rule in tree::items_mut(policy, "rules") {
            tree::items_mut(rule, "onPodConditions").for_each(|pattern| tree::default_empty(pattern, "status", "True"));
        }
    }
    if let Some(template) = tree::child(spec, "template") {
        pod::default_template(template);
    }
}

/// The labels by which a job finds its pods, and by which people do; the second of each pair is the older name.
const GENERATED: [(&str, &str); 4] = [
    ("controller-uid", "uid"),
    ("job-name", "name"),
    ("batch.kubernetes.io/controller-uid", "uid"),
    ("batch.kubernetes.io/job-name", "name"),
];

/// Pods of a job are found by the job's UID; the older label names are still written. What a client set is left, and
/// refused when it differs.
fn generate_selector(object: &mut Value) {
    let metadata = object["metadata"].clone();
    let Some(spec) = tree::child(object, "spec") else { return };
    if let Some(selector) = tree::child(spec, "selector")
        && let Some(labels) = tree::child(selector, "matchLabels")
    {
        tree::default_to(labels, "batch.kubernetes.io/controller-uid", tree::text(&metadata, "uid"));
    }
    let labels = tree::child(spec, "template")
        .and_then(|template| tree::child(template, "metadata"))
        .and_then(|metadata| tree::child(metadata, "labels"));
    if let Some(labels) = labels {
        GENERATED.iter().for_each(|(key, field)| tree::default_to(labels, key, tree::text(&metadata, field)));
    }
}

/// A generated selector finds the pods of this job and no others.
fn generated_selector(errors: &mut Errors, object: &Value) {
    let (spec, metadata) = (&object["spec"], &object["metadata"]);
    if spec["manualSelector"] == true || spec["selector"].is_null() {
        return;
    }
    let labels = &spec["template"]["metadata"]["labels"];
    let mut expected = Value::Object(serde_json::Map::new());
    for (key, field) in GENERATED {
        let wanted = tree::text(metadata, field);
        let (at, words) = (Path::new("spec.template.metadata.labels").key(key), format!("must be '{wanted}'"));
        match labels.get(key).and_then(Value::as_str) {
            None => errors.required(&at, &words),
            Some(found) if found != wanted => errors.invalid(&at, labels.clone(), &words),
            Some(_) => {}
        }
        tree::set(&mut expected, key, wanted);
    }
    let selector = &spec["selector"];
    if selector::is_usable(selector) && !selector::matches(selector, &expected) {
        let shown = selector::shown(selector);
        errors.invalid_shown(&Path::new("spec.selector"), &shown, "`selector` not auto-generated");
    }
}

/// The spec of a job, or (without a selector) that inside a cron job.
pub(super) fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value, own_selector: bool) {
    const COUNTS: &[&str] = &[
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    if own_selector {
        match &spec["selector"] {
            Value::Null => errors.required(&path.child("selector"), ""),
            selector => selector::labels(errors, &path.child("selector"), selector),
        }
    }
    number::fields_not_negative(errors, path, spec, COUNTS);
    if tree::has(spec, "maxFailedIndexes") && !tree::has(spec, "backoffLimitPerIndex") {
        errors.required(&path.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified");
    }
    managed_by(errors, &path.child("managedBy"), spec);
    completion_mode(errors, path, spec);
    failure_policy(errors, &path.child("podFailurePolicy"), spec);
    success_policy(errors, &path.child("successPolicy"), spec);
    if let Some(policy) = spec.get("podReplacementPolicy").and_then(Value::as_str) {
        // What replaces pods before they ended cannot tell how they failed.
        let known: &[&str] =
            if tree::has(spec, "podFailurePolicy") { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        errors.one_of(&path.child("podReplacementPolicy"), policy, known);
    }
    let at = path.child("template");
    pod::validate_template(errors, &at, &spec["template"]);
    restart_policy(errors, &at.child("spec").child("restartPolicy"), spec);
    if own_selector
        && spec["selector"].is_object()
        && !selector::matches(&spec["selector"], &spec["template"]["metadata"]["labels"])
    {
        let labels = spec["template"]["metadata"]["labels"].clone();
        errors.invalid(&at.child("metadata").child("labels"), labels, "`selector` does not match template `labels`");
    }
}

fn completion_mode(errors: &mut Errors, path: &Path, spec: &Value) {
    let Some(mode) = spec.get("completionMode").and_then(Value::as_str) else { return };
    errors.one_of(&path.child("completionMode"), mode, &["NonIndexed", "Indexed"]);
    if mode == "Indexed" {
        indexed(errors, path, spec);
    }
    for field in ["backoffLimitPerIndex", "maxFailedIndexes"] {
        if mode == "NonIndexed" && tree::has(spec, field) {
            errors.invalid(&path.child(field), spec[field].clone(), "requires indexed completion mode");
        }
    }
}

/// From this many indexes on, the status of a job has no room for as many failures.
const MANY_INDEXES: i64 = 100_000;
const FEW_OF_MANY: i64 = 10_000;

fn indexed(errors: &mut Errors, path: &Path, spec: &Value) {
    let count = |field: &str| spec.get(field).and_then(Value::as_i64);
    if count("completions").is_none() {
        errors.required(&path.child("completions"), "when completion mode is Indexed");
    }
    let mut at_most = |field: &str, limit: i64, words: &str| {
        if let Some(number) = count(field).filter(|number| *number > limit) {
            errors.invalid(&path.child(field), number, &format!("must be less than or equal to {words}"));
        }
    };
    at_most("parallelism", MANY_INDEXES, &format!("{MANY_INDEXES} when completion mode is Indexed"));
    if let Some(completions) = count("completions") {
        at_most("maxFailedIndexes", completions, "completions");
    }
    at_most("maxFailedIndexes", MANY_INDEXES, &MANY_INDEXES.to_string());
    if count("completions") > Some(MANY_INDEXES) && count("backoffLimitPerIndex").is_some() {
        let words =
            format!("{FEW_OF_MANY} when completions are above {MANY_INDEXES} and used with backoff limit per index");
        at_most("parallelism", FEW_OF_MANY, &words);
        at_most("maxFailedIndexes", FEW_OF_MANY, &words);
        if count("maxFailedIndexes").is_none() {
            let words = format!("must be specified when completions is above {MANY_INDEXES}");
            errors.required(&path.child("maxFailedIndexes"), &words);
        }
    }
}

/// Who syncs the job instead of the built-in controller.
fn managed_by(errors: &mut Errors, path: &Path, spec: &Value) {
    const LONGEST: usize = 63;
    let Some(manager) = spec.get("managedBy").and_then(Value::as_str) else { return };
    name::domain_prefixed_path(errors, path, manager);
    if manager.len() > LONGEST {
        errors.too_long(path, LONGEST);
    }
}

fn restart_policy(errors: &mut Errors, at: &Path, spec: &Value) {
    let policy = tree::text(&spec["template"]["spec"], "restartPolicy");
    match policy {
        "Always" => errors.required(at, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if tree::has(spec, "podFailurePolicy") => {
            errors.invalid(at, policy, "only \"Never\" is supported when podFailurePolicy is specified");
        }
        _ => errors.one_of(at, policy, &["OnFailure", "Never"]),
    }
}

/// As many rules, and as many conditions in one, are read in time.
const MOST_RULES: usize = 20;
const MOST_EXIT_CODES: usize = 255;

fn failure_policy(errors: &mut Errors, path: &Path, spec: &Value) {
    const ACTIONS: &[&str] = &["Count", "FailIndex", "FailJob", "Ignore"];
    let names: Vec<&str> = ["containers", "initContainers"]
        .iter()
        .flat_map(|field| tree::list(&spec["template"]["spec"], field))
        .map(|container| tree::text(container, "name"))
        .collect();
    let rules = tree::list(&spec["podFailurePolicy"], "rules");
    if rules.len() > MOST_RULES {
        errors.too_many(&path.child("rules"), rules.len(), MOST_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        let at = path.child("rules").index(i);
        match tree::text(rule, "action") {
            "" => {
                errors.required(&at.child("action"), "valid values: [\"Count\" \"FailIndex\" \"FailJob\" \"Ignore\"]")
            }
            "FailIndex" if !tree::has(spec, "backoffLimitPerIndex") => {
                errors.invalid(&at.child("action"), "FailIndex", "requires the backoffLimitPerIndex to be set");
            }
            action => errors.one_of(&at.child("action"), action, ACTIONS),
        }
        if tree::has(rule, "onExitCodes") {
            exit_codes(errors, &at.child("onExitCodes"), &rule["onExitCodes"], &names);
        }
        let patterns = tree::list(rule, "onPodConditions");
        if patterns.len() > MOST_RULES {
            errors.too_many(&at.child("onPodConditions"), patterns.len(), MOST_RULES);
        }
        for (j, pattern) in patterns.iter().enumerate() {
            pod_condition(errors, &at.child("onPodConditions").index(j), pattern);
        }
        let words = match (tree::has(rule, "onExitCodes"), !patterns.is_empty()) {
            (true, true) => "specifying both OnExitCodes and OnPodConditions is not supported",
            (false, false) => "specifying one of OnExitCodes and OnPodConditions is required",
            _ => continue,
        };
        errors.invalid_untold(&at, words);
    }
}

fn exit_codes(errors: &mut Errors, at: &Path, codes: &Value, names: &[&str]) {
    match tree::text(codes, "operator") {
        "" => errors.required(&at.child("operator"), "valid values: [\"In\" \"NotIn\"]"),
        operator => errors.one_of(&at.child("operator"), operator, &["In", "NotIn"]),
    }
    if let Some(container) = codes.get("containerName").and_then(Value::as_str)
        && !names.contains(&container)
    {
        let words = "must be one of the container or initContainer names in the pod template";
        errors.invalid(&at.child("containerName"), container, words);
    }
    let values = tree::list(codes, "values");
    if values.is_empty() {
        let shown = if codes["values"].is_array() { "[]" } else { "null" };
        errors.invalid_shown(&at.child("values"), shown, "at least one value is required");
    } else if values.len() > MOST_EXIT_CODES {
        errors.too_many(&at.child("values"), values.len(), MOST_EXIT_CODES);
    }
    let mut seen = Seen::default();
    for (i, value) in values.iter().enumerate() {
        let at = at.child("values").index(i);
        if tree::text(codes, "operator") == "In" && value.as_i64() == Some(0) {
            errors.invalid(&at, 0, "must not be 0 for the In operator");
        }
        if !seen.first(value.to_string()) {
            errors.duplicate(&at, value.clone());
        }
    }
    if !values.is_sorted_by_key(|value| value.as_i64()) {
        errors.invalid(&at.child("values"), values.to_vec(), "must be ordered");
    }
}

fn pod_condition(errors: &mut Errors, at: &Path, pattern: &Value) {
    let kind = tree::text(pattern, "type");
    errors.invalid_for(&at.child("type"), kind, name::qualified(kind));
    match tree::text(pattern, "status") {
        "" => errors.required(&at.child("status"), "valid values: [\"False\" \"True\" \"Unknown\"]"),
        status => errors.one_of(&at.child("status"), status, &["False", "True", "Unknown"]),
    }
}

fn success_policy(errors: &mut Errors, path: &Path, spec: &Value) {
    let policy = &spec["successPolicy"];
    if policy.is_null() {
        return;
    }
    let rules = tree::list(policy, "rules");
    if tree::text(spec, "completionMode") != "Indexed" {
        let shown: Vec<String> = rules.iter().map(success_rule_shown).collect();
        errors.invalid_shown(path, &format!("{{\"Rules\":[{}]}}", shown.join(",")), "requires indexed completion mode");
        return;
    }
    if rules.is_empty() {
        let words = "at least one rules must be specified when the successPolicy is specified";
        return errors.required(&path.child("rules"), words);
    }
    if rules.len() > MOST_RULES {
        errors.too_many(&path.child("rules"), rules.len(), MOST_RULES);
    }
    for (i, rule) in rules.iter().enumerate() {
        success_rule(errors, &path.child("rules").index(i), rule, tree::int(spec, "completions"));
    }
}

fn success_rule_shown(rule: &Value) -> String {
    let shown = |key: &str| rule.get(key).map_or("null".to_owned(), Value::to_string);
    format!("{{\"SucceededIndexes\":{},\"SucceededCount\":{}}}", shown("succeededIndexes"), shown("succeededCount"))
}

fn success_rule(errors: &mut Errors, at: &Path, rule: &Value, completions: i64) {
    let indexes = rule.get("succeededIndexes").and_then(Value::as_str);
    let count = rule.get("succeededCount").and_then(Value::as_i64);
    if indexes.is_none() && count.is_none() {
        return errors.required(at, "at least one of succeededCount or succeededIndexes must be specified");
    }
    let total = indexes.map(|text| match count_indexes(text, completions) {
        Ok(total) => total,
        Err(wrong) => {
            let words = format!("error parsing succeededIndexes: {wrong}");
            errors.invalid(&at.child("succeededIndexes"), text, &words);
            0
        }
    });
    let Some(count) = count else { return };
    let at = at.child("succeededCount");
    number::not_negative(errors, &at, count);
    if count > completions {
        let words = format!("must be less than or equal to {completions} (the number of specified completions)");
        errors.invalid(&at, count, &words);
    }
    if let Some(total) = total.filter(|total| count > *total) {
        let words = format!(
            "must be less than or equal to {total} (the number of indexes in the specified succeededIndexes field)"
        );
        errors.invalid(&at, count, &words);
    }
}

/// How many indexes a text such as `1,3-5` names, or what is wrong with it.
fn count_indexes(text: &str, completions: i64) -> Result<i64, String> {
    let (mut total, mut last) = (0, None);
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = span(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        (total, last) = (total + to - from + 1, Some(to));
    }
    Ok(total)
}

/// The first and last index of a part such as `3` or `5-7`.
fn span(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let index = |text: &str| match text.parse::<i64>() {
        Err(_) => Err(format!("cannot convert string to integer for index: {}", Value::from(text))),
        Ok(index) if index >= completions => Err(format!("too large index: {}", Value::from(text))),
        Ok(index) => Ok(index),
    };
    let ends: Vec<&str> = part.split('-').collect();
    match ends[..] {
        [one] => index(one).map(|one| (one, one)),
        [from, to] => match (index(from)?, index(to)?) {
            (from, to) if from >= to => Err(format!("non-increasing order, previous: {from}, current: {to}")),
            ends => Ok(ends),
        },
        _ => Err(format!(
            "the fragment {} violates the requirement that an index interval can have at most two parts separated by '-'",
            Value::from(part)
        )),
    }
}

/// Whether a job waits for leave to run, so that where its pods run and what they get can still be changed.
fn may_be_moved(old: &Value) -> bool {
    let status = &old["status"];
    let rests = condition::is_true(status, "Suspended") && tree::int(status, "active") == 0;
    old["spec"]["suspend"] == true && (!tree::has(status, "startTime") || rests)
}

fn unchanged(errors: &mut Errors, new: &Value, old: &Value, movable: bool) {
    let path = Path::new("spec");
    let indexed = tree::text(new, "completionMode") == "Indexed";
    if !(indexed && new["parallelism"] == new["completions"]) && new["completions"] != old["completions"] {
        let words =
            if indexed { "can only be modified in tandem with spec.parallelism" } else { crate::check::IMMUTABLE };
        errors.invalid(&path.child("completions"), new["completions"].clone(), words);
    }
    if new["selector"] != old["selector"] {
        let shown = selector::shown(&new["selector"]);
        errors.invalid_shown(&path.child("selector"), &shown, crate::check::IMMUTABLE);
    }
    let mut template = new["template"].clone();
    if movable {
        keep_scheduling(&mut template, &old["template"]);
    }
    if template != old["template"] {
        errors.invalid(&path.child("template"), new["template"].clone(), crate::check::IMMUTABLE);
    }
    for field in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        errors.immutable(&path.child(field), &new[field], &old[field]);
    }
}

/// Makes what may still be changed of a template equal to the old one: where its pods run, and what they get.
fn keep_scheduling(template: &mut Value, old: &Value) {
    if let Some(metadata) = tree::child(template, "metadata") {
        tree::copy(metadata, &old["metadata"], "annotations");
        tree::copy(metadata, &old["metadata"], "labels");
    }
    let Some(spec) = tree::child(template, "spec") else { return };
    for field in ["nodeSelector", "tolerations", "schedulingGates"] {
        tree::copy(spec, &old["spec"], field);
    }
    keep_node_affinity(spec, &old["spec"]);
    for field in ["initContainers", "containers"] {
        let before = tree::list(&old["spec"], field);
        for (container, before) in tree::items_mut(spec, field).zip(before) {
            tree::copy(container, before, "resources");
        }
    }
}

/// An affinity to pods stays; one that only says something of nodes may come and go.
fn keep_node_affinity(spec: &mut Value, old: &Value) {
    const NODES: &str = "nodeAffinity";
    let before = &old["affinity"];
    if let Some(affinity) = tree::child(spec, "affinity") {
        tree::copy(affinity, before, NODES);
    }
    if tree::is_empty(&spec["affinity"]) && before.is_null() {
        tree::remove(spec, "affinity");
    }
}

fn status_word(object: &Value) -> &'static str {
    const WORDS: &[(&str, &str)] = &[("Complete", "Complete"), ("Failed", "Failed")];
    if let Some((_, word)) = WORDS.iter().find(|(kind, _)| condition::is_true(&object["status"], kind)) {
        return word;
    }
    if tree::has(&object["metadata"], "deletionTimestamp") {
        return "Terminating";
    }
    const LATER: &[(&str, &str)] =
        &[("Suspended", "Suspended"), ("FailureTarget", "FailureTarget"), ("SuccessCriteriaMet", "SuccessCriteriaMet")];
    LATER.iter().find(|(kind, _)| condition::is_true(&object["status"], kind)).map_or("Running", |(_, word)| word)
}

fn completions(object: &Value) -> String {
    let (spec, succeeded) = (&object["spec"], tree::int(&object["status"], "succeeded"));
    match spec.get("completions").and_then(Value::as_i64) {
        Some(wanted) => format!("{succeeded}/{wanted}"),
        None => match tree::int(spec, "parallelism") {
            several if several > 1 => format!("{succeeded}/1 of {several}"),
            _ => format!("{succeeded}/1"),
        },
    }
}

fn duration(status: &Value, now: Timestamp) -> String {
    let time = |key: &str| tree::text(status, key).parse::<Timestamp>().ok();
    let Some(start) = time("startTime") else { return String::new() };
    let end = time("completionTime").unwrap_or(now);
    column::human_duration(end.as_second() - start.as_second())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn job(spec: Value) -> Value {
        let mut job = json!({"metadata": {"name": "j", "uid": "u1"}, "spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]}},
        }});
        for (key, value) in spec.as_object().cloned().unwrap_or_default() {
            job["spec"][key] = value;
        }
        Job.default("batch/v1", &mut job);
        Job.prepare_create(&mut job);
        job
    }

    #[test]
    fn defaults_and_selector() {
        let mut job = job(json!({}));
        assert_eq!(job["spec"]["completions"], 1);
        assert_eq!(job["spec"]["backoffLimit"], 6);
        assert_eq!(job["spec"]["selector"], json!({"matchLabels": {"batch.kubernetes.io/controller-uid": "u1"}}));
        assert!(Job.validate(&job).is_empty(), "{:?}", Job.validate(&job));
        assert!(job["metadata"]["labels"].is_null(), "the generated labels are none of the job's while it is checked");
        Job.read_back(&mut job);
        assert_eq!(job["metadata"]["labels"]["job-name"], "j");
    }

    #[test]
    fn what_is_wrong() {
        let cases = [
            (json!({"parallelism": -1}), "spec.parallelism: Invalid value: -1: must be greater than or equal to 0"),
            (
                json!({"template": {"spec": {"containers": [{"name": "c", "image": "i"}]}}}),
                "spec.template.spec.restartPolicy: Required value: valid values: \"OnFailure\", \"Never\"",
            ),
            (
                json!({"podFailurePolicy": {"rules": [{"action": "Ignore"}]}}),
                "spec.podFailurePolicy.rules[0]: Invalid value: specifying one of OnExitCodes and OnPodConditions is required",
            ),
            (
                json!({"completionMode": "Indexed", "completions": 3, "successPolicy": {"rules": [
                    {"succeededIndexes": "0-1", "succeededCount": 3},
                ]}}),
                "spec.successPolicy.rules[0].succeededCount: Invalid value: 3: must be less than or equal to 2 (the number of \
                 indexes in the specified succeededIndexes field)",
            ),
        ];
        for (spec, expected) in cases {
            let found: Vec<_> = Job.validate(&job(spec.clone())).iter().map(ToString::to_string).collect();
            assert_eq!(found, [expected], "{spec}");
        }
    }

    #[test]
    fn the_template_stays_unless_suspended() {
        let old = job(json!({}));
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        assert_eq!(Job.validate_update(&new, &old).len(), 1);
        let old = job(json!({"suspend": true}));
        let mut new = old.clone();
        new["spec"]["template"]["spec"]["nodeSelector"] = json!({"a": "b"});
        assert!(Job.validate_update(&new, &old).is_empty());
    }
}
