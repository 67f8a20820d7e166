//! Volumes as pods and people see them: claims and what is made for them, contents that come from the API, and, on
//! three nodes, volumes that stay where they were made.

#[path = "storage/claims.rs"]
mod claims;
#[path = "storage/contents.rs"]
mod contents;
#[path = "storage/far.rs"]
mod far;
#[path = "storage/images.rs"]
mod images;
#[path = "storage/parts.rs"]
mod parts;

use pintle_e2e::{Nodes, suite, suite_on};
use std::process::ExitCode;

fn main() -> ExitCode {
    let one = suite(&[
        ("a claim of no class gets a volume that outlives its pods", claims::default_class),
        ("a stateful set keeps and gives up its claims", claims::stateful),
        ("a claim grows", claims::growth),
        ("an ephemeral volume goes with its pod", claims::ephemeral),
        ("what can't be had is told", claims::refusals),
        ("a claim for one pod serves one pod", claims::one_pod),
        ("volumes made by hand are bound and mounted", claims::by_hand),
        ("contents, modes and owners are as asked", contents::modes),
        ("changed contents reach the pod", contents::updates),
        ("storage objects live their lives", contents::objects),
        ("parts of volumes are mounted", parts::sub_paths),
        ("files in empty volumes keep their modes", parts::empty_directories),
        ("what the node has is the limit of who has none", parts::node_limits),
        ("many volumes of one pod come up at once", parts::many),
        ("secrets of one name keep apart by namespace", parts::namespaces),
        ("images are mounted as volumes", images::mounted),
        ("images that can't be had are told", images::refused),
    ]);
    let several = suite_on::<Nodes>(&[("a volume stays on its node and is removed there", far::away)]);
    if one == ExitCode::SUCCESS { several } else { one }
}
