//! The engine's notes as log lines.

use quorate_raft::Note;

/// Tells people what they would want to know, and keeps the rest for whoever debugs.
pub(crate) fn trace(note: &Note) {
    match note {
        Note::Became { .. }
        | Note::LeaderKnown { .. }
        | Note::QuorumLost { .. }
        | Note::MembershipChanged { .. }
        | Note::SnapshotSent { .. }
        | Note::SnapshotRestored { .. }
        | Note::TransferStarted { .. }
        | Note::TransferOrdered { .. }
        | Note::TransferEnded { .. } => tracing::info!("{note}"),
        _ => tracing::debug!("{note}"),
    }
}
