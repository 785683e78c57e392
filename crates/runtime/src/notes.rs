//! The engine's notes as log lines.

use quorate_raft::Note as Raft;
use quorate_replica::Note;
use quorate_zab::Note as Zab;

/// Tells people what they would want to know, and keeps the rest for whoever debugs.
pub(crate) fn trace(note: &Note) {
    match note {
        Note::Raft(
            Raft::Became { .. }
            | Raft::LeaderKnown { .. }
            | Raft::QuorumLost { .. }
            | Raft::MembershipChanged { .. }
            | Raft::SnapshotSent { .. }
            | Raft::SnapshotRestored { .. }
            | Raft::TransferStarted { .. }
            | Raft::TransferOrdered { .. }
            | Raft::TransferEnded { .. },
        )
        | Note::Zab(
            Zab::Became { .. }
            | Zab::Left { .. }
            | Zab::Established { .. }
            | Zab::Joined { .. }
            | Zab::Resigning { .. }
            | Zab::LastEpoch,
        ) => tracing::info!("{note}"),
        Note::Zab(Zab::Diverged { .. }) => tracing::error!("{note}"),
        _ => tracing::debug!("{note}"),
    }
}
