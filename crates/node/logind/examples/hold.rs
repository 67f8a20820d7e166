//! Holds up the end of this machine until it is told of one, and for a second more: `hold [SOCKET]`.

#![allow(clippy::print_stdout)]

use pintle_logind::{Logind, LogindError, SYSTEM_BUS};
use std::path::PathBuf;
use std::time::Duration;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), LogindError> {
    let socket = std::env::args().nth(1).map_or_else(|| SYSTEM_BUS.into(), PathBuf::from);
    let mut logind = Logind::connect(&socket).await?;
    println!("logind waits {:?} at most; is it ending? {}", logind.longest_delay().await?, logind.is_ending().await?);
    let inhibitor = logind.inhibit("hold", "to see how it works").await?;
    println!("holding: see systemd-inhibit --list");
    println!("it is ending: {}", logind.next().await?);
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(inhibitor);
    println!("it is ending: {}", logind.next().await?);
    Ok(())
}
