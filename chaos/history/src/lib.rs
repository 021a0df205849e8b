//! Histories of clients, and the checker that says whether they are linearizable.
//!
//! A history is a list of [`Operation`]s: who asked what, when, and what was answered when. It is linearizable (Herlihy and
//! Wing 1990) if every operation can be given one instant between its call and its return at which it took effect, so that all
//! answers are those of the sequential file system in [`model`]. An operation without an answer may have taken effect at any
//! instant after its call, or never (law 10).
//!
//! [`check`] looks for such instants with the search of Wing and Gong (1993), remembering which configurations led nowhere
//! (Lowe 2017), group of names by group of names: a history is linearizable if and only if its part in each independent object
//! is (P-compositionality, Horn and Kroening 2015). [`Arena`] draws operations that keep to such groups, [`Record`] writes
//! down what became of them, and [`lines`] is the form in which a history leaves a process.
//!
//! Pure but for [`lines`]: stamps and draws come from the caller.

mod arena;
mod check;
pub mod lines;
pub mod model;
mod operation;
mod record;
mod search;
mod translate;
mod witness;

pub use arena::Arena;
// For readers of histories that know no other room.
pub use check::{Checked, Failure, check};
pub use farshore_types::ErrorKind;
pub use operation::{Answer, Answered, Call, NAMES, Name, Operation, Seen};
pub use record::{Record, RecordId};
pub use search::{MAX_CONFIGURATIONS, MAX_OPERATIONS};
pub use translate::{BLOCK, Request, answer_of_op, answer_of_query};
pub use witness::Witness;
