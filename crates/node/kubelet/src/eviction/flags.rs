//! Reads the flags that say when pods are evicted, as upstream's kubelet has them.

use super::thresholds::{Amount, SIGNALS, Signal, Threshold, defaults};
use pintle_types::quantity::Quantity;
use std::collections::BTreeMap;
use std::time::Duration;

/// The flags as they were given, and who reads durations.
#[derive(Clone, Copy)]
pub struct EvictionFlags<'a> {
    /// `memory.available<100Mi,nodefs.available<10%`; nothing is upstream's defaults.
    pub hard: Option<&'a str>,
    pub soft: Option<&'a str>,
    /// `memory.available=1m30s`: for each soft threshold how long it must be crossed.
    pub soft_grace_period: Option<&'a str>,
    /// `memory.available=0Mi,nodefs.available=500Mi`: how much more than the threshold is won back.
    pub minimum_reclaim: Option<&'a str>,
    /// Reads `1m30s`.
    pub duration: fn(&str) -> Result<Duration, String>,
}

/// A flag that can't be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ThresholdError {
    #[error("invalid eviction threshold syntax {0:?}, expected <signal><operator><value>")]
    Syntax(String),
    #[error("unsupported eviction signal {0}")]
    Signal(String),
    #[error("eviction percentage threshold {signal} must be {wanted}: {value}")]
    Percent { signal: &'static str, wanted: &'static str, value: String },
    #[error("eviction threshold {signal} must be a quantity that is not negative: {value}")]
    Quantity { signal: &'static str, value: String },
    #[error("grace period must be specified for the soft eviction threshold {0}")]
    NoGrace(&'static str),
    #[error("invalid eviction grace period specified: {0}, must be a positive value")]
    Grace(String),
}

impl EvictionFlags<'_> {
    /// All thresholds, hard ones before soft ones.
    pub fn thresholds(&self) -> Result<Vec<Threshold>, ThresholdError> {
        let mut all = self.hard.map_or_else(|| Ok(defaults()), parse)?;
        let mut soft = self.soft.map_or_else(|| Ok(Vec::new()), parse)?;
        let graces = self.graces()?;
        for threshold in &mut soft {
            let grace = graces.get(&threshold.signal);
            threshold.grace = *grace.ok_or(ThresholdError::NoGrace(threshold.signal.name()))?;
        }
        all.append(&mut soft);
        let reclaims = self.minimum_reclaim.map_or_else(|| Ok(Vec::new()), parse)?;
        for threshold in &mut all {
            threshold.reclaim = reclaims.iter().find(|r| r.signal == threshold.signal).map(|r| r.least);
        }
        Ok(all)
    }

    fn graces(&self) -> Result<BTreeMap<Signal, Duration>, ThresholdError> {
        let read = |text| {
            let (signal, _, value) = pair(text)?;
            let grace = (self.duration)(value).map_err(|_| ThresholdError::Grace(value.to_owned()))?;
            Ok((signal, grace))
        };
        parts(self.soft_grace_period.unwrap_or_default()).map(read).collect()
    }
}

fn parts(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

/// `memory.available<100Mi,nodefs.available<10%`; `signal=value`, as the configuration file has it, is the same.
pub fn parse(text: &str) -> Result<Vec<Threshold>, ThresholdError> {
    let mut all = parts(text).map(one).collect::<Result<Vec<_>, _>>()?;
    // Zero turns a threshold off.
    all.retain(|t| !matches!(t.least, Amount::Units(0)) && t.least != Amount::Share(0.0));
    all.sort_by_key(|t| t.signal);
    Ok(all)
}

/// The signal with its name, and what is said of it.
fn pair(text: &str) -> Result<(Signal, &'static str, &str), ThresholdError> {
    let (name, value) = text.split_once(['<', '=']).ok_or_else(|| ThresholdError::Syntax(text.to_owned()))?;
    let name = name.trim();
    let known = SIGNALS.iter().find(|(_, known)| *known == name);
    let (signal, name) = *known.ok_or_else(|| ThresholdError::Signal(name.to_owned()))?;
    Ok((signal, name, value.trim()))
}

fn one(text: &str) -> Result<Threshold, ThresholdError> {
    let (signal, name, value) = pair(text)?;
    let own = || value.to_owned();
    let least = match value.strip_suffix('%') {
        Some(percent) => {
            let wrong = |wanted| ThresholdError::Percent { signal: name, wanted, value: own() };
            let number = percent.parse::<f64>().ok().filter(|p| *p >= 0.0).ok_or_else(|| wrong(">= 0%"))?;
            Amount::Share(Some(number).filter(|p| *p <= 100.0).ok_or_else(|| wrong("<= 100%"))? / 100.0)
        }
        None => {
            let number = value.parse::<Quantity>().ok().and_then(|q| u64::try_from(q.units()).ok());
            Amount::Units(number.ok_or_else(|| ThresholdError::Quantity { signal: name, value: own() })?)
        }
    };
    Ok(Threshold::hard(signal, least))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read() {
        let parsed =
            parse("nodefs.available<10%, memory.available<100Mi,pid.available<5%,imagefs.available<0%").unwrap();
        let expected = [(Signal::Memory, Amount::Units(100 << 20)), (Signal::NodeFs, Amount::Share(0.1))];
        for (got, (signal, least)) in parsed.iter().zip(expected) {
            assert_eq!(*got, Threshold::hard(signal, least));
        }
        assert_eq!(parsed.len(), 3, "zero turns a threshold off");
        for (text, error) in [
            (
                "memory.available",
                "invalid eviction threshold syntax \"memory.available\", expected <signal><operator><value>",
            ),
            ("cpu.available<1", "unsupported eviction signal cpu.available"),
            ("memory.available<-1%", "eviction percentage threshold memory.available must be >= 0%: -1%"),
            ("memory.available<101%", "eviction percentage threshold memory.available must be <= 100%: 101%"),
            ("memory.available<x", "eviction threshold memory.available must be a quantity that is not negative: x"),
        ] {
            assert_eq!(parse(text).unwrap_err().to_string(), error);
        }
    }

    #[test]
    fn soft_thresholds_have_a_time_and_all_may_win_back_more() {
        let seconds = |text: &str| text.parse().map(Duration::from_secs).map_err(|_| "no number".to_owned());
        let flags = |soft, soft_grace_period, minimum_reclaim| EvictionFlags {
            hard: Some("memory.available<1Mi"),
            soft: Some(soft),
            soft_grace_period: Some(soft_grace_period),
            minimum_reclaim: Some(minimum_reclaim),
            duration: seconds,
        };
        let all = flags(
            "nodefs.available<20%,memory.available<5Mi",
            "memory.available=90,nodefs.available=7",
            "memory.available=3Mi",
        );
        let all = all.thresholds().unwrap();
        let shown: Vec<_> = all.iter().map(|t| (t.signal, t.grace.as_secs(), t.reclaim.is_some())).collect();
        assert_eq!(shown, [(Signal::Memory, 0, true), (Signal::Memory, 90, true), (Signal::NodeFs, 7, false)]);
        for (soft, grace, error) in [
            (
                "memory.available<5Mi",
                "",
                "grace period must be specified for the soft eviction threshold memory.available",
            ),
            ("memory.available<5Mi", "x.available=1", "unsupported eviction signal x.available"),
            (
                "memory.available<5Mi",
                "memory.available=-1",
                "invalid eviction grace period specified: -1, must be a positive value",
            ),
        ] {
            assert_eq!(flags(soft, grace, "").thresholds().unwrap_err().to_string(), error);
        }
    }
}
