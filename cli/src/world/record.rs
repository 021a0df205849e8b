//! `world.json`: which world a directory belongs to, and the ids that were drawn for it once.
//!
//! Ids are drawn before anything is started, so that an `up` which was cut short goes on with the same ones.

use super::dir::{WorldDir, write_durably};
use crate::error::{CliError, io_error};
use farshore_types::Uuid;
use farshore_types::topology::{NodeSpec, RegionSpec, Topology};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::ErrorKind;

const MAGIC: &str = "farshore-world";
const VERSION: u32 = 1;
/// Lines of difference that an error shows at most.
const DIFFERENCE_LINES_MAX: usize = 20;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorldRecord {
    magic: String,
    version: u32,
    pub name: String,
    /// 32 hexadecimal digits, as all ids here.
    pub world: String,
    pub volumes: BTreeMap<String, VolumeIds>,
    pub topology: String,
    /// Regions whose cluster was made: never again, lest nodes that are all new become a second one beside it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    founded: Vec<String>,
    /// CRC-32C of the JSON of this record with 0 here.
    checksum: u32,
}

/// What a file declares other than the running world.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    Nodes,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeIds {
    pub uuid: String,
    /// By region: the uuid in the bucket's identity object.
    pub buckets: BTreeMap<String, String>,
}

impl WorldRecord {
    /// A record with fresh ids out of `draw`.
    pub fn draw(topology: &Topology, mut draw: impl FnMut() -> Uuid) -> WorldRecord {
        let world = draw().to_string();
        let mut volumes = BTreeMap::new();
        for volume in topology.volumes() {
            let buckets = topology.regions().iter().map(|region| (region.name.clone(), draw().to_string())).collect();
            volumes.insert(volume.name.clone(), VolumeIds { uuid: draw().to_string(), buckets });
        }
        let (magic, name, topology) = (MAGIC.to_owned(), topology.name.clone(), topology.text.clone());
        let founded = Vec::new();
        let mut record = WorldRecord { magic, version: VERSION, name, world, volumes, topology, founded, checksum: 0 };
        record.checksum = record.sum();
        record
    }

    /// Whether the region's cluster was made.
    pub fn is_founded(&self, region: &str) -> bool {
        self.founded.iter().any(|name| name == region)
    }

    /// The clusters of all regions are made; whether that is news.
    pub fn found_all(&mut self, topology: &Topology) -> bool {
        let all: Vec<String> = topology.regions().iter().map(|region| region.name.clone()).collect();
        if self.founded == all {
            return false;
        }
        self.founded = all;
        self.checksum = self.sum();
        true
    }

    /// Takes over what the file declares now; [`WorldRecord::change`] has said what that is.
    pub fn declare(&mut self, topology: &Topology) {
        self.topology.clone_from(&topology.text);
        self.checksum = self.sum();
    }

