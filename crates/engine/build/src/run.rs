//! RUN: a step in a container of the daemon's.

use crate::build::Build;
use crate::dockerfile::CommandLine;
use crate::error::{BuildError, Result};
use crate::output::{Message, Output};
use futures::future::Either;
use pintle_cri::ByteReader;
use pintle_docker::containers::{AttachWanted, Condition, CreateRequest, new_id};
use pintle_docker::model::{Config, HealthConfig, Mount};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use tokio::io::AsyncReadExt;

/// Bytes of output that are told at once.
const CHUNK: usize = 32 << 10;
/// Where a document that names its own interpreter lies in the container of its step, below a directory that is none of
/// the image's.
const SCRIPT: &str = "/dev/pipes/EOF";

/// A document that names its own interpreter, as a file of the host while its step runs.
pub(crate) struct Script(tempfile::TempPath);

impl Script {
    /// Takes the command of a shell that is one; it then only names the file. Others are left as they are.
    pub fn take(build: &Build, command: &mut CommandLine) -> Result<Option<Self>> {
        let only = command.shell.then_some(command.words.first_mut()).flatten();
        // Without a line's end it is no document, but a comment for the shell.
        let Some(text) = only.filter(|text| text.starts_with("#!") && text.contains('\n')) else { return Ok(None) };
        let put = || -> std::io::Result<tempfile::TempPath> {
            let mut file = tempfile::NamedTempFile::new_in(build.builder.temporary())?;
            file.write_all(text.as_bytes())?;
            file.as_file().set_permissions(std::fs::Permissions::from_mode(0o755))?;
            // What is open for writing is not executed.
            Ok(file.into_temp_path())
        };
        let file = put().map_err(|e| BuildError::io("write a script of RUN", e))?;
        SCRIPT.clone_into(text);
        Ok(Some(Self(file)))
    }

    fn mount(&self) -> Mount {
        let source = self.0.to_string_lossy().into_owned();
        Mount { kind: "bind".into(), source, target: SCRIPT.into(), read_only: true, ..Mount::default() }
    }
}

/// Makes the container of a step; returns its id. The command is exactly this one, whatever the image says.
pub(crate) async fn create(
    build: &Build,
    mut config: Config,
    script: Option<&Script>,
    output: &Output,
) -> Result<String> {
    let mut words = config.cmd.take().unwrap_or_default();
    let rest = words.split_off(words.len().min(1));
    config.entrypoint = Some(words);
    config.cmd = Some(rest);
    config.healthcheck = Some(HealthConfig { test: vec!["NONE".into()], ..HealthConfig::default() });
    let mut host = build.options.host.clone();
    host.log_config.kind = "none".into();
    host.mounts = script.map(|script| vec![script.mount()]);
    // Noted before it is made, so that it is found whenever this is cut off.
    let id = new_id();
    build.builder.note_container(&id, true);
    let request = CreateRequest { id: id.clone(), config, host, ..CreateRequest::default() };
    let created = match build.builder.daemon.create_container(request).await {
        Ok(created) => created,
        Err(error) => {
            build.builder.note_container(&id, false);
            return Err(error.into());
        }
    };
    for warning in &created.warnings {
        output.text(format!(" ---> [Warning] {warning}\n")).await;
    }
    output.text(format!(" ---> Running in {}\n", crate::builder::short(&created.id))).await;
    Ok(created.id)
}

