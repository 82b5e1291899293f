//! Ports that stay free until they are used, also across test processes that run at the same time.
//!
//! A port that the kernel picks for `bind(0)` comes from the range from which it also serves outgoing
//! connections: between two starts of a server any of those can take it. So ports are taken from below that
//! range, and the kernel is asked whether they are free.

use std::collections::HashSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::{Mutex, PoisonError};

/// Port of a server on 127.0.0.1, reserved for as long as this lives, whether or not the server runs.
///
/// The reservation is a listener on the same port of another loopback address, where no server of ours listens:
/// test processes see each other's, and the kernel releases it when its process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Port {
    number: u16,
    _reservation: TcpListener,
}

const RESERVATIONS: Ipv4Addr = Ipv4Addr::new(127, 77, 0, 1);
const LOWEST: u16 = 15_000;
const ATTEMPTS: usize = 1_000;

/// What this process has already been given by [`free_port`].
static GIVEN: Mutex<Option<HashSet<u16>>> = Mutex::new(None);

/// A TCP port on which nothing listens, on any address, and which the kernel gives to no outgoing connection.
///
/// Never twice the same in one process. Another process may take it before it is used: be ready to try again.
/// Panics when 1,000 ports in a row are in use.
pub fn free_port() -> u16 {
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let given = given.get_or_insert_with(HashSet::new);
    for _ in 0..ATTEMPTS {
        let port = candidate();
        if !given.contains(&port) && TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok() {
            given.insert(port);
            return port;
        }
    }
    panic!("no free port below {} after {ATTEMPTS} attempts", highest());
}

// === impl Port ===

impl Port {
    pub(crate) fn reserve() -> Self {
        for _ in 0..ATTEMPTS {
            let number = free_port();
            match TcpListener::bind((RESERVATIONS, number)) {
                Ok(reservation) => return Self { number, _reservation: reservation },
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => panic!("cannot reserve port {number} on {RESERVATIONS}: {error}"),
            }
        }
        panic!("no port could be reserved after {ATTEMPTS} attempts");
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}

fn candidate() -> u16 {
    fastrand::u16(LOWEST..highest())
}

/// One above the last port to use: the start of the kernel's range for outgoing connections, 32768 on Linux.
fn highest() -> u16 {
    std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range")
        .ok()
        .and_then(|range| range.split_whitespace().next()?.parse().ok())
        .filter(|lowest| *lowest > LOWEST + 1_000)
        .unwrap_or(32_768)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reserved_port_is_given_to_nobody_else_and_can_be_listened_on() {
        let port = Port::reserve();
        assert!(TcpListener::bind((Ipv4Addr::UNSPECIFIED, port.number)).is_err());
        assert!(TcpListener::bind(port.addr()).is_ok());
    }
}
