//! The topologies of worlds: two regions on ports that are free.

use crate::WorldOptions;
use crate::world::{MIRROR, PRIMARY};
use std::net::TcpListener;
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports that nobody listens on now. All are held until all are known, so that no two are equal.
fn free_ports(count: usize) -> Vec<u16> {
    // Below the ports of outgoing connections, of which one may otherwise sit on the port of a node that was killed.
    let start = 12_000 + std::process::id() as u16 % 10_000;
    let mut held: Vec<TcpListener> = vec![];
    for port in start..start + 10_000 {
        if held.len() == count {
            break;
        }
        held.extend(TcpListener::bind(("127.0.0.1", port)).ok());
    }
    assert_eq!(held.len(), count, "so many ports are free");
    held.iter().map(|listener| listener.local_addr().expect("a bound socket has an address").port()).collect()
}

/// A port for a node that comes later: from above those of the topologies, each only once in this process.
pub(crate) fn spare_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = 23_000 + std::process::id() as u16 % 4_000;
    loop {
        let port = start + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A topology of two regions on free ports.
pub(crate) fn made(options: WorldOptions) -> String {
    let mut ports = free_ports(3 + 4 * options.nodes).into_iter();
    let mut port = || ports.next().expect("as many ports as listeners");
    let mut text = format!("format = 1\nname = \"live\"\n[console]\nlisten = \"127.0.0.1:{}\"\n", port());
    for (region, short) in [(PRIMARY, "use"), (MIRROR, "euw")] {
        text.push_str(&format!("[region.{region}]\nnodes = [\n"));
        for letter in ["a", "b", "c"].iter().take(options.nodes) {
            let (listen, metrics) = (port(), port());
            text.push_str(&format!(
                "  {{ name = \"{short}-{letter}\", listen = \"127.0.0.1:{listen}\", metrics = \"127.0.0.1:{metrics}\" }},\n"
            ));
        }
        text.push_str(&format!("]\nbucket = {{ url = \"embedded://{region}\", listen = \"127.0.0.1:{}\" }}\n", port()));
    }
    text.push_str(RAFT);
    text.push_str(&format!(
        "[volume.demo]\ninitial_primary = \"{PRIMARY}\"\nblock_size = \"{}\"\nmirrors = {{ {MIRROR} = {{ }} }}\n",
        options.block_size
    ));
    text
}

/// Elections of a debug build, on a machine that runs other tests beside.
const RAFT: &str = "[raft]\nheartbeat = \"200ms\"\nelection_timeout = { min = \"1000ms\", max = \"2000ms\" }\n";

/// The topology that is shipped, on free ports, with slower elections, with the first `nodes` of each region's nodes.
pub(crate) fn shipped(nodes: usize) -> String {
    let text = slower(include_str!("../../../topology.toml"));
    let spare = ["a\"", "b\"", "c\""].iter().skip(nodes).map(|end| format!("-{end}")).collect::<Vec<_>>();
    let is_spare = |line: &&str| line.contains("{ name =") && spare.iter().any(|end| line.contains(end.as_str()));
    let kept = text.lines().filter(|line| !is_spare(line)).collect::<Vec<_>>().join("\n");
    let mut parts = kept.split("127.0.0.1:");
    let first = parts.next().expect("a split has a first part").to_owned();
    let parts: Vec<&str> = parts.map(|part| part.trim_start_matches(|letter: char| letter.is_ascii_digit())).collect();
    let ports = free_ports(parts.len());
    parts.iter().zip(ports).fold(first, |text, (part, port)| format!("{text}127.0.0.1:{port}{part}"))
}

/// With the times of [`RAFT`].
fn slower(text: &str) -> String {
    let of = |key: &str| RAFT.lines().find(|line| line.starts_with(key)).expect("it names them all");
    let line = |line: &str| ["heartbeat", "election_timeout"].into_iter().find(|key| line.starts_with(key)).map(of);
    text.lines().map(|this| line(this).unwrap_or(this)).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topology_has_a_port_of_its_own_for_everything() {
        let text = made(WorldOptions::default());
        let ports: Vec<&str> = text.split("127.0.0.1:").skip(1).map(|rest| rest.split('"').next().unwrap()).collect();
        assert_eq!(ports.len(), 15);
        assert_eq!(ports.iter().collect::<std::collections::BTreeSet<_>>().len(), 15, "{text}");
        assert!(text.contains("block_size = \"4MiB\""));
    }

    #[test]
    fn the_shipped_topology_is_shipped_but_for_its_ports_and_nodes() {
        let without_digits = |text: &str| text.replace(|letter: char| letter.is_ascii_digit(), "");
        let original = include_str!("../../../topology.toml");
        let three = shipped(3);
        assert_eq!(without_digits(&three), without_digits(original.trim_end()));
        assert!(!three.contains(":7400"), "the shipped ports may be in use");
        assert!(three.contains(RAFT), "and its elections are slower");
        let one = shipped(1);
        assert_eq!(one.matches("{ name =").count(), 2, "{one}");
        assert!(one.contains("use-a") && one.contains("euw-a"));
    }
}
