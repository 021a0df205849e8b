//! What may happen in a world. Each seed draws its own pace for each fault from these bounds.

/// A kind of world.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Steps under faults; each takes 50 to 350 virtual milliseconds.
    pub steps: u64,
    pub writers: u64,
    /// Clients whose history must be linearizable, the longest pause of one before it asks anew in microseconds, and whether the
    /// judge looks at the world beside them.
    pub callers: u64,
    pub caller_pace_us: u64,
    pub judged: bool,
    /// Longest pause of a writer between two deeds, in microseconds.
    pub pace_us: u64,
    /// Chances per step, in 1000.
    pub kills: u64,
    pub power_losses: u64,
    /// A log that ends before what was acknowledged; a disk that was replaced; a flush that fails.
    pub lost_logs: u64,
    pub lost_disks: u64,
    pub failed_flushes: u64,
    pub partitions: u64,
    pub isolations: u64,
    /// A node of the primary's cluster loses all other nodes and not its clients; or stands still for a while.
    pub desertions: u64,
    pub pauses: u64,
    pub bucket_outages: u64,
    pub damages: u64,
    pub trims: u64,
    pub purges: u64,
    pub rewinds: u64,
    /// Messages lost, in 1000, and such with a flipped bit.
    pub loss: u64,
    pub flips: u64,
    /// Whether copies fail.
    pub failing_copies: bool,
    /// Virtual microseconds between full syncs.
    pub full_sync_every_us: u64,
    /// Whether one node knows one version of the state machine less, until it is upgraded at the end (law 4).
    pub older: bool,
}

impl Scenario {
    /// Nothing fails.
    pub fn calm() -> Self {
        Scenario {
            name: "calm",
            steps: 40,
            writers: 2,
            callers: 0,
            caller_pace_us: 20_000,
            judged: true,
            pace_us: 60_000,
            kills: 0,
            power_losses: 0,
            lost_logs: 0,
            lost_disks: 0,
            failed_flushes: 0,
            partitions: 0,
            isolations: 0,
            desertions: 0,
            pauses: 0,
            bucket_outages: 0,
            damages: 0,
            trims: 0,
            purges: 0,
            rewinds: 0,
            loss: 0,
            flips: 0,
            failing_copies: false,
            full_sync_every_us: 3_600_000_000,
            older: false,
        }
    }

    /// Everything fails now and then.
    pub fn mixed() -> Self {
        Scenario {
            name: "mixed",
            steps: 100,
            writers: 3,
            kills: 35,
            power_losses: 15,
            lost_logs: 8,
            lost_disks: 4,
            failed_flushes: 8,
            partitions: 25,
            isolations: 15,
            bucket_outages: 15,
            damages: 10,
            trims: 30,
            purges: 25,
            rewinds: 20,
            loss: 10,
            flips: 2,
            failing_copies: true,
            full_sync_every_us: 20_000_000,
            ..Scenario::calm()
        }
    }

    /// Callers at the primary, whose leader is killed, paused and cut off; seldom so much at once that nobody leads.
    pub fn linear() -> Self {
        Scenario {
            name: "linear",
            steps: 140,
            writers: 1,
            callers: 6,
            kills: 12,
            power_losses: 4,
            partitions: 10,
            isolations: 6,
            desertions: 16,
            pauses: 8,
            bucket_outages: 5,
            purges: 10,
            trims: 10,
            rewinds: 0,
            damages: 0,
            ..Scenario::mixed()
        }
    }

    /// Disks lose what was acknowledged, one node of a cluster at a time, while others die and are cut off.
    pub fn rotting() -> Self {
        Scenario {
            name: "rotting",
            kills: 40,
            power_losses: 15,
            lost_logs: 60,
            lost_disks: 40,
            failed_flushes: 60,
            isolations: 40,
            flips: 10,
            purges: 60,
            ..Scenario::mixed()
        }
    }

    /// One node of the two clusters is older than the others, while a little of everything fails.
    pub fn upgrade() -> Self {
        Scenario { name: "upgrade", steps: 60, writers: 2, rewinds: 0, older: true, ..Scenario::mixed() }
    }

    /// The mirror is cut off while the primary's log goes: it must take snapshots, and so must nodes that were down.
    pub fn cut_off() -> Self {
        Scenario {
            name: "cut_off",
            kills: 25,
            power_losses: 15,
            partitions: 120,
            purges: 250,
            trims: 20,
            rewinds: 10,
            ..Scenario::mixed()
        }
    }
}
