//! Who is in the cluster, as clients see it: names and URLs beside the engine's ids.
//!
//! The list is replicated state. An id that was removed is remembered for ever, so that it can
//! never come back.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes, BytesMut};
use quorate_types::Life;

use crate::error::KvError;
use crate::wire::{
    Malformed, Reader, put_bytes, put_str, put_strings, put_tags, put_varint, read_tags,
};

/// One member. etcd's `Member`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Who; never 0.
    pub id: u64,
    /// Its name; empty until it has started and published itself.
    pub name: String,
    /// Where peers reach it.
    pub peer_urls: Vec<String>,
    /// Where clients reach it; empty until it has published itself.
    pub client_urls: Vec<String>,
    /// Whether it has no vote.
    pub is_learner: bool,
    /// The life of its log; `NONE` until it has published itself, and the same for ever after.
    pub life: Life,
    /// Its version, as it published it; empty if it has not.
    pub version: String,
    /// What else it published of itself.
    pub tags: BTreeMap<String, String>,
}

/// What a change of membership does to the list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum MemberChange {
    /// A new member.
    Add(Member),
    /// A member goes, for ever.
    Remove(u64),
    /// Its peer URLs change; nothing else does.
    UpdatePeerUrls {
        /// Who.
        id: u64,
        /// The new URLs.
        peer_urls: Vec<String>,
    },
    /// A learner becomes a voter.
    Promote(u64),
    /// A voter becomes a learner.
    Demote(u64),
    /// A learner becomes a voter in the place of one that becomes a learner, at once.
    Replace {
        /// Who loses its vote.
        demoted: u64,
        /// Who gets one.
        promoted: u64,
    },
}

const CHANGE_FORMAT: u8 = 1;
// Kinds of changes. Numbers are never used again for another meaning.
const ADD: u8 = 1;
const REMOVE: u8 = 2;
const UPDATE_PEER_URLS: u8 = 3;
const PROMOTE: u8 = 4;
const DEMOTE: u8 = 5;
const REPLACE: u8 = 6;

impl MemberChange {
    /// Whom it is about; of a replacement, whoever gets the vote.
    pub fn member(&self) -> u64 {
        match self {
            MemberChange::Add(member) => member.id,
            MemberChange::Remove(id)
            | MemberChange::Promote(id)
            | MemberChange::Demote(id)
            | MemberChange::UpdatePeerUrls { id, .. }
            | MemberChange::Replace { promoted: id, .. } => *id,
        }
    }

    /// Writes the change, as it travels in an entry: format (1), kind (1), fields.
    pub fn encode(&self, out: &mut BytesMut) {
        out.put_u8(CHANGE_FORMAT);
        match self {
            MemberChange::Add(member) => {
                out.put_u8(ADD);
                encode_member(member, out);
            }
            MemberChange::Remove(id) => {
                out.put_u8(REMOVE);
                put_varint(out, *id);
            }
            MemberChange::UpdatePeerUrls { id, peer_urls } => {
                out.put_u8(UPDATE_PEER_URLS);
                put_varint(out, *id);
                put_strings(out, peer_urls);
            }
            MemberChange::Promote(id) => {
                out.put_u8(PROMOTE);
                put_varint(out, *id);
            }
            MemberChange::Demote(id) => {
                out.put_u8(DEMOTE);
                put_varint(out, *id);
            }
            MemberChange::Replace { demoted, promoted } => {
                out.put_u8(REPLACE);
                put_varint(out, *demoted);
                put_varint(out, *promoted);
            }
        }
    }

    /// Reads a change.
    ///
    /// # Errors
    ///
    /// When this is not what [`MemberChange::encode`] of this or an earlier version writes.
    pub fn decode(bytes: Bytes) -> Result<MemberChange, Malformed> {
        let mut reader = Reader::new(bytes);
        if reader.byte()? != CHANGE_FORMAT {
            return Err(Malformed("format of a change of members; a newer version wrote it"));
        }
        let change = match reader.byte()? {
            ADD => MemberChange::Add(decode_member(&mut reader)?),
            REMOVE => MemberChange::Remove(reader.varint()?),
            UPDATE_PEER_URLS => {
                let id = reader.varint()?;
                MemberChange::UpdatePeerUrls { id, peer_urls: reader.strings()? }
            }
            PROMOTE => MemberChange::Promote(reader.varint()?),
            DEMOTE => MemberChange::Demote(reader.varint()?),
            REPLACE => {
                MemberChange::Replace { demoted: reader.varint()?, promoted: reader.varint()? }
            }
            _ => return Err(Malformed("kind of a change of members")),
        };
        reader.end()?;
        Ok(change)
    }
}

