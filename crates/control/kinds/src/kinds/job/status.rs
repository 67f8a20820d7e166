//! What the status of a job may say, and how it may change: whoever runs the job, its end stays its end.
//!
//! Most rules only look at what an update changes, so that a status which broke them before can still be written.

use super::{count_indexes, span};
use crate::{
    check::{Errors, Seen, condition, number},
    tree,
};
use jiff::Timestamp;
use pintle_types::field::Path;
use serde_json::Value;

/// A status with the one before it, and the spec of the job.
struct Change<'a> {
    spec: &'a Value,
    new: &'a Value,
    old: &'a Value,
}

impl Change<'_> {
    fn is(&self, kind: &str) -> bool {
        condition::is_true(self.new, kind)
    }
    fn was(&self, kind: &str) -> bool {
        condition::is_true(self.old, kind)
    }
    /// Whether the truth of one of these conditions changes.
    fn turns(&self, kinds: &[&str]) -> bool {
        kinds.iter().any(|kind| self.is(kind) != self.was(kind))
    }
    fn changes(&self, fields: &[&str]) -> bool {
        fields.iter().any(|field| tree::at(self.new, field) != tree::at(self.old, field))
    }
    fn is_over(&self) -> bool {
        self.is("Complete") || self.is("Failed")
    }
    fn ends_or_resumes(&self) -> bool {
        self.is_over() != (self.was("Complete") || self.was("Failed"))
    }
    fn is_indexed(&self) -> bool {
        tree::text(self.spec, "completionMode") == "Indexed"
    }
}

/// What is wrong with an update of the status.
pub(super) fn validate(errors: &mut Errors, new: &Value, old: &Value) {
    const COUNTS: &[&str] = &["active", "succeeded", "failed", "ready", "terminating"];
    let path = Path::new("status");
    let change = Change { spec: &new["spec"], new: &new["status"], old: &old["status"] };
    number::fields_not_negative(errors, &path, change.new, COUNTS);
    uncounted(errors, &path.child("uncountedTerminatedPods"), &change.new["uncountedTerminatedPods"]);
    ends(errors, &path, &change);
    times_and_steps(errors, &path, &change);
    rest(errors, &path, &change);
    indexes(errors, &path, &change);
    running(errors, &path, &change);
    success_criteria(errors, &path.child("conditions"), &change);
    kept(errors, &path, &change);
}

fn uncounted(errors: &mut Errors, path: &Path, pods: &Value) {
    let mut seen = Seen::default();
    for side in ["succeeded", "failed"] {
        for (i, uid) in tree::list(pods, side).iter().enumerate() {
            let (at, uid) = (path.child(side).index(i), uid.as_str().unwrap_or(""));
            if uid.is_empty() {
                errors.invalid(&at, uid, "must not be empty");
            } else if !seen.first(uid) {
                errors.duplicate(&at, uid);
            }
        }
    }
}

fn ends(errors: &mut Errors, path: &Path, change: &Change) {
    let at = path.child("conditions");
    if change.turns(&["Complete", "Failed"]) && change.is("Complete") && change.is("Failed") {
        errors.invalid_untold(&at, "cannot set Complete=True and Failed=true conditions");
    }
    if change.turns(&["Complete", "FailureTarget"]) && change.is("Complete") && change.is("FailureTarget") {
        errors.invalid_untold(&at, "cannot set Complete=True and FailureTarget=true conditions");
    }
    let (at, done) = (path.child("completionTime"), &change.new["completionTime"]);
    if change.turns(&["Complete"]) || change.changes(&["completionTime"]) {
        if !done.is_null() && !change.is("Complete") {
            let words = "cannot set completionTime when there is no Complete=True condition";
            errors.invalid(&at, done.clone(), words);
        }
        if done.is_null() && change.is("Complete") {
            errors.required(&at, "completionTime is required for Complete jobs");
        }
    }
}

