//! Tags in comments, as sqlcommenter writes them (`/*controller='reports',action='index'*/`), and as
//! people do (`/* controller=reports */`, `-- job: nightly`).

use crate::sql::lexer::{Kind, Lexer};

/// So many bytes of comments are looked at: who writes more is not heard.
const COMMENTS_MAX: usize = 16 * 1024;

/// Does a text have any comment? Quick, and yes in doubt.
pub fn may_have_tags(text: &[u8]) -> bool {
    memchr::memmem::find(text, b"/*").is_some() || memchr::memmem::find(text, b"--").is_some()
}

/// The tags of a text, in order.
pub fn tags_of(text: &[u8]) -> Vec<(String, String)> {
    let mut tags = Vec::new();
    let mut left = COMMENTS_MAX;
    for_each_comment(text, |comment| {
        if let Some(rest) = left.checked_sub(comment.len()) {
            left = rest;
            read(&String::from_utf8_lossy(comment), &mut tags);
        }
    });
    tags
}

/// Comments stand between tokens; those that speak to pgweir are tokens themselves.
fn for_each_comment(text: &[u8], mut each: impl FnMut(&[u8])) {
    let mut end = 0;
    for token in Lexer::new(text) {
        gap(text.get(end..token.start).unwrap_or_default(), &mut each);
        match token.kind {
            Kind::Hint => each(token.bytes(text)),
            Kind::Broken => return,
            _ => {}
        }
        end = token.end;
    }
    gap(text.get(end..).unwrap_or_default(), &mut each);
}

/// White space and whole comments, nothing else.
fn gap(mut gap: &[u8], each: &mut impl FnMut(&[u8])) {
    while let Some(start) = memchr::memchr2(b'/', b'-', gap) {
        let rest = &gap[start..];
        let end = match rest {
            [b'/', b'*', ..] => crate::sql::lexer::block_comment_end(rest, 0).unwrap_or(rest.len()),
            [b'-', b'-', ..] => memchr::memchr2(b'\n', b'\r', rest).unwrap_or(rest.len()),
            _ => 1,
        };
        each(&rest[..end]);
        gap = &rest[end..];
    }
}

fn read(comment: &str, tags: &mut Vec<(String, String)>) {
    let mut rest = match comment.strip_prefix("/*") {
        Some(inner) => inner.strip_suffix("*/").unwrap_or(inner),
        None => comment.trim_start_matches('-'),
    };
    // A key is a word; what stands before it on the way to its `=` is prose.
    while let Some(at) = rest.find(['=', ':']) {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        let key =
            before.trim_end().rsplit([' ', '\t', '\n', '\r', ',', ';', '\'']).next().unwrap_or_default();
        let after = after.trim_start();
        let (value, behind) = match after.strip_prefix('\'') {
            Some(quoted) => until_quote(quoted),
            None => after.split_at(after.find([' ', '\t', '\n', '\r', ',', ';']).unwrap_or(after.len())),
        };
        if !key.is_empty() {
            tags.push((decoded(key), decoded(&value.replace("\\'", "'"))));
        }
        rest = behind;
    }
}

/// Up to a quote without a backslash, and what is behind it.
fn until_quote(text: &str) -> (&str, &str) {
    let quote = |(at, _): &(usize, &str)| !text[..*at].ends_with('\\');
    match text.match_indices('\'').find(quote) {
        Some((at, _)) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

/// sqlcommenter encodes keys and values as in URLs.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        let code =
            after.get(..2).filter(|_| byte == b'%').and_then(|digits| std::str::from_utf8(digits).ok());
        match code.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(decoded) => {
                bytes.push(decoded);
                rest = &after[2..];
            }
            None => {
                bytes.push(byte);
                rest = after;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(text: &str) -> Vec<(String, String)> {
        tags_of(text.as_bytes())
    }

    fn pairs(of: &[(&str, &str)]) -> Vec<(String, String)> {
        of.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn tags_are_read_in_all_common_spellings() {
        let cases: &[(&str, &[(&str, &str)])] = &[
            (
                "SELECT 1 /*action='%2Freports%20x',controller='reports'*/",
                &[("action", "/reports x"), ("controller", "reports")],
            ),
            (
                "/* controller=reports action=index */ SELECT 1",
                &[("controller", "reports"), ("action", "index")],
            ),
            ("/*application:shop,job:nightly*/ SELECT 1", &[("application", "shop"), ("job", "nightly")]),
            ("SELECT 1 -- job: nightly", &[("job", "nightly")]),
            ("SELECT 1 /* for the report, job=x; */", &[("job", "x")]),
            (r"SELECT 1 /*a='it\'s',b='c'*/", &[("a", "it's"), ("b", "c")]),
            ("SELECT /* a=1 */ 1 /* b=2 */", &[("a", "1"), ("b", "2")]),
            ("/* pgweir.route=primary, a=b */ SELECT 1", &[("pgweir.route", "primary"), ("a", "b")]),
            ("/* a=/* b=c */ */ SELECT 1", &[("a", "/*"), ("b", "c")]),
            ("SELECT 1 /*a=%zz%4*/", &[("a", "%zz%4")]),
        ];
        for (text, expected) in cases {
            assert_eq!(tags(text), pairs(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_comment_has_no_tags() {
        for text in
            ["SELECT '/* a=b */'", "SELECT $$/* a=b */$$", "SELECT \"/* a=b */\"", "SELECT 1 /* a=b", ""]
        {
            assert_eq!(tags(text), [], "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_confuses_it(text in "[-/*'=:%a ,\\\\\n]{0,40}") {
            tags(&text);
        }
    }
}