    /// The uuid of a volume, and those of its buckets by region.
    pub fn ids(&self, volume: &str) -> Option<(Uuid, BTreeMap<&str, Uuid>)> {
        let ids = self.volumes.get(volume)?;
        let buckets = ids.buckets.iter().map(|(region, id)| Some((region.as_str(), Uuid::parse(id)?)));
        Some((Uuid::parse(&ids.uuid)?, buckets.collect::<Option<_>>()?))
    }

    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain data always serialises") + "\n"
    }

    pub fn from_json(text: &str) -> Result<WorldRecord, String> {
        let record: WorldRecord = serde_json::from_str(text).map_err(|error| format!("it is no world's record: {error}"))?;
        if record.magic != MAGIC || record.version != VERSION {
            return Err(format!("it says {} version {}; this version reads {MAGIC} {VERSION}", record.magic, record.version));
        }
        if record.checksum != record.sum() {
            return Err("its checksum does not match: it was changed or is damaged".to_owned());
        }
        Ok(record)
    }

    /// The record of the world in `dir`; `None` when none lives there.
    pub fn load(dir: &WorldDir) -> Result<Option<WorldRecord>, CliError> {
        let path = dir.record();
        match std::fs::read_to_string(&path) {
            Ok(text) => WorldRecord::from_json(&text).map(Some).map_err(|why| {
                CliError::failed(format!("cannot use {}: {why}", path.display()), "name another --dir, or bring the file back")
            }),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(io_error("read", &path, &error)),
        }
    }

    pub fn save(&self, dir: &WorldDir) -> Result<(), CliError> {
        let write = |path: &std::path::Path, text: &str| {
            write_durably(path, text.as_bytes(), 0o600).map_err(|error| io_error("write", path, &error))
        };
        write(&dir.topology(), &self.topology)?;
        write(&dir.record(), &self.to_json())
    }

    /// What the file declares other than the running world: nodes at most. Another world's directory is refused, and so is
    /// every other change.
    pub fn change(&self, dir: &WorldDir, topology: &Topology) -> Result<Change, CliError> {
        if self.name != topology.name {
            let what = format!(
                "{} holds the world {:?}, and the topology declares {:?}",
                dir.root().display(),
                self.name,
                topology.name
            );
            return Err(CliError::usage(what, "name the other world's topology with --topology, or another --dir"));
        }
        let running = Topology::parse(&self.topology, dir.topology())?;
        let same =
            running.volumes() == topology.volumes() && (running.console, running.raft) == (topology.console, topology.raft);
        if same && running.regions() == topology.regions() {
            return Ok(Change::None);
        }
        if same && nodes_alone_differ(running.regions(), topology.regions()) {
            return Ok(Change::Nodes);
        }
        let what = format!(
            "{} has changed since the world {:?} in {} began",
            topology.origin.display(),
            self.name,
            dir.root().display()
        );
        let mend = "nodes may come and go, one at least stays in each region, and none changes its address; changing more of a world is \
                    not available yet: bring the file back, or begin anew (`farshore down --purge`). The difference:";
        Err(CliError::usage(what, format!("{mend}\n{}", difference(&self.topology, &topology.text))))
    }

    fn sum(&self) -> u32 {
        let mut plain = self.clone();
        plain.checksum = 0;
        crc32c::crc32c(&serde_json::to_vec(&plain).expect("plain data always serialises"))
    }
}

/// Whether regions differ only in which nodes they have.
fn nodes_alone_differ(old: &[RegionSpec], new: &[RegionSpec]) -> bool {
    let like = |old: &RegionSpec, new: &RegionSpec| {
        let stays = |node: &NodeSpec| new.nodes.iter().find(|other| other.name == node.name);
        let kept: Vec<_> = old.nodes.iter().filter_map(|node| Some((node, stays(node)?))).collect();
        let rest = RegionSpec { nodes: old.nodes.clone(), ..new.clone() };
        rest == *old && !kept.is_empty() && kept.iter().all(|(node, stays)| *node == *stays)
    };
    old.len() == new.len() && old.iter().zip(new).all(|(old, new)| like(old, new))
}