/// The members, with the ids of those that were removed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    present: BTreeMap<u64, Member>,
    removed: BTreeSet<u64>,
    /// Ids whose row in storage is out of date.
    changed: BTreeSet<u64>,
}

/// One row of the table: a member, or the mark of a removed one.
const ROW_MEMBER: u64 = 1;
const ROW_REMOVED: u64 = 2;
/// [`ROW_MEMBER`], followed by version and tags.
const ROW_TAGGED: u64 = 3;

impl Members {
    pub(crate) fn new(members: Vec<Member>) -> Self {
        let changed = members.iter().map(|member| member.id).collect();
        let present = members.into_iter().map(|member| (member.id, member)).collect();
        Members { present, removed: BTreeSet::new(), changed }
    }

    /// Whether a change fits the list as it is.
    ///
    /// # Errors
    ///
    /// What a client hears of one that does not.
    pub fn check(&self, change: &MemberChange) -> Result<(), KvError> {
        match change {
            MemberChange::Add(member) => {
                // In etcd's words: an id holds the time in seconds, and one just removed comes again at once.
                if self.removed.contains(&member.id) {
                    return Err(KvError::MemberNotFound);
                }
                if self.present.contains_key(&member.id) {
                    return Err(KvError::MemberExist);
                }
                self.free(&member.peer_urls, member.id)
            }
            MemberChange::Remove(id) => {
                self.present.get(id).map(drop).ok_or(KvError::MemberNotFound)
            }
            MemberChange::UpdatePeerUrls { id, peer_urls } => {
                if !self.present.contains_key(id) {
                    return Err(KvError::MemberNotFound);
                }
                self.free(peer_urls, *id)
            }
            MemberChange::Promote(id) => {
                match self.present.get(id).ok_or(KvError::MemberNotFound)?.is_learner {
                    true => Ok(()),
                    false => Err(KvError::MemberNotLearner),
                }
            }
            MemberChange::Demote(id) => {
                let member = self.present.get(id).ok_or(KvError::MemberNotFound)?;
                let is_voter = |other: &&Member| !other.is_learner && other.id != *id;
                // Who is a learner already has nothing to lose, and nobody can take the last vote.
                match self.present.values().find(is_voter).filter(|_| !member.is_learner) {
                    Some(_) => Ok(()),
                    None => Err(KvError::MemberNotEnoughStarted),
                }
            }
            MemberChange::Replace { demoted, promoted } => {
                let is_learner = |id| self.present.get(id).map(|member| member.is_learner);
                match (is_learner(demoted), is_learner(promoted)) {
                    (None, _) | (_, None) => Err(KvError::MemberNotFound),
                    (_, Some(false)) => Err(KvError::MemberNotLearner),
                    (Some(true), _) => Err(KvError::MemberNotEnoughStarted),
                    (Some(false), Some(true)) => Ok(()),
                }
            }
        }
    }

    /// Takes a change that consensus has agreed on.
    pub(crate) fn change(&mut self, change: &MemberChange) -> Result<(), KvError> {
        self.check(change)?;
        match change {
            MemberChange::Add(member) => {
                self.present.insert(member.id, member.clone());
            }
            MemberChange::Remove(id) => {
                self.present.remove(id);
                self.removed.insert(*id);
            }
            MemberChange::UpdatePeerUrls { id, peer_urls } => {
                self.update(*id)?.peer_urls.clone_from(peer_urls);
            }
            MemberChange::Promote(id) => self.update(*id)?.is_learner = false,
            MemberChange::Demote(id) => self.update(*id)?.is_learner = true,
            MemberChange::Replace { demoted, promoted } => {
                self.update(*demoted)?.is_learner = true;
                self.update(*promoted)?.is_learner = false;
            }
        }
        self.changed.insert(change.member());
        Ok(())
    }

