//! Reads archives that may be compressed. What they are, their first bytes tell, as with Docker.
//!
//! gzip and zstd are read here; bzip2 and xz by the programs of those names, as Docker reads xz. Source: the forms of
//! RFC 1952 and RFC 8878, and of the two programs.

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::process::{Child, Command, Stdio};

/// Bytes that tell the form.
const HEAD: usize = 8;
/// Bytes that are read ahead.
const AHEAD: usize = 128 << 10;
/// The most memory that xz may use, whatever an archive asks for; its own archives ask for 65 MiB at most. Other programs
/// of the name don't look at it.
const XZ_MEMORY: (&str, &str) = ("XZ_DEFAULTS", "--memlimit-decompress=1GiB");
/// Bytes of what a program complains.
const MAX_COMPLAINT: u64 = 1024;

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Compression {
    Plain,
    Gzip,
    Zstd,
    /// Read by the program of this name.
    Program(&'static str),
}

impl Compression {
    fn by(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, 8, ..] => Self::Gzip,
            // A frame, or one that is to be skipped, with its length.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, _, _, _, _, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Program("bzip2"),
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Program("xz"),
            _ => Self::Plain,
        }
    }

    /// Reads what has this form.
    ///
    /// # Errors
    /// `NotFound` when the machine lacks the program that reads it.
    pub(crate) fn decompress<'a>(self, source: impl BufRead + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
        Ok(match self {
            Self::Plain => Box::new(source),
            Self::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(source)),
            Self::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(source)?),
            Self::Program(name) => Box::new(Program::start(name, source)?),
        })
    }
}

/// The form of a stream, and all of the stream.
pub(crate) fn sniff<'a>(mut source: impl Read + Send + 'a) -> io::Result<(Compression, impl BufRead + Send + 'a)> {
    let mut head = Vec::with_capacity(HEAD);
    source.by_ref().take(HEAD as u64).read_to_end(&mut head)?;
    Ok((Compression::by(&head), BufReader::with_capacity(AHEAD, Cursor::new(head).chain(source))))
}

/// Reads a stream that may be compressed with gzip, bzip2, xz or zstd.
///
/// # Errors
/// When the stream cannot be read; `NotFound` when the machine lacks the program that reads its form.
pub fn decompressed<'a>(source: impl Read + Send + 'a) -> io::Result<Box<dyn Read + Send + 'a>> {
    let (form, whole) = sniff(source)?;
    form.decompress(whole)
}

/// A program that is fed a stream while its output is read: it ends with its reader.
struct Program<R> {
    name: &'static str,
    process: Child,
    source: R,
}

impl<R: BufRead> Program<R> {
    fn start(name: &'static str, source: R) -> io::Result<Self> {
        let mut command = Command::new(name);
        command.args(["-d", "-c", "-q"]).env(XZ_MEMORY.0, XZ_MEMORY.1);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let process = command.spawn().map_err(|e| {
            let why = format!("to unpack it, the machine needs the program {name}, which cannot be started: {e}");
            io::Error::new(e.kind(), why)
        })?;
        let program = Self { name, process, source };
        if let Some(input) = &program.process.stdin {
            rustix::io::ioctl_fionbio(input, true)?;
        }
        Ok(program)
    }

    /// Waits until there is output, or its end; meanwhile the program gets its input.
    fn wait_for_output(&mut self) -> io::Result<()> {
        loop {
            let output = self.process.stdout.as_ref().map(|output| PollFd::new(output, PollFlags::IN));
            let input = self.process.stdin.as_ref().map(|input| PollFd::new(input, PollFlags::OUT));
            let mut watched: Vec<PollFd<'_>> = output.into_iter().chain(input).collect();
            match poll(&mut watched, None) {
                Err(Errno::INTR) => continue,
                other => other?,
            };
            if watched.first().is_some_and(|output| !output.revents().is_empty()) {
                return Ok(());
            }
            self.feed()?;
        }
    }

