//! The table for people: ratios first.

use super::{CALLERS, MOUNT_THREADS, MOUNTS, OPERATIONS, Parts, READERS};
use std::fmt::Write;

pub fn of(about: &[(&str, &str)], parts: &Parts) -> String {
    let mut text =
        String::from("# A measurement\n\nRatios inside one run; see [how to read it](../README.md). Report, no verdict.\n\n");
    creates(parts, &mut text);
    alone(parts, &mut text);
    cpu(parts, &mut text);
    profile(parts, &mut text);
    reads(parts, &mut text);
    mirror(parts, &mut text);
    failover(parts, &mut text);
    mounts(parts, &mut text);
    engine(parts, &mut text);
    copy_and_lag(parts, &mut text);
    text += "\n| about | |\n|---|---|\n";
    for (key, value) in about {
        let _ = writeln!(text, "| {} | {value} |", key.replace('_', " "));
    }
    for (name, why) in &parts.failed {
        let _ = writeln!(text, "\nMissing: `{name}`: {}", why.replace('\n', " "));
    }
    text
}

/// A table's head.
fn head(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |\n|{}", cells.join(" | "), "---|".repeat(cells.len()));
}

fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn creates(parts: &Parts, text: &mut String) {
    let columns = "callers | creates : ceiling | creates : etcd | creates, no mirror : etcd | creates : JuiceFS always | \
                   creates : JuiceFS everysec | creates/s | ceiling/s | etcd puts/s | JuiceFS always, everysec creates/s | \
                   creates p50, p99 ms | etcd p50, p99 ms | cores busy at creates";
    head(text, &columns.split(" | ").map(str::to_owned).collect::<Vec<_>>());
    for callers in CALLERS {
        let name = |what: &str| format!("{what}-{callers}");
        let (creates, etcd) = (name("creates"), name("etcd"));
        let ratio = |over: &str, under: &str| figure(parts.ratio(&name(over), &name(under), "ops_per_second"), 2);
        let rate = |what: &str| figure(parts.median(&name(what), "ops_per_second"), 0);
        let latency = |name: &str| ["p50_ms", "p99_ms"].map(|key| figure(parts.median(name, key), 2)).join(", ");
        let cells = [
            callers.to_string(),
            ratio("creates", "ceiling"),
            ratio("creates", "etcd"),
            ratio("alone", "etcd"),
            ratio("creates", "juicefs-always"),
            ratio("creates", "juicefs-everysec"),
            rate("creates"),
            rate("ceiling"),
            rate("etcd"),
            format!("{}, {}", rate("juicefs-always"), rate("juicefs-everysec")),
            latency(&creates),
            latency(&etcd),
            figure(parts.median(&creates, "cpu_busy").map(|busy| busy * 100.0), 0) + " %",
        ];
        row(text, &cells);
    }
}

fn alone(parts: &Parts, text: &mut String) {
    let ratio = |over: &str, under: &str| figure(parts.ratio(over, under, "ops_per_second"), 2);
    let rate = |what: &str| figure(parts.median(what, "ops_per_second"), 0);
    let (etcd, juicefs) = ("alone-etcd-256", "alone-juicefs-256");
    *text += "\n256 callers without the mirror, as the peers are:\n\n";
    head(text, &["", "creates/s", "times etcd", "times JuiceFS always"].map(str::to_owned));
    for (name, part) in [("four sessions", "alone-256"), ("one session, as JuiceFS's one client", "alone-one-256")] {
        row(text, &[name.to_owned(), rate(part), ratio(part, etcd), ratio(part, juicefs)]);
    }
}