    /// Leaves one member alone, with a vote; the others are removed for ever.
    pub(crate) fn keep_only(&mut self, id: u64) -> Result<(), KvError> {
        self.update(id)?.is_learner = false;
        let others: Vec<u64> = self.present.keys().copied().filter(|other| *other != id).collect();
        for other in others {
            self.change(&MemberChange::Remove(other))?;
        }
        Ok(())
    }

    /// Takes what a member says of itself, unless it says it from another log than before.
    pub(crate) fn publish(
        &mut self,
        id: u64,
        name: &str,
        client_urls: &[String],
        life: Life,
    ) -> Result<(), KvError> {
        let known = self.present.get(&id).ok_or(KvError::MemberNotFound)?.life.known();
        if known.is_some_and(|known| known != life) {
            return Err(KvError::MemberBootstrapped);
        }
        let member = self.update(id)?;
        member.life = life;
        name.clone_into(&mut member.name);
        client_urls.clone_into(&mut member.client_urls);
        Ok(())
    }

    /// Takes what a member that has published itself says further.
    pub(crate) fn tag(
        &mut self,
        id: u64,
        version: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(), KvError> {
        let member = self.update(id)?;
        version.clone_into(&mut member.version);
        tags.clone_into(&mut member.tags);
        Ok(())
    }

    /// Who is a member, by id.
    pub fn list(&self) -> Vec<Member> {
        self.present.values().cloned().collect()
    }

    /// A checksum of all members, present and removed, the same on every one of them.
    pub(crate) fn hash(&self, hash: u32) -> u32 {
        let ids: BTreeSet<u64> = self.present.keys().chain(&self.removed).copied().collect();
        ids.into_iter().fold(hash, |hash, id| crc32c::crc32c_append(hash, &self.row(id)))
    }

    /// One member.
    pub fn find(&self, id: u64) -> Option<&Member> {
        self.present.get(&id)
    }

    /// Whether a member of this id was removed, so that the id can never come back.
    pub fn is_removed(&self, id: u64) -> bool {
        self.removed.contains(&id)
    }

    /// Who was removed, by id.
    pub fn removed(&self) -> Vec<u64> {
        self.removed.iter().copied().collect()
    }

    /// The rows to write, which count as written from now on.
    pub(crate) fn take_changed(&mut self) -> Vec<([u8; 8], Vec<u8>)> {
        let changed = std::mem::take(&mut self.changed);
        changed.into_iter().map(|id| (id.to_be_bytes(), self.row(id))).collect()
    }

    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// Takes one row of the table.
    pub(crate) fn load(&mut self, key: &[u8], row: &[u8]) -> Result<(), Malformed> {
        let id = u64::from_be_bytes(key.try_into().map_err(|_| Malformed("member id"))?);
        let mut reader = Reader::new(Bytes::copy_from_slice(row));
        match reader.varint()? {
            kind @ (ROW_MEMBER | ROW_TAGGED) => {
                let mut member = decode_member(&mut reader)?;
                if kind == ROW_TAGGED {
                    (member.version, member.tags) = read_tags(&mut reader)?;
                }
                if member.id != id {
                    return Err(Malformed("a member under another id"));
                }
                self.present.insert(id, member);
            }
            ROW_REMOVED => {
                self.removed.insert(id);
            }
            _ => return Err(Malformed("kind of member row")),
        }
        reader.end()
    }

    fn row(&self, id: u64) -> Vec<u8> {
        let mut row = BytesMut::new();
        match self.present.get(&id) {
            Some(member) if member.version.is_empty() && member.tags.is_empty() => {
                put_varint(&mut row, ROW_MEMBER);
                encode_member(member, &mut row);
            }
            Some(member) => {
                put_varint(&mut row, ROW_TAGGED);
                encode_member(member, &mut row);
                put_tags(&mut row, &member.version, &member.tags);
            }
            None => put_varint(&mut row, ROW_REMOVED),
        }
        row.to_vec()
    }

    fn update(&mut self, id: u64) -> Result<&mut Member, KvError> {
        let member = self.present.get_mut(&id).ok_or(KvError::MemberNotFound)?;
        self.changed.insert(id);
        Ok(member)
    }

    fn free(&self, peer_urls: &[String], besides: u64) -> Result<(), KvError> {
        let taken = self
            .present
            .values()
            .filter(|member| member.id != besides)
            .any(|member| member.peer_urls.iter().any(|url| peer_urls.contains(url)));
        if taken { Err(KvError::PeerURLExist) } else { Ok(()) }
    }
}

/// Without version and tags, which nobody but the member itself can tell.
fn encode_member(member: &Member, out: &mut BytesMut) {
    put_varint(out, member.id);
    put_str(out, &member.name);
    put_strings(out, &member.peer_urls);
    put_strings(out, &member.client_urls);
    put_bytes(out, &[u8::from(member.is_learner)]);
    put_varint(out, member.life.0);
}

fn decode_member(reader: &mut Reader) -> Result<Member, Malformed> {
    let id = reader.varint()?;
    let name = reader.string()?;
    let peer_urls = reader.strings()?;
    let client_urls = reader.strings()?;
    let is_learner = match reader.bytes()?.as_ref() {
        [0] => false,
        [1] => true,
        _ => return Err(Malformed("learner mark")),
    };
    let life = Life(reader.varint()?);
    let member = Member { id, name, peer_urls, client_urls, is_learner, life, ..Member::default() };
    Ok(member)
}

#[cfg(test)]
mod tests {
    use super::{Bytes, BytesMut, KvError, Life, Member, MemberChange, Members};