/// Lines that only one of two texts has.
fn difference(old: &str, new: &str) -> String {
    let only = |mark: &str, these: &str, others: &str| -> Vec<String> {
        let missing = these.lines().filter(|line| !line.trim().is_empty() && !others.lines().any(|other| other == *line));
        missing.map(|line| format!("{mark} {line}")).collect()
    };
    let mut lines = only("-", old, new);
    lines.extend(only("+", new, old));
    let more = lines.len().saturating_sub(DIFFERENCE_LINES_MAX);
    lines.truncate(DIFFERENCE_LINES_MAX);
    if more > 0 {
        lines.push(format!("and {more} more lines"));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = include_str!("../../../topology.toml");

    fn record() -> WorldRecord {
        let mut next = 0;
        WorldRecord::draw(&Topology::parse(TEXT, "t").unwrap(), || {
            next += 1;
            Uuid([next; 16])
        })
    }

    #[test]
    fn law_26_golden_record() {
        let record = WorldRecord { topology: "x".into(), ..record() };
        let json = serde_json::to_string(&WorldRecord { checksum: record.sum(), ..record }).unwrap();
        let golden = concat!(
            r#"{"magic":"farshore-world","version":1,"name":"demo","world":"01010101010101010101010101010101","#,
            r#""volumes":{"demo":{"uuid":"04040404040404040404040404040404","buckets":{"eu-west":"03030303030303030303030303030303","#,
            r#""us-east":"02020202020202020202020202020202"}}},"topology":"x","checksum":"#
        );
        assert_eq!(json.rsplit_once(':').unwrap().0.to_owned() + ":", golden);
        WorldRecord::from_json(&json).unwrap();
        assert!(WorldRecord::from_json(&json.replace("\"x\"", "\"y\"")).unwrap_err().contains("checksum"));
        assert!(WorldRecord::from_json(&json.replace("\"version\":1", "\"version\":2")).unwrap_err().contains("version 2"));
        assert!(WorldRecord::from_json("{").is_err());
    }

    #[test]
    fn it_is_kept_and_its_ids_are_ids() {
        let dir = tempfile::tempdir().unwrap();
        let world = WorldDir::new(dir.path());
        assert_eq!(WorldRecord::load(&world).unwrap(), None);
        let record = record();
        record.save(&world).unwrap();
        assert_eq!(WorldRecord::load(&world).unwrap(), Some(record.clone()));
        assert_eq!(record.ids("demo").unwrap().1["eu-west"], Uuid([3; 16]));
        assert!(record.ids("other").is_none());
    }

    #[test]
    fn a_changed_topology_is_refused_with_the_difference_and_a_changed_comment_is_not() {
        let world = WorldDir::new("/w");
        let parse = |text: &str| Topology::parse(text, "t.toml").unwrap();
        assert_eq!(record().change(&world, &parse(&TEXT.replace("# Two regions", "# 2 regions"))).unwrap(), Change::None);
        let error = record().change(&world, &parse(&TEXT.replace("rpo_data = \"10s\"", "rpo_data = \"20s\""))).unwrap_err();
        assert!(
            error.mend.contains("+ mirrors") && error.mend.contains("\"20s\"") && error.mend.contains("- mirrors"),
            "{error}"
        );
        let error = record().change(&world, &parse(&TEXT.replace("name = \"demo\"", "name = \"other\""))).unwrap_err();
        assert!(error.what.contains("\"demo\"") && error.what.contains("\"other\""), "{error}");
    }

    #[test]
    fn nodes_may_come_and_go_but_not_all_at_once_and_not_move() {
        let world = WorldDir::new("/w");
        let change = |edits: &[(&str, &str)]| {
            let text = edits.iter().fold(TEXT.to_owned(), |text, (old, new)| text.replace(old, new));
            record().change(&world, &Topology::parse(&text, "t.toml").unwrap())
        };
        let (b, d) = ("\"use-b\", listen = \"127.0.0.1:7412\"", "\"use-d\", listen = \"127.0.0.1:7414\"");
        assert_eq!(change(&[(b, d)]).unwrap(), Change::Nodes);
        let all = [("\"use-a\"", "\"use-x\""), ("\"use-b\"", "\"use-y\""), ("\"use-c\"", "\"use-z\"")];
        assert_eq!(change(&all[..2]).unwrap(), Change::Nodes);
        assert!(change(&all).unwrap_err().mend.contains("one at least stays"));
        assert!(change(&[("127.0.0.1:7412", "127.0.0.1:7414")]).unwrap_err().mend.contains("changes its address"));
    }

    #[test]
    fn a_cluster_is_made_once() {
        let topology = Topology::parse(TEXT, "t").unwrap();
        let mut record = record();
        assert!(!record.is_founded("us-east"));
        assert!(record.found_all(&topology) && !record.found_all(&topology));
        let again = WorldRecord::from_json(&record.to_json()).unwrap();
        assert!(again.is_founded("us-east") && again.is_founded("eu-west") && !again.is_founded("ap"));
    }
}
