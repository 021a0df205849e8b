//! The metadata state machine: namespace, slices, sessions, volume control; before-images and rewind.
//!
//! Everything here is values in, effects out: no async, no clock, no randomness (law 4). A caller opens one write
//! transaction of a [`kv::Store`], applies a shared entry with [`apply_shared`], hands the returned [`Changes`] to the
//! ledger in the same transaction, and commits. A [`kv::StorageError`] stops the node, it never becomes a reply (law 5).

mod admit;
mod apply;
mod change;
mod digest;
mod dump;
mod header;
mod inode;
mod key;
pub mod kv;
mod packed;
mod query;
mod replies;
mod rewind;
mod row;
mod shelf;
mod txn;
mod undo;

pub use admit::{MAX_ENTRY_REQUESTS, Refusal, admissible, admissible_to, decode_entry, encode_entry, epoch_of_entry};
pub use apply::{
    MAX_ALLOC_INOS, MAX_ALLOC_SLICES, MAX_COMMIT_SLICES, MAX_FILE_SIZE, MAX_GIVE_BACK, MAX_ISSUED_RANGES, MAX_LINKS,
    MAX_SESSION_TEXT, MAX_SESSIONS, MAX_UNACKNOWLEDGED, RECALL_US, Stamped, apply_shared,
};
pub use change::{Applied, Changes, Event, SliceAdded, SliceDropped, Touched};
pub use digest::digest_of;
pub use dump::{DumpError, DumpHeader, load_into, read_dump, read_dump_header, verify_dump, write_dump};
pub use header::{FIRST_VERSION, Header, MACHINE_VERSION, RosterMember, digest, header, roster, volume};
pub use query::{MAX_PATH_DEPTH, MAX_READ_DIR, SessionRecord, issued_to_ended, orphans, query, sessions};
pub use rewind::{RewindError, rewind};
pub use shelf::{SliceRecord, live_slices, slice_record};
pub use undo::{MAX_TRIM, lowest_reachable, trim_undo};