fn times_and_steps(errors: &mut Errors, path: &Path, change: &Change) {
    let time = |field: &str| tree::text(change.new, field).parse::<Timestamp>().ok();
    if change.changes(&["startTime", "completionTime"])
        && time("startTime").zip(time("completionTime")).is_some_and(|(start, end)| end < start)
    {
        let done = change.new["completionTime"].clone();
        errors.invalid(&path.child("completionTime"), done, "completionTime cannot be set before startTime");
    }
    let at = path.child("conditions");
    if change.turns(&["Failed", "FailureTarget"]) && change.is("Failed") && !change.is("FailureTarget") {
        errors.invalid_untold(&at, "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if change.turns(&["Complete", "SuccessCriteriaMet"]) && change.is("Complete") && !change.is("SuccessCriteriaMet") {
        errors.invalid_untold(&at, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
    }
}

/// Nothing runs any more in a job that is over.
fn rest(errors: &mut Errors, path: &Path, change: &Change) {
    let (over, turned) = (change.is_over(), change.ends_or_resumes());
    let active = tree::int(change.new, "active");
    if over && active > 0 && (turned || change.changes(&["active"])) {
        errors.invalid(&path.child("active"), active, "active>0 is invalid for finished job");
    }
    // What is suspended and has nothing to complete is over without having begun.
    let never_begins = tree::flag(change.spec, "suspend") && change.spec["completions"] == 0;
    let looks = turned || change.changes(&["startTime"]);
    if over && !never_begins && !tree::has(change.new, "startTime") && looks {
        errors.required(&path.child("startTime"), "startTime is required for finished job");
    }
    let pods = &change.new["uncountedTerminatedPods"];
    let some = ["succeeded", "failed"].iter().any(|side| !tree::list(pods, side).is_empty());
    if over && some && (turned || change.changes(&["uncountedTerminatedPods"])) {
        let list = |side: &str| pods.get(side).map_or("null".to_owned(), Value::to_string);
        let shown = format!("{{\"Succeeded\":{},\"Failed\":{}}}", list("succeeded"), list("failed"));
        let words = "uncountedTerminatedPods needs to be empty for finished job";
        errors.invalid_shown(&path.child("uncountedTerminatedPods"), &shown, words);
    }
}

fn indexes(errors: &mut Errors, path: &Path, change: &Change) {
    const COMPLETED: &str = "completedIndexes";
    const FAILED: &str = "failedIndexes";
    let completions = change.spec.get("completions").and_then(Value::as_i64);
    let completed = tree::text(change.new, COMPLETED);
    let failed = change.new.get(FAILED).and_then(Value::as_str);
    let per_index = tree::has(change.spec, "backoffLimitPerIndex");
    let mut check = |field: &str, text: &str| {
        if let Some(Err(wrong)) = completions.map(|completions| count_indexes(text, completions)) {
            errors.invalid(&path.child(field), text, &format!("error parsing {field}: {wrong}"));
        }
    };
    if change.changes(&[COMPLETED]) {
        check(COMPLETED, completed);
    }
    if let Some(failed) = failed.filter(|_| per_index && change.changes(&[FAILED])) {
        check(FAILED, failed);
    }
    if change.changes(&[COMPLETED]) && !completed.is_empty() && !change.is_indexed() {
        let words = "cannot set non-empty completedIndexes when non-indexed completion mode";
        errors.invalid(&path.child(COMPLETED), completed, words);
    }
    let Some(failed) = failed else { return };
    if change.changes(&[FAILED]) && !per_index {
        let words = "cannot set non-null failedIndexes when backoffLimitPerIndex is null";
        errors.invalid(&path.child(FAILED), failed, words);
    }
    if change.changes(&[FAILED, COMPLETED])
        && let Some(index) = completions.and_then(|completions| common_index(completed, failed, completions))
    {
        let words = format!("failedIndexes and completedIndexes overlap at index: {index}");
        errors.invalid(&path.child(FAILED), failed, &words);
    }
}

/// The first index that both texts name; parts that are no indexes don't count.
fn common_index(one: &str, other: &str, completions: i64) -> Option<i64> {
    let spans = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter(|_| !text.is_empty()).filter_map(|part| span(part, completions).ok()).collect()
    };
    let (one, other) = (spans(one), spans(other));
    let (mut ones, mut others) = (one.iter().peekable(), other.iter().peekable());
    while let (Some(a), Some(b)) = (ones.peek(), others.peek()) {
        if a.0 <= b.1 && b.0 <= a.1 {
            return Some(a.0.max(b.0));
        }
        if a.0 <= b.0 {
            ones.next()
        } else {
            others.next()
        };
    }
    None
}

fn running(errors: &mut Errors, path: &Path, change: &Change) {
    let count = |field: &str| tree::int(change.new, field);
    let terminating = count("terminating");
    let turned = change.ends_or_resumes() || change.changes(&["terminating"]);
    if change.is_over() && terminating > 0 && turned {
        errors.invalid(&path.child("terminating"), terminating, "terminating>0 is invalid for finished job");
    }
    let more_ready = tree::has(change.new, "ready") && count("ready") > count("active");
    if more_ready && change.changes(&["ready", "active"]) {
        errors.invalid(&path.child("ready"), count("ready"), "cannot set more ready pods than active");
    }
}

fn success_criteria(errors: &mut Errors, at: &Path, change: &Change) {
    const MET: &str = "SuccessCriteriaMet";
    for (other, shown) in [("Failed", "Failed"), ("FailureTarget", "FailureTarget")] {
        if change.is(MET) && change.is(other) {
            errors.invalid_untold(at, &format!("cannot set SuccessCriteriaMet=True and {shown}=true conditions"));
        }
    }
    if tree::has(change.spec, "successPolicy") && !change.is(MET) && change.is("Complete") {
        let words = "cannot set Complete=True for Job with SuccessPolicy unless SuccessCriteriaMet=True";
        errors.invalid_untold(at, words);
    }
}

/// What an update may not take back.
fn kept(errors: &mut Errors, path: &Path, change: &Change) {
    let at = path.child("conditions");
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if change.was(kind) && !change.is(kind) {
            errors.invalid_untold(&at, &format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    // A job with as many indexes as pods at a time may be made smaller, and then fewer indexes have succeeded.
    let elastic = change.is_indexed() && change.spec["completions"] == change.spec["parallelism"];
    for (field, counts) in [("failed", true), ("succeeded", !elastic)] {
        let (now, before) = (tree::int(change.new, field), tree::int(change.old, field));
        if counts && now < before {
            errors.invalid(&path.child(field), now, &format!("cannot decrease the {field} counter"));
        }
    }
    let has_both = |field: &str| tree::has(change.new, field) && tree::has(change.old, field);
    if has_both("completionTime") && change.changes(&["completionTime"]) {
        let done = change.new["completionTime"].clone();
        errors.invalid(&path.child("completionTime"), done, "completionTime cannot be mutated");
    }
    if tree::has(change.old, "startTime") && change.changes(&["startTime"]) && !tree::flag(change.spec, "suspend") {
        errors.required(&path.child("startTime"), "startTime cannot be removed for unsuspended job");
    }
    const MET: &str = "SuccessCriteriaMet";
    if change.was(MET) && !change.is(MET) {
        errors.invalid_untold(&at, "cannot disable the SuccessCriteriaMet=True condition");
    }
    if change.was("Complete") && !change.was(MET) && change.is(MET) {
        errors.invalid_untold(&at, "cannot set SuccessCriteriaMet=True for Job already has Complete=true conditions");
    }
}
