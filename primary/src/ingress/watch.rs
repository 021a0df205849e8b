//! Which clients may know something of an inode: only they hear of its changes. Told to everybody, each change would cost as much
//! as there are clients, most of whom have never seen the directory (decision 0038).
//!
//! A client keeps what it was told for a second at most, but for what it holds open and for directories that it made, of which it
//! knows all names. So the former is forgotten here after [`KEPT_US`] to twice as much, and the latter with the connection.
//! Whatever is too much to keep becomes a client that hears everything (law 27).

use farshore_types::{Ino, LogIndex, SessionId};
use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

/// How long, at least, a client is taken to know what it was told, in microseconds: longer than it keeps it, by what an answer may
/// take to arrive.
const KEPT_US: u64 = 10_000_000;
/// Pairs of an inode and a client that are kept of each such time, and of what lasts.
const WATCHED_MAX: usize = 1 << 18;
/// As long at least, when there is more to keep.
const KEPT_FULL_US: u64 = 2_000_000;
/// Changes that are remembered for answers under way.
const RECENT_MAX: usize = 1 << 13;

/// The clients that know one inode; mostly one.
#[derive(Debug)]
enum Watchers {
    One(SessionId),
    Some(Vec<SessionId>),
}

impl Watchers {
    fn all(&self) -> &[SessionId] {
        match self {
            Watchers::One(session) => std::slice::from_ref(session),
            Watchers::Some(sessions) => sessions,
        }
    }

    /// One that is not among them.
    fn add(&mut self, session: SessionId) {
        match self {
            Watchers::One(first) => *self = Watchers::Some(vec![*first, session]),
            Watchers::Some(sessions) => sessions.push(session),
        }
    }
}

#[derive(Debug, Default)]
struct Table {
    of: HashMap<Ino, Watchers>,
    pairs: usize,
    /// They know more than is kept.
    everything: BTreeSet<SessionId>,
}

impl Table {
    fn add(&mut self, ino: Ino, session: SessionId) {
        if self.everything.contains(&session) || self.has_pair(ino, session) {
            return;
        }
        if self.pairs >= WATCHED_MAX {
            self.everything.insert(session);
            return;
        }
        self.of.entry(ino).and_modify(|watchers| watchers.add(session)).or_insert(Watchers::One(session));
        self.pairs += 1;
    }

    fn remove(&mut self, ino: Ino, session: SessionId) {
        if !self.has_pair(ino, session) {
            return;
        }
        self.pairs -= 1;
        match self.of.get_mut(&ino) {
            Some(Watchers::Some(sessions)) if sessions.len() > 1 => sessions.retain(|watcher| *watcher != session),
            _ => drop(self.of.remove(&ino)),
        }
    }

    fn has_pair(&self, ino: Ino, session: SessionId) -> bool {
        self.of.get(&ino).is_some_and(|watchers| watchers.all().contains(&session))
    }

    fn collect(&self, ino: Ino, to: &mut Vec<SessionId>) {
        to.extend(self.of.get(&ino).into_iter().flat_map(Watchers::all));
        to.extend(&self.everything);
    }

    fn clear(&mut self) {
        self.of.clear();
        self.everything.clear();
        self.pairs = 0;
    }
}

/// What all clients of a node may know.
#[derive(Debug, Default)]
pub(super) struct Watch {
    /// Told since `turned_us`, and in the time before that.
    now: Table,
    before: Table,
    turned_us: u64,
    /// Held open, or made.
    lasting: Table,
    /// Inodes that were changed lately, and by whom.
    recent: VecDeque<(LogIndex, Option<SessionId>, Ino)>,
    /// All changes behind this index are in `recent`.
    recent_behind: LogIndex,
}

impl Watch {
    /// The client is told something of these inodes, or is about to be. Says which of them changed behind `index`, of which it was
    /// told so, without its having heard of it.
    pub fn told(&mut self, session: SessionId, inos: impl IntoIterator<Item = Ino>, index: LogIndex, now_us: u64) -> Vec<Ino> {
        self.turn(now_us);
        let hears_all = self.tables().iter().any(|table| table.everything.contains(&session));
        let behind = self.recent.iter().rev().take_while(|(at, ..)| *at > index).filter(|(_, by, _)| *by != Some(session));
        let changed: HashSet<Ino> = behind.map(|(.., ino)| *ino).collect();
        let mut missed = Vec::new();
        for ino in inos {
            let known = hears_all || self.tables().iter().any(|table| table.has_pair(ino, session));
            self.now.add(ino, session);
            if !known && (index < self.recent_behind || changed.contains(&ino)) {
                missed.push(ino);
            }
        }
        missed
    }

