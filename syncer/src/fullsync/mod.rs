//! The full sync: a bucket's listing against metadata (laws 15, 17, 18).
//!
//! [`Comparer`] is the pure comparison; the rows remember runs and what they found. Neither deletes anything. A run:
//! [`crate::LocalOp::FullSyncStart`], a leased listing whose pages go through [`Comparer::page`], then
//! [`Comparer::sweep`]; findings go in as [`crate::LocalOp::FullSyncGroup`], at most [`GROUP_FINDINGS_MAX`] each, and
//! [`crate::LocalOp::FullSyncFinish`] ends it. What is damaged is then leased as repair, HEAD first.

mod compare;
pub(crate) mod state;

pub use compare::{CompareError, Comparer, GROUP_OBJECTS_MAX, GROUP_SLICES, Listed, PAGE_NAMES_MAX, RANGES_MAX};
pub use state::{
    FINDINGS_KEPT, FOREIGN_NAME_MAX, Finding, FindingKind, FullSync, GROUP_FINDINGS_MAX, Report, findings, fullsync, is_due,
};
