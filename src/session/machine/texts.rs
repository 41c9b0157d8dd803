//! The texts of a group's statements.

use super::Session;
use crate::wire::frame::header;
use crate::wire::frontend;

impl Session {
    /// The texts that a group of messages asks or binds, before it is sent: of simple queries, of what it
    /// parses, and of statements prepared earlier that it binds. A message that is not whole ends it.
    pub fn texts_in<'a>(&'a self, group: &'a [u8]) -> Vec<&'a [u8]> {
        let (mut texts, mut parsed) = (Vec::new(), Vec::new());
        let mut rest = group;
        while let Ok(Some(head)) = header(rest, usize::MAX) {
            let Some((frame, behind)) = rest.split_at_checked(head.frame_len) else { break };
            rest = behind;
            match head.tag {
                b'Q' => texts.extend(frontend::query(frame).ok()),
                b'P' => {
                    let Ok(parse) = frontend::parse(frame) else { continue };
                    parsed.push(parse.name);
                    texts.push(parse.text);
                }
                b'B' => {
                    let name = frontend::bind(frame).map(|bind| bind.statement);
                    // What the group has parsed itself is not what the session still knows by that name.
                    let earlier = name.filter(|name| !parsed.contains(name));
                    texts.extend(earlier.and_then(|name| self.text_of(name)));
                }
                _ => {}
            }
        }
        texts
    }
}
