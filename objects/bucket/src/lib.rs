//! The embedded S3 server: one bucket in one directory, for a region without a cloud, for tests and demonstrations.
//!
//! Owns the protocol: requests, signatures, listings, multipart uploads. What is stored how is the business of
//! [`farshore_objects::store`]; this crate takes the directory for itself, so an object that any client sees is durable.
//! An answer of success means that file and directory were flushed (law 24). One key pair has all rights.
//!
//! The crate is apart from `farshore-objects` so that clients do not link a server.

mod answer;
mod body;
mod error;
mod listing;
mod multipart;
mod server;
mod service;

pub use error::ServeError;
pub use server::{BucketConfig, Server, serve};
