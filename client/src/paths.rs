//! Paths, for the commands that do without a mount.
