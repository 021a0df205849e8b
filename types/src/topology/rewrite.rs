//! The same world on other addresses.

use super::Topology;
use super::error::{TopologyError, TopologyErrorKind as Kind};
use super::section::error_at;
use std::net::SocketAddr;
use toml::{Table, Value};

/// Passes every listener through `address` and reads the result again.
pub(super) fn readdress(
    topology: &Topology,
    mut address: impl FnMut(SocketAddr) -> SocketAddr,
) -> Result<Topology, TopologyError> {
    let origin = topology.origin.display().to_string();
    let broken = |what: &str| error_at(&origin, Kind::Syntax, "", what.to_owned(), "this is a defect of farshore: report it");
    let mut table: Table = topology.text.parse().map_err(|_| broken("the text no longer parses"))?;
    let mut change = |value: &mut Value| {
        if let Some(old) = value.as_str().and_then(|text| text.parse::<SocketAddr>().ok()) {
            *value = Value::String(address(old).to_string());
        }
    };
    walk(&mut table, &mut change);
    let text = toml::to_string(&table).map_err(|_| broken("the changed text cannot be written"))?;
    Topology::parse(&text, &topology.origin)
}

fn walk(table: &mut Table, change: &mut impl FnMut(&mut Value)) {
    for (name, value) in table.iter_mut() {
        match value {
            Value::Table(inner) => walk(inner, change),
            Value::Array(items) => items.iter_mut().filter_map(Value::as_table_mut).for_each(|item| walk(item, change)),
            Value::String(_) if name == "listen" || name == "metrics" => change(value),
            _ => {}
        }
    }
}
