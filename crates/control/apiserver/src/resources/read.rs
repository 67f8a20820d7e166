//! GET of one object, of a subresource, and of a list.

use super::{Target, view};
use crate::media::Shape;
use crate::options;
use crate::response::Answer;
use http::StatusCode;
use pintle_registry::GetOptions;

pub(crate) async fn get(target: &Target<'_>) -> Answer {
    let format = target.negotiate(Shape::Object)?;
    let options = GetOptions { resource_version: target.call.query.text("resourceVersion").to_owned() };
    let path = &target.path;
    let object = target.call.server.registry.get(&target.def, namespace(target), &path.name, &options).await?;
    view::object(target, format, StatusCode::OK, &object)
}

pub(crate) async fn get_subresource(target: &Target<'_>) -> Answer {
    let format = target.negotiate(Shape::Object)?;
    let path = &target.path;
    let registry = &target.call.server.registry;
    let object = registry.get_subresource(&target.def, namespace(target), &path.name, &path.subresource).await?;
    view::object(target, format, StatusCode::OK, &object)
}

pub(crate) async fn list(target: &Target<'_>) -> Answer {
    let format = target.negotiate(Shape::List)?;
    let options = options::list_options(&target.call.query)?;
    let list = target.call.server.registry.list(&target.def, namespace(target), &options).await?;
    view::list(target, format, &list)
}

/// The namespace as the registry wants it: the object `namespaces/x` is in none, though its path names one.
pub(crate) fn namespace<'a>(target: &'a Target<'_>) -> &'a str {
    if target.def.namespaced { &target.path.namespace } else { "" }
}
