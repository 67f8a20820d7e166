//! LimitRanger and ResourceQuota: not enforced yet. Whoever makes such an object is told so.

use super::creates;
use pintle_registry::Attributes;

pub(super) fn tell(attributes: &mut Attributes<'_>) {
    for resource in ["limitranges", "resourcequotas"] {
        if creates(attributes, resource) {
            attributes.warnings.push(format!("{resource} are stored but not enforced by this server"));
        }
    }
}