fn profile(parts: &Parts, text: &mut String) {
    let key = |kind: &str, what: &str| format!("us_per_create/{kind}/{what}");
    let of = |kind: &str, what: &str| parts.number("profile", &key(kind, what)).unwrap_or(0.0);
    let Some(kinds) = parts.done.get("profile").and_then(|profile| profile.pointer("/us_per_create")?.as_object()) else {
        return;
    };
    let mut whats: Vec<&String> = kinds.values().filter_map(|whats| whats.as_object()).flat_map(|whats| whats.keys()).collect();
    let sum = |what: &str| KINDS.iter().map(|kind| of(kind, what)).sum::<f64>();
    whats.sort_by(|one, other| sum(other).total_cmp(&sum(one)).then_with(|| one.cmp(other)));
    whats.dedup();
    let callers = figure(parts.number("profile", "callers"), 0);
    *text += &format!(
        "\nWhere a create's microseconds go, by samples, at {callers} callers, the followers of a cluster together:\n\n"
    );
    head(text, &[String::new(), "all".to_owned()].into_iter().chain(kind_names()).collect::<Vec<_>>());
    for what in whats {
        let mut cells = vec![what.clone(), format!("{:.2}", sum(what))];
        cells.extend(KINDS.map(|kind| format!("{:.2}", of(kind, what))));
        row(text, &cells);
    }
}

/// Kinds of processes that a create costs something.
const KINDS: [&str; 5] = ["driver", "leader", "follower", "mirror_leader", "mirror_follower"];

fn kind_names() -> impl Iterator<Item = String> {
    KINDS.iter().map(|kind| kind.replace('_', " "))
}

fn cpu(parts: &Parts, text: &mut String) {
    *text +=
        "\nCPU time of one create, microseconds (user + system), by kind of process; the followers of a cluster together:\n\n";
    let columns =
        ["callers".to_owned(), "all".to_owned()].into_iter().chain(kind_names()).chain(["etcd's members, a put".to_owned()]);
    head(text, &columns.collect::<Vec<_>>());
    for callers in CALLERS {
        let of = |part: &str, kind: &str| {
            let key = |which: &str| parts.median(&format!("{part}-{callers}"), &format!("cpu_per_op/{kind}/{which}_us"));
            Some((key("user")?, key("system")?))
        };
        let shown =
            |cost: Option<(f64, f64)>| cost.map_or("null".to_owned(), |(user, system)| format!("{user:.0} + {system:.0}"));
        let mut cells = vec![callers.to_string(), figure(parts.median(&format!("creates-{callers}"), "cpu_us_per_op"), 0)];
        cells.extend(KINDS.map(|kind| shown(of("creates", kind))));
        cells.push(shown(of("etcd", "etcd")));
        row(text, &cells);
    }
}

fn reads(parts: &Parts, text: &mut String) {
    *text += "\nBy sessions, without FUSE:\n\n";
    let columns = [
        "callers",
        "lookups/s",
        "stats/s",
        "lookups : JuiceFS's one client",
        "stats : JuiceFS's one client",
        "lookups : as many clients",
        "stats : as many clients",
        "CPU of a lookup, µs",
        "CPU of a stat, µs",
    ];
    head(text, &columns.map(str::to_owned));
    for (callers, sessions, clients) in READERS.into_iter().flat_map(|callers| [(callers, "", "each-"), (callers, "one-", "")]) {
        let of = |what: &str, key: &str| figure(parts.median(&format!("{what}-{sessions}{callers}"), key), 0);
        let rate = |what| of(what, "ops_per_second");
        let cost = |what| of(what, "cpu_us_per_op");
        let ratio = |what: &str, clients: &str| {
            let (ours, theirs) = (format!("{what}-{sessions}{callers}"), format!("juicefs-{what}-{clients}{callers}"));
            figure(parts.ratio(&ours, &theirs, "ops_per_second"), 2)
        };
        let (to_one, to_as_many) = (|what: &str| ratio(what, ""), |what: &str| ratio(what, clients));
        let whats = ["lookups", "stats"];
        let name = if sessions.is_empty() { callers.to_string() } else { format!("{callers}, one session") };
        let columns = [whats.map(rate), whats.map(to_one), whats.map(to_as_many), whats.map(cost)];
        row(text, &[vec![name], columns.concat()].concat());
    }
}

