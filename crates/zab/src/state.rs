//! A state as the transactions that lead to it: what a gometa leader sends that keeps its state alone,
//! and no history (its "embedded" form). It goes into a [`Snapshot`], for the application to take.
//!
//! ```text
//! magic (8) | per transaction, little-endian: operation (4), length of key (4), of content (4), key, content
//! ```

use bytes::{Buf, BufMut, Bytes, BytesMut};
use quorate_types::Index;

use crate::{Command, Op, Snapshot, Zxid};

const MAGIC: [u8; 8] = *b"zabstate";

impl Snapshot {
    /// What these lead to on an empty machine, one after the other.
    pub(crate) fn of_commands<'a>(
        index: Index,
        zxid: Zxid,
        commands: impl Iterator<Item = &'a Command>,
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

    /// The transactions that make this state out of an empty one, in order, if it is one that a
    /// gometa leader has sent as such ([`Config::takes_states`](crate::Config::takes_states)); nothing
    /// if its data are the application's own.
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
