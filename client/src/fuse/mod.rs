//! The FUSE mount: kernel requests in, calls of [`crate::Volume`] out, and answers back.
//!
//! Owns the connection to the kernel, the numbers of open files and directories, and what the kernel may have cached.
//! It assumes of the volume that
//! - `getattr` and `lookup` show this client's own buffered writes (size, mtime),
//! - `open` revalidates at the leader (law 29), and reads through any handle are at least as new as the newest open,
//! - it delivers only other clients' invalidations.
//!
//! Rules of the house, each paid for:
//! - No thread that reads requests waits for the network: what is borrowed is copied, the work is spawned on tokio with
//!   the owned reply, and at most [`shared::IN_FLIGHT_MAX`] requests run at a time (law 27).
//! - The kernel is told of invalidations by threads that answer nothing (law 29); see [`notify`].
//! - Permissions are the kernel's affair (`default_permissions`), as are set-id bits on write, chown and truncate (the
//!   kernel asks for the cleared mode itself, since `FUSE_HANDLE_KILLPRIV` is not set) and file locks (local).
//! - `O_TRUNC` is not taken atomically: then the kernel sends a truncation of its own, with the cleared set-id bits.
//! - No write-back cache: the size and mtime of a file are the volume's, never the kernel's guess.
//!
//! | file | events |
//! |---|---|
//! | `mount`, `kernel` | mounting, unmounting, the end |
//! | `adapter`, `shared` | the table of requests; bounds, spawning |
//! | `attr` | attributes both ways |
//! | `namespace` | names: lookup, make, remove, rename, link |
//! | `file`, `handles` | open files |
//! | `dir`, `cursor` | open directories |
//! | `notify` | invalidations |

mod adapter;
mod attr;
mod cursor;
mod dir;
mod file;
mod handles;
mod kernel;
mod mount;
mod namespace;
mod notify;
mod shared;

pub use kernel::{UnmountError, unmount_dir};
pub use mount::{MountError, MountOptions, Mounted, mount};