    /// Hands on a piece of the stream.
    fn feed(&mut self) -> io::Result<()> {
        let Some(input) = &self.process.stdin else { return Ok(()) };
        let piece = self.source.fill_buf()?;
        let written = match rustix::io::write(input, piece) {
            _ if piece.is_empty() => 0,
            Ok(count) => count,
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            // It reads no more: how it ends says why.
            Err(Errno::PIPE) => 0,
            Err(error) => return Err(error.into()),
        };
        self.source.consume(written);
        if written == 0 {
            self.process.stdin = None;
        }
        Ok(())
    }

    /// What ends because it is broken must not pass for a whole archive.
    fn end(&mut self) -> io::Result<()> {
        self.process.stdin = None;
        let mut complaint = Vec::new();
        if let Some(errors) = self.process.stderr.take() {
            errors.take(MAX_COMPLAINT).read_to_end(&mut complaint)?;
        }
        let status = self.process.wait()?;
        if status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&complaint);
        let why = format!("{} cannot decompress it: {status}: {}", self.name, complaint.trim());
        Err(io::Error::new(io::ErrorKind::InvalidData, why))
    }
}

impl<R: BufRead> Read for Program<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.wait_for_output()?;
        let Some(output) = &mut self.process.stdout else { return Ok(0) };
        let count = output.read(buffer)?;
        if count == 0 && !buffer.is_empty() {
            self.end()?;
        }
        Ok(count)
    }
}

impl<R> Drop for Program<R> {
    fn drop(&mut self) {
        // It has ended, unless nobody wants the rest.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// What a program makes of some bytes.
    fn through(program: &str, bytes: &[u8]) -> Vec<u8> {
        let mut command = Command::new(program);
        let mut child = command.arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || input.write_all(bytes).unwrap());
            let mut packed = Vec::new();
            child.stdout.take().unwrap().read_to_end(&mut packed).unwrap();
            assert!(child.wait().unwrap().success());
            packed
        })
    }

    /// Hands out one byte at a time, as a slow client does.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let count = buffer.len().min(1);
            self.0.read(&mut buffer[..count])
        }
    }

    fn read(source: impl Read + Send) -> io::Result<Vec<u8>> {
        let mut plain = Vec::new();
        decompressed(source)?.read_to_end(&mut plain)?;
        Ok(plain)
    }

    #[test]
    fn every_form_is_read_by_its_first_bytes_and_a_part_of_it_is_refused() {
        // More than the pipes hold, and nothing that packs well.
        let plain: Vec<u8> = (0..600_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
        assert_eq!(read(Slow(&plain)).unwrap(), plain);
        assert_eq!(read(&b""[..]).unwrap(), b"");
        for program in ["gzip", "bzip2", "xz", "zstd"] {
            let packed = through(program, &plain);
            assert_ne!(packed, plain, "{program}");
            assert_eq!(read(Slow(&packed)).unwrap(), plain, "{program}");
            assert!(read(&packed[..packed.len() - 20]).is_err(), "{program}");
        }
    }

    #[test]
    fn a_frame_of_zstd_that_is_skipped_may_come_first() {
        let frame = zstd::encode_all(&b"behind it"[..], 1).unwrap();
        let packed = [&[0x5a, 0x2a, 0x4d, 0x18, 2, 0, 0, 0, b'n', b'o'][..], &frame].concat();
        assert_eq!(read(&packed[..]).unwrap(), b"behind it");
    }

    #[test]
    fn a_program_says_why_it_failed_and_ends_with_its_reader() {
        let packed = through("xz", &[7; 100_000]);
        let error = read(&packed[..40]).unwrap_err();
        assert!(error.to_string().contains("xz cannot decompress it"), "{error}");
        let mut program = Program::start("xz", Cursor::new(packed)).unwrap();
        assert_eq!(program.read(&mut [0; 16]).unwrap(), 16);
        let pid = program.process.id();
        drop(program);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}
