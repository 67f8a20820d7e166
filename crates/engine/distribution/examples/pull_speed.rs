//! Measures a pull of an image of 200 MB in three layers from a registry of this machine, beside plain decompression.
//!
//! `cargo run --release -p pintle-distribution --example pull_speed` (needs `docker-registry`, and root).

use pintle_distribution::{Credentials, Options, pull, push};
use pintle_image::{Commit, CommitSource, ImageStore, Import, Reference};
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Instant;

type Failure = Box<dyn std::error::Error>;

/// Half of it compresses well, half not at all.
fn content(bytes: usize, seed: u64) -> Vec<u8> {
    let (mut content, mut state) = (Vec::with_capacity(bytes + 8), seed);
    while content.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(seed | 1);
        content.extend_from_slice(&if content.len() / 4096 % 2 == 0 { state.to_be_bytes() } else { [7; 8] });
    }
    content
}

fn make(store: &ImageStore, tag: &Reference) -> Result<(), Failure> {
    let mut image = store.import(&[0_u8; 1024][..], &Import::default())?;
    for layer in 0..3_u64 {
        let mounts = store.prepare_snapshot("layer", &image.id)?;
        for file in 0..64 {
            std::fs::write(mounts.upper.join(format!("{layer}-{file}")), content(1 << 20, layer * 64 + file + 1))?;
        }
        let (source, parent) = (CommitSource::Spent("layer"), image.id.clone());
        let tag = (layer == 2).then(|| tag.clone());
        image = store.commit(&Commit { source, parent: Some(&parent), tag, ..Commit::default() })?;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let directory = tempfile::tempdir()?;
    let root = directory.path();
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let settings = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage: {{filesystem: {{rootdirectory: {}/data}}}}\n\
         http: {{addr: '127.0.0.1:{port}'}}\n",
        root.display()
    );
    std::fs::write(root.join("config.yml"), settings)?;
    let mut registry = Command::new("docker-registry");
    registry.arg("serve").arg(root.join("config.yml")).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut registry = registry.spawn()?;
    let mut lines = BufReader::new(registry.stderr.take().ok_or("no output")?).lines();
    lines.by_ref().map_while(Result::ok).any(|line| line.contains("listening on"));
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(drop));
    let measured = measure(root, port).await;
    registry.kill()?;
    registry.wait()?;
    measured
}

async fn measure(root: &std::path::Path, port: u16) -> Result<(), Failure> {
    let reference: Reference = format!("localhost:{port}/speed:1").parse()?;
    let first = Arc::new(ImageStore::open(root.join("first"))?);
    make(&first, &reference)?;
    let (nobody, options) = (Credentials::default(), Options::default());
    let begin = Instant::now();
    push(&first, &reference, nobody.clone(), &options, &|_| {}).await?;
    report("push, with compression", begin, 192.0);
    let second = Arc::new(ImageStore::open(root.join("second"))?);
    let begin = Instant::now();
    let pulled = pull(&second, &reference, nobody, &options, &|_| {}).await?;
    report("pull, unpacked", begin, 192.0);
    let begin = Instant::now();
    for (digest, _) in pulled.image.layers() {
        let file = std::fs::File::open(second.blob_path(digest))?;
        let mut decoder = flate2::read::MultiGzDecoder::new(BufReader::new(file));
        let mut buffer = vec![0; 128 << 10];
        while decoder.read(&mut buffer)? > 0 {}
    }
    report("gunzip alone, one after another", begin, 192.0);
    Ok(())
}

#[allow(clippy::print_stdout, reason = "the measurement is this program's output")]
fn report(what: &str, begin: Instant, megabytes: f64) {
    let seconds = begin.elapsed().as_secs_f64();
    println!("{what}: {seconds:.2} s, {:.0} MB/s of content", megabytes / seconds);
}
