//! Keys of buckets (law 31): generated ones live in `secrets/`, readable by the owner only.

use super::dir::{WorldDir, write_durably};
use crate::error::{CliError, io_error};
use farshore_objects::Credentials;
use farshore_types::topology::{self, RegionSpec, Topology};
use rand::Rng;

const ACCESS_LENGTH: usize = 20;
const SECRET_LENGTH: usize = 40;

/// Draws a key pair for an embedded bucket, unless it has one.
pub fn ensure(dir: &WorldDir, region: &str) -> Result<(), CliError> {
    let path = dir.secret(region);
    if path.exists() {
        return Ok(());
    }
    let json = serde_json::json!({ "access_key": draw(ACCESS_LENGTH), "secret_key": draw(SECRET_LENGTH) });
    write_durably(&path, format!("{json}\n").as_bytes(), 0o600).map_err(|error| io_error("write", &path, &error))
}

/// The keys of a region's bucket, from wherever the topology says.
pub fn of_region(dir: &WorldDir, topology: &Topology, region: &RegionSpec) -> Result<Credentials, CliError> {
    let read = match &region.bucket.credentials {
        topology::Credentials::Generated => Credentials::from_file(&dir.secret(&region.name)),
        topology::Credentials::File(path) => Credentials::from_file(&topology.base_dir().join(path)),
        topology::Credentials::Env(prefix) => Credentials::from_env(prefix),
    };
    read.map_err(|error| {
        let mend = match &region.bucket.credentials {
            topology::Credentials::Generated => {
                "name the world's directory with --dir or $FARSHORE_DIR; `farshore up` makes the keys"
            }
            _ => "see `credentials` of the bucket in the topology",
        };
        CliError::failed(format!("no keys for the bucket of {}: {error}", region.name), mend)
    })
}

fn draw(length: usize) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..length).map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn law_31_keys_are_drawn_once_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let world = WorldDir::new(dir.path());
        world.create().unwrap();
        ensure(&world, "us-east").unwrap();
        let first = std::fs::read_to_string(world.secret("us-east")).unwrap();
        ensure(&world, "us-east").unwrap();
        assert_eq!(std::fs::read_to_string(world.secret("us-east")).unwrap(), first);
        assert_eq!(std::fs::metadata(world.secret("us-east")).unwrap().permissions().mode() & 0o777, 0o600);
        let topology = Topology::parse(include_str!("../../../topology.toml"), "t").unwrap();
        let keys = of_region(&world, &topology, topology.region("us-east").unwrap()).unwrap();
        assert_eq!(keys.secret_key().map(str::len), Some(SECRET_LENGTH));
        let error = of_region(&world, &topology, topology.region("eu-west").unwrap()).unwrap_err();
        assert!(error.what.contains("eu-west") && error.mend.contains("--dir"), "{error}");
    }
}
