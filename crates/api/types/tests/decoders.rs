//! What clients write as text is read or refused, however broken it is; what was read prints as something readable.

use pintle_noise::feed_text;
use pintle_types::k8s::api::core::v1::Pod;
use pintle_types::quantity::Quantity;
use pintle_types::selector::{FieldSelector, LabelSelector};
use pintle_types::{Kind, query};

#[test]
fn label_selectors() {
    let samples = ["app=web,tier in (a, b),!x,y notin (z),n>5,m<7,k!=v", "example.org/name==x", "a in ()"];
    feed_text(&samples, 2000, |text| {
        if let Ok(selector) = LabelSelector::parse(text) {
            let printed = selector.to_string();
            assert_eq!(LabelSelector::parse(&printed).as_ref(), Ok(&selector), "{text:?} prints as {printed:?}");
            selector.matches_with(|key| (key.len() % 2 == 0).then_some("7"));
        }
    });
}

#[test]
fn field_selectors() {
    feed_text(&["metadata.name=a,spec.nodeName!=b,status.phase==c", r"a=b\\,c\=d"], 2000, |text| {
        if let Ok(selector) = FieldSelector::parse(text) {
            selector.matches_with(|_| Some("b"));
        }
    });
}

#[test]
fn quantities() {
    let samples = ["1", "100m", "1.5Gi", "-3e9", "12E-3", "9223372036854775807Ei", ".5", "+0.000000001k", "1e999"];
    feed_text(&samples, 1000, |text| {
        if let Ok(quantity) = text.parse::<Quantity>() {
            let printed = quantity.to_string();
            let again: Quantity = printed.parse().unwrap_or_else(|e| panic!("{text:?} prints as {printed:?}: {e}"));
            assert_eq!((again.units(), again.milli()), (quantity.units(), quantity.milli()), "{text:?} as {printed:?}");
        }
    });
}

#[test]
fn queries() {
    feed_text(&["labelSelector=a%3Db&watch=true&x=%zz+%ff&&=", "a=b=c"], 1000, |text| {
        assert!(query::pairs(text, 5).count() <= 5);
    });
}

#[test]
fn typed_objects() {
    let sample = r#"{"metadata":{"name":"a","creationTimestamp":"2026-01-01T00:00:00Z"},"spec":{"containers":[
        {"name":"c","ports":[{"containerPort":80}],"resources":{"limits":{"cpu":"1"}}}],"volumes":[{"name":"v"}]}}"#;
    feed_text(&[sample], 2000, |text| {
        if let Ok(value) = serde_json::from_str::<serde_json::Value>(text) {
            let _ = Pod::from_value(value).is_ok();
        }
    });
}
