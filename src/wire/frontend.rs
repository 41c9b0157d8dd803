//! Views of the messages a client sends. Each borrows the frame that is forwarded: what is judged
//! is what the server gets.

use crate::wire::frame::{Body, FrameError, HEADER_LEN};

/// What a Describe or Close names.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Named<'a> {
    /// A prepared statement.
    Statement(&'a [u8]),
    /// A portal.
    Portal(&'a [u8]),
}

/// A Parse message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parse<'a> {
    /// The statement's name; empty for the unnamed one.
    pub name: &'a [u8],
    /// The text.
    pub text: &'a [u8],
    /// The number of parameter types and their OIDs, as they came.
    pub types: &'a [u8],
}

/// The head of a Bind message. Its parameters are looked into only where they are settings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bind<'a> {
    /// The portal's name.
    pub portal: &'a [u8],
    /// The statement's name.
    pub statement: &'a [u8],
    /// Everything behind the two names.
    pub rest: &'a [u8],
}

/// The text of a Query frame.
pub fn query(frame: &[u8]) -> Result<&[u8], FrameError> {
    whole(frame, |body| body.cstr())
}

/// A Parse frame.
pub fn parse(frame: &[u8]) -> Result<Parse<'_>, FrameError> {
    whole(frame, |body| {
        let (name, text, types) = (body.cstr()?, body.cstr()?, body.rest());
        let count = usize::from(body.u16()?);
        body.bytes(count.checked_mul(4)?)?;
        Some(Parse { name, text, types })
    })
}

/// The head of a Bind frame; `frame` may end early, behind the two names.
pub fn bind(frame: &[u8]) -> Option<Bind<'_>> {
    let mut body = Body::new(frame.get(HEADER_LEN..)?);
    Some(Bind { portal: body.cstr()?, statement: body.cstr()?, rest: body.rest() })
}

/// One parameter of a Bind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameter<'a> {
    /// In the type's binary form?
    pub binary: bool,
    /// Its bytes; `None` is NULL.
    pub value: Option<&'a [u8]>,
}

/// The parameters in what stands behind the two names of a Bind. `None`: it is malformed.
pub fn parameters(rest: &[u8]) -> Option<Vec<Parameter<'_>>> {
    let mut body = Body::new(rest);
    let formats = usize::from(body.u16()?);
    let formats = body.bytes(formats * 2)?;
    let is_binary = |at: usize| match formats.len() / 2 {
        0 => Some(false),
        1 => Some(formats == [0, 1]),
        _ => Some(formats.get(at * 2..at * 2 + 2)? == [0, 1]),
    };
    let count = usize::from(body.u16()?);
    // Each takes four bytes at least.
    body.rest().get(..count * 4)?;
    let mut found = Vec::with_capacity(count);
    for at in 0..count {
        let value = match body.u32()? {
            u32::MAX => None,
            len => Some(body.bytes(usize::try_from(len).ok()?)?),
        };
        found.push(Parameter { binary: is_binary(at)?, value });
    }
    Some(found)
}

/// A Describe or Close frame.
pub fn named(frame: &[u8]) -> Result<Named<'_>, FrameError> {
    whole(frame, |body| match (body.u8()?, body.cstr()?) {
        (b'S', name) => Some(Named::Statement(name)),
        (b'P', name) => Some(Named::Portal(name)),
        _ => None,
    })
}

/// The portal of an Execute frame.
pub fn execute(frame: &[u8]) -> Result<&[u8], FrameError> {
    whole(frame, |body| {
        let portal = body.cstr()?;
        body.u32()?;
        Some(portal)
    })
}

/// How many rows an Execute frame asks for at most; 0: all of them.
pub fn row_limit(frame: &[u8]) -> Result<u32, FrameError> {
    whole(frame, |body| {
        body.cstr()?;
        body.u32()
    })
}

/// Reads a body to its last byte; leftovers are an error.
fn whole<'a, T>(frame: &'a [u8], read: impl FnOnce(&mut Body<'a>) -> Option<T>) -> Result<T, FrameError> {
    let tag = frame.first().copied().unwrap_or(0);
    let mut body = Body::new(frame.get(HEADER_LEN..).unwrap_or(&[]));
    match read(&mut body) {
        Some(value) if body.rest().is_empty() => Ok(value),
        _ => Err(FrameError::Body { tag }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::wire::writers;
    use proptest::prelude::*;

    #[test]
    fn written_messages_read_back() {
        let mut out = Vec::new();
        writers::parse(&mut out, b"s1", b"SELECT $1", &[0, 1, 0, 0, 0, 23]);
        let read = parse(&out).unwrap();
        assert_eq!(
            (read.name, read.text, read.types),
            (&b"s1"[..], &b"SELECT $1"[..], &[0, 1, 0, 0, 0, 23][..])
        );
        out.clear();
        writers::query(&mut out, b"SELECT 1");
        assert_eq!(query(&out).unwrap(), b"SELECT 1");
    }

    #[test]
    fn leftovers_and_missing_terminators_are_errors() {
        assert!(query(b"Q\0\0\0\x09ab\0cd").is_err());
        assert!(query(b"Q\0\0\0\x06ab").is_err());
        assert!(query(b"Q\0\0\0\x04").is_err());
        assert!(parse(b"P\0\0\0\x0ca\0b\0\xff\xff\0\0").is_err());
        assert!(named(b"D\0\0\0\x07Xa\0").is_err());
        assert!(execute(b"E\0\0\0\x05\0").is_err());
    }

    proptest! {
        #[test]
        fn random_bodies_never_panic(frame in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = (query(&frame), parse(&frame), bind(&frame), named(&frame), execute(&frame), row_limit(&frame), parameters(&frame));
        }
    }
}
