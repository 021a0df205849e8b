//! The arrows of the house run downwards only: each room uses the rooms of its row and no other.
//!
//! The table is the one in docs/ARCHITECTURE.md. A new crate needs a row here before it builds.

use crate::graph::{self, Room};
use crate::{none_of, root};
use std::collections::{BTreeMap, BTreeSet};

/// A room, and the rooms that its product build may use.
const TABLE: [(&str, &[&str]); 18] = [
    ("farshore-types", &[]),
    ("farshore-meta", &["farshore-types"]),
    ("farshore-changelog", &["farshore-types"]),
    ("farshore-objects", &["farshore-types"]),
    ("farshore-bucket", &["farshore-objects", "farshore-types"]),
    ("farshore-wire", &["farshore-types"]),
    ("farshore-syncer", &["farshore-meta", "farshore-wire", "farshore-types"]),
    ("farshore-primary", &["farshore-syncer", "farshore-meta", "farshore-changelog", "farshore-wire", "farshore-types"]),
    (
        "farshore-mirror",
        &["farshore-primary", "farshore-syncer", "farshore-meta", "farshore-changelog", "farshore-wire", "farshore-types"],
    ),
    ("farshore-client", &["farshore-wire", "farshore-objects", "farshore-types"]),
    ("farshore-console", &["farshore-wire", "farshore-types"]),
    ("farshore-history", &["farshore-types"]),
    ("farshore", &ALL),
    ("farshore-sim", &ALL),
    // It starts the binary, speaks to it on the wire and knows nothing of what is inside; it reads the histories that the
    // binary writes.
    ("farshore-live", &["farshore-history", "farshore-wire", "farshore-types"]),
    ("farshore-ceiling", &[]),
    // A client like others.
    ("farshore-bench", &["farshore-client", "farshore-wire", "farshore-objects", "farshore-types"]),
    // A node without its network.
    (
        "farshore-engine",
        &[
            "farshore-mirror",
            "farshore-primary",
            "farshore-syncer",
            "farshore-meta",
            "farshore-changelog",
            "farshore-wire",
            "farshore-types",
        ],
    ),
];

const ALL: [&str; 12] = [
    "farshore-types",
    "farshore-meta",
    "farshore-changelog",
    "farshore-objects",
    "farshore-bucket",
    "farshore-wire",
    "farshore-syncer",
    "farshore-primary",
    "farshore-mirror",
    "farshore-client",
    "farshore-console",
    "farshore-history",
];

/// Rooms that decide about data and never move a byte of it.
const CONTROL: [&str; 8] = [
    "farshore-types",
    "farshore-meta",
    "farshore-changelog",
    "farshore-wire",
    "farshore-syncer",
    "farshore-primary",
    "farshore-mirror",
    "farshore-console",
];

/// Crates that move data: the buckets, and the clouds' own clients.
const DATA: [&str; 6] =
    ["farshore-objects", "farshore-bucket", "aws-sdk-s3", "google-cloud-storage", "azure_storage_blob", "s3s"];

fn violations(rooms: &[Room], locked: &BTreeMap<String, BTreeSet<String>>) -> Vec<String> {
    let mut found = vec![];
    for room in rooms {
        let Some((_, allowed)) = TABLE.iter().find(|(name, _)| *name == room.name) else {
            found.push(format!(
                "{}: `{}` has no row in the table of arrows; add one to types/tests/arrows/arrows.rs and to docs/ARCHITECTURE.md",
                room.manifest, room.name
            ));
            continue;
        };
        for used in room.uses.iter().filter(|used| rooms.iter().any(|room| room.name == **used)) {
            if !allowed.contains(&used.as_str()) {
                found.push(format!(
                    "{}: `{}` may not use `{used}`; move what both need into a room that both may use, or turn the arrow round",
                    room.manifest, room.name
                ));
            }
        }
        if CONTROL.contains(&room.name.as_str())
            && let Some(path) = graph::path_to(&room.name, &DATA, rooms, locked)
        {
            found.push(format!(
                "{}: the control plane reaches data by {}; drop the first dependency of that chain that is ours",
                room.manifest,
                path.join(" -> ")
            ));
        }
    }
    found
}

fn here() -> (Vec<Room>, BTreeMap<String, BTreeSet<String>>) {
    let lock = std::fs::read_to_string(root().join("Cargo.lock")).expect("Cargo.lock is part of the repository");
    (graph::rooms(&graph::metadata_here(&root())), graph::locked(&lock))
}

