//! Answers as people and scripts read them. The simple form and JSON are byte for byte what
//! `etcdctl` 3.4 prints; `--count-only` and tables of keys go beyond it.

use std::io::{self, Write};

use quorate_proto::etcdserverpb::response_op::Response as Op;
use quorate_proto::etcdserverpb::{
    DeleteRangeResponse, MemberListResponse, PutResponse, RangeResponse, TxnResponse,
};
use quorate_proto::mvccpb::KeyValue;

use super::error::CliError;
use super::flags::Form;
use super::table::table;
use super::{fields, json, members, status};

/// How to print.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Output {
    /// What was asked for, or nothing.
    pub(crate) form: Option<Form>,
    pub(super) hex: bool,
}

/// What of a range is printed in the simple form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    Pairs,
    Values,
    Count,
}

impl Output {
    /// Whether answers are printed as `etcdctl` prints them without flags.
    pub(super) fn is_simple(&self) -> bool {
        matches!(self.form, None | Some(Form::Simple))
    }

    /// For commands whose answer is no table: told before anything is sent.
    pub(super) fn refuse_table(&self) -> Result<(), CliError> {
        match self.form {
            Some(Form::Table) => {
                Err(CliError::Unsupported("table not supported as output format".to_owned()))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn put(&self, answer: &PutResponse) -> Result<(), CliError> {
        to_stdout(|out| self.write_put(out, answer))
    }

    pub(super) fn range(&self, answer: &RangeResponse, shown: Shown) -> Result<(), CliError> {
        to_stdout(|out| self.write_range(out, answer, shown))
    }

    pub(super) fn delete(&self, answer: &DeleteRangeResponse) -> Result<(), CliError> {
        to_stdout(|out| self.write_delete(out, answer))
    }

    pub(super) fn txn(&self, answer: &TxnResponse) -> Result<(), CliError> {
        to_stdout(|out| self.write_txn(out, answer))
    }

    pub(super) fn members(&self, answer: &MemberListResponse) -> Result<(), CliError> {
        to_stdout(|out| match self.form {
            Some(Form::Json) => write_json(out, &json::Members::from(answer)),
            Some(Form::Simple) => write_rows(out, answer.members.iter().map(members::row)),
            Some(Form::Fields) => fields::members(out, answer),
            Some(Form::Table) | None => {
                writeln!(
                    out,
                    "{}",
                    table(members::COLUMNS, answer.members.iter().map(members::row))
                )
            }
        })
    }

    pub(super) fn status(&self, answers: &[status::Answer]) -> Result<(), CliError> {
        to_stdout(|out| self.write_status(out, answers))
    }

    fn write_status(&self, out: &mut impl Write, answers: &[status::Answer]) -> io::Result<()> {
        let found =
            || answers.iter().filter_map(|(name, answer)| Some((name, answer.as_ref().ok()?)));
        match self.form {
            Some(Form::Json) => {
                let answers = found().map(|(name, answer)| json::of_status(name, answer));
                write_json(out, &answers.collect::<Vec<_>>())
            }
            Some(Form::Fields) => fields::status(out, answers),
            Some(Form::Simple) => {
                write_rows(out, found().map(|(name, answer)| status::row(name, answer)))
            }
            Some(Form::Table) | None => {
                let rows = answers.iter().map(|(name, answer)| match answer {
                    Ok(answer) => status::row(name, answer),
                    Err(error) => status::row_of_failed(name, error),
                });
                writeln!(out, "{}", table(status::COLUMNS, rows))
            }
        }
    }

    fn write_put(&self, out: &mut impl Write, answer: &PutResponse) -> io::Result<()> {
        match self.form {
            Some(Form::Json) => return write_json(out, &json::Put::from(answer)),
            Some(Form::Fields) => return fields::put(out, answer),
            _ => {}
        }
        writeln!(out, "OK")?;
        answer.prev_kv.iter().try_for_each(|kv| self.write_pair(out, kv))
    }

    fn write_range(
        &self,
        out: &mut impl Write,
        answer: &RangeResponse,
        shown: Shown,
    ) -> io::Result<()> {
        match (self.form, shown) {
            (Some(Form::Json), _) => write_json(out, &json::Range::from(answer)),
            (Some(Form::Fields), _) => fields::range(out, answer),
            (_, Shown::Count) => writeln!(out, "{}", answer.count),
            (Some(Form::Table), _) => {
                let columns = ["KEY", "VALUE", "CREATED", "MODIFIED", "VERSION", "LEASE"];
                writeln!(out, "{}", table(columns, answer.kvs.iter().map(|kv| self.row(kv))))
            }
            (_, Shown::Pairs) => answer.kvs.iter().try_for_each(|kv| self.write_pair(out, kv)),
            (_, Shown::Values) => {
                answer.kvs.iter().try_for_each(|kv| self.write_bytes(out, &kv.value))
            }
        }
    }

    fn write_delete(&self, out: &mut impl Write, answer: &DeleteRangeResponse) -> io::Result<()> {
        match self.form {
            Some(Form::Json) => return write_json(out, &json::Delete::from(answer)),
            Some(Form::Fields) => return fields::delete(out, answer),
            _ => {}
        }
        writeln!(out, "{}", answer.deleted)?;
        answer.prev_kvs.iter().try_for_each(|kv| self.write_pair(out, kv))
    }

    fn write_txn(&self, out: &mut impl Write, answer: &TxnResponse) -> io::Result<()> {
        match self.form {
            Some(Form::Json) => return write_json(out, &json::Txn::from(answer)),
            Some(Form::Fields) => return fields::txn(out, answer),
            _ => {}
        }
        writeln!(out, "{}", if answer.succeeded { "SUCCESS" } else { "FAILURE" })?;
        for response in &answer.responses {
            writeln!(out)?;
            match &response.response {
                Some(Op::ResponsePut(put)) => self.write_put(out, put)?,
                Some(Op::ResponseRange(range)) => self.write_range(out, range, Shown::Pairs)?,
                Some(Op::ResponseDeleteRange(delete)) => self.write_delete(out, delete)?,
                Some(Op::ResponseTxn(txn)) => self.write_txn(out, txn)?,
                // A newer server may answer with what this client did not ask for.
                None => writeln!(out, "(an answer of an unknown kind)")?,
            }
        }
        Ok(())
    }

    /// A line as it is.
    pub(super) fn line(&self, text: &str) -> Result<(), CliError> {
        to_stdout(|out| writeln!(out, "{text}"))
    }

    /// The pair by which somebody holds a lock or leads.
    pub(super) fn place(&self, pair: &RangeResponse) -> Result<(), CliError> {
        to_stdout(|out| self.write_range(out, pair, Shown::Pairs))
    }

    pub(super) fn write_pair(&self, out: &mut impl Write, kv: &KeyValue) -> io::Result<()> {
        self.write_bytes(out, &kv.key)?;
        self.write_bytes(out, &kv.value)
    }

    /// Bytes as they are, so that a value that was put comes out unchanged.
    fn write_bytes(&self, out: &mut impl Write, bytes: &[u8]) -> io::Result<()> {
        match self.hex {
            true => out.write_all(hex(bytes).as_bytes())?,
            false => out.write_all(bytes)?,
        }
        out.write_all(b"\n")
    }

    /// Bytes as they are, or as \xHH.
    pub(super) fn shown(&self, bytes: &[u8]) -> Vec<u8> {
        match self.hex {
            true => hex(bytes).into_bytes(),
            false => bytes.to_vec(),
        }
    }

    fn row(&self, kv: &KeyValue) -> [String; 6] {
        let text = |bytes: &[u8]| match self.hex {
            true => hex(bytes),
            false => bytes.escape_ascii().to_string(),
        };
        [
            text(&kv.key),
            text(&kv.value),
            kv.create_revision.to_string(),
            kv.mod_revision.to_string(),
            kv.version.to_string(),
            if kv.lease == 0 { String::new() } else { format!("{:x}", kv.lease) },
        ]
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect()
}

pub(super) fn write_json(out: &mut impl Write, answer: &impl serde::Serialize) -> io::Result<()> {
    serde_json::to_writer(&mut *out, answer)?;
    out.write_all(b"\n")
}

pub(super) fn write_rows<const COLUMNS: usize>(
    out: &mut impl Write,
    mut rows: impl Iterator<Item = [String; COLUMNS]>,
) -> io::Result<()> {
    rows.try_for_each(|row| writeln!(out, "{}", row.join(", ")))
}

pub(super) fn to_stdout(
    write: impl FnOnce(&mut io::BufWriter<io::StdoutLock<'static>>) -> io::Result<()>,
) -> Result<(), CliError> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    write(&mut out).and_then(|()| out.flush()).map_err(CliError::Output)
}

#[cfg(test)]
mod tests;
