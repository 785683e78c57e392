//! One member out of a cluster whose others are lost: with everything that its log and its state
//! hold, committed or not, since nobody is left who could say which it was.
//!
//! What it cannot know is what the others had and it did not: that is gone. And the others must never
//! come back: they would not know that they were removed until they talk with this one.

use quorate_codec as codec;
use quorate_kv::{Apply, Entry, MemberChange, Store};
use quorate_raft::{ConfState, EntryType, decode_conf_change};
use quorate_replica::{Initial, open, open_change};
use quorate_types::{Index, NodeId};

/// Entries given to the machine in one call.
const CALL_MAX: usize = 256;

/// Makes `node` the only member, durably. Doing it twice is harmless, and so is stopping anywhere.
///
/// # Errors
///
/// Why it is not possible.
pub(crate) fn go_on_alone(
    node: NodeId,
    store: &Store,
    initial: &mut Initial,
) -> Result<(), String> {
    let alone = ConfState { voters: vec![node], ..ConfState::default() };
    let members = store.members();
    if initial.applied == Index(0) && initial.entries.is_empty() {
        return Err("it joined a cluster and was lost to it before it got the state".to_owned());
    }
    if members.len() == 1 && initial.conf_state == alone {
        tracing::warn!("--force-new-cluster: this is the only member already; take the flag away");
        return Ok(());
    }
    let lost: Vec<String> = members
        .iter()
        .filter(|member| member.id != node.0)
        .map(|member| format!("{:x}", member.id))
        .collect();
    apply_rest(store, initial)?;
    if store.membership().is_removed(node.0) {
        return Err("the last that it knows is that it was removed".to_owned());
    }
    let conf_state = codec::encode_conf_state_record(&alone);
    store.keep_only_member(node.0, conf_state).map_err(|error| error.to_string())?;
    initial.applied = store.applied().index;
    initial.conf_state = alone;
    tracing::warn!(
        through = initial.applied.0,
        lost = lost.join(", "),
        "--force-new-cluster: this is the only member from now on; what the others alone had is \
         lost, and none of them may ever be started again with its data"
    );
    Ok(())
}

/// Applies the log to its end.
fn apply_rest(store: &Store, initial: &Initial) -> Result<(), String> {
    let conf_state = codec::encode_conf_state_record(&initial.conf_state);
    let applied = store.applied().index;
    let mut entries = Vec::new();
    for entry in initial.entries.iter().filter(|entry| applied < entry.index) {
        let (index, kind) = (entry.index, entry.entry_type());
        let data = entry.data.clone().unwrap_or_default();
        let at = |error: &dyn std::fmt::Display| format!("at {index}: {error}");
        let what = match kind {
            EntryType::Normal if data.is_empty() => Apply::Empty,
            EntryType::Normal => Apply::Command(open(data).map_err(|error| at(&error))?.1),
            EntryType::ConfChange | EntryType::ConfChangeV2 => {
                let change = decode_conf_change(kind, &data).map_err(|error| at(&error))?;
                let opened = open_change(change.as_v2().context);
                // One that changed nothing is made up for when all but this member go.
                let opened = opened.filter(|(_, judged, _)| *judged == entry.term);
                let change = opened.map(|(_, _, bytes)| MemberChange::decode(bytes));
                let change = change.transpose().map_err(|error| at(&error))?;
                Apply::Membership { conf_state: conf_state.clone(), change }
            }
        };
        let term = initial.hard_state.engine().era(entry.term.0);
        entries.push(Entry { index, term, what, answer_wanted: false });
    }
    for entries in entries.chunks(CALL_MAX) {
        let mut done = 0;
        while done < entries.len() {
            if store.needs_flush() {
                store.flush().map_err(|error| error.to_string())?;
            }
            let outcome = store.apply(&entries[done..]).map_err(|error| error.to_string())?;
            done += outcome.responses.len();
        }
    }
    Ok(())
}
