//! Data on its way from a writer to the bucket and into metadata: blocks first, metadata after.
//!
//! - `pending` is the buffer of one inode, as a pure structure: which slices a file's fresh writes make, in write order.
//! - `writer` is shared by all handles of one inode: it feeds the buffer, and flushes it.
//! - `upload` puts frozen blocks into the first bucket, in the background, with ids from `ids`.
//!   The flusher of the volume commits what is old, and what is in the way when the buffer is full.
//!
//! Buffers are kept until their commit is answered: when the session or the epoch of the ids is gone, the same bytes are
//! uploaded again under new ids (law 10, hazard 8.1).

mod ids;
mod pending;
mod upload;
mod writer;

pub(crate) use upload::Uploads;
pub(crate) use writer::{Committed, Extent, Place, Writer};
