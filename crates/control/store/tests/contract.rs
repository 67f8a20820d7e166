//! The embedded store passes the contract, with a file and without one.

use pintle_store::embedded::Options;
use pintle_store::{EmbeddedStore, Store};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[tokio::test(flavor = "multi_thread")]
async fn in_memory() {
    pintle_store_contract::run_all(|| async { Arc::new(EmbeddedStore::in_memory().expect("open")) as Arc<dyn Store> })
        .await;
}

async fn in_files(options: Options) {
    let dir = tempfile::tempdir().expect("directory");
    let (number, dir) = (AtomicUsize::new(0), dir.path());
    pintle_store_contract::run_all(|| {
        let path = dir.join(format!("db-{}", number.fetch_add(1, Ordering::Relaxed)));
        let options = options.clone();
        async move { Arc::new(EmbeddedStore::open(path, options).expect("open")) as Arc<dyn Store> }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_file() {
    in_files(Options::default()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_file_with_the_past_on_disk_only() {
    in_files(Options { history_bytes: 1, ..Options::default() }).await;
}
