//! Where an error stands in a client's text, when the server was sent another name in it.

use crate::wire::frame::{Body, HEADER_LEN};
use std::ops::Range;

/// A name of ours in the place of the client's. In characters, as PostgreSQL counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Translation {
    start: usize,
    theirs: usize,
    ours: usize,
}

impl Translation {
    /// The client's name stands `at` here in `text`; ours has so many characters.
    pub fn new(text: &[u8], at: Range<usize>, ours: usize) -> Translation {
        let characters = |range: Range<usize>| {
            text.get(range).unwrap_or_default().iter().filter(|&&byte| byte & 0xc0 != 0x80).count()
        };
        Translation { start: characters(0..at.start), theirs: characters(at), ours }
    }

    /// An error or notice as the client counts; `None`: it says nothing of a place behind the name.
    pub fn apply(&self, frame: &[u8]) -> Option<Box<[u8]>> {
        let mut body = Body::new(frame.get(HEADER_LEN..)?);
        loop {
            let code = body.u8().filter(|&code| code != 0)?;
            let start = frame.len() - body.rest().len();
            let value = body.cstr()?;
            if code != b'P' {
                continue;
            }
            let place: usize = std::str::from_utf8(value).ok()?.parse().ok()?;
            let place = self.place(place).to_string();
            let parts = [&frame[HEADER_LEN..start], place.as_bytes(), &frame[start + value.len()..]].concat();
            let length = u32::try_from(parts.len() + 4).ok()?;
            return Some([&frame[..1], &length.to_be_bytes(), &parts].concat().into());
        }
    }

    /// Both begin at 1.
    fn place(&self, place: usize) -> usize {
        match place.saturating_sub(1) {
            before if before <= self.start => place,
            inside if inside < self.start + self.ours => self.start + 1,
            behind => behind - self.ours + self.theirs + 1,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn places_behind_the_name_are_counted_as_the_client_does() {
        let text = "/*é*/ PREPARE q AS SELECT x".as_bytes();
        let at = text.iter().position(|&byte| byte == b'q').unwrap();
        let translation = Translation::new(text, at..at + 1, 12);
        for (theirs, ours) in [(1, 1), (15, 15), (15, 20), (16, 27), (26, 37)] {
            assert_eq!(translation.place(ours), theirs);
        }
        let error = b"E\0\0\0\x0fMx\0P37\0Hy\0\0";
        assert_eq!(&*translation.apply(error).unwrap(), b"E\0\0\0\x0fMx\0P26\0Hy\0\0");
        assert_eq!(translation.apply(b"E\0\0\0\x08Mx\0\0"), None);
    }
}