fn mirror(parts: &Parts, text: &mut String) {
    let of = |key: &str, digits| figure(parts.number("mirror", key), digits);
    let idle =
        |kind: &str| figure(parts.number("mirror", &format!("idle_share_of_a_core/{kind}")).map(|share| share * 100.0), 1) + " %";
    let callers = ["one_caller", "many_callers"].map(|callers| of(&format!("changelog_bytes_of_a_create_by_{callers}"), 1));
    let rates = ["mirror", "primary", "meanwhile"].map(|whose| of(&format!("{whose}_creates_per_second"), 0));
    let rows = [
        ("the mirror catching up : the primary that wrote the backlog, by creates/s", of("mirror_times_primary", 2)),
        ("creates/s: catching up, the primary alone, meanwhile", rates.join(", ")),
        ("backlog: creates, entries, s until it was caught up", {
            [of("backlog_creates", 0), of("backlog_entries", 0), of("caught_up_seconds", 1)].join(", ")
        }),
        ("changelog bytes of a create with a name of 16 bytes: one caller, many", callers.join(", ")),
        ("idle, of one core: leader, followers, mirror's leader, mirror's followers", {
            ["leader", "follower", "mirror_leader", "mirror_follower"].map(idle).join(", ")
        }),
        ("idle, of one core: three etcd members together", {
            figure(parts.number("etcd-idle", "share_of_a_core").map(|share| share * 100.0), 1) + " %"
        }),
    ];
    *text += "\nThe mirror:\n\n";
    pairs(text, &rows);
}

fn failover(parts: &Parts, text: &mut String) {
    let of = |key: &str| figure(parts.number("failover", key), 0);
    *text += &format!(
        "\nThe leader killed {} times: {} ms until the next create was answered at the median, {} ms at the 99th percentile, {} ms at most.\n",
        of("kills"),
        of("p50_ms"),
        of("p99_ms"),
        of("max_ms")
    );
}

fn mounts(parts: &Parts, text: &mut String) {
    *text += "\nOn mounts, by the kernel; caches dropped before each phase but creation:\n\n";
    head(
        text,
        &["", "the disk's own", "Farshore", "with `--durable close`", "JuiceFS CE, always", "JuiceFS CE, everysec"]
            .map(str::to_owned),
    );
    let untar = MOUNTS.map(|peer| figure(parts.median(&format!("untar-{peer}"), "seconds"), 2));
    let line = |name: String, cells: [String; MOUNTS.len()]| [vec![name], cells.to_vec()].concat();
    row(text, &line("`tar x` of 10,000 small files, s".to_owned(), untar));
    let alone = MOUNTS.map(|peer| figure(parts.median(&format!("untar-alone-{peer}"), "seconds"), 2));
    row(text, &line("the same, the mirror's nodes killed, s".to_owned(), alone));
    for threads in MOUNT_THREADS {
        for operation in OPERATIONS {
            let key = format!("operations/{operation}/mean");
            let cells = MOUNTS.map(|peer| figure(parts.median(&format!("mdtest-{peer}-{threads}"), &key), 0));
            row(text, &line(format!("{}, {threads} threads, /s", operation.replace('_', " ")), cells));
        }
    }
}

