//! What the parameters of a Bind say, where they are settings.

use crate::sql::effects::{self, Effect, Slot};
use crate::wire::frontend::{Parameter, parameters};

/// OIDs of the types whose binary form is their text, and of "not said".
const TEXTS: [u32; 4] = [0, 25, 705, 1043];
const BOOL: u32 = 16;

/// The effects of a statement with these parameter types, executed with what stands behind the names
/// of this Bind.
pub fn bound(found: Vec<Effect>, types: &[u8], bind_rest: &[u8]) -> Vec<Effect> {
    if !found.iter().any(|effect| matches!(effect, Effect::SetConfig(_))) {
        return found;
    }
    let given = parameters(bind_rest).unwrap_or_default();
    effects::bound(found, &|number, slot| {
        let at = usize::from(number).checked_sub(1)?;
        let Parameter { binary, value } = given.get(at)?;
        let value = (*value)?;
        match slot {
            Slot::Text if TEXTS.contains(&type_of(types, at)) => String::from_utf8(value.to_vec()).ok(),
            Slot::Flag if [0, BOOL].contains(&type_of(types, at)) => flag(*binary, value).map(str::to_owned),
            Slot::Text | Slot::Flag => None,
        }
    })
}

/// The OID at `at` in a Parse's count and OIDs; 0: not said.
fn type_of(types: &[u8], at: usize) -> u32 {
    let start = 2 + at * 4;
    match types.get(start..start + 4) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    }
}

fn flag(binary: bool, value: &[u8]) -> Option<&'static str> {
    match (binary, value) {
        (true, [1]) | (false, b"t" | b"true" | b"1" | b"on") => Some("true"),
        (true, [0]) | (false, b"f" | b"false" | b"0" | b"off") => Some("false"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::effects::{PinReason, Scope, Value, effects_of};
    use crate::sql::lexer::Dialect;

    /// Formats, values, result formats, as a Bind has them.
    fn rest(formats: &[u16], values: &[Option<&[u8]>]) -> Vec<u8> {
        let mut out = (formats.len() as u16).to_be_bytes().to_vec();
        formats.iter().for_each(|format| out.extend(format.to_be_bytes()));
        out.extend((values.len() as u16).to_be_bytes());
        for value in values {
            out.extend(value.map_or(-1, |value| value.len() as i32).to_be_bytes());
            out.extend(value.unwrap_or_default());
        }
        out.extend([0, 0]);
        out
    }

    fn of(text: &str, types: &[u32], rest: &[u8]) -> Vec<Effect> {
        let mut oids = (types.len() as u16).to_be_bytes().to_vec();
        types.iter().for_each(|oid| oids.extend(oid.to_be_bytes()));
        bound(effects_of(text.as_bytes(), Dialect::STANDARD), &oids, rest)
    }

    #[test]
    fn settings_are_read_from_what_is_bound() {
        let set = |scope| [Effect::Set { name: "app.t".into(), value: Value::Config("7\\'".into()), scope }];
        let all = "SELECT set_config($1, $2, $3)";
        let values: [Option<&[u8]>; 3] = [Some(b"app.t"), Some(b"7\\'"), Some(b"t")];
        assert_eq!(of(all, &[], &rest(&[], &values)), set(Scope::Local));
        let binary: [Option<&[u8]>; 3] = [values[0], values[1], Some(&[0])];
        assert_eq!(of(all, &[25, 1043, 16], &rest(&[1], &binary)), set(Scope::Session));
        assert_eq!(of(all, &[25, 1043, 16], &rest(&[0, 0, 1], &binary)), set(Scope::Session));
        let (unknown, unread) =
            ([Effect::Pin(PinReason::UnknownSetting)], [Effect::SetUnread("app.t".into())]);
        // An integer in binary, NULL, one too few, and nonsense.
        assert_eq!(of("SELECT set_config($1, $2::text, false)", &[25, 23], &rest(&[], &values)), unread);
        assert_eq!(of("SELECT set_config($1, $2, false)", &[], &rest(&[], &[values[0], None])), unread);
        assert_eq!(of(all, &[], &rest(&[], &values[..2])), unknown);
        assert_eq!(of(all, &[], &[0, 9]), unknown);
        assert_eq!(of("SELECT set_config($1, $2, true)", &[], &[]), [Effect::SetLocalUnknown]);
    }
}
