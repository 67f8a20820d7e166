//! Reads the servers that are asked beside the plugins (`extenders`).

use super::fields::Fields;
use crate::extender::{Settings, Tls};
use pintle_types::names::check_label_key;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_secs(5);

pub(super) fn read(root: &mut Fields<'_, '_>) -> Vec<Settings> {
    let mut out: Vec<Settings> = Vec::new();
    let mut managed: Vec<String> = Vec::new();
    root.each("extenders", |_, fields| {
        let mut settings = Settings {
            url: text(fields, "urlPrefix"),
            filter: text(fields, "filterVerb"),
            prioritize: text(fields, "prioritizeVerb"),
            preempt: text(fields, "preemptVerb"),
            bind: text(fields, "bindVerb"),
            weight: fields.integer("weight").unwrap_or(0),
            timeout: timeout(fields),
            knows_nodes: fields.flag("nodeCacheCapable"),
            ignorable: fields.flag("ignorable"),
            https: fields.flag("enableHTTPS"),
            ..Settings::default()
        };
        if settings.url.is_empty() {
            fields.required("urlPrefix", "");
        }
        if !settings.prioritize.is_empty() && settings.weight <= 0 {
            fields.invalid("weight", "must have a positive weight applied to it");
        }
        fields.object("tlsConfig", |fields| settings.tls = Some(tls(fields)));
        fields.each("managedResources", |_, fields| {
            let name = text(fields, "name");
            if let Err(why) = check_label_key(&name) {
                fields.invalid("name", &why);
            } else if !name.contains('/') || name.contains("kubernetes.io/") {
                fields.invalid("name", "is an invalid extended resource name");
            }
            if managed.contains(&name) {
                fields.invalid("name", "duplicate extender managed resource name");
            }
            managed.push(name.clone());
            if fields.flag("ignoredByScheduler") {
                settings.ignored_by_scheduler.push(name.clone());
            }
            settings.managed.push(name);
        });
        out.push(settings);
    });
    let binders = out.iter().filter(|settings| !settings.bind.is_empty()).count();
    if binders > 1 {
        let found = format!("found {binders} extenders implementing bind");
        root.at("extenders").invalid_here(&found, "only one extender can implement bind");
    }
    out
}

fn text(fields: &mut Fields<'_, '_>, name: &'static str) -> String {
    fields.text(name).unwrap_or_default().to_owned()
}

fn tls(fields: &mut Fields<'_, '_>) -> Tls {
    Tls {
        insecure: fields.flag("insecure"),
        server_name: text(fields, "serverName"),
        authority_file: text(fields, "caFile"),
        certificate_file: text(fields, "certFile"),
        key_file: text(fields, "keyFile"),
        authority: text(fields, "caData"),
        certificate: text(fields, "certData"),
        key: text(fields, "keyData"),
    }
}

/// A duration as Go writes them, of the units that a timeout is given in.
fn timeout(fields: &mut Fields<'_, '_>) -> Duration {
    let Some(text) = fields.text("httpTimeout") else { return TIMEOUT };
    match duration(text) {
        Some(Duration::ZERO) => TIMEOUT,
        Some(timeout) => timeout,
        None => {
            fields.invalid("httpTimeout", "must be a duration such as 5s, 100ms or 1m30s");
            TIMEOUT
        }
    }
}

fn duration(text: &str) -> Option<Duration> {
    let (mut rest, mut sum) = (text, 0.0);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let letters = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(letters);
        let seconds = match unit {
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        sum += number.parse::<f64>().ok()? * seconds;
        rest = tail;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(sum).ok())?
}