    fn member(id: u64) -> Member {
        Member { id, peer_urls: vec![format!("http://10.0.0.{id}:2380")], ..Member::default() }
    }

    fn members() -> Members {
        let learner = Member { is_learner: true, ..member(3) };
        Members::new(vec![member(2), learner, member(1)])
    }

    #[test]
    fn changes_are_checked() {
        for (change, want) in [
            (MemberChange::Add(member(4)), Ok(())),
            (MemberChange::Add(member(2)), Err(KvError::MemberExist)),
            (MemberChange::Add(Member { id: 9, ..member(2) }), Err(KvError::PeerURLExist)),
            (MemberChange::Remove(1), Ok(())),
            (MemberChange::Remove(7), Err(KvError::MemberNotFound)),
            (MemberChange::Promote(3), Ok(())),
            (MemberChange::Promote(1), Err(KvError::MemberNotLearner)),
            (MemberChange::Promote(7), Err(KvError::MemberNotFound)),
            (MemberChange::Demote(1), Ok(())),
            (MemberChange::Demote(3), Err(KvError::MemberNotEnoughStarted)),
            (MemberChange::Demote(7), Err(KvError::MemberNotFound)),
            (MemberChange::Replace { demoted: 1, promoted: 3 }, Ok(())),
            (MemberChange::Replace { demoted: 1, promoted: 2 }, Err(KvError::MemberNotLearner)),
            (
                MemberChange::Replace { demoted: 3, promoted: 3 },
                Err(KvError::MemberNotEnoughStarted),
            ),
            (MemberChange::Replace { demoted: 7, promoted: 3 }, Err(KvError::MemberNotFound)),
            (MemberChange::Replace { demoted: 1, promoted: 7 }, Err(KvError::MemberNotFound)),
            (
                MemberChange::UpdatePeerUrls { id: 1, peer_urls: member(2).peer_urls },
                Err(KvError::PeerURLExist),
            ),
            (MemberChange::UpdatePeerUrls { id: 1, peer_urls: member(1).peer_urls }, Ok(())),
            (
                MemberChange::UpdatePeerUrls { id: 7, peer_urls: Vec::new() },
                Err(KvError::MemberNotFound),
            ),
        ] {
            let mut members = members();
            let before = members.list();
            assert_eq!(members.change(&change), want, "{change:?}");
            assert!(want.is_ok() || members.list() == before, "{change:?}");
        }
    }

    #[test]
    fn a_removed_id_never_comes_back() {
        let mut members = members();
        members.change(&MemberChange::Remove(2)).unwrap();
        assert!(members.is_removed(2));
        assert_eq!(members.change(&MemberChange::Add(member(2))), Err(KvError::MemberNotFound));
        assert_eq!(members.publish(2, "two", &[], Life(2)), Err(KvError::MemberNotFound));
    }

