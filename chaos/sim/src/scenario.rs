//! What may happen in a world. Each seed draws its own pace for each fault from these bounds.

/// A kind of world.
#[derive(Clone, Debug)]
pub struct Scenario {
    pub name: &'static str,
    /// Steps under faults; each takes 50 to 350 virtual milliseconds.
    pub steps: u64,
    pub writers: u64,
    /// Longest pause of a writer between two deeds, in microseconds.
    pub pace_us: u64,
    /// Chances per step, in 1000.
    pub kills: u64,
    pub power_losses: u64,
    pub partitions: u64,
    pub isolations: u64,
    pub bucket_outages: u64,
    pub damages: u64,
    pub trims: u64,
    pub purges: u64,
    pub rewinds: u64,
    /// Messages lost, in 1000.
    pub loss: u64,
    /// Whether copies fail.
    pub failing_copies: bool,
    /// Virtual microseconds between full syncs.
    pub full_sync_every_us: u64,
}

impl Scenario {
    /// Nothing fails.
    pub fn calm() -> Self {
        Scenario {
            name: "calm",
            steps: 40,
            writers: 2,
            pace_us: 60_000,
            kills: 0,
            power_losses: 0,
            partitions: 0,
            isolations: 0,
            bucket_outages: 0,
            damages: 0,
            trims: 0,
            purges: 0,
            rewinds: 0,
            loss: 0,
            failing_copies: false,
            full_sync_every_us: 3_600_000_000,
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
            partitions: 25,
            isolations: 15,
            bucket_outages: 15,
            damages: 10,
            trims: 30,
            purges: 25,
            rewinds: 20,
            loss: 10,
            failing_copies: true,
            full_sync_every_us: 20_000_000,
            ..Scenario::calm()
        }
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
