//! The Raft configuration as autopilot sees it, and what may be done to it from outside the rounds:
//! adding and removing one server.

use quorate_types::Index;

use crate::action::Action;
use crate::server::{RaftState, Server, ServerId};

/// Whether a server of the configuration votes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suffrage {
    /// It does. Written as 0.
    Voter,
    /// It only receives the log. Written as 1.
    NonVoter,
    /// It is to become a voter. Written as 2.
    Staging,
    /// A code of no known meaning.
    Other(i64),
}

impl From<i64> for Suffrage {
    fn from(code: i64) -> Suffrage {
        match code {
            0 => Suffrage::Voter,
            1 => Suffrage::NonVoter,
            2 => Suffrage::Staging,
            code => Suffrage::Other(code),
        }
    }
}

impl From<Suffrage> for RaftState {
    fn from(suffrage: Suffrage) -> RaftState {
        match suffrage {
            Suffrage::Voter => RaftState::Voter,
            Suffrage::NonVoter => RaftState::NonVoter,
            Suffrage::Staging => RaftState::Staging,
            Suffrage::Other(_) => RaftState::None,
        }
    }
}

/// One server of the Raft configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Whether it votes.
    pub suffrage: Suffrage,
    /// Which server.
    pub id: ServerId,
    /// Where the others reach it.
    pub address: String,
}

impl Member {
    /// A member with these.
    pub fn new(suffrage: Suffrage, id: impl Into<ServerId>, address: impl Into<String>) -> Member {
        Member { suffrage, id: id.into(), address: address.into() }
    }
}

/// The replicated list of servers, committed or not.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftConfiguration {
    /// In the order Raft has them.
    pub members: Vec<Member>,
    /// Of the entry in the log that made it so.
    pub index: Index,
}

impl RaftConfiguration {
    /// How many servers have a vote.
    pub fn voter_count(&self) -> usize {
        self.members.iter().filter(|member| member.suffrage == Suffrage::Voter).count()
    }

    /// The first member at `address`.
    pub(crate) fn at_address(&self, address: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.address == address)
    }
}

/// How many of `voters` must agree.
pub fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

/// Why a server is not added.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unsafe server addition: {removals} of {voters} voters at its address would have to go, and no \
     more than {removals_max} can"
)]
pub struct UnsafeServerAddition {
    /// Voters that hold the address.
    pub removals: usize,
    /// Voters there are.
    pub voters: usize,
    /// How many of them can go at once.
    pub removals_max: usize,
}

/// What it takes to add `server`, of which only id and address count: those at its address go first,
/// then it comes in without a vote; one that votes already gets the new address. No action at all
/// means that it is there.
///
/// # Errors
///
/// When more voters would have to go than the cluster can spare.
///
/// Source: the reference's `AddServer`.
pub fn plan_add_server(
    configuration: &RaftConfiguration,
    server: &Server,
) -> Result<Vec<Action>, UnsafeServerAddition> {
    let (mut is_voter, mut voters_to_go, mut others_to_go) = (false, Vec::new(), Vec::new());
    for member in &configuration.members {
        match (member.id == server.id, member.address == server.address) {
            (true, true) => return Ok(Vec::new()),
            (true, false) => {
                is_voter |= matches!(member.suffrage, Suffrage::Voter | Suffrage::Staging);
            }
            (false, true) if member.suffrage == Suffrage::Voter => {
                voters_to_go.push(member.id.clone());
            }
            (false, true) => others_to_go.push(member.id.clone()),
            (false, false) => {}
        }
    }
    let voters = configuration.voter_count();
    // Without voters no removal is safe, not even none: there is nobody to commit the addition.
    let spare = voters.checked_sub(quorum(voters));
    let removals = voters_to_go.len();
    if spare.is_none_or(|spare| spare < removals) {
        let removals_max = spare.unwrap_or(0);
        return Err(UnsafeServerAddition { removals, voters, removals_max });
    }
    let mut actions: Vec<Action> = voters_to_go
        .into_iter()
        .chain(others_to_go)
        .map(|id| Action::RemoveServer { id })
        .collect();
    let (id, address) = (server.id.clone(), server.address.clone());
    actions.push(match is_voter {
        true => Action::AddVoter { id, address },
        false => Action::AddNonvoter { id, address },
    });
    Ok(actions)
}

