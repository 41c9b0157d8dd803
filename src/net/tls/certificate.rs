//! The two things that we read in a certificate ourselves: its subject's common name and its dates.
//!
//! A walk over DER, bounded by the certificate's own length, without recursion. What it is asked about
//! has passed (or does not need) webpki's checks; what it cannot read it does not guess.

use rustls_pki_types::CertificateDer;
use tokio_rustls::rustls::{CertificateError, Error};

/// UTF8String, PrintableString, IA5String.
const TEXT_TAGS: &[u8] = &[0x0c, 0x13, 0x16];
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const OBJECT_IDENTIFIER: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const EXPLICIT_VERSION: u8 = 0xa0;
/// 2.5.4.3
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The subject's common name; `None` if there is none, more than one, or one that is not plain text.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let mut subject = fields(certificate)?.subject;
    let mut found = None;
    while !subject.is_empty() {
        let mut attributes = expect(&mut subject, SET)?;
        while !attributes.is_empty() {
            let mut attribute = expect(&mut attributes, SEQUENCE)?;
            if expect(&mut attribute, OBJECT_IDENTIFIER)? != COMMON_NAME {
                continue;
            }
            let (tag, value) = element(&mut attribute)?;
            let text = std::str::from_utf8(value).ok()?;
            let plain = TEXT_TAGS.contains(&tag) && !text.is_empty() && !text.contains('\0');
            if !plain || found.replace(text).is_some() {
                return None;
            }
        }
    }
    found.map(str::to_owned)
}

/// Is `now` (seconds since 1970) between the certificate's dates?
pub(super) fn check_validity(certificate: &CertificateDer<'_>, now: u64) -> Result<(), Error> {
    let bad = || Error::InvalidCertificate(CertificateError::BadEncoding);
    let mut validity = fields(certificate).ok_or_else(bad)?.validity;
    let not_before = time(&mut validity).ok_or_else(bad)?;
    let not_after = time(&mut validity).ok_or_else(bad)?;
    if now < not_before {
        return Err(Error::InvalidCertificate(CertificateError::NotValidYet));
    }
    if now > not_after {
        return Err(Error::InvalidCertificate(CertificateError::Expired));
    }
    Ok(())
}

struct Fields<'a> {
    validity: &'a [u8],
    subject: &'a [u8],
}

/// Certificate → TBSCertificate → version? serial signature issuer validity subject (RFC 5280, 4.1).
fn fields<'a>(certificate: &'a CertificateDer<'_>) -> Option<Fields<'a>> {
    let mut outer: &'a [u8] = certificate.as_ref();
    let mut signed = expect(&mut outer, SEQUENCE)?;
    let mut body = expect(&mut signed, SEQUENCE)?;
    if body.first() == Some(&EXPLICIT_VERSION) {
        element(&mut body)?;
    }
    element(&mut body)?;
    expect(&mut body, SEQUENCE)?;
    expect(&mut body, SEQUENCE)?;
    let validity = expect(&mut body, SEQUENCE)?;
    let subject = expect(&mut body, SEQUENCE)?;
    Some(Fields { validity, subject })
}

fn expect<'a>(input: &mut &'a [u8], tag: u8) -> Option<&'a [u8]> {
    element(input).and_then(|(found, value)| (found == tag).then_some(value))
}

/// Cuts the next element off: its tag and its value.
fn element<'a>(input: &mut &'a [u8]) -> Option<(u8, &'a [u8])> {
    let (&tag, rest) = input.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81 => {
            let (&byte, rest) = rest.split_first()?;
            (usize::from(byte), rest)
        }
        0x82 => {
            let (bytes, rest) = rest.split_first_chunk::<2>()?;
            (usize::from(u16::from_be_bytes(*bytes)), rest)
        }
        // A certificate of 64 KiB and more, or lengths that DER does not know.
        _ => return None,
    };
    let (value, rest) = rest.split_at_checked(length)?;
    *input = rest;
    Some((tag, value))
}

/// UTCTime `YYMMDDhhmmssZ` or GeneralizedTime `YYYYMMDDhhmmssZ` as seconds since 1970.
fn time(input: &mut &[u8]) -> Option<u64> {
    let (tag, value) = element(input)?;
    let digits = value.strip_suffix(b"Z")?;
    let (year, rest) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(&digits[..2])?;
            (if year < 50 { 2000 + year } else { 1900 + year }, &digits[2..])
        }
        (GENERALIZED_TIME, 14) => (number(&digits[..4])?, &digits[4..]),
        _ => return None,
    };
    let mut parts = [0u64; 5];
    for (part, pair) in parts.iter_mut().zip(rest.chunks_exact(2)) {
        *part = number(pair)?;
    }
    let [month, day, hour, minute, second] = parts;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    Some(days_since_1970(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second)
}

/// Years begin in March here, so that the leap day is the last; days before 1970 count as 0.
fn days_since_1970(year: u64, month: u64, day: u64) -> u64 {
    let (year, month) = if month > 2 { (year, month - 3) } else { (year.saturating_sub(1), month + 9) };
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1;
    days.saturating_sub(719_468)
}

fn number(digits: &[u8]) -> Option<u64> {
    let digit = |b: &u8| b.is_ascii_digit().then(|| u64::from(b - b'0'));
    digits.iter().try_fold(0, |sum, b| digit(b).map(|digit| sum * 10 + digit))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_seconds_since_1970() {
        for (tag, text, expected) in [
            (UTC_TIME, "700101000000Z", Some(0)),
            (UTC_TIME, "240229120000Z", Some(1_709_208_000)),
            (GENERALIZED_TIME, "20500101000000Z", Some(2_524_608_000)),
            (GENERALIZED_TIME, "19000101000000Z", Some(0)),
            (UTC_TIME, "241301000000Z", None),
            (UTC_TIME, "24010100000Z", None),
            (UTC_TIME, "2x0101000000Z", None),
        ] {
            let mut der = vec![tag, u8::try_from(text.len()).unwrap_or(0)];
            der.extend_from_slice(text.as_bytes());
            assert_eq!(time(&mut der.as_slice()), expected, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let certificate = CertificateDer::from(bytes);
            common_name(&certificate);
            let _outcome = check_validity(&certificate, 0);
        }
    }
}
