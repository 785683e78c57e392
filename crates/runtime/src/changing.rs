//! A change of the list of members as the change of the engine's membership that it travels with.

use bytes::BytesMut;
use quorate_kv::MemberChange;
use quorate_raft::{
    AnyConfChange, ConfChange, ConfChangeSingle, ConfChangeTransition, ConfChangeType, ConfChangeV2,
};
use quorate_replica::{RequestId, seal_change};
use quorate_types::{NodeId, Term};

/// `judged` is the term in which its leader allowed it.
pub(crate) fn change_of_engine(
    request: RequestId,
    judged: Term,
    change: &MemberChange,
) -> AnyConfChange {
    let mut context = BytesMut::new();
    seal_change(request, judged, &mut context);
    change.encode(&mut context);
    let context = context.freeze();
    let change_type = match change {
        MemberChange::Add(member) if member.is_learner => ConfChangeType::AddLearnerNode,
        // To demote a voter is to add a learner.
        MemberChange::Demote(_) => ConfChangeType::AddLearnerNode,
        MemberChange::Remove(_) => ConfChangeType::RemoveNode,
        MemberChange::UpdatePeerUrls { .. } => ConfChangeType::UpdateNode,
        // Two steps, and never only one of them: joint, and left by the leader itself.
        MemberChange::Replace { demoted, promoted } => {
            let changes = vec![
                ConfChangeSingle::new(ConfChangeType::AddNode, NodeId(*promoted)),
                ConfChangeSingle::new(ConfChangeType::AddLearnerNode, NodeId(*demoted)),
            ];
            let transition = Some(ConfChangeTransition::JointImplicit);
            return AnyConfChange::V2(ConfChangeV2 { transition, changes, context });
        }
        // To promote a learner is to add a voter.
        _ => ConfChangeType::AddNode,
    };
    let node_id = NodeId(change.member());
    AnyConfChange::V1(ConfChange { id: request.0, change_type, node_id, context })
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use quorate_kv::Member;
    use quorate_replica::open_change;

    use super::*;

    #[test]
    fn a_change_of_the_list_is_one_of_the_engine() {
        let member = |is_learner| Member { id: 7, is_learner, ..Member::default() };
        for (change, want) in [
            (MemberChange::Add(member(false)), "v7"),
            (MemberChange::Add(member(true)), "l7"),
            (MemberChange::Promote(7), "v7"),
            (MemberChange::Demote(7), "l7"),
            (MemberChange::Remove(7), "r7"),
            (MemberChange::UpdatePeerUrls { id: 7, peer_urls: Vec::new() }, "u7"),
            (MemberChange::Replace { demoted: 3, promoted: 7 }, "v7 l3"),
        ] {
            let engines = change_of_engine(RequestId(5), Term(9), &change).as_v2();
            let words = engines.changes.iter().map(|one| {
                let letter = match one.change_type {
                    ConfChangeType::AddNode => 'v',
                    ConfChangeType::AddLearnerNode => 'l',
                    ConfChangeType::RemoveNode => 'r',
                    ConfChangeType::UpdateNode => 'u',
                };
                format!("{letter}{}", one.node_id.0)
            });
            assert_eq!(words.collect::<Vec<_>>().join(" "), want, "{change:?}");
            let is_joint = engines.transition == Some(ConfChangeTransition::JointImplicit);
            assert_eq!(is_joint, matches!(change, MemberChange::Replace { .. }));
            let (request, judged, rest): (_, _, Bytes) = open_change(engines.context).unwrap();
            assert_eq!((request, judged), (RequestId(5), Term(9)));
            assert_eq!(MemberChange::decode(rest), Ok(change));
        }
    }
}
