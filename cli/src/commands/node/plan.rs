//! The next step towards the members that are wished for, by what the leader says of the present ones. Pure: whoever was
//! interrupted looks again and goes on.

use farshore_wire::admin::{CAUGHT_UP, MembersView, NewMember};

/// The change that is wished for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    pub add: Option<NewMember>,
    pub remove: Option<u64>,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask the leader to take the node in as a learner.
    TakeIn,
    /// It receives what it lacks; so many entries, if that is known.
    CatchUp(Option<u64>),
    /// Ask the leader to change who votes.
    Change,
    Done,
}

/// The next step.
pub fn next(view: &MembersView, wish: &Wish) -> Step {
    let of = |id: u64| view.members.iter().find(|member| member.id == id);
    if let Some(new) = &wish.add {
        match of(new.id) {
            None => return Step::TakeIn,
            Some(member) if member.voter => {}
            Some(member) if member.behind.is_some_and(|behind| behind <= CAUGHT_UP) => return Step::Change,
            Some(member) => return Step::CatchUp(member.behind),
        }
    }
    let goes = wish.remove.is_some_and(|id| of(id).is_some());
    if goes || view.changing { Step::Change } else { Step::Done }
}

#[cfg(test)]
mod tests {
    use super::*;
    use farshore_wire::admin::MemberView;

    fn member(id: u64, voter: bool, behind: Option<u64>) -> MemberView {
        MemberView { id, voter, behind, ..MemberView::default() }
    }

    fn view(members: &[MemberView]) -> MembersView {
        MembersView { members: members.to_vec(), ..MembersView::default() }
    }

    fn replace(new: u64, old: u64) -> Wish {
        Wish { add: Some(NewMember { id: new, ..NewMember::default() }), remove: Some(old) }
    }

    #[test]
    fn a_replacement_goes_step_by_step_and_may_begin_anywhere() {
        let three = [1, 2, 3].map(|id| member(id, true, Some(0)));
        let with = |four: MemberView| view(&[&three[..], &[four]].concat());
        assert_eq!(next(&view(&three), &replace(4, 2)), Step::TakeIn);
        assert_eq!(next(&with(member(4, false, None)), &replace(4, 2)), Step::CatchUp(None));
        assert_eq!(next(&with(member(4, false, Some(CAUGHT_UP + 1))), &replace(4, 2)), Step::CatchUp(Some(CAUGHT_UP + 1)));
        assert_eq!(next(&with(member(4, false, Some(CAUGHT_UP))), &replace(4, 2)), Step::Change);
        assert_eq!(next(&with(member(4, true, None)), &replace(4, 2)), Step::Change, "it votes, the other is still there");
        let after = view(&[three[0].clone(), three[2].clone(), member(4, true, Some(0))]);
        assert_eq!(next(&after, &replace(4, 2)), Step::Done);
        assert_eq!(
            next(&MembersView { changing: true, ..after }, &replace(4, 2)),
            Step::Change,
            "two sets of voters must agree still"
        );
    }

    #[test]
    fn adding_and_removing_alone() {
        let three = [1, 2, 3].map(|id| member(id, true, Some(0)));
        let remove = |id| Wish { remove: Some(id), ..Wish::default() };
        assert_eq!(next(&view(&three), &remove(3)), Step::Change);
        assert_eq!(next(&view(&three[..2]), &remove(3)), Step::Done);
        let add = Wish { remove: None, ..replace(3, 0) };
        assert_eq!(next(&view(&three), &add), Step::Done);
        assert_eq!(next(&view(&three[..2]), &add), Step::TakeIn);
    }
}
