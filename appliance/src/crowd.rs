//! Pure: decides which connection of a full listener is let go: the one on which nothing has been
//! under way for longest.
//!
//! Invariant: a connection on which something is under way is never let go, also where it was asked
//! to go before that began.

use std::collections::{BTreeMap, HashMap};

/// The connections of one listener, each with what it is asked to go by.
#[derive(Debug)]
pub(crate) struct Crowd<T> {
    /// Grows with everything that happens: the order in which connections became idle.
    turn: u64,
    members: HashMap<Member, (T, Doing)>,
    /// Those that are idle, the longest first.
    idle: BTreeMap<u64, Member>,
}

/// One connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Member(u64);

/// What a connection is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Idle {
        since: u64,
    },
    /// So many things are under way; at least one.
    Busy(u32),
    /// Asked to go.
    Leaving,
}

// === impl Crowd ===

impl<T> Default for Crowd<T> {
    fn default() -> Self {
        Self {
            turn: 0,
            members: HashMap::new(),
            idle: BTreeMap::new(),
        }
    }
}

impl<T> Crowd<T> {
    /// A connection that has said nothing yet.
    pub(crate) fn enter(&mut self, reach: T) -> Member {
        let since = self.next_turn();
        let member = Member(since);
        self.members.insert(member, (reach, Doing::Idle { since }));
        self.idle.insert(since, member);
        member
    }

    /// Something is under way.
    pub(crate) fn begin(&mut self, member: Member) {
        let Some((_, doing)) = self.members.get_mut(&member) else {
            return;
        };
        *doing = match *doing {
            Doing::Idle { since } => {
                self.idle.remove(&since);
                Doing::Busy(1)
            }
            Doing::Busy(count) => Doing::Busy(count.saturating_add(1)),
            Doing::Leaving => Doing::Busy(1),
        };
    }

    /// One of the things that were under way is over.
    pub(crate) fn end(&mut self, member: Member) {
        let since = self.next_turn();
        let Some((_, doing)) = self.members.get_mut(&member) else {
            return;
        };
        *doing = match *doing {
            Doing::Busy(count) if count > 1 => Doing::Busy(count - 1),
            Doing::Busy(_) => {
                self.idle.insert(since, member);
                Doing::Idle { since }
            }
            Doing::Idle { .. } | Doing::Leaving => *doing,
        };
    }

    /// Whom to ask to go; none where something is under way on all of them.
    pub(crate) fn ask(&mut self) -> Option<&T> {
        let (_, member) = self.idle.pop_first()?;
        let (reach, doing) = self.members.get_mut(&member)?;
        *doing = Doing::Leaving;
        Some(reach)
    }

    /// Whether one that was asked to go may do so: nothing has begun since.
    pub(crate) fn may_leave(&self, member: Member) -> bool {
        let doing = self.members.get(&member).map(|(_, doing)| *doing);
        doing == Some(Doing::Leaving)
    }

    /// The connection is over.
    pub(crate) fn leave(&mut self, member: Member) {
        if let Some((_, Doing::Idle { since })) = self.members.remove(&member) {
            self.idle.remove(&since);
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Who is asked to go, one after the other, after `story`: `a+` enters or begins something, `a-`
    /// ends it, `a!` leaves, `?` asks one to go. Ends with who of those may go.
    #[track_caller]
    fn check(story: &str, asked: &str, go: &str) {
        let mut crowd = Crowd::default();
        let mut members = BTreeMap::new();
        let mut said = String::new();
        for word in story.split(' ') {
            let name = &word[..word.len() - 1];
            let member = members.get(name).copied();
            match (&word[word.len() - 1..], member) {
                ("?", _) => said.push_str(crowd.ask().copied().unwrap_or(".")),
                ("+", None) => {
                    members.insert(name, crowd.enter(name));
                }
                ("+", Some(member)) => crowd.begin(member),
                ("-", Some(member)) => crowd.end(member),
                ("!", Some(member)) => crowd.leave(member),
                (other, _) => panic!("{other}"),
            }
        }
        let may_leave = members
            .iter()
            .filter(|(_, member)| crowd.may_leave(**member));
        let may_leave: String = may_leave.map(|(name, _)| *name).collect();
        assert_eq!((said.as_str(), may_leave.as_str()), (asked, go), "{story}");
    }

    #[test]
    fn who_has_been_idle_for_longest_goes_first() {
        check("a+ b+ c+ ? ? ? ?", "abc.", "abc");
        // One that was answered meanwhile is younger than one that never spoke.
        check("a+ b+ a+ a- ? ?", "ba", "ab");
        check("a+ b+ a! ? ?", "b.", "b");
        check("?", ".", "");
    }

    #[test]
    fn who_has_something_under_way_is_never_let_go() {
        check("a+ a+ ?", ".", "");
        check("a+ b+ a+ ? ?", "b.", "b");
        // Two things under way, and one of them over.
        check("a+ a+ a+ a- ?", ".", "");
        check("a+ a+ a+ a- a- ?", "a", "a");
        // Its request came before it went: it stays, and is asked again once it is idle.
        check("a+ ? a+ ?", "a.", "");
        check("a+ ? a+ a- ?", "aa", "a");
        // What never began does not end.
        check("a+ a- ? ? a-", "a.", "a");
    }

    #[test]
    fn nothing_is_kept_of_who_has_left() {
        let mut crowd = Crowd::default();
        for () in [(); 3] {
            let member = crowd.enter(());
            crowd.begin(member);
            crowd.end(member);
            crowd.leave(member);
            crowd.begin(member);
            crowd.end(member);
        }
        assert!(crowd.members.is_empty() && crowd.idle.is_empty());
    }
}
