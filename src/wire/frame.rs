//! Cuts frames: a tag, a big-endian length that counts itself but not the tag, a body.

/// The five bytes before every body.
pub const HEADER_LEN: usize = 5;

/// A frame's header.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The message type.
    pub tag: u8,
    /// The whole frame in bytes, tag and length included.
    pub frame_len: usize,
}

/// The bytes are not a frame; the stream can no longer be followed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FrameError {
    /// The length field is below 4 or beyond the limit.
    #[error("invalid message length {length} in message of type {tag:#04x}")]
    Length {
        /// The message type.
        tag: u8,
        /// The field as it came.
        length: u32,
    },
    /// A type that this direction does not have.
    #[error("unexpected message type {tag:#04x}")]
    Tag {
        /// The message type.
        tag: u8,
    },
    /// The body does not have the form of its type.
    #[error("invalid message format in message of type {tag:#04x}")]
    Body {
        /// The message type.
        tag: u8,
    },
}

/// Reads the header at the start of `bytes`; `None` while it is incomplete. `limit` bounds the
/// length field, in bytes.
#[inline]
pub fn header(bytes: &[u8], limit: usize) -> Result<Option<Header>, FrameError> {
    let Some((&[tag, a, b, c, d], _)) = bytes.split_first_chunk::<HEADER_LEN>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]);
    if length < 4 || length as usize > limit {
        return Err(FrameError::Length { tag, length });
    }
    Ok(Some(Header { tag, frame_len: length as usize + 1 }))
}

/// Follows a stream that is passed on unread, so as to know where its frames end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Boundary {
    head: [u8; HEADER_LEN],
    head_len: usize,
    body_left: usize,
}

impl Boundary {
    /// These bytes came next.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<(), FrameError> {
        while !bytes.is_empty() {
            let body = self.body_left.min(bytes.len());
            self.body_left -= body;
            bytes = &bytes[body..];
            let head = (HEADER_LEN - self.head_len).min(bytes.len());
            self.head[self.head_len..self.head_len + head].copy_from_slice(&bytes[..head]);
            self.head_len += head;
            bytes = &bytes[head..];
            if let Some(next) = header(&self.head[..self.head_len], usize::MAX)? {
                self.body_left = next.frame_len - HEADER_LEN;
                self.head_len = 0;
            }
        }
        Ok(())
    }

    /// How many bytes have to come at least until a frame ends; 0: one has just ended.
    pub fn missing(&self) -> usize {
        match self.head_len {
            0 => self.body_left,
            begun => HEADER_LEN - begun,
        }
    }
}

/// A cursor inside one body. Every step is bounds-checked; nothing is read past the frame.
#[derive(Clone, Copy, Debug)]
pub struct Body<'a> {
    rest: &'a [u8],
}

impl<'a> Body<'a> {
    /// Over exactly these bytes.
    pub fn new(bytes: &'a [u8]) -> Body<'a> {
        Body { rest: bytes }
    }

    /// What has not been read yet.
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// One byte.
    pub fn u8(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    /// A big-endian 16-bit number.
    pub fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.rest.split_first_chunk::<2>()?;
        self.rest = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    /// A big-endian 32-bit number.
    pub fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    /// Exactly `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Option<&'a [u8]> {
        if count > self.rest.len() {
            return None;
        }
        let (bytes, rest) = self.rest.split_at(count);
        self.rest = rest;
        Some(bytes)
    }

    /// A string without its closing NUL.
    pub fn cstr(&mut self) -> Option<&'a [u8]> {
        let end = memchr::memchr(0, self.rest)?;
        let text = &self.rest[..end];
        self.rest = &self.rest[end + 1..];
        Some(text)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_boundary_is_found_wherever_the_stream_is_cut() {
        let stream = [&b"S\0\0\0\x04d\0\0\0\x07abcZ\0\0\0\x05I"[..], b"1\0\0\0\x04"].concat();
        let ends = [0, 5, 13, 19, 24];
        for first in 0..=stream.len() {
            for second in first..=stream.len() {
                let mut boundary = Boundary::default();
                boundary.pass(&stream[..first]).unwrap();
                boundary.pass(&stream[first..second]).unwrap();
                assert_eq!(boundary.missing() == 0, ends.contains(&second), "{first} {second}");
                let next = ends.into_iter().find(|end| *end >= second).unwrap();
                assert!(boundary.missing() <= next - second);
            }
        }
        assert!(Boundary::default().pass(b"d\0\0\0\x03").is_err());
    }

    #[test]
    fn half_a_header_is_incomplete_and_a_bad_length_is_an_error() {
        assert_eq!(header(b"Q\0\0\0", 100), Ok(None));
        assert_eq!(header(b"Q\0\0\0\x04", 100), Ok(Some(Header { tag: b'Q', frame_len: 5 })));
        for length in [0_u32, 3, 101, u32::MAX, 1 << 31] {
            let mut bytes = vec![b'Q'];
            bytes.extend(length.to_be_bytes());
            assert_eq!(header(&bytes, 100), Err(FrameError::Length { tag: b'Q', length }));
        }
    }

    #[test]
    fn a_body_never_yields_bytes_beyond_its_frame() {
        let mut body = Body::new(b"ab\0\x01");
        assert_eq!(body.cstr(), Some(&b"ab"[..]));
        assert_eq!(body.u16(), None);
        assert_eq!(body.cstr(), None);
        assert_eq!(body.u8(), Some(1));
        assert_eq!(body.u8(), None);
        assert_eq!(body.bytes(1), None);
    }
}
