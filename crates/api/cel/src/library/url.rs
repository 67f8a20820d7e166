//! `url(…)` and the parts of URLs.

use super::argument::*;
use super::url_text::Url;
use crate::{Function, Library, Overload, Type, Value};

opaque_value!(Url, "kubernetes.URL");

pub(super) fn library() -> Library {
    let url = || Type::opaque("kubernetes.URL");
    let part =
        |name: &str, id, call: crate::CallFn| Function::new(name, [Overload::member(id, [url()], Type::String, call)]);
    let functions = vec![
        Function::new(
            "url",
            [Overload::global("string_to_url", [Type::String], url(), |_, a| {
                let url = Url::parse(text(a, 0)?);
                url.map(Value::opaque)
                    .map_err(|e| failed(format!("URL parse error during conversion from string: {e}")))
            })
            .cost(first_traversed)
            .estimate(estimate_traversed_sized)],
        ),
        Function::new(
            "isURL",
            [Overload::global("is_url_string", [Type::String], Type::Bool, |_, a| {
                Ok(Url::parse(text(a, 0)?).is_ok().into())
            })],
        ),
        part("getScheme", "url_get_scheme", |_, a| Ok(opaque::<Url>(a, 0)?.scheme.clone().into())),
        part("getHost", "url_get_host", |_, a| Ok(opaque::<Url>(a, 0)?.host.clone().into())),
        part("getHostname", "url_get_hostname", |_, a| Ok(opaque::<Url>(a, 0)?.hostname().to_owned().into())),
        part("getPort", "url_get_port", |_, a| Ok(opaque::<Url>(a, 0)?.port().to_owned().into())),
        part("getEscapedPath", "url_get_escaped_path", |_, a| Ok(opaque::<Url>(a, 0)?.escaped_path.clone().into())),
        Function::new(
            "getQuery",
            [Overload::member("url_get_query", [url()], Type::map(Type::String, Type::list(Type::String)), |_, a| {
                let query = opaque::<Url>(a, 0)?.query();
                Ok(Value::map(query.into_iter().map(|(key, values)| (key.into(), texts(values))).collect()))
            })],
        ),
    ];
    Library { functions, ..Library::default() }
}
