//! What a write costs each quota: pure.

use pintle_quota::{Amounts, Resource, add, exceeded, grown, mask, parse, show, to_value};
use serde_json::Value;

/// A write that is to be charged.
pub(super) struct Charge<'a> {
    pub resource: Resource<'a>,
    pub object: &'a Value,
    /// What it replaces.
    pub old: Option<&'a Value>,
    /// Seconds since 1970.
    pub now: i64,
}

fn name(quota: &Value) -> &str {
    quota["metadata"]["name"].as_str().unwrap_or_default()
}

impl Charge<'_> {
    /// The quotas that the write changes, with their new usage; those named in `charged` were written before. The
    /// error is why it is too much.
    pub fn on(&self, quotas: &[Value], charged: &[String]) -> Result<Vec<Value>, String> {
        let covering: Vec<&Value> =
            quotas.iter().filter(|quota| self.resource.is_covered_by(quota, self.object)).collect();
        for quota in &covering {
            self.check(quota)?;
        }
        let usage = self.resource.usage(self.object, self.now);
        let negative: Vec<&str> =
            usage.iter().filter(|(_, a)| a.is_negative()).map(|(name, _)| name.as_str()).collect();
        if !negative.is_empty() {
            return Err(format!("quota usage is negative for resource(s): {}", negative.join(",")));
        }
        let before = self.old.map(|old| self.resource.usage(old, self.now)).unwrap_or_default();
        let more = grown(&usage, &before);
        let open = covering.into_iter().filter(|quota| !charged.iter().any(|done| done == name(quota)));
        let mut changed = Vec::new();
        for quota in open {
            changed.extend(raise(quota, &more)?);
        }
        Ok(changed)
    }

    /// Whether the object says enough to be charged, and whether the quota's usage is known.
    fn check(&self, quota: &Value) -> Result<(), String> {
        let hard = parse(&quota["status"]["hard"]);
        let names: Vec<&str> = hard.keys().map(String::as_str).filter(|name| self.resource.is_named_by(name)).collect();
        let failed = |why| format!("failed quota: {}: {why}", name(quota));
        self.resource.check(self.object, &names).map_err(failed)?;
        let used = parse(&quota["status"]["used"]);
        if names.iter().any(|name| !used.contains_key(*name)) {
            return Err(format!("status unknown for quota: {}, resources: {}", name(quota), names.join(",")));
        }
        Ok(())
    }
}

/// A quota with more used; nothing when it does not limit what is asked for.
fn raise(quota: &Value, more: &Amounts) -> Result<Option<Value>, String> {
    let (hard, used) = (parse(&quota["status"]["hard"]), parse(&quota["status"]["used"]));
    let requested = mask(more, |name| hard.contains_key(name));
    if requested.is_empty() {
        return Ok(None);
    }
    let mut sum = used.clone();
    add(&mut sum, &requested);
    let over = exceeded(&mask(&sum, |name| requested.contains_key(name)), &hard);
    if !over.is_empty() {
        let of = |amounts: &Amounts| show(&mask(amounts, |name| over.iter().any(|other| other == name)));
        return Err(format!(
            "exceeded quota: {}, requested: {}, used: {}, limited: {}",
            name(quota),
            of(&requested),
            of(&used),
            of(&hard)
        ));
    }
    let mut changed = quota.clone();
    changed["status"]["used"] = to_value(&sum);
    Ok(Some(changed))
}