/// What it takes to remove a server; nothing if it is not there.
pub fn plan_remove_server(configuration: &RaftConfiguration, id: &ServerId) -> Option<Action> {
    let is_there = configuration.members.iter().any(|member| member.id == *id);
    is_there.then(|| Action::RemoveServer { id: id.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `a@1v b@2n c@3s`: ids, addresses, and how they vote.
    fn configuration(text: &str) -> RaftConfiguration {
        let members = text.split_whitespace().map(|word| {
            let (id, rest) = word.split_once('@').unwrap();
            let (address, suffrage) = rest.split_at(rest.len() - 1);
            let suffrage = match suffrage {
                "v" => Suffrage::Voter,
                "n" => Suffrage::NonVoter,
                "s" => Suffrage::Staging,
                _ => Suffrage::Other(7),
            };
            Member::new(suffrage, id, address)
        });
        RaftConfiguration { members: members.collect(), index: Index(1) }
    }

    #[test]
    fn servers_are_added_as_the_reference_adds_them() {
        for (members, server, want) in [
            ("a@1v b@2v c@3v", "d@4", "add-nonvoter d@4"),
            ("a@1v b@2v c@3v", "b@9", "add-voter b@9"),
            ("a@1v b@2n", "b@9", "add-nonvoter b@9"),
            ("a@1v b@2s", "b@9", "add-voter b@9"),
            ("a@1v b@2v c@3v", "d@2", "remove b, add-nonvoter d@2"),
            ("a@1v b@2v c@3v", "b@3", "remove c, add-voter b@3"),
            ("a@1v b@2v", "c@2", "unsafe"),
            ("a@1v b@2n", "c@2", "remove b, add-nonvoter c@2"),
            ("", "a@1", "unsafe"),
            // Both id and address are there: nothing to do, whatever else stands there.
            ("a@1v b@2v c@3v", "b@2", ""),
            ("a@1v b@2n c@3s", "c@3", ""),
            ("a@1v x@2v b@2v", "b@2", ""),
            // Voters go before non-voters, each in the order of the configuration.
            (
                "a@1v n@9n x@9v b@2v m@9s c@3v",
                "d@9",
                "remove x, remove n, remove m, add-nonvoter d@9",
            ),
            // One of two voters cannot be spared; a voter's address can be changed all the same.
            ("a@1v b@2v", "b@9", "add-voter b@9"),
            ("a@1v", "a@9", "add-voter a@9"),
            // Two of five can go, three cannot.
            ("a@1v b@2v c@9v d@9v e@5v", "f@9", "remove c, remove d, add-nonvoter f@9"),
            ("a@1v b@9v c@9v d@9v e@5v", "f@9", "unsafe"),
            // Only non-voters: nobody could commit it.
            ("a@1n", "b@2", "unsafe"),
        ] {
            let (id, address) = server.split_once('@').unwrap();
            let server = Server { id: id.into(), address: address.into(), ..Server::default() };
            let got = match plan_add_server(&configuration(members), &server) {
                Ok(actions) => {
                    actions.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
                }
                Err(_) => "unsafe".to_owned(),
            };
            assert_eq!(got, want, "{members}: {id}@{address}");
        }
    }

    #[test]
    fn only_a_member_is_removed() {
        let members = configuration("a@1v b@2n");
        for (id, want) in [("a", Some("remove a")), ("b", Some("remove b")), ("c", None)] {
            let action = plan_remove_server(&members, &id.into());
            assert_eq!(action.map(|action| action.to_string()).as_deref(), want);
        }
    }

    #[test]
    fn voters_are_counted_without_staging_and_non_voters() {
        for (members, want) in [
            ("a@1v b@2v c@3v", 3),
            ("a@1v b@2v c@3s", 2),
            ("a@1v b@2v c@3n", 2),
            ("a@1?", 0),
            ("", 0),
        ] {
            assert_eq!(configuration(members).voter_count(), want, "{members}");
        }
    }

    #[test]
    fn suffrages_have_codes() {
        for (code, state) in [
            (0, RaftState::Voter),
            (1, RaftState::NonVoter),
            (2, RaftState::Staging),
            (3, RaftState::None),
            (-1, RaftState::None),
        ] {
            assert_eq!(RaftState::from(Suffrage::from(code)), state, "{code}");
        }
    }
}