    /// The client knows the inode until it says otherwise, or leaves.
    pub fn keeps(&mut self, session: SessionId, ino: Ino) {
        self.lasting.add(ino, session);
    }

    /// The clients that keep it.
    pub fn keepers(&self, ino: Ino) -> Vec<SessionId> {
        self.lasting.of.get(&ino).map_or_else(Vec::new, |watchers| watchers.all().to_vec())
    }

    /// Whether the client hears of everything until it leaves: then nothing need be kept for it.
    pub fn keeps_all(&self, session: SessionId) -> bool {
        self.lasting.everything.contains(&session)
    }

    /// The opposite of [`Watch::keeps`]; what it was told just now it may still believe.
    pub fn drops(&mut self, session: SessionId, ino: Ino) {
        self.lasting.remove(ino, session);
        self.now.add(ino, session);
    }

    /// The client is gone; these are what it kept.
    pub fn left<'a>(&mut self, session: SessionId, kept: impl IntoIterator<Item = &'a Ino>) {
        kept.into_iter().for_each(|ino| self.lasting.remove(*ino, session));
        self.lasting.everything.remove(&session);
    }

    /// The inode was changed by an entry. Who did that knows it.
    pub fn changed(&mut self, index: LogIndex, by: Option<SessionId>, ino: Ino, now_us: u64) {
        self.turn(now_us);
        if let Some(by) = by {
            self.now.add(ino, by);
        }
        if self.recent.len() >= RECENT_MAX
            && let Some((index, ..)) = self.recent.pop_front()
        {
            self.recent_behind = index;
        }
        self.recent.push_back((index, by, ino));
    }

    /// Changes up to this index were not, or not in this history, said here.
    pub fn skips_to(&mut self, index: LogIndex) {
        self.recent.clear();
        self.recent_behind = index;
    }

    /// Who may know the inode, each once.
    pub fn watchers(&self, ino: Ino, to: &mut Vec<SessionId>) {
        to.clear();
        self.tables().iter().for_each(|table| table.collect(ino, to));
        to.sort_unstable();
        to.dedup();
    }

    fn tables(&self) -> [&Table; 3] {
        [&self.now, &self.before, &self.lasting]
    }

    fn turn(&mut self, now_us: u64) {
        let kept = if self.now.pairs >= WATCHED_MAX { KEPT_FULL_US } else { KEPT_US };
        if now_us.saturating_sub(self.turned_us) >= kept {
            std::mem::swap(&mut self.now, &mut self.before);
            self.now.clear();
            self.turned_us = now_us;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: SessionId = SessionId([1; 16]);
    const BOB: SessionId = SessionId([2; 16]);
    const CAROL: SessionId = SessionId([3; 16]);
    const DIR: Ino = Ino(7);
    const ALL: LogIndex = LogIndex(u64::MAX);

    fn watchers(watch: &Watch, ino: Ino) -> BTreeSet<SessionId> {
        let mut all = vec![];
        watch.watchers(ino, &mut all);
        all.into_iter().collect()
    }

    #[test]
    fn who_was_told_is_forgotten_after_one_to_two_times() {
        let mut watch = Watch::default();
        watch.told(ALICE, [DIR], ALL, KEPT_US);
        watch.told(BOB, [DIR, Ino(8)], ALL, 2 * KEPT_US - 1);
        watch.changed(LogIndex(1), Some(CAROL), DIR, 2 * KEPT_US);
        assert_eq!(watchers(&watch, DIR), [ALICE, BOB, CAROL].into());
        assert_eq!(watchers(&watch, Ino(8)), [BOB].into());
        watch.told(BOB, [DIR], ALL, 3 * KEPT_US);
        assert_eq!(watchers(&watch, DIR), [BOB, CAROL].into(), "Alice was told long ago");
        watch.told(BOB, [], ALL, 5 * KEPT_US);
        assert_eq!(watchers(&watch, DIR), [BOB].into());
    }

    #[test]
    fn what_is_kept_lasts_until_it_is_dropped() {
        let mut watch = Watch::default();
        for session in [ALICE, BOB, CAROL] {
            watch.keeps(session, DIR);
            watch.keeps(session, DIR);
        }
        watch.told(CAROL, [], ALL, 9 * KEPT_US);
        watch.drops(BOB, DIR);
        watch.drops(BOB, DIR);
        assert_eq!(watchers(&watch, DIR), [ALICE, BOB, CAROL].into(), "he may believe for a while what he was told");
        watch.told(CAROL, [], ALL, 19 * KEPT_US);
        watch.told(CAROL, [], ALL, 29 * KEPT_US);
        assert_eq!(watchers(&watch, DIR), [ALICE, CAROL].into());
        watch.left(ALICE, &[DIR, Ino(8)]);
        assert_eq!((watchers(&watch, DIR), watch.lasting.pairs), ([CAROL].into(), 1));
        watch.drops(ALICE, DIR);
        watch.drops(CAROL, DIR);
        watch.told(CAROL, [], ALL, 39 * KEPT_US);
        watch.told(CAROL, [], ALL, 49 * KEPT_US);
        assert_eq!((watchers(&watch, DIR), watch.lasting.pairs), ([].into(), 0));
        assert!(watch.lasting.of.is_empty());
    }

    #[test]
    fn law_27_who_knows_too_much_hears_everything() {
        let mut watch = Watch::default();
        watch.told(BOB, [DIR], ALL, 0);
        watch.told(ALICE, (1..=WATCHED_MAX as u64).map(|n| Ino(100 + n)), ALL, 0);
        assert_eq!(watchers(&watch, Ino(9)), [ALICE].into());
        watch.told(BOB, [DIR], ALL, 0);
        assert_eq!(watchers(&watch, Ino(9)), [ALICE].into(), "he knows no more than before");
        (1..=WATCHED_MAX as u64 + 1).for_each(|n| watch.keeps(CAROL, Ino(n)));
        watch.told(BOB, [], ALL, KEPT_US);
        watch.told(BOB, [], ALL, 2 * KEPT_US);
        assert_eq!(watchers(&watch, Ino(0)), [CAROL].into());
        watch.left(CAROL, &(1..=WATCHED_MAX as u64).map(Ino).collect::<Vec<_>>());
        assert_eq!((watchers(&watch, Ino(0)), watch.lasting.pairs), ([].into(), 0));
    }

    #[test]
    fn what_fills_the_table_is_forgotten_sooner_and_burdens_nobody_else() {
        let mut watch = Watch::default();
        watch.told(ALICE, (1..=WATCHED_MAX as u64).map(|n| Ino(100 + n)), ALL, KEPT_US);
        watch.told(BOB, [DIR], ALL, KEPT_US + KEPT_FULL_US);
        assert_eq!(watchers(&watch, Ino(9)), [].into());
        assert_eq!((watchers(&watch, DIR), watchers(&watch, Ino(101))), ([BOB].into(), [ALICE].into()));
    }

    #[test]
    fn what_others_changed_behind_a_read_was_missed_by_who_did_not_know_it_yet() {
        let mut watch = Watch::default();
        watch.changed(LogIndex(4), Some(BOB), DIR, 0);
        watch.changed(LogIndex(5), Some(ALICE), Ino(8), 0);
        watch.changed(LogIndex(6), None, Ino(9), 0);
        assert_eq!(watch.told(CAROL, [DIR, Ino(9)], LogIndex(4), 0), [Ino(9)]);
        assert_eq!(watch.told(ALICE, [DIR, Ino(8), Ino(9)], LogIndex(3), 0), [DIR, Ino(9)]);
        assert_eq!(watch.told(ALICE, [DIR, Ino(9)], LogIndex(3), 0), [], "she has heard of it since");
        for n in 0..=RECENT_MAX as u64 {
            watch.changed(LogIndex(7 + n), Some(BOB), Ino(1000 + n), 0);
        }
        assert_eq!(watch.told(ALICE, [Ino(10)], LogIndex(6), 0), [Ino(10)], "too long ago to remember");
        watch.skips_to(LogIndex(6));
        assert_eq!(watch.told(ALICE, [Ino(11)], LogIndex(6), 0), []);
    }
}