/// Runs it to its end, and tells what it writes. A cancelled build kills it.
///
/// # Errors
/// When it cannot be started, ends with something else than 0, or the build is cancelled.
pub(crate) async fn run(build: &Build, id: &str, command: &[String], output: &Output) -> Result<()> {
    let daemon = &build.builder.daemon;
    let container = daemon.container(id)?;
    let wanted = AttachWanted { stdout: true, stderr: true, ..AttachWanted::default() };
    let attached = daemon.attach_container(&container, wanted).await?;
    let waiting = daemon.wait_for(&container, Condition::NextExit);
    let work = async {
        daemon.start_container(id).await?;
        if let Some(session) = attached.session.await {
            let session = session?;
            tell(session.stdout, session.stderr, output).await;
        }
        Ok::<_, BuildError>(waiting.done().await)
    };
    let work = std::pin::pin!(work);
    let cancelled = std::pin::pin!(build.cancel.cancelled());
    let ended = match futures::future::select(work, cancelled).await {
        Either::Left((ended, _)) => ended?,
        Either::Right(_) => {
            build.builder.remove_container(id).await;
            return Err(BuildError::cancelled());
        }
    };
    if ended.code == 0 {
        return Ok(());
    }
    let mut message = format!("The command '{}' returned a non-zero code: {}", command.join(" "), ended.code);
    if !ended.error.is_empty() {
        message = format!("{message}: {}", ended.error);
    }
    Err(BuildError { code: ended.code, ..BuildError::new(message) })
}

/// Tells both outputs until both end; of what is there at the same time, errors first.
async fn tell(stdout: Option<ByteReader>, stderr: Option<ByteReader>, output: &Output) {
    let (mut out, mut err) = (Text::new(stdout), Text::new(stderr));
    while out.reader.is_some() || err.reader.is_some() {
        let message = tokio::select! {
            biased;
            text = err.next(), if err.reader.is_some() => text.map(Message::ErrorText),
            text = out.next(), if out.reader.is_some() => text.map(Message::Text),
        };
        if let Some(message) = message {
            output.tell(message).await;
        }
    }
}

/// An output as texts: a character that came in part waits for its rest.
struct Text {
    reader: Option<ByteReader>,
    buffer: Vec<u8>,
    /// Bytes of a character in part, at the beginning of the buffer.
    kept: usize,
}

impl Text {
    fn new(reader: Option<ByteReader>) -> Self {
        Self { reader, buffer: vec![0; CHUNK], kept: 0 }
    }

    /// The next text, if there is any now; at the end the reader goes.
    async fn next(&mut self) -> Option<String> {
        let reader = self.reader.as_mut()?;
        let read = reader.read(&mut self.buffer[self.kept..]).await.unwrap_or(0);
        let end = self.kept + read;
        if read == 0 {
            self.reader = None;
            let rest = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
            return (!rest.is_empty()).then_some(rest);
        }
        let whole = whole_characters(&self.buffer[..end]);
        let text = String::from_utf8_lossy(&self.buffer[..whole]).into_owned();
        self.buffer.copy_within(whole..end, 0);
        self.kept = end - whole;
        (!text.is_empty()).then_some(text)
    }
}

/// How many bytes are whole characters, or none at all: what may still become a character is left.
fn whole_characters(bytes: &[u8]) -> usize {
    let tail = bytes.len().saturating_sub(3);
    for at in (tail..bytes.len()).rev() {
        let needed = match bytes[at] {
            0xc2..=0xdf => 2,
            0xe0..=0xef => 3,
            0xf0..=0xf4 => 4,
            0x80..=0xbf => continue,
            _ => return bytes.len(),
        };
        return if bytes.len() - at < needed { at } else { bytes.len() };
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn characters_are_told_whole() {
        let pieces = tokio_test_reader(&[b"a\xc3", b"\xa9b", b"\xff\xf0\x9f", b"\x98"]);
        let mut text = Text::new(Some(pieces));
        let mut told = Vec::new();
        while text.reader.is_some() {
            told.extend(text.next().await);
        }
        assert_eq!(told, ["a", "éb", "\u{fffd}", "\u{fffd}"]);
    }

    /// A reader that gives one piece at a time.
    fn tokio_test_reader(pieces: &[&'static [u8]]) -> ByteReader {
        let mut reader: ByteReader = Box::new(tokio::io::empty());
        for piece in pieces.iter().rev() {
            reader = Box::new((*piece).chain(reader));
        }
        reader
    }
}
