//! One server connection and what is known of its session.

use crate::cluster::view::NodeLive;
use crate::moment::Moment;
use crate::net::stream::Stream;
use crate::net::worker::Worker;
use crate::node::NodeId;
use crate::session::prepared::ServerStatements;
use crate::session::settings::Settings;
use std::io;
use std::sync::Arc;

/// What a cancel request needs.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct BackendKey {
    /// Process id.
    pub pid: u32,
    /// Secret, 4 bytes in protocol 3.0.
    pub secret: Vec<u8>,
}

/// The parameters that a server reported at login, in its order.
pub type Parameters = Arc<Vec<(String, String)>>;

/// See the file's head.
#[derive(Debug)]
pub struct ServerConnection {
    /// The bytes.
    pub stream: Stream,
    /// To which node.
    pub node: NodeId,
    /// That node's live numbers.
    pub live: Arc<NodeLive>,
    /// Where the node was when it was made (`NodeLive::place`).
    pub place: u64,
    /// When the login was complete: samples sent before prove nothing for it.
    pub established: Moment,
    /// When it was last checked in.
    pub last_used: Moment,
    /// For cancel requests.
    pub key: Arc<BackendKey>,
    /// As reported at login.
    pub parameters: Parameters,
    /// The settings that its session carries.
    pub settings: Arc<Settings>,
    /// The statements it has prepared.
    pub statements: ServerStatements,
    /// On which worker's runtime its readiness is noticed.
    pub home: Worker,
    /// May it never be used again (a cancel request was on its way to it, its state is unknown)?
    pub tainted: bool,
}

impl ServerConnection {
    /// Moves it to the calling worker.
    pub fn settle(mut self: Box<Self>) -> io::Result<Box<ServerConnection>> {
        let here = Worker::current();
        if self.home == here || here == Worker::NONE {
            return Ok(self);
        }
        let moved = ServerConnection { stream: self.stream.settle()?, home: here, ..*self };
        self = Box::new(moved);
        Ok(self)
    }

    /// Does it lead to where its node is now? Else it may be another server's.
    pub fn is_in_place(&self) -> bool {
        self.live.place() == self.place
    }

    /// May it go back to its pool, as far as it is itself concerned?
    pub fn is_reusable(&self) -> bool {
        !self.tainted && !self.statements.distrusted && self.is_in_place()
    }
}
