//! What a client was told of a statement: its parameter types and its columns. It decodes rows by
//! that for as long as it keeps the statement.

use crate::wire::frame::{Body, HEADER_LEN};
use std::hash::{DefaultHasher, Hash, Hasher};

/// See the file's head.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Shape {
    /// Count and OIDs of the parameter types, as in ParameterDescription and Parse; empty: not told.
    pub parameters: Box<[u8]>,
    /// What the columns hash to; 0: not told.
    pub columns: u64,
}

impl Shape {
    /// Learns from one message of the answer to a Describe.
    pub fn learn(&mut self, tag: u8, frame: &[u8]) {
        match tag {
            b't' => self.parameters = frame.get(HEADER_LEN..).unwrap_or_default().into(),
            b'T' | b'n' => self.columns = columns(frame),
            _ => {}
        }
    }

    /// Would a client that knows `self` misread rows of `other`?
    pub fn contradicts(&self, columns: u64) -> bool {
        self.columns != 0 && columns != 0 && self.columns != columns
    }
}

/// Names, types and type modifiers, as PostgreSQL compares them; not which table they come from, nor
/// their format. NoData has none. Never 0.
fn columns(frame: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    let mut body = Body::new(frame.get(HEADER_LEN..).unwrap_or_default());
    for _ in 0..body.u16().unwrap_or(0) {
        body.cstr().hash(&mut hasher);
        let _table_and_column = body.bytes(6);
        (body.u32(), body.u16(), body.u32()).hash(&mut hasher);
        let _format = body.u16();
    }
    hasher.finish() | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(table: u32, column: &[u8], of_type: u32, format: u16) -> Vec<u8> {
        let body = [
            &[0, 1][..],
            column,
            &[0],
            &table.to_be_bytes(),
            &[0, 1],
            &of_type.to_be_bytes(),
            &[0, 4, 255, 255, 255, 255],
            &format.to_be_bytes(),
        ];
        [&b"T\0\0\0\0"[..], &body.concat()].concat()
    }

    #[test]
    fn columns_are_their_names_and_types() {
        let same = [row(1, b"n", 23, 0), row(2, b"n", 23, 1)];
        assert_eq!(columns(&same[0]), columns(&same[1]));
        for other in [row(1, b"m", 23, 0), row(1, b"n", 20, 0), b"n\0\0\0\x04".to_vec()] {
            assert_ne!(columns(&same[0]), columns(&other));
        }
        let mut known = Shape::default();
        assert!(!known.contradicts(5));
        known.learn(b'T', &same[0]);
        assert!(!known.contradicts(columns(&same[1])) && known.contradicts(5) && !known.contradicts(0));
    }
}
