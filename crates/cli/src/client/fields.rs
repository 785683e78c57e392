//! The form `fields`: a line for each field, `"Name" : value`, texts quoted as Go does.

use std::fmt::{Display, Write as _};
use std::io::{self, Write};

use quorate_proto::etcdserverpb::response_op::Response as Op;
use quorate_proto::etcdserverpb::{
    DeleteRangeResponse, Member, MemberListResponse, PutResponse, RangeResponse, ResponseHeader,
    TxnResponse,
};
use quorate_proto::mvccpb::KeyValue;

use super::status::Answer;

pub(super) fn field(out: &mut impl Write, name: &str, value: impl Display) -> io::Result<()> {
    writeln!(out, "\"{name}\" : {value}")
}

pub(super) fn header(out: &mut impl Write, header: Option<&ResponseHeader>) -> io::Result<()> {
    let header = header.copied().unwrap_or_default();
    field(out, "ClusterID", header.cluster_id)?;
    field(out, "MemberID", header.member_id)?;
    field(out, "Revision", header.revision)?;
    field(out, "RaftTerm", header.raft_term)
}

/// `prefix` stands before the names of the fields of a pair as it was.
pub(super) fn pair(out: &mut impl Write, prefix: &str, pair: &KeyValue) -> io::Result<()> {
    let mut field = |name, value: &dyn Display| writeln!(out, "\"{prefix}{name}\" : {value}");
    field("Key", &quoted(&pair.key))?;
    field("CreateRevision", &pair.create_revision)?;
    field("ModRevision", &pair.mod_revision)?;
    field("Version", &pair.version)?;
    field("Value", &quoted(&pair.value))?;
    field("Lease", &pair.lease)
}

pub(super) fn put(out: &mut impl Write, answer: &PutResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    answer.prev_kv.iter().try_for_each(|prev| pair(out, "Prev", prev))
}

pub(super) fn range(out: &mut impl Write, answer: &RangeResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    answer.kvs.iter().try_for_each(|found| pair(out, "", found))?;
    field(out, "More", answer.more)?;
    field(out, "Count", answer.count)
}

pub(super) fn delete(out: &mut impl Write, answer: &DeleteRangeResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    field(out, "Deleted", answer.deleted)?;
    answer.prev_kvs.iter().try_for_each(|prev| pair(out, "Prev", prev))
}

pub(super) fn txn(out: &mut impl Write, answer: &TxnResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    field(out, "Succeeded", answer.succeeded)?;
    for response in &answer.responses {
        match &response.response {
            Some(Op::ResponsePut(answer)) => put(out, answer)?,
            Some(Op::ResponseRange(answer)) => range(out, answer)?,
            Some(Op::ResponseDeleteRange(answer)) => delete(out, answer)?,
            Some(Op::ResponseTxn(answer)) => txn(out, answer)?,
            None => field(out, "Unknown", quoted(b""))?,
        }
    }
    Ok(())
}

pub(super) fn members(out: &mut impl Write, answer: &MemberListResponse) -> io::Result<()> {
    header(out, answer.header.as_ref())?;
    for found in &answer.members {
        member(out, found)?;
        writeln!(out)?;
    }
    Ok(())
}

fn member(out: &mut impl Write, member: &Member) -> io::Result<()> {
    field(out, "ID", member.id)?;
    field(out, "Name", quoted(member.name.as_bytes()))?;
    for url in &member.peer_urls {
        field(out, "PeerURL", quoted(url.as_bytes()))?;
    }
    for url in &member.client_urls {
        field(out, "ClientURL", quoted(url.as_bytes()))?;
    }
    field(out, "IsLearner", member.is_learner)
}

pub(super) fn status(out: &mut impl Write, answers: &[Answer]) -> io::Result<()> {
    for (endpoint, answer) in answers {
        let Ok(status) = answer else { continue };
        header(out, status.header.as_ref())?;
        field(out, "Version", quoted(status.version.as_bytes()))?;
        field(out, "DBSize", status.db_size)?;
        field(out, "Leader", status.leader)?;
        field(out, "IsLearner", status.is_learner)?;
        field(out, "RaftIndex", status.raft_index)?;
        field(out, "RaftTerm", status.raft_term)?;
        field(out, "RaftAppliedIndex", status.raft_applied_index)?;
        field(out, "Errors", format_args!("[{}]", status.errors.join(" ")))?;
        field(out, "Endpoint", quoted(endpoint.as_bytes()))?;
        writeln!(out)?;
    }
    Ok(())
}

/// Bytes in double quotes, as Go's `%q` has them.
pub(super) fn quoted(bytes: &[u8]) -> String {
    let mut text = String::from("\"");
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter {
                '"' | '\\' => text.extend(['\\', letter]),
                '\x07' => text.push_str("\\a"),
                '\x08' => text.push_str("\\b"),
                '\x0c' => text.push_str("\\f"),
                '\n' => text.push_str("\\n"),
                '\r' => text.push_str("\\r"),
                '\t' => text.push_str("\\t"),
                '\x0b' => text.push_str("\\v"),
                _ if letter.is_ascii_control() => {
                    let _ = write!(text, "\\x{:02x}", u32::from(letter));
                }
                _ if is_hidden(letter) && u32::from(letter) <= 0xffff => {
                    let _ = write!(text, "\\u{:04x}", u32::from(letter));
                }
                _ if is_hidden(letter) => {
                    let _ = write!(text, "\\U{:08x}", u32::from(letter));
                }
                _ => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text.push('"');
    text
}

/// Whether Go takes it for nothing to print: controls, spaces but the plain one, formats, private use.
/// What Unicode has not assigned yet is printed here, and not there.
fn is_hidden(letter: char) -> bool {
    letter.is_control()
        || (letter.is_whitespace() && letter != ' ')
        || matches!(letter,
            '\u{ad}' | '\u{600}'..='\u{605}' | '\u{61c}' | '\u{6dd}' | '\u{70f}'
            | '\u{890}'..='\u{891}' | '\u{8e2}' | '\u{180e}' | '\u{200b}'..='\u{200f}'
            | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2064}' | '\u{2066}'..='\u{206f}'
            | '\u{e000}'..='\u{f8ff}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}'
            | '\u{13430}'..='\u{1343f}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0001}' | '\u{e0020}'..='\u{e007f}' | '\u{f0000}'..='\u{ffffd}'
            | '\u{100000}'..='\u{10fffd}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_as_go_does() {
        for (bytes, want) in [
            ("\u{a0}\u{ad}\u{2028}\u{feff}".as_bytes(), r#""\u00a0\u00ad\u2028\ufeff""#),
            ("\u{e0001}\u{e9}\u{1f600}".as_bytes(), "\"\\U000e0001\u{e9}\u{1f600}\""),
            (&b""[..], r#""""#),
            (b"a b", r#""a b""#),
            (b"a\"\\", r#""a\"\\""#),
            (b"\x00\n\x1f\x7f", r#""\x00\n\x1f\x7f""#),
            (b"\xff\xc3\xa4", "\"\\xff\u{e4}\""),
            ("\u{85}".as_bytes(), r#""\u0085""#),
        ] {
            assert_eq!(quoted(bytes), want, "{bytes:?}");
        }
    }
}
