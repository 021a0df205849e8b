//! Rules that span tables: unique names, ports and buckets; volumes that name regions which can serve them.

use super::error::{TopologyError, TopologyErrorKind as Kind};
use super::section::{echo, error_at};
use super::{CONSOLE_PROCESS, Listener, RegionSpec, Topology, VolumeSpec, bucket_process, nearest};
use std::collections::BTreeMap;

pub(super) fn check(topology: &Topology) -> Result<(), TopologyError> {
    let check = Check { origin: topology.origin.display().to_string(), topology };
    for volume in &topology.volumes {
        check.volume(volume)?;
    }
    for region in &topology.regions {
        check.region(region)?;
    }
    check.process_names()?;
    check.ports()?;
    check.buckets()
}

/// Every listener of the world, in the order of the file.
pub(super) fn listeners(topology: &Topology) -> Vec<Listener> {
    let mut all = Vec::new();
    if let Some(address) = topology.console {
        all.push(Listener { key: "console.listen".into(), process: CONSOLE_PROCESS.into(), address });
    }
    for region in &topology.regions {
        for (at, node) in region.nodes.iter().enumerate() {
            let key = format!("region.{}.nodes[{at}]", region.name);
            all.push(Listener { key: format!("{key}.listen"), process: node.name.clone(), address: node.listen });
            if let Some(address) = node.metrics {
                all.push(Listener { key: format!("{key}.metrics"), process: node.name.clone(), address });
            }
        }
        if let Some(embedded) = &region.bucket.embedded {
            let key = format!("region.{}.bucket.listen", region.name);
            all.push(Listener { key, process: bucket_process(&region.name), address: embedded.listen });
        }
    }
    all
}

struct Check<'a> {
    origin: String,
    topology: &'a Topology,
}

impl Check<'_> {
    fn error(&self, kind: Kind, key: String, rule: impl Into<String>, mend: impl Into<String>) -> TopologyError {
        error_at(&self.origin, kind, key, rule, mend)
    }

    fn volume(&self, volume: &VolumeSpec) -> Result<(), TopologyError> {
        let key = format!("volume.{}", volume.name);
        self.serves(&format!("{key}.initial_primary"), &volume.initial_primary)?;
        for mirror in &volume.mirrors {
            let key = format!("{key}.mirrors.{}", mirror.region);
            self.serves(&key, &mirror.region)?;
            if mirror.region == volume.initial_primary {
                let mend = "remove it: a region does not mirror itself";
                return Err(self.error(Kind::BadValue, key, "is the initial primary as well", mend));
            }
        }
        Ok(())
    }

    /// A region that holds a volume's metadata must exist and have nodes.
    fn serves(&self, key: &str, name: &str) -> Result<(), TopologyError> {
        match self.topology.region(name) {
            Some(region) if !region.nodes.is_empty() => Ok(()),
            Some(_) => {
                let rule = format!("needs a metadata cluster, and region {name:?} has no nodes");
                Err(self.error(Kind::BadValue, key.to_owned(), rule, format!("add `nodes` to [region.{name}]")))
            }
            None => {
                let names = || self.topology.regions.iter().map(|region| region.name.as_str());
                let mend = match nearest(name, names()) {
                    Some(near) => format!("did you mean {near:?}?"),
                    None => format!("the regions are: {}", names().collect::<Vec<_>>().join(", ")),
                };
                Err(self.error(Kind::UnknownName, key.to_owned(), format!("names no declared region{}", echo(name)), mend))
            }
        }
    }

    /// Every region takes part in every volume so far, as the primary or as a mirror.
    fn region(&self, region: &RegionSpec) -> Result<(), TopologyError> {
        let key = format!("region.{}", region.name);
        if region.nodes.is_empty() {
            let mend = "add `nodes` to it, or remove it";
            return Err(self.error(Kind::NotAvailableYet, key, "has a bucket and no nodes, which is not available yet", mend));
        }
        for volume in &self.topology.volumes {
            let mirrors = volume.mirrors.iter().any(|mirror| mirror.region == region.name);
            if volume.initial_primary != region.name && !mirrors {
                let rule = format!("takes no part in volume {:?}: it is neither its initial primary nor a mirror", volume.name);
                let mend = format!("add it to volume.{}.mirrors, or remove it", volume.name);
                return Err(self.error(Kind::BadValue, key, rule, mend));
            }
        }
        Ok(())
    }

    /// Names of processes are names of pid files and logs.
    fn process_names(&self) -> Result<(), TopologyError> {
        let mut taken: BTreeMap<String, String> = BTreeMap::new();
        taken.insert(CONSOLE_PROCESS.to_owned(), "console".to_owned());
        for region in &self.topology.regions {
            taken.insert(bucket_process(&region.name), format!("region.{}.bucket", region.name));
        }
        for region in &self.topology.regions {
            for (at, node) in region.nodes.iter().enumerate() {
                let key = format!("region.{}.nodes[{at}].name", region.name);
                if let Some(holder) = taken.insert(node.name.clone(), key.clone()) {
                    let rule = format!("is {:?}, which `{holder}` has already", node.name);
                    return Err(self.error(Kind::Duplicate, key, rule, "give each node a name of its own"));
                }
            }
        }
        Ok(())
    }

    /// By port alone: two loopback addresses with one port are a trap even where they could both be bound.
    fn ports(&self) -> Result<(), TopologyError> {
        let mut taken: BTreeMap<u16, String> = BTreeMap::new();
        for listener in listeners(self.topology) {
            let port = listener.address.port();
            if let Some(holder) = taken.insert(port, listener.key.clone()) {
                let rule = format!("has port {port}, which `{holder}` has already");
                return Err(self.error(Kind::Duplicate, listener.key, rule, "give each listener a port of its own"));
            }
        }
        Ok(())
    }

    /// Two regions in one bucket would each believe to hold the other's blocks.
    fn buckets(&self) -> Result<(), TopologyError> {
        let mut taken: BTreeMap<&str, String> = BTreeMap::new();
        for region in &self.topology.regions {
            for url in [region.bucket.declared.trim_end_matches('/'), region.bucket.url.as_str()] {
                let key = format!("region.{}.bucket.url", region.name);
                if let Some(holder) = taken.insert(url, key.clone())
                    && holder != key
                {
                    let mend = "give each region a bucket of its own";
                    return Err(self.error(Kind::Duplicate, key, format!("is the bucket of `{holder}` as well"), mend));
                }
            }
        }
        Ok(())
    }
}
