//! Reads the last words of containers that ended: from the file that was mounted for them, or from their logs.

use crate::labels::{TERMINATION_PATH, TERMINATION_POLICY};
use crate::observed::Observed;
use pintle_cri::{ContainerState, ContainerStatus};
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

const MAX_FILE_BYTES: u64 = 4096;
const MAX_LOG_BYTES: usize = 2048;
const MAX_LOG_LINES: usize = 80;
/// How much of the log's end is read to find the last lines in.
const LOG_WINDOW_BYTES: u64 = 64 * 1024;

/// Sets the message of every container that ended.
pub fn fill(observed: &mut Observed) {
    for status in observed.containers.iter_mut().filter(|c| c.state == ContainerState::Exited) {
        let message = read(status);
        if !message.is_empty() {
            status.message = message;
        }
    }
}

fn read(status: &ContainerStatus) -> String {
    let path = status.annotations.get(TERMINATION_PATH).map(String::as_str).unwrap_or_default();
    let mount = status.mounts.iter().find(|m| !path.is_empty() && m.container_path == path);
    let written = mount.map(|m| start_of(Path::new(&m.host_path)).unwrap_or_default()).unwrap_or_default();
    let from_logs = status.annotations.get(TERMINATION_POLICY).is_some_and(|p| p == "FallbackToLogsOnError");
    if !written.is_empty() || !from_logs || status.exit_code == 0 {
        return written;
    }
    tail(Path::new(&status.log_path)).unwrap_or_default()
}

fn start_of(path: &Path) -> std::io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The last lines of a log file, without their times and stream names.
fn tail(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let length = file.metadata()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(LOG_WINDOW_BYTES)))?;
    let mut bytes = Vec::new();
    file.take(LOG_WINDOW_BYTES).read_to_end(&mut bytes)?;
    let records: Vec<_> =
        bytes.split(|b| *b == b'\n').filter_map(|line| crate::logs::Record::parse(line).ok()).collect();
    let mut text = Vec::new();
    for record in &records[records.len().saturating_sub(MAX_LOG_LINES)..] {
        text.extend_from_slice(record.text);
        if !record.partial {
            text.push(b'\n');
        }
    }
    let start = text.len().saturating_sub(MAX_LOG_BYTES);
    Ok(String::from_utf8_lossy(&text[start..]).into_owned())
}
