//! The messages of protocol version 1, frozen: each line of `1/*.txt` is one message as that version wrote it. A node of
//! today must write the same bytes, or raise the protocol's version, and must understand and answer the frozen ones.
//!
//! `FARSHORE_FREEZE=1` adds lines for messages that are new; it changes none. A line is changed by hand, before the version that wrote
//! it was released, and never afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on stops here")]

mod answers;
mod messages;
mod node;

use std::collections::BTreeMap;
use std::path::PathBuf;

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/frozen/1")
}

/// The lines of a file, by the message's name.
fn lines(file: &str) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(directory().join(file)).unwrap_or_default();
    text.lines().filter_map(|line| line.split_once(' ')).map(|(name, rest)| (name.to_owned(), rest.to_owned())).collect()
}

/// The frozen bytes of a message.
pub fn frozen(file: &str, name: &str) -> Vec<u8> {
    let hex = lines(file).remove(name).unwrap_or_else(|| panic!("{file} has no line {name}"));
    assert!(hex.len().is_multiple_of(2), "{file}: {name} is whole bytes");
    (0..hex.len() / 2).map(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap()).collect()
}

/// The frozen JSON of a call or an answer.
pub fn frozen_json(name: &str) -> String {
    lines("admin.txt").remove(name).unwrap_or_else(|| panic!("admin.txt has no line {name}"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every message that today's build writes, as lines of its file.
fn today() -> BTreeMap<&'static str, BTreeMap<String, String>> {
    let of = |messages: Vec<(&'static str, Vec<u8>)>| messages.into_iter().map(|(name, bytes)| (name.to_owned(), hex(&bytes)));
    BTreeMap::from([
        ("client.txt", of(messages::client()).collect()),
        ("server.txt", of(messages::server()).collect()),
        ("raft.txt", of(messages::raft()).collect()),
        ("changelog.txt", of(messages::changelog()).collect()),
        ("admin.txt", messages::admin().into_iter().map(|(name, json)| (name.to_owned(), json)).collect()),
    ])
}

#[test]
fn law_26_today_s_build_writes_the_messages_of_version_1() {
    assert_eq!(farshore_wire::PROTOCOL, 1, "a new protocol version has a directory of its own beside `1`");
    let freeze = std::env::var_os("FARSHORE_FREEZE").is_some();
    for (file, messages) in today() {
        let mut known = lines(file);
        for (name, written) in &messages {
            match known.get(name) {
                Some(frozen) => assert_eq!(frozen, written, "{file}: {name} is written differently now"),
                None if freeze => drop(known.insert(name.clone(), written.clone())),
                None => panic!("{file} lacks {name}: FARSHORE_FREEZE=1 adds it"),
            }
        }
        assert_eq!(known.len(), messages.len(), "{file}: version 1 had messages that today's build does not write");
        if freeze {
            let text: String = known.iter().map(|(name, line)| format!("{name} {line}\n")).collect();
            std::fs::write(directory().join(file), text).unwrap();
        }
    }
}
