//! Every node gets a share of its own, and the share of a node that is gone is given again.

use super::plan::Book;
use super::run;
use crate::testing::Cluster;
use futures::FutureExt;
use ipnet::IpNet;
use pintle_types::k8s::api::core::v1::Node;
use serde_json::json;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn the_first_share_that_overlaps_nothing_is_free() {
    for (range, taken, expected) in [
        ("10.42.0.0/16", vec![], Some("10.42.0.0/24")),
        ("10.42.0.0/16", vec!["10.42.0.0/24", "10.42.2.0/24"], Some("10.42.1.0/24")),
        ("10.42.0.0/16", vec!["10.42.0.0/23"], Some("10.42.2.0/24")),
        ("10.42.0.0/16", vec!["10.42.0.128/25", "192.168.0.0/16"], Some("10.42.1.0/24")),
        ("10.42.0.0/24", vec!["10.42.0.0/24"], None),
        ("10.42.0.0/26", vec![], Some("10.42.0.0/26")),
        ("fd00:42::/56", vec!["10.42.0.0/24"], Some("fd00:42::/64")),
        ("fd00:42::/56", vec!["fd00:42::/64", "fd00:42:0:1::/64"], Some("fd00:42:0:2::/64")),
        ("fd00:42::/64", vec!["fd00:42::/64"], None),
    ] {
        let mut book = Book::new(&[net(range)]);
        for (at, share) in taken.iter().enumerate() {
            book.saw(&format!("node-{at}"), &[net(share)]);
        }
        assert_eq!(book.give("new"), expected.map(|share| vec![net(share)]), "{range} {taken:?}");
    }
}

#[test]
fn shares_are_given_in_order_and_come_back() {
    let mut book = Book::new(&[net("10.42.0.0/22"), net("fd00:42::/62")]);
    let give = |book: &mut Book, node: &str| book.give(node).map(|shares| shares[0].to_string());
    for (at, node) in ["a", "b", "c", "d"].into_iter().enumerate() {
        assert_eq!(give(&mut book, node), Some(format!("10.42.{at}.0/24")));
    }
    assert_eq!((give(&mut book, "e"), give(&mut book, "b")), (None, Some("10.42.1.0/24".into())));
    book.forget("b");
    book.forget("b");
    assert_eq!((give(&mut book, "e"), give(&mut book, "f")), (Some("10.42.1.0/24".into()), None));
    // Whose share is another than the one it was given frees that, and one that two nodes have is free after both.
    book.saw("e", &[net("10.42.2.0/24")]);
    book.saw("e", &[]);
    book.forget("c");
    assert_eq!((give(&mut book, "f"), give(&mut book, "g")), (Some("10.42.1.0/24".into()), None));
    book.forget("e");
    assert_eq!(give(&mut book, "g"), Some("10.42.2.0/24".into()));
}

fn share(api: &pintle_fake_api::FakeApi, name: &str) -> Option<String> {
    api.get::<Node>("", name).and_then(|node| node.spec).and_then(|spec| spec.pod_cidr)
}

#[tokio::test(start_paused = true)]
async fn nodes_get_shares_and_give_them_back() {
    let cluster = Cluster::new().start(|context| run(context, vec![net("10.42.0.0/23")]).boxed());
    for name in ["a", "b"] {
        cluster.create::<Node>(json!({ "metadata": { "name": name } })).await;
    }
    cluster.until("two shares", |api| share(api, "a").is_some() && share(api, "b").is_some()).await;
    assert_ne!(share(&cluster.api, "a"), share(&cluster.api, "b"));
    let free = share(&cluster.api, "a");
    cluster.api.remove::<Node>("", "a");
    cluster.create::<Node>(json!({ "metadata": { "name": "c" } })).await;
    cluster.until("the share is given again", |api| share(api, "c") == free).await;
}

#[tokio::test(start_paused = true)]
async fn of_two_families_a_node_gets_a_share_of_each() {
    let cluster = Cluster::new().start(|context| run(context, vec![net("10.42.0.0/16"), net("fd00:42::/56")]).boxed());
    for name in ["a", "b"] {
        cluster.create::<Node>(json!({ "metadata": { "name": name } })).await;
    }
    let shares = |api: &pintle_fake_api::FakeApi, name: &str| {
        api.get::<Node>("", name).and_then(|node| node.spec?.pod_cidrs).unwrap_or_default()
    };
    cluster.until("all shares", |api| ["a", "b"].iter().all(|name| shares(api, name).len() == 2)).await;
    let mut all: Vec<String> = ["a", "b"].iter().flat_map(|name| shares(&cluster.api, name)).collect();
    assert_eq!(share(&cluster.api, "a"), all.first().cloned(), "the primary one is told twice");
    all.sort();
    assert_eq!(all, ["10.42.0.0/24", "10.42.1.0/24", "fd00:42:0:1::/64", "fd00:42::/64"]);
}
