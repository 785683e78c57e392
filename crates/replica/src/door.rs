//! Who may say what: the check that a message passes between a connection and a replica.

use quorate_raft::{Body, Message, MessageType, is_local_target};
use quorate_types::NodeId;

/// Whether `from`, at the other end of a connection, may send this message: its own, or one that it
/// passes on for another node. Nobody speaks for this node's storage, and a snapshot counts only
/// with its state, which comes apart.
pub fn speaks_for(message: &Message, from: NodeId) -> bool {
    if is_local_target(message.from) || matches!(message.body, Body::Snapshot { .. }) {
        return false;
    }
    message.from == from
        || matches!(
            message.message_type(),
            MessageType::MsgProp | MessageType::MsgReadIndex | MessageType::MsgTransferLeader
        )
}

#[cfg(test)]
mod tests {
    use quorate_raft::LOCAL_APPEND_THREAD;
    use quorate_types::Index;

    use super::*;

    #[test]
    fn peers_speak_for_themselves_alone() {
        let from = |id| {
            let body = Body::StorageAppendReply { stable: None, snapshot: None };
            Message { from: id, ..Message::new(NodeId(1), body) }
        };
        let snapshot = Body::Snapshot { snapshot: Box::default() };
        let forwarded = Body::Propose { entries: Vec::new() };
        let spoken = |body| Message { from: NodeId(3), ..Message::new(NodeId(1), body) };
        for (message, sender, want) in [
            (spoken(Body::AppendReply { index: Index(1) }), 3, true),
            (spoken(Body::AppendReply { index: Index(1) }), 2, false),
            (spoken(forwarded), 2, true),
            // Without its state, it would leave a mark in the log that nothing stands behind.
            (spoken(snapshot), 3, false),
            (from(LOCAL_APPEND_THREAD), LOCAL_APPEND_THREAD.0, false),
        ] {
            assert_eq!(speaks_for(&message, NodeId(sender)), want, "{message:?} of {sender}");
        }
    }
}
