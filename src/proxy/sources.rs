//! Settings of the nodes, and of those who know them, as the monitor wants them.

use crate::config::settings::{NodeSettings, PatroniSettings, Resolve, Verify};
use crate::monitor::{self, Addresses, basic_authorization};
use crate::net::tls::{ApiTls, ApiVerification, TlsError};

pub(super) fn node(node: &NodeSettings) -> monitor::NodeSettings {
    monitor::NodeSettings {
        name: node.name.clone(),
        host: node.host.clone(),
        port: node.port,
        weight: node.weight,
        zone: node.zone.clone(),
        tags: node.tags.clone(),
        addresses: match node.resolve {
            Resolve::One => Addresses::Any,
            Resolve::All => Addresses::Each,
        },
        found: false,
        without_reads: false,
    }
}

pub(super) fn patroni(patroni: &PatroniSettings) -> Result<monitor::PatroniSettings, TlsError> {
    let tls = match patroni.endpoints.iter().any(|endpoint| endpoint.encrypted) {
        false => None,
        true => Some(
            ApiTls {
                verification: match patroni.verify {
                    Verify::Full => ApiVerification::Host,
                    Verify::Ca => ApiVerification::Signer,
                    Verify::None => ApiVerification::Nothing,
                },
                ca: patroni.ca.clone(),
                identity: patroni.cert.clone().zip(patroni.key.clone()),
            }
            .load()?,
        ),
    };
    let authorization = patroni.user.as_ref().map(|user| {
        let password = patroni.password.as_ref().map_or("", |password| password.reveal());
        basic_authorization(user, password)
    });
    Ok(monitor::PatroniSettings {
        endpoints: patroni.endpoints.clone(),
        authorization,
        tls,
        interval: patroni.interval,
        timeout: patroni.timeout,
    })
}
