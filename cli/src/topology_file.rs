//! Which topology a command means, and which directory belongs to it.

use crate::error::{CliError, io_error};
use crate::world::WorldDir;
use crate::world::dir::DEFAULT_DIR;
use crate::world::record::WorldRecord;
use farshore_types::topology::{Topology, VolumeSpec, nearest};
use std::path::{Path, PathBuf};

/// Two regions on one machine: the repository's own topology.
pub const DEFAULT_TOPOLOGY: &str = include_str!("../../topology.toml");
const HERE: &str = "topology.toml";
const SYSTEM: &str = "/etc/farshore/topology.toml";

/// `--topology` and `--dir`, on every verb that needs a world.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct WorldArgs {
    /// The declared world [default: ./topology.toml, /etc/farshore/topology.toml, the built-in one]
    #[arg(long, env = "FARSHORE_TOPOLOGY", value_name = "FILE")]
    pub topology: Option<PathBuf>,
    /// Where the world lives [default: `data_dir` of the topology, ./.farshore]
    #[arg(long, env = "FARSHORE_DIR", value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

/// A topology with the directory of its world.
#[derive(Clone, Debug)]
pub struct World {
    pub topology: Topology,
    pub dir: WorldDir,
}

impl WorldArgs {
    /// What is declared: for `up`, which compares it with what runs. Without a file, a world that is there declares itself.
    pub fn declared(&self) -> Result<World, CliError> {
        let Some(path) = self.file() else {
            let dir = self.dir_for(None);
            return match WorldRecord::load(&dir)? {
                Some(record) => Ok(World { topology: Topology::parse(&record.topology, dir.topology())?, dir }),
                None => Ok(World { topology: Topology::parse(DEFAULT_TOPOLOGY, "built-in topology")?, dir }),
            };
        };
        let topology = read(&path)?;
        let dir = self.dir_for(Some(&topology));
        Ok(World { topology, dir })
    }

    /// The world to talk to: a directory named without a topology is taken at its own word, whatever file lies here.
    pub fn running(&self) -> Result<World, CliError> {
        if let (None, Some(dir)) = (&self.topology, &self.dir) {
            let dir = WorldDir::new(dir);
            if let Some(record) = WorldRecord::load(&dir)? {
                return Ok(World { topology: Topology::parse(&record.topology, dir.topology())?, dir });
            }
        }
        self.declared()
    }

    /// The directory alone, for `down`.
    pub fn directory(&self) -> Result<WorldDir, CliError> {
        match &self.dir {
            Some(dir) => Ok(WorldDir::new(dir)),
            None => Ok(self.declared()?.dir),
        }
    }

    fn file(&self) -> Option<PathBuf> {
        let usual = || [HERE, SYSTEM].iter().map(PathBuf::from).find(|path| path.is_file());
        self.topology.clone().or_else(usual)
    }

    fn dir_for(&self, topology: Option<&Topology>) -> WorldDir {
        let declared = || topology.and_then(|topology| Some(topology.base_dir().join(topology.data_dir.as_ref()?)));
        // A world beside its topology is found from elsewhere too, if none is here.
        let beside = || {
            let beside = topology?.base_dir().join(DEFAULT_DIR);
            (!WorldDir::new(DEFAULT_DIR).exists() && WorldDir::new(&beside).exists()).then_some(beside)
        };
        WorldDir::new(self.dir.clone().or_else(declared).or_else(beside).unwrap_or_else(|| DEFAULT_DIR.into()))
    }
}

fn read(path: &Path) -> Result<Topology, CliError> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let error = io_error("read the topology", path, &error);
        CliError::usage(error.what, "name it with --topology or $FARSHORE_TOPOLOGY")
    })?;
    Ok(Topology::parse(&text, path)?)
}

impl World {
    /// The volume of this name; `None` means the only one.
    pub fn volume(&self, name: Option<&str>) -> Result<&VolumeSpec, CliError> {
        let volumes = self.topology.volumes();
        let Some(name) = name else { return Ok(volumes.first().expect("every topology has a volume")) };
        if name.starts_with("farshore://") {
            return Err(CliError::not_yet("volumes given as farshore://HOST:PORT/VOLUME"));
        }
        self.topology.volume(name).ok_or_else(|| {
            let names: Vec<&str> = volumes.iter().map(|volume| volume.name.as_str()).collect();
            unknown("volume", name, &names, &self.topology)
        })
    }

    /// Refuses a region that is not declared.
    pub fn region(&self, name: &str) -> Result<&farshore_types::topology::RegionSpec, CliError> {
        self.topology.region(name).ok_or_else(|| {
            let names: Vec<&str> = self.topology.regions().iter().map(|region| region.name.as_str()).collect();
            unknown("region", name, &names, &self.topology)
        })
    }
}

fn unknown(kind: &str, name: &str, names: &[&str], topology: &Topology) -> CliError {
    let mend = match nearest(name, names.iter().copied()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => format!("it declares: {}", names.join(", ")),
    };
    CliError::usage(format!("{} declares no {kind} {name:?}", topology.origin.display()), mend)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(topology: Option<&Path>, dir: Option<&Path>) -> WorldArgs {
        WorldArgs { topology: topology.map(Path::to_owned), dir: dir.map(Path::to_owned) }
    }

    #[test]
    fn a_directory_named_alone_is_taken_at_its_own_word() {
        let temp = tempfile::tempdir().unwrap();
        let dir = WorldDir::new(temp.path());
        let text = DEFAULT_TOPOLOGY.replace("name = \"demo\"", "name = \"mine\"");
        let topology = Topology::parse(&text, "t").unwrap();
        WorldRecord::draw(&topology, Default::default).save(&dir).unwrap();
        assert_eq!(args(None, Some(temp.path())).running().unwrap().topology.name, "mine");
        let file = temp.path().join("other.toml");
        std::fs::write(&file, DEFAULT_TOPOLOGY).unwrap();
        assert_eq!(args(Some(&file), Some(temp.path())).running().unwrap().topology.name, "demo");
    }

    #[test]
    fn what_is_not_declared_is_refused_with_the_nearest() {
        let temp = tempfile::tempdir().unwrap();
        let world = args(None, Some(temp.path())).declared().unwrap();
        assert_eq!(world.volume(None).unwrap().name, "demo");
        assert!(world.volume(Some("dem")).unwrap_err().mend.contains("\"demo\""));
        assert!(world.region("us-eats").unwrap_err().mend.contains("us-east"));
        assert!(world.volume(Some("farshore://h:1/v")).unwrap_err().what.contains("not available yet"));
        let missing = args(Some(Path::new("/nonexistent/t.toml")), None).declared().unwrap_err();
        assert_eq!(missing.exit, 2);
    }

    #[test]
    fn the_topology_s_data_dir_starts_at_its_file() {
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("t.toml");
        std::fs::write(&file, DEFAULT_TOPOLOGY.replace("format = 1", "format = 1\ndata_dir = \"./data\"")).unwrap();
        assert_eq!(args(Some(&file), None).declared().unwrap().dir.root(), temp.path().join("./data"));
    }
}
