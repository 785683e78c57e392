//! A state as the transactions that lead to it: what a leader sends a gometa learner, and gometa's
//! sends, that keeps its state alone and no history (gometa's "embedded" form). It goes into a
//! [`Snapshot`], for the application to make and to take.
//!
//! ```text
//! magic (8) | per transaction, little-endian: operation (4), length of key (4), of content (4), key, content
//! ```

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::Index;

use crate::{Command, LogEntry, Op, Snapshot, Zxid};

const MAGIC: [u8; 8] = *b"zabstate";

impl Snapshot {
    /// What these lead to on an empty machine, one after the other: one [`Command::set`] for each key,
    /// say. It is the state after the entry at `index`, which has the id `zxid`.
    pub fn of_commands<'a>(
        index: Index,
        zxid: Zxid,
        commands: impl IntoIterator<Item = &'a Command>,
    ) -> Snapshot {
        let mut data = BytesMut::from(&MAGIC[..]);
        for Command { op, key, content } in commands {
            data.put_u32_le(op.0);
            data.put_u32_le(key.len() as u32);
            data.put_u32_le(content.len() as u32);
            data.extend_from_slice(key.as_bytes());
            data.extend_from_slice(content);
        }
        Snapshot { index, zxid, data: data.freeze() }
    }

    /// The transactions that make this state out of an empty one, in order, if it was made
    /// [of such](Snapshot::of_commands): here, or out of what a gometa leader sent
    /// ([`Config::takes_states`](crate::Config::takes_states)). Nothing if its data are the
    /// application's own.
    pub fn commands(&self) -> Option<Vec<Command>> {
        let mut data: Bytes = self.data.clone();
        if !data.starts_with(&MAGIC) {
            return None;
        }
        data.advance(MAGIC.len());
        let mut commands = Vec::new();
        while !data.is_empty() {
            let op = Op(data.try_get_u32_le().ok()?);
            let key = data.try_get_u32_le().ok()? as usize;
            let content = data.try_get_u32_le().ok()? as usize;
            if data.len() < key.checked_add(content)? {
                return None;
            }
            let key = data.split_to(key);
            let key = std::str::from_utf8(&key).ok()?.into();
            commands.push(Command { op, key, content: data.split_to(content) });
        }
        Some(commands)
    }

    /// The same as a gometa leader streams it: numbered from 1 on, but for the last one, which has the
    /// id of all. What no learner of gometa's could apply is left out.
    pub(crate) fn stream(&self) -> Option<VecDeque<LogEntry>> {
        let commands = self.commands()?.into_iter().filter(|command| command.op.is_applied());
        let numbered = (1..).map(Zxid).zip(commands);
        let entry = |(zxid, command)| LogEntry { zxid, command, keep: None };
        let mut stream: VecDeque<LogEntry> = numbered.map(entry).collect();
        if let Some(last) = stream.back_mut() {
            last.zxid = self.zxid;
        }
        Some(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_of_transactions_is_read_as_it_was_made_or_not_at_all() {
        let commands = [Command::set("a", "1"), Command { op: Op::ADD, ..Command::set("", "") }];
        let made = Snapshot::of_commands(Index(3), Zxid(7), commands.iter());
        assert_eq!(made.commands().as_deref(), Some(&commands[..]));
        let none = Snapshot::of_commands(Index(3), Zxid(7), [].iter());
        assert_eq!(none.commands(), Some(Vec::new()));
        // Cut short, or something else.
        for len in 0..made.data.len() {
            let data = made.data.slice(..len);
            let found = Snapshot { data, ..made.clone() }.commands();
            let is_whole = found.as_ref().is_some_and(|found| found[..] == commands[..found.len()]);
            assert!(found.is_none() || (is_whole && len < made.data.len()), "{len}");
        }
    }
}
