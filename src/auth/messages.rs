//! Writers for the Authentication* messages ('R') to clients, and for the 'p' messages to servers.

/// AuthenticationOk.
pub const OK: u32 = 0;
/// AuthenticationCleartextPassword.
pub const CLEARTEXT_PASSWORD: u32 = 3;
/// AuthenticationMD5Password.
pub const MD5_PASSWORD: u32 = 5;
/// AuthenticationSASL.
pub const SASL: u32 = 10;
/// AuthenticationSASLContinue.
pub const SASL_CONTINUE: u32 = 11;
/// AuthenticationSASLFinal.
pub const SASL_FINAL: u32 = 12;

/// An Authentication message: `code`, then `data`.
pub fn write_authentication(out: &mut Vec<u8>, code: u32, data: &[u8]) {
    write_frame(out, b'R', &[&code.to_be_bytes(), data]);
}

/// AuthenticationSASL with its list of mechanisms.
pub fn write_sasl(out: &mut Vec<u8>, mechanisms: &[&str]) {
    let mut list = Vec::new();
    for name in mechanisms {
        list.extend_from_slice(name.as_bytes());
        list.push(0);
    }
    list.push(0);
    write_authentication(out, SASL, &list);
}

/// PasswordMessage: `password` and a NUL.
pub fn write_password(out: &mut Vec<u8>, password: &[u8]) {
    write_frame(out, b'p', &[password, b"\0"]);
}

/// SASLInitialResponse.
pub fn write_sasl_initial_response(out: &mut Vec<u8>, mechanism: &str, data: &[u8]) {
    write_frame(out, b'p', &[mechanism.as_bytes(), b"\0", &length(data.len()), data]);
}

/// SASLResponse.
pub fn write_sasl_response(out: &mut Vec<u8>, data: &[u8]) {
    write_frame(out, b'p', &[data]);
}

fn write_frame(out: &mut Vec<u8>, kind: u8, parts: &[&[u8]]) {
    let body: usize = parts.iter().map(|part| part.len()).sum();
    out.reserve(body + 5);
    out.push(kind);
    out.extend_from_slice(&length(body + 4));
    for part in parts {
        out.extend_from_slice(part);
    }
}

/// Everything written here is bounded (secrets, SCRAM messages) far below 4 GiB.
fn length(bytes: usize) -> [u8; 4] {
    u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_as_the_protocol_has_them() {
        let mut out = Vec::new();
        write_authentication(&mut out, OK, b"");
        assert_eq!(out, b"R\0\0\0\x08\0\0\0\0");
        out.clear();
        write_sasl(&mut out, &["SCRAM-SHA-256"]);
        assert_eq!(out, b"R\0\0\0\x17\0\0\0\x0aSCRAM-SHA-256\0\0");
        out.clear();
        write_password(&mut out, b"secret");
        assert_eq!(out, b"p\0\0\0\x0bsecret\0");
        out.clear();
        write_sasl_initial_response(&mut out, "M", b"xy");
        assert_eq!(out, b"p\0\0\0\x0cM\0\0\0\0\x02xy");
    }
}
