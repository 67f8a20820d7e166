//! Charges and refusals in upstream's words.

use super::charge::Charge;
use pintle_quota::Resource;
use serde_json::{Value, json};

fn quota(hard: Value, used: Value) -> Value {
    json!({"metadata": {"name": "q"}, "spec": {"hard": hard}, "status": {"hard": hard, "used": used}})
}

fn pods<'a>(object: &'a Value) -> Charge<'a> {
    Charge { resource: Resource::new("", "pods"), object, old: None, now: 0 }
}

#[test]
fn a_quota_is_charged_until_it_is_exceeded() {
    let pod = json!({"spec": {"containers": [{"name": "c"}]}});
    let open = quota(json!({"pods": "2", "services": "1"}), json!({"pods": "1", "services": "0"}));
    let changed = pods(&pod).on(std::slice::from_ref(&open), &[]).unwrap();
    assert_eq!(changed[0]["status"]["used"], json!({"pods": "2", "services": "0"}));
    let why = pods(&pod).on(&changed, &[]).unwrap_err();
    assert_eq!(why, "exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2");
    assert!(pods(&pod).on(&[open], &["q".into()]).unwrap().is_empty(), "it was charged before");
}

#[test]
fn what_cannot_be_charged_is_refused() {
    let pod = json!({"spec": {"containers": [{"name": "c"}]}});
    let limits = quota(json!({"limits.cpu": "1"}), json!({"limits.cpu": "0"}));
    assert_eq!(pods(&pod).on(&[limits], &[]).unwrap_err(), "failed quota: q: must specify limits.cpu for: c");
    let unknown = quota(json!({"pods": "1"}), json!({}));
    assert_eq!(pods(&pod).on(&[unknown], &[]).unwrap_err(), "status unknown for quota: q, resources: pods");
}

#[test]
fn only_growth_is_charged() {
    let of = |size: &str| json!({"spec": {"resources": {"requests": {"storage": size}}}});
    let (small, large) = (of("1Gi"), of("3Gi"));
    let quotas = [quota(json!({"requests.storage": "3Gi"}), json!({"requests.storage": "1Gi"}))];
    let claims = Resource::new("", "persistentvolumeclaims");
    let grow = Charge { resource: claims, object: &large, old: Some(&small), now: 0 };
    assert_eq!(grow.on(&quotas, &[]).unwrap()[0]["status"]["used"]["requests.storage"], "3Gi");
    let shrink = Charge { resource: claims, object: &small, old: Some(&large), now: 0 };
    assert!(shrink.on(&quotas, &[]).unwrap().is_empty());
}
