//! Messages in HTTP/2 data: five bytes before each say whether it is compressed, and its length.

use crate::{Code, Status};
use bytes::{Buf, BufMut, Bytes, BytesMut};

const HEADER: usize = 5;

/// A message with its header.
pub(crate) fn framed(message: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEADER + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(message);
    frame.freeze()
}

/// Puts data together to messages.
#[derive(Debug)]
pub(crate) struct Frames {
    buffer: BytesMut,
    max: usize,
}

impl Frames {
    pub(crate) fn new(max: usize) -> Self {
        Self { buffer: BytesMut::new(), max }
    }

    pub(crate) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The next whole message, if there is one.
    pub(crate) fn take(&mut self) -> Result<Option<Bytes>, Status> {
        let Some((header, rest)) = self.buffer.split_first_chunk::<HEADER>() else { return Ok(None) };
        let [compressed, length @ ..] = *header;
        let length = u32::from_be_bytes(length) as usize;
        if compressed != 0 {
            return Err(Status::internal("grpc: compressed flag set with identity or empty encoding"));
        }
        if length > self.max {
            let text = format!("received message larger than max ({length} vs. {})", self.max);
            return Err(Status::new(Code::RESOURCE_EXHAUSTED, text));
        }
        if rest.len() < length {
            return Ok(None);
        }
        self.buffer.advance(HEADER);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_put_together() {
        let wire = [framed(b"one"), framed(b""), framed(b"three")].concat();
        let (mut frames, mut got) = (Frames::new(5), Vec::new());
        for byte in wire {
            frames.push(&[byte]);
            got.extend(frames.take().unwrap());
        }
        assert_eq!(got, [&b"one"[..], b"", b"three"]);
        assert!(frames.is_empty());
        frames.push(&framed(b"sixsix"));
        assert_eq!(frames.take().unwrap_err().code, Code::RESOURCE_EXHAUSTED);
        let mut frames = Frames::new(5);
        frames.push(&[1, 0, 0, 0, 0]);
        assert_eq!(frames.take().unwrap_err().code, Code::INTERNAL);
    }
}
