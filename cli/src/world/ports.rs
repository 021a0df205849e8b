//! Addresses of the topology that something else holds; and free ones for worlds of their own.

use crate::error::CliError;
use farshore_types::topology::{Listener, Topology, TopologyError};
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};

/// Ports for worlds of their own: below those that Linux gives to outgoing connections, of which one may otherwise sit on
/// a listener's port while its process is down.
const DRAWN: std::ops::Range<u16> = 12_000..32_000;

/// Refuses the first address that cannot be listened on. Listeners of processes that run already are skipped.
pub fn check_free(topology: &Topology, runs: impl Fn(&str) -> bool) -> Result<(), CliError> {
    topology.listeners().iter().filter(|listener| !runs(&listener.process)).try_for_each(check)
}

fn check(listener: &Listener) -> Result<(), CliError> {
    let Listener { key, process, address } = listener;
    match TcpListener::bind(address) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            let what =
                format!("`{key}`: port {} is held by something else ({process} is to listen on {address})", address.port());
            let mend = format!("stop what holds it (`ss -ltnp 'sport = :{}'` names it), or change the key", address.port());
            Err(CliError::failed(what, mend))
        }
        Err(error) => {
            let what = format!("`{key}`: {process} cannot listen on {address}: {error}");
            Err(CliError::failed(what, "change the key to an address of this machine"))
        }
    }
}

/// The same world on ports that are free now: for a demonstration beside other worlds.
pub fn on_free_ports(topology: &Topology) -> Result<Topology, TopologyError> {
    // All are held until all are drawn, so that none is drawn twice.
    let mut held: Vec<TcpListener> = Vec::new();
    let mut next = DRAWN.start + std::process::id() as u16 % (DRAWN.end - DRAWN.start);
    topology.readdressed(|old| {
        for _ in DRAWN {
            next = if next + 1 < DRAWN.end { next + 1 } else { DRAWN.start };
            let address = SocketAddr::new(old.ip(), next);
            if let Ok(listener) = TcpListener::bind(address) {
                held.push(listener);
                return address;
            }
        }
        old
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_held_port_is_named_with_its_key_and_our_own_process_is_no_obstacle() {
        let topology = Topology::parse(include_str!("../../../topology.toml"), "t").unwrap();
        let topology = on_free_ports(&topology).unwrap();
        check_free(&topology, |_| false).unwrap();
        let address = topology.node("euw-b").unwrap().node.listen;
        let _held = TcpListener::bind(address).unwrap();
        let error = check_free(&topology, |_| false).unwrap_err();
        assert!(error.what.contains("region.eu-west.nodes[1].listen"), "{error}");
        assert!(error.what.contains(&address.port().to_string()) && !error.mend.is_empty(), "{error}");
        check_free(&topology, |name| name == "euw-b").unwrap();
    }
}
