//! The declared world.
