//! A network of its own before a server, in a namespace of the kernel's: what goes over it can vanish, a SYN
//! too, without an answer to anybody, as when a switch or a machine dies. Needs root and `ip` (iproute2).
#![allow(dead_code, reason = "no test binary uses all of it")]

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::thread::{LinkNameSpaceType, gettid, move_into_link_name_space};

/// A packet that was lost is sent again within less.
const LONG: Duration = Duration::from_secs(10);

/// What vanishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Lost {
    pub to_server: bool,
    pub to_client: bool,
}

/// A cable between this namespace and another one. It goes with whoever has laid it, however that ends.
#[derive(Debug)]
pub struct Wires {
    near: Ipv4Addr,
    far: Ipv4Addr,
    /// The cable's end here.
    device: String,
    /// Runs `ip` in the other namespace.
    beyond: Option<Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

/// Words for `ip`, and where to say what came of it.
type Order = (Vec<String>, Sender<Result<(), String>>);

/// The cable's end there.
const FAR_DEVICE: &str = "far";
/// Nobody's: locally administered.
const NOBODY: &str = "02:00:00:00:00:01";

impl Wires {
    /// Lays one, and listens at its far end. Why not: it is not permitted here, or there is no `ip`.
    pub fn lay() -> Result<(Wires, TcpListener), String> {
        let (orders, ordered) = channel();
        let (listens, listening) = channel();
        let thread = std::thread::spawn(move || match settle() {
            Ok((wires, listener)) => {
                drop(listens.send(Ok((wires, listener))));
                obey(&ordered);
            }
            Err(error) => drop(listens.send(Err(error))),
        });
        let (mut wires, listener) = listening.recv().map_err(|error| error.to_string())??;
        (wires.beyond, wires.thread) = (Some(orders), Some(thread));
        for lost in [Lost { to_server: true, to_client: true }, Lost::default()] {
            wires.try_lose(lost)?;
        }
        // The first packet waits until both ends are up.
        let address = listener.local_addr().map_err(|error| error.to_string())?;
        TcpStream::connect_timeout(&address, LONG).map_err(|error| error.to_string())?;
        listener.accept().map_err(|error| error.to_string())?;
        Ok((wires, listener))
    }

    /// From now on this vanishes, and the rest arrives.
    pub fn lose(&self, lost: Lost) {
        self.try_lose(lost).unwrap();
    }

    fn try_lose(&self, lost: Lost) -> Result<(), String> {
        ip(&neighbour(self.far, &self.device, lost.to_server))?;
        let there = neighbour(self.near, FAR_DEVICE, lost.to_client);
        let (done, is_done) = channel();
        self.beyond.as_ref().unwrap().send((there, done)).unwrap();
        is_done.recv().unwrap()
    }
}

impl Drop for Wires {
    fn drop(&mut self) {
        self.beyond = None;
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
        drop(ip(&words(&format!("link del {}", self.device))));
    }
}

/// Where frames to an address go: to whoever answers for it, or to nobody.
fn neighbour(address: Ipv4Addr, device: &str, lost: bool) -> Vec<String> {
    words(&match lost {
        true => format!("neigh replace {address} lladdr {NOBODY} dev {device} nud permanent"),
        // Asked for anew.
        false => format!("neigh replace {address} lladdr {NOBODY} dev {device} nud failed"),
    })
}

/// Makes the namespace, and moves this thread there.
fn settle() -> Result<(Wires, TcpListener), String> {
    // Four addresses each of those that are kept for such things (RFC 2544): as unique as threads are that
    // live at the same time.
    let id = gettid().as_raw_nonzero().get().unsigned_abs();
    let first = u32::from(Ipv4Addr::new(198, 18, 0, 0)) + (id % (1 << 15)) * 4;
    let (near, far) = (Ipv4Addr::from(first + 1), Ipv4Addr::from(first + 2));
    let (device, namespace) = (format!("weir{id}"), format!("weir{id}"));
    ip(&words(&format!("netns add {namespace}")))?;
    let opened = File::open(format!("/run/netns/{namespace}")).map_err(|error| error.to_string());
    let laid = ip(&words(&format!("link add {device} type veth peer name {FAR_DEVICE} netns {namespace}")));
    let cable = laid.map(|()| Wires { near, far, device, beyond: None, thread: None });
    // The name is not needed any more; the namespace itself lasts as long as this thread and its sockets.
    ip(&words(&format!("netns del {namespace}")))?;
    let cable = cable?;
    let near_end =
        [format!("addr add {near}/30 dev {}", cable.device), format!("link set {} up", cable.device)];
    near_end.iter().try_for_each(|order| ip(&words(order)))?;
    let moved =
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&opened?), Some(LinkNameSpaceType::Network));
    moved.map_err(|error| error.to_string())?;
    let far_end = [format!("addr add {far}/30 dev {FAR_DEVICE}"), format!("link set {FAR_DEVICE} up")];
    far_end.iter().try_for_each(|order| ip(&words(order)))?;
    let listener = TcpListener::bind(SocketAddr::from((far, 0))).map_err(|error| error.to_string())?;
    Ok((cable, listener))
}

fn obey(orders: &Receiver<Order>) {
    while let Ok((order, done)) = orders.recv() {
        done.send(ip(&order)).unwrap();
    }
}

fn words(text: &str) -> Vec<String> {
    text.split(' ').map(str::to_owned).collect()
}

fn ip(arguments: &[String]) -> Result<(), String> {
    let output = Command::new("ip").args(arguments).output().map_err(|error| format!("ip: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
