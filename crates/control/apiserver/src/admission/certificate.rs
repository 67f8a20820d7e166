//! Certificate signing requests carry who asked: whoever signs them must not have to believe the request's own words.

use pintle_registry::{Attributes, Operation};
use serde_json::{Value, json};

pub(super) fn sign_with_requester(attributes: &mut Attributes<'_>) {
    let is_request =
        attributes.def.group == "certificates.k8s.io" && attributes.def.resource == "certificatesigningrequests";
    if !is_request || attributes.operation != Operation::Create || !attributes.subresource.is_empty() {
        return;
    }
    let user = attributes.user;
    let Some(spec) = attributes.object.as_mut().and_then(|o| o["spec"].as_object_mut()) else { return };
    spec.insert("username".into(), user.name.as_str().into());
    for (field, value, empty) in [
        ("uid", Value::from(user.uid.as_str()), user.uid.is_empty()),
        ("groups", user.groups.clone().into(), user.groups.is_empty()),
        ("extra", json!(user.extra), user.extra.is_empty()),
    ] {
        if empty {
            spec.remove(field);
        } else {
            spec.insert(field.into(), value);
        }
    }
}
