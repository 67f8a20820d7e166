//! SPDY/3.1 frames on the wire.

use super::dictionary::dictionary;
use bytes::{Buf, BufMut, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress};

/// A frame that says it is longer than this ends the connection.
pub const MAX_FRAME_BYTES: usize = 4 << 20;
const MAX_HEADER_BYTES: usize = 64 << 10;
const MAX_HEADERS: u32 = 256;
const VERSION: u16 = 0x8003;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;
const FLAG_FIN: u8 = 1;
/// RST_STREAM status: the stream is no longer needed.
const CANCEL: u32 = 5;

#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    #[error("a SPDY frame of {0} bytes (at most {MAX_FRAME_BYTES})")]
    TooLong(usize),
    #[error("a SPDY frame of version {0}")]
    Version(u16),
    #[error("a SPDY frame that ends too early")]
    Truncated,
    #[error("a SPDY header block that is not valid: {0}")]
    Headers(&'static str),
}

/// What the other side sends, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Open {
        stream: u32,
        headers: Vec<(String, String)>,
        last: bool,
    },
    Data {
        stream: u32,
        data: Bytes,
        last: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, windows, headers: nothing follows from them.
    Other,
}

/// Takes frames out of a buffer. Header blocks share one decompression state, so every block must pass here.
pub struct Decoder {
    inflate: Decompress,
}

impl Default for Decoder {
    fn default() -> Self {
        Self { inflate: Decompress::new(true) }
    }
}

impl Decoder {
    /// The next whole frame, or nothing when the buffer does not hold one yet.
    pub fn decode(&mut self, buffer: &mut BytesMut) -> Result<Option<Frame>, FrameError> {
        if buffer.len() < 8 {
            return Ok(None);
        }
        let length = u32::from_be_bytes([0, buffer[5], buffer[6], buffer[7]]) as usize;
        if length > MAX_FRAME_BYTES {
            return Err(FrameError::TooLong(length));
        }
        if buffer.len() < 8 + length {
            buffer.reserve(8 + length - buffer.len());
            return Ok(None);
        }
        let mut head = buffer.split_to(8);
        let body = buffer.split_to(length).freeze();
        let last = head[4] & FLAG_FIN != 0;
        if head[0] & 0x80 == 0 {
            return Ok(Some(Frame::Data { stream: head.get_u32() & 0x7fff_ffff, data: body, last }));
        }
        let (version, kind) = (head.get_u16(), head.get_u16());
        if version != VERSION {
            return Err(FrameError::Version(version & 0x7fff));
        }
        self.control(kind, body, last).map(Some)
    }

    fn control(&mut self, kind: u16, mut body: Bytes, last: bool) -> Result<Frame, FrameError> {
        let needed = match kind {
            SYN_STREAM => 10,
            RST_STREAM | PING => 4,
            _ => 0,
        };
        if body.len() < needed {
            return Err(FrameError::Truncated);
        }
        Ok(match kind {
            SYN_STREAM => {
                let stream = body.get_u32() & 0x7fff_ffff;
                body.advance(6);
                Frame::Open { stream, headers: parse_headers(&self.inflate(&body)?)?, last }
            }
            RST_STREAM => Frame::Reset { stream: body.get_u32() & 0x7fff_ffff },
            PING => Frame::Ping { id: body.get_u32() },
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        })
    }

    fn inflate(&mut self, block: &[u8]) -> Result<Vec<u8>, FrameError> {
        let mut out = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            let (before_in, before_out) = (self.inflate.total_in(), self.inflate.total_out());
            match self.inflate.decompress_vec(rest, &mut out, FlushDecompress::Sync) {
                Ok(_) => {}
                Err(e) if e.needs_dictionary().is_some() => {
                    let set = self.inflate.set_dictionary(&dictionary());
                    set.map_err(|_| FrameError::Headers("it was compressed with another dictionary"))?;
                }
                Err(_) => return Err(FrameError::Headers("it does not decompress")),
            }
            let taken = (self.inflate.total_in() - before_in) as usize;
            rest = &rest[taken..];
            if out.len() > MAX_HEADER_BYTES {
                return Err(FrameError::Headers("it is too large"));
            }
            let produced = self.inflate.total_out() > before_out;
            if out.len() == out.capacity() {
                out.reserve(4096);
            } else if rest.is_empty() || (taken == 0 && !produced && self.inflate.total_in() > 6) {
                return Ok(out);
            }
        }
    }
}

fn parse_headers(mut block: &[u8]) -> Result<Vec<(String, String)>, FrameError> {
    let number = |block: &mut &[u8]| if block.len() < 4 { Err(FrameError::Truncated) } else { Ok(block.get_u32()) };
    let text = |block: &mut &[u8]| {
        let length = number(block)? as usize;
        let Some((text, rest)) = block.split_at_checked(length) else { return Err(FrameError::Truncated) };
        *block = rest;
        String::from_utf8(text.to_vec()).map_err(|_| FrameError::Headers("it is not UTF-8"))
    };
    let count = number(&mut block)?;
    if count > MAX_HEADERS {
        return Err(FrameError::Headers("it has too many headers"));
    }
    (0..count).map(|_| Ok((text(&mut block)?.to_ascii_lowercase(), text(&mut block)?))).collect()
}

/// Writes frames.
pub(super) struct Encoder {
    deflate: Compress,
}

impl Encoder {
    pub(super) fn new() -> Self {
        let mut deflate = Compress::new(Compression::fast(), true);
        // Fails on a stream that has begun; this one has not.
        let _ = deflate.set_dictionary(&dictionary());
        Self { deflate }
    }