#[test]
fn every_room_uses_only_the_rooms_of_its_row() {
    let (rooms, locked) = here();
    none_of(violations(&rooms, &locked));
}

/// A planted fault in a product would be worse than no test.
#[test]
fn no_product_build_has_planted_faults() {
    none_of(graph::turned_on(&graph::metadata_here(&root()), "plant"));
}

#[test]
fn a_planted_plant_is_found() {
    let metadata = r#"{ "packages": [
        { "name": "a", "features": { "default": ["s3", "b/plant"] }, "dependencies": [] },
        { "name": "b", "features": { "plant": [] }, "dependencies": [{ "name": "c", "kind": null, "features": ["plant"] },
          { "name": "d", "kind": "dev", "features": ["plant"] }] }] }"#;
    assert_eq!(
        graph::turned_on(metadata, "plant"),
        ["\"a\": `plant` is on by default", "\"b\": the dependency on \"c\" turns `plant` on"]
    );
}

#[test]
fn every_row_has_its_room() {
    let (rooms, _) = here();
    let missing = TABLE.iter().filter(|(name, _)| !rooms.iter().any(|room| room.name == *name));
    none_of(missing.map(|(name, _)| format!("the table has a row for `{name}`, which is no crate: remove the row")).collect());
}

/// A planted violation in the graph as it stands.
fn planted(room: &str, uses: &str) -> Vec<String> {
    let (mut rooms, locked) = here();
    let room = rooms.iter_mut().find(|there| there.name == room).expect("the room is there");
    assert!(room.uses.insert(uses.to_owned()), "the planted arrow is there already");
    violations(&rooms, &locked)
}

#[test]
fn an_arrow_that_runs_upwards_is_found() {
    let found = planted("farshore-types", "farshore-meta");
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].starts_with("types/Cargo.toml: `farshore-types` may not use `farshore-meta`;"), "{found:?}");
    assert_eq!(planted("farshore-live", "farshore-meta").len(), 1);
    assert_eq!(planted("farshore-client", "farshore-meta").len(), 1);
}

#[test]
fn a_control_room_that_moves_data_is_found_however_far_away() {
    let found = planted("farshore-syncer", "farshore-objects");
    assert!(found[0].contains("`farshore-syncer` may not use `farshore-objects`"), "{found:?}");
    for room in ["syncer", "primary", "mirror"] {
        let chain = format!("{room}/Cargo.toml: the control plane reaches data by");
        assert!(found.iter().any(|line| line.starts_with(&chain)), "{room}: {found:?}");
    }
    assert!(planted("farshore-console", "aws-sdk-s3")[0].contains("farshore-console -> aws-sdk-s3;"));
}

#[test]
fn the_way_through_the_registry_is_followed() {
    let rooms = vec![Room { name: "farshore-meta".into(), manifest: "meta/Cargo.toml".into(), uses: ["nice".into()].into() }];
    let lock = "[[package]]\nname = \"nice\"\nversion = \"1\"\ndependencies = [\"deep 2.0\"]\n\
                [[package]]\nname = \"deep\"\nversion = \"2.0\"\ndependencies = [\"aws-sdk-s3\"]\n";
    let found = violations(&rooms, &graph::locked(lock));
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("farshore-meta -> nice -> deep -> aws-sdk-s3"), "{found:?}");
}

#[test]
fn a_crate_without_a_row_is_found() {
    let rooms = vec![Room { name: "farshore-attic".into(), manifest: "attic/Cargo.toml".into(), uses: [].into() }];
    let found = violations(&rooms, &BTreeMap::new());
    assert!(found.len() == 1 && found[0].starts_with("attic/Cargo.toml: `farshore-attic` has no row"), "{found:?}");
}

#[test]
fn dependencies_of_tests_are_no_arrows() {
    let metadata = r#"{ "workspace_root": "/r", "packages": [{ "name": "a", "manifest_path": "/r/a/Cargo.toml", "dependencies": [
        { "name": "b", "kind": null }, { "name": "c", "kind": "dev" }, { "name": "d", "kind": "build" }] }] }"#;
    let uses = ["b".to_owned(), "d".to_owned()].into();
    assert_eq!(graph::rooms(metadata), [Room { name: "a".into(), manifest: "a/Cargo.toml".into(), uses }]);
}
