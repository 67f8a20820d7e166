//! `pintle certs`: its arguments, and when certificates run out as kubeadm tells it.

use crate::Configured;
use crate::output::{Format, table};
use clap::Subcommand;
use pintle_clock::Timestamp;
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub enum CertsCommand {
    /// Tells when the certificates of this machine run out; fails when one has.
    #[command(visible_alias = "check-expiration")]
    Check {
        /// `table` or `json`.
        #[arg(short, long, default_value = "table")]
        output: Format,
        #[command(flatten)]
        configured: Configured,
    },
    /// Makes certificates anew: those of a server with the authorities on its disk, those of an agent by asking its
    /// cluster. Authorities are not renewed: all that they signed would go with them.
    Renew {
        /// The certificate, as `pintle certs check` names it.
        #[arg(value_name = "NAME", default_value = "all")]
        name: String,
        #[command(flatten)]
        configured: Configured,
    },
}

/// A certificate of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    pub name: String,
    /// Nothing: the file is missing.
    pub expires: Option<Timestamp>,
    /// The authority that signed it; nothing for an authority.
    pub authority: Option<String>,
    /// Its authority's key is not on this machine.
    pub externally_managed: bool,
}

impl Certificate {
    /// Seconds that are left; negative when it has run out, zero when it is missing.
    pub fn residual_seconds(&self, now: Timestamp) -> i64 {
        self.expires.map_or(0, |end| end.as_second() - now.as_second())
    }

    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|end| end <= now)
    }
}

/// A time that is left, in one unit.
pub fn short_duration(seconds: i64) -> String {
    const DAY: i64 = 24 * 3600;
    match seconds {
        ..-1 => "<invalid>".to_owned(),
        -1 => "0s".to_owned(),
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..DAY => format!("{}h", seconds / 3600),
        _ if seconds < 365 * DAY => format!("{}d", seconds / DAY),
        _ => format!("{}y", seconds / (365 * DAY)),
    }
}

/// Two tables: certificates, and the authorities that signed them.
pub fn expiration_table(certificates: &[Certificate], authorities: &[Certificate], now: Timestamp) -> String {
    let cells = |found: &Certificate, signed: bool| -> Vec<String> {
        let Some(end) = found.expires else {
            return vec![format!("!MISSING! {}", found.name)];
        };
        let mut cells = vec![
            found.name.clone(),
            end.strftime("%b %d, %Y %H:%M UTC").to_string(),
            short_duration(found.residual_seconds(now)),
        ];
        if signed {
            cells.push(found.authority.clone().unwrap_or_default());
        }
        cells.push(if found.externally_managed { "yes" } else { "no" }.to_owned());
        cells
    };
    let rows = |list: &[Certificate], signed| list.iter().map(|found| cells(found, signed)).collect::<Vec<_>>();
    let first = table(
        &["CERTIFICATE", "EXPIRES", "RESIDUAL TIME", "CERTIFICATE AUTHORITY", "EXTERNALLY MANAGED"],
        &rows(certificates, true),
    );
    let second =
        table(&["CERTIFICATE AUTHORITY", "EXPIRES", "RESIDUAL TIME", "EXTERNALLY MANAGED"], &rows(authorities, false));
    format!("{first}\n{second}")
}

/// The same for programs, as `kubeadm certs check-expiration -o json` has it.
pub fn expiration_json(certificates: &[Certificate], authorities: &[Certificate], now: Timestamp) -> Value {
    let one = |found: &Certificate| {
        let mut value = json!({
            "name": found.name,
            "expirationDate": found.expires.map(|end| end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()),
            "residualTime": found.residual_seconds(now),
            "externallyManaged": found.externally_managed,
            "missing": found.expires.is_none(),
        });
        if let Some(authority) = &found.authority {
            value["caName"] = authority.as_str().into();
        }
        value
    };
    json!({
        "kind": "CertificateExpirationInfo",
        "apiVersion": "output.kubeadm.k8s.io/v1alpha3",
        "certificates": certificates.iter().map(one).collect::<Vec<_>>(),
        "certificateAuthorities": authorities.iter().map(one).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn some() -> (Vec<Certificate>, Vec<Certificate>) {
        let of = |name: &str, expires: Option<&str>, authority: Option<&str>| Certificate {
            name: name.into(),
            expires: expires.map(at),
            authority: authority.map(str::to_owned),
            externally_managed: false,
        };
        let certificates = vec![
            of("apiserver", Some("2027-06-05T10:00:00Z"), Some("ca")),
            of("kubelet", None, Some("ca")),
            of("front-proxy-client", Some("2026-06-05T10:00:00Z"), Some("front-proxy-ca")),
        ];
        (certificates, vec![of("ca", Some("2036-06-05T10:00:00Z"), None)])
    }

    #[test]
    fn the_tables_are_those_of_kubeadm() {
        let (certificates, authorities) = some();
        let text = expiration_table(&certificates, &authorities, at("2026-06-06T09:59:00Z"));
        let expected = "\
CERTIFICATE          EXPIRES                  RESIDUAL TIME   CERTIFICATE AUTHORITY   EXTERNALLY MANAGED
apiserver            Jun 05, 2027 10:00 UTC   364d            ca                      no
!MISSING! kubelet
front-proxy-client   Jun 05, 2026 10:00 UTC   <invalid>       front-proxy-ca          no

CERTIFICATE AUTHORITY   EXPIRES                  RESIDUAL TIME   EXTERNALLY MANAGED
ca                      Jun 05, 2036 10:00 UTC   10y             no
";
        assert_eq!(text, expected);
    }

    #[test]
    fn programs_are_told_the_same() {
        let (certificates, authorities) = some();
        let value = expiration_json(&certificates, &authorities, at("2027-06-05T09:59:00Z"));
        assert_eq!(value["certificates"][0]["residualTime"], 60);
        assert_eq!(value["certificates"][0]["expirationDate"], "2027-06-05T10:00:00Z");
        assert_eq!(
            (&value["certificates"][1]["missing"], &value["certificates"][0]["caName"]),
            (&json!(true), &json!("ca"))
        );
        assert!(value["certificateAuthorities"][0].get("caName").is_none());
    }

    #[test]
    fn what_is_left_is_told_in_one_unit() {
        let day = 86_400;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (59, "59s"),
            (60, "1m"),
            (7200, "2h"),
            (364 * day, "364d"),
            (365 * day, "1y"),
            (3650 * day, "10y"),
        ] {
            assert_eq!(short_duration(seconds), text);
        }
    }
}