    #[test]
    fn changes_come_back_from_their_bytes() {
        let learner = Member { is_learner: true, name: "three".to_owned(), ..member(3) };
        for change in [
            MemberChange::Add(learner),
            MemberChange::Remove(u64::MAX),
            MemberChange::UpdatePeerUrls { id: 1, peer_urls: member(9).peer_urls },
            MemberChange::UpdatePeerUrls { id: 1, peer_urls: Vec::new() },
            MemberChange::Promote(7),
            MemberChange::Demote(7),
            MemberChange::Replace { demoted: 300, promoted: 7 },
        ] {
            let mut out = BytesMut::new();
            change.encode(&mut out);
            let bytes = out.freeze();
            assert_eq!(MemberChange::decode(bytes.clone()), Ok(change.clone()));
            for length in 0..bytes.len() {
                let cut = MemberChange::decode(bytes.slice(..length));
                assert!(cut.is_err(), "{change:?} cut to {length}");
            }
            let longer = [&bytes[..], b"x"].concat();
            assert!(MemberChange::decode(longer.into()).is_err(), "{change:?}");
        }
        assert!(MemberChange::decode(Bytes::from_static(&[2, 2, 1])).is_err());
        assert!(MemberChange::decode(Bytes::from_static(&[1, 9, 1])).is_err());
    }

    #[test]
    fn one_may_be_all_that_is_left() {
        let mut members = members();
        assert_eq!(members.keep_only(7), Err(KvError::MemberNotFound));
        members.keep_only(3).unwrap();
        assert_eq!(members.list(), [member(3)], "it has a vote now");
        assert_eq!(members.removed(), [1, 2]);
    }

    #[test]
    fn a_member_publishes_itself_from_one_log_only() {
        let mut members = members();
        for (id, name, life, want) in [
            (7, "nobody", 1, Err(KvError::MemberNotFound)),
            (1, "one", 5, Ok(())),
            (1, "uno", 5, Ok(())), // started again
            (1, "one", 6, Err(KvError::MemberBootstrapped)),
            (1, "one", 0, Err(KvError::MemberBootstrapped)),
            (2, "two", 5, Ok(())),
        ] {
            assert_eq!(members.publish(id, name, &[], Life(life)), want, "{id} {name} {life}");
        }
        let seen: Vec<_> =
            members.list().into_iter().map(|member| (member.name, member.life.0)).collect();
        assert_eq!(seen, [("uno".into(), 5), ("two".into(), 5), (String::new(), 0)]);
    }

    #[test]
    fn rows_bring_the_list_back() {
        let mut members = members();
        members.publish(1, "one", &["http://c1".to_owned()], Life(u64::MAX)).unwrap();
        members.change(&MemberChange::Remove(2)).unwrap();
        let mut again = Members::default();
        for (key, row) in members.take_changed() {
            again.load(&key, &row).unwrap();
        }
        assert_eq!(again, members);
        assert_eq!(again.list().iter().map(|member| member.id).collect::<Vec<_>>(), [1, 3]);
        assert!(again.load(&[0; 8], &[7]).is_err());
    }

    #[test]
    fn tags_come_back_from_their_row() {
        let mut members = members();
        let before = members.row(1);
        members.publish(1, "one", &[], Life(5)).unwrap();
        let tags = [("zone", "a"), ("rack", "")].map(|(key, tag)| (key.into(), tag.into()));
        members.tag(1, "1.2.0", &tags.into()).unwrap();
        assert_eq!(members.tag(7, "1.2.0", &Default::default()), Err(KvError::MemberNotFound));
        let mut again = Members::default();
        for (key, row) in members.take_changed() {
            again.load(&key, &row).unwrap();
            for length in 0..row.len() {
                assert!(Members::default().load(&key, &row[..length]).is_err(), "cut to {length}");
            }
        }
        assert_eq!(again.list(), members.list());
        assert_eq!(again.list()[0].tags.get("zone").map(String::as_str), Some("a"));
        // Without any it is the row that earlier versions wrote.
        members.tag(1, "", &Default::default()).unwrap();
        members.publish(1, "", &[], Life(5)).unwrap();
        members.update(1).unwrap().life = Life::NONE;
        assert_eq!(members.row(1), before);
    }

    #[test]
    fn the_last_vote_is_not_taken() {
        let mut members = members();
        members.change(&MemberChange::Demote(2)).unwrap();
        assert!(members.list()[1].is_learner);
        assert_eq!(
            members.change(&MemberChange::Demote(1)),
            Err(KvError::MemberNotEnoughStarted),
            "it is the only one left"
        );
        members.change(&MemberChange::Promote(2)).unwrap();
        members.change(&MemberChange::Demote(1)).unwrap();
    }
}