fn engine(parts: &Parts, text: &mut String) {
    let of = |part: &str, key: &str, digits| figure(parts.median(part, key), digits);
    let size = |key: &str, digits| figure(parts.number("engine-size", key), digits);
    let rows = [
        ("creates by one core's apply, /s", of("engine-creates", "apply/files_per_core_second", 0)),
        ("files of one block by one core's apply, /s", of("engine-files", "apply/files_per_core_second", 0)),
        ("share of before-images in apply", of("engine-creates", "before_images_share", 3)),
        ("a mirror's apply : the primary's", of("engine-creates", "mirror_times_primary", 2)),
        ("changelog bytes of a create", of("engine-creates", "changelog_bytes_per_file", 1)),
        ("creates undone by a rewind, /s", of("engine-creates", "rewind/files_per_second", 0)),
        ("files in the state that was weighed", size("usage/files", 0)),
        ("bytes on disk per file: pages, rows alone", {
            let keys = ["page_bytes_per_file_without_undo", "row_bytes_per_file_without_undo"];
            keys.map(|key| size(&format!("usage/{key}"), 0)).join(", ")
        }),
        ("start of a node until it serves, s: state at hand, from a checkpoint", {
            ["start", "start_from_checkpoint"].map(|key| size(&format!("{key}/seconds"), 2)).join(", ")
        }),
        ("lookups, stats by one thread, /s", reads_of(parts, "engine-size", "reads/")),
        ("the same within 512 MiB, caches cold at first", reads_of(parts, "engine-limited-reads", "")),
        ("start within 512 MiB, s", figure(parts.number("engine-limited-start", "seconds"), 2)),
        ("resident after that, MiB: all, anonymous", {
            let mib = |key: &str| figure(parts.number("engine-size", &format!("start/resident/{key}")).map(|b| b / 1048576.0), 0);
            ["all", "anonymous"].map(mib).join(", ")
        }),
        ("longest silence of 16 callers, ms: before, during a checkpoint", {
            ["quiet", "checkpoint"].map(|key| size(&format!("stall/{key}/longest_silence_ms"), 1)).join(", ")
        }),
    ];
    *text += "\nThe state machine alone, and a node on a large state:\n\n";
    pairs(text, &rows);
}

fn reads_of(parts: &Parts, part: &str, prefix: &str) -> String {
    ["lookups_per_second", "stats_per_second"].map(|key| figure(parts.number(part, &format!("{prefix}{key}")), 0)).join(", ")
}

fn pairs(text: &mut String, rows: &[(&str, String)]) {
    head(text, &["figure".to_owned(), String::new()]);
    for (name, value) in rows {
        row(text, &[(*name).to_owned(), value.clone()]);
    }
}

fn copy_and_lag(parts: &Parts, text: &mut String) {
    let one = |part: &str, key: &str, digits| figure(parts.number(part, key), digits);
    let percent = |part: &str| figure(parts.number(part, "cpu_busy").map(|busy| busy * 100.0), 0);
    let rows = [
        ("one worker : rclone, by speed", figure(parts.copy_ratio(), 2)),
        (
            "the copy by one worker, s (cores busy)",
            format!("{} ({} %)", one("copy-worker", "seconds", 2), percent("copy-worker")),
        ),
        (
            "the copy by rclone, s: before, after (cores busy)",
            format!(
                "{}, {} ({} %, {} %)",
                one("copy-rclone-1", "seconds", 2),
                one("copy-rclone-2", "seconds", 2),
                percent("copy-rclone-1"),
                percent("copy-rclone-2")
            ),
        ),
        ("metadata lag seen from outside, p50, p99, ms", lag(parts, ["observed_p50_ms", "observed_p99_ms"])),
        ("metadata lag as `lag` reports it, p50, p99, ms", lag(parts, ["reported_p50_ms", "reported_p99_ms"])),
        ("at creates/s (wished, reached)", lag(parts, ["rate_wished", "rate_reached"])),
        (
            "fdatasync, one writer: p50 ms (before, after)",
            format!("{}, {}", one("disk-1", "fdatasync_p50_ms", 3), one("disk-2", "fdatasync_p50_ms", 3)),
        ),
        (
            "fdatasync under the ceiling at 1, 64, 256, 1024: p50 ms",
            CALLERS.map(|callers| figure(parts.median(&format!("ceiling-{callers}"), "fdatasync_p50_ms"), 3)).join(", "),
        ),
    ];
    text.push('\n');
    pairs(text, &rows);
}

fn lag(parts: &Parts, keys: [&str; 2]) -> String {
    keys.map(|key| figure(parts.number("lag", key), 1)).join(", ")
}

fn figure(value: Option<f64>, digits: usize) -> String {
    value.map_or("null".to_owned(), |value| format!("{value:.digits$}"))
}