    /// Opens a stream.
    pub(super) fn open<T: AsRef<str>>(&mut self, stream: u32, headers: &[(T, T)], out: &mut BytesMut) {
        let mut plain = Vec::with_capacity(128);
        plain.put_u32(headers.len() as u32);
        for text in headers.iter().flat_map(|(name, value)| [name.as_ref(), value.as_ref()]) {
            plain.put_u32(text.len() as u32);
            plain.put_slice(text.as_bytes());
        }
        let mut block = Vec::with_capacity(plain.len() + 64);
        // What does not compress becomes a few bytes longer.
        let _ = self.deflate.compress_vec(&plain, &mut block, FlushCompress::Sync);
        control(SYN_STREAM, 10 + block.len(), out);
        out.put_u32(stream);
        out.put_slice(&[0; 6]);
        out.put_slice(&block);
    }

    /// Accepts a stream, with no headers of our own.
    pub(super) fn accept(&mut self, stream: u32, out: &mut BytesMut) {
        let mut block = Vec::with_capacity(64);
        // 64 bytes hold four compressed zero bytes with room to spare.
        let _ = self.deflate.compress_vec(&0u32.to_be_bytes(), &mut block, FlushCompress::Sync);
        control(SYN_REPLY, 4 + block.len(), out);
        out.put_u32(stream);
        out.put_slice(&block);
    }
}

fn control(kind: u16, length: usize, out: &mut BytesMut) {
    out.put_u16(VERSION);
    out.put_u16(kind);
    out.put_u32(length as u32);
}

pub(super) fn data(stream: u32, data: &[u8], last: bool, out: &mut BytesMut) {
    out.put_u32(stream);
    out.put_u32(u32::from(if last { FLAG_FIN } else { 0 }) << 24 | data.len() as u32);
    out.put_slice(data);
}

pub(super) fn reset(stream: u32, out: &mut BytesMut) {
    control(RST_STREAM, 8, out);
    out.put_u32(stream);
    out.put_u32(CANCEL);
}

pub(super) fn ping(id: u32, out: &mut BytesMut) {
    control(PING, 4, out);
    out.put_u32(id);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_blocks_share_one_compression_state() {
        let (mut client, mut wire) = (Encoder::new(), BytesMut::new());
        let long = "x".repeat(9000);
        client.open(1, &[("Streamtype", "stdin")], &mut wire);
        client.open(3, &[("streamType", "stdout"), ("long", &long)], &mut wire);
        let mut decoder = Decoder::default();
        let first = decoder.decode(&mut wire).unwrap().unwrap();
        assert_eq!(first, Frame::Open { stream: 1, headers: vec![("streamtype".into(), "stdin".into())], last: false });
        let Some(Frame::Open { headers, .. }) = decoder.decode(&mut wire).unwrap() else { panic!("no second stream") };
        assert_eq!(headers[1], ("long".into(), long));
        assert!(decoder.decode(&mut wire).unwrap().is_none());
    }

    #[test]
    fn a_frame_in_pieces_waits_for_its_end() {
        let mut whole = BytesMut::new();
        data(5, b"hello", true, &mut whole);
        let mut decoder = Decoder::default();
        for cut in 0..whole.len() {
            assert_eq!(decoder.decode(&mut BytesMut::from(&whole[..cut])).unwrap(), None);
        }
        let expected = Frame::Data { stream: 5, data: Bytes::from_static(b"hello"), last: true };
        assert_eq!(decoder.decode(&mut whole).unwrap(), Some(expected));
    }

    #[test]
    fn hostile_frames_are_refused() {
        let mut huge = BytesMut::from(&[0, 0, 0, 1, 0, 0xff, 0xff, 0xff][..]);
        assert!(matches!(Decoder::default().decode(&mut huge), Err(FrameError::TooLong(_))));
        let mut version = BytesMut::from(&[0x80, 2, 0, 1, 0, 0, 0, 0][..]);
        assert!(matches!(Decoder::default().decode(&mut version), Err(FrameError::Version(2))));
        let mut short = BytesMut::from(&[0x80, 3, 0, 1, 0, 0, 0, 1, 9][..]);
        assert!(matches!(Decoder::default().decode(&mut short), Err(FrameError::Truncated)));
        let mut garbage = BytesMut::new();
        control(SYN_STREAM, 14, &mut garbage);
        garbage.put_slice(&[7; 14]);
        assert!(matches!(Decoder::default().decode(&mut garbage), Err(FrameError::Headers(_))));
        for length in 0..40 {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 37 + length) as u8).collect();
            assert!(parse_headers(&bytes).is_err() || bytes.starts_with(&[0, 0, 0, 0]), "{bytes:?}");
        }
    }

    /// Bytes that inflate to far more than a header block may hold.
    #[test]
    fn a_bomb_is_refused() {
        let (mut client, mut wire) = (Encoder::new(), BytesMut::new());
        client.open(1, &[("a", &"0".repeat(1 << 20))], &mut wire);
        assert!(matches!(Decoder::default().decode(&mut wire), Err(FrameError::Headers("it is too large"))));
    }

    /// Broken connections end with an error or wait for more; what they hold stays small.
    #[test]
    fn broken_connections_are_refused() {
        let mut wire = BytesMut::new();
        let mut client = Encoder::new();
        client.open(1, &[("streamType", "stdin"), ("port", "80")], &mut wire);
        data(1, b"hello", false, &mut wire);
        client.open(3, &[("streamType", "error")], &mut wire);
        ping(1, &mut wire);
        reset(3, &mut wire);
        pintle_noise::feed(&[&wire], 2000, |bytes| {
            let (mut decoder, mut left) = (Decoder::default(), BytesMut::from(bytes));
            while let Ok(Some(frame)) = decoder.decode(&mut left) {
                if let Frame::Open { headers, .. } = frame {
                    assert!(headers.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>() <= MAX_HEADER_BYTES + 4096);
                }
            }
        });
    }
}
