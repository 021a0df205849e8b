//! Verbs that a later version will have. They say so, with exit code 2; none pretends.

use clap::{Arg, ArgAction, Command};

/// The verb, and what it will do.
pub const LATER: [(&str, &str); 33] = [
    ("plan", "show the difference between the declared and the running world"),
    ("apply", "make the difference between the declared and the running world"),
    ("destroy", "destroy a volume"),
    ("config", "change a volume's settings"),
    ("mirror", "add, remove, list, diff, rebuild mirrors"),
    ("switchover", "move the primary, planned"),
    ("failover", "move the primary, after a loss"),
    ("failback", "bring the old region back"),
    ("fsck", "check a volume"),
    ("gc", "collect objects that nothing names"),
    ("doctor", "check rights, rules, clocks and disks"),
    ("info", "where the blocks of a file are"),
    ("locate", "files by where their blocks are"),
    ("events", "what changed, and when"),
    ("wait", "until a path has arrived in a region"),
    ("drill", "a throw-away fork of a mirror"),
    ("backup", "snapshots of state into the buckets"),
    ("restore", "an earlier moment"),
    ("manifest", "what a failover lost"),
    ("fence", "stop a region from writing"),
    ("unfence", "let a fenced region write again"),
    ("credentials", "list and rotate keys"),
    ("upgrade", "nodes, one by one"),
    ("top", "who writes and reads"),
    ("debug", "a bundle for a report"),
    ("session", "list and evict sessions"),
    ("quota", "limits of directories"),
    ("token", "tokens of clients"),
    ("warmup", "fill a cache"),
    ("stats", "counters of a mount"),
    ("profile", "operations of a mount"),
    ("sync", "copy between object stores"),
    ("clone", "a copy of a tree without copying blocks"),
];

/// The verb as clap sees it: it takes anything.
pub fn command(name: &'static str, about: &str) -> Command {
    let rest = Arg::new("rest").action(ArgAction::Append).num_args(0..).trailing_var_arg(true).allow_hyphen_values(true);
    Command::new(name).about(format!("(not available yet) {about}")).arg(rest.hide(true)).disable_help_flag(true)
}

/// The name of the verb, if it is one of these.
pub fn is_later(name: &str) -> bool {
    LATER.iter().any(|(later, _)| *later == name)
}
