//! `txn`: transactions in the lines that `etcdctl txn` takes. Nothing is sent unless all three blocks
//! were there to their ends: half a transaction is another transaction.

use std::ffi::OsString;
use std::io::{BufRead, Write};
use std::os::unix::ffi::OsStringExt;

use bytes::Bytes;
use quorate_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use quorate_proto::etcdserverpb::request_op::Request;
use quorate_proto::etcdserverpb::{Compare, RequestOp, TxnRequest};

use super::error::CliError;
use super::kv::{DelArgs, GetArgs, PutArgs};
use super::output::to_stdout;
use super::words::{quoted, words};
use crate::switches;

/// No server takes a larger transaction.
const STDIN_BYTES_MAX: u64 = 256 << 20;

/// Arguments of `txn`.
#[derive(clap::Args, Clone, Debug, Default)]
pub(crate) struct TxnArgs {
    /// Say which block of lines comes next
    #[arg(long, short)]
    interactive: bool,
}

impl TxnArgs {
    /// The request that the lines spell.
    pub(super) fn request(&self, input: impl BufRead) -> Result<TxnRequest, CliError> {
        let mut input = input.take(STDIN_BYTES_MAX);
        self.say("compares:")?;
        let compare = block(&mut input, "comparisons", parse_compare)?;
        self.say("success requests (get, put, del):")?;
        let success = block(&mut input, "requests on success", parse_request)?;
        self.say("failure requests (get, put, del):")?;
        let failure = block(&mut input, "requests on failure", parse_request)?;
        Ok(TxnRequest { compare, success, failure })
    }

    fn say(&self, what: &str) -> Result<(), CliError> {
        if self.interactive { to_stdout(|out| writeln!(out, "{what}")) } else { Ok(()) }
    }
}

/// The lines up to an empty one.
fn block<T>(
    input: &mut impl BufRead,
    name: &str,
    parse: impl Fn(&[u8]) -> Result<T, CliError>,
) -> Result<Vec<T>, CliError> {
    let mut parsed = Vec::new();
    loop {
        let mut line = Vec::new();
        input
            .read_until(b'\n', &mut line)
            .map_err(|error| CliError::Failed(format!("cannot read the transaction: {error}")))?;
        if line.last() != Some(&b'\n') {
            return Err(CliError::Input(format!(
                "EOF within the {name}: there are three blocks of lines, and an empty line ends each"
            )));
        }
        match line.trim_ascii() {
            [] => return Ok(parsed),
            line => parsed.push(parse(line)?),
        }
    }
}

/// One comparison: `value("key") = "text"`.
fn parse_compare(line: &[u8]) -> Result<Compare, CliError> {
    let shown = String::from_utf8_lossy(line).into_owned();
    let malformed = |why: &str| CliError::Input(format!("malformed comparison: {shown} ({why})"));

    let open = line.iter().position(|byte| *byte == b'(');
    let (target, rest) = line.split_at(open.ok_or_else(|| malformed("there is no parenthesis"))?);
    let (key, rest) = quoted(rest[1..].trim_ascii_start()).map_err(malformed)?;
    let rest = rest.trim_ascii_start().strip_prefix(b")");
    let rest = rest.ok_or_else(|| malformed("no parenthesis follows the key"))?.trim_ascii_start();
    let operators = [
        (&b"!="[..], CompareResult::NotEqual),
        (b"=", CompareResult::Equal),
        (b">", CompareResult::Greater),
        (b"<", CompareResult::Less),
    ];
    let found = operators.iter().find_map(|(text, op)| Some((*op, rest.strip_prefix(*text)?)));
    let (result, rest) = found.ok_or_else(|| malformed("the operators are = != > <"))?;
    let (value, rest) = quoted(rest.trim_ascii_start()).map_err(malformed)?;
    if !rest.is_empty() {
        return Err(malformed("something follows the value"));
    }

    let number = |radix| {
        std::str::from_utf8(&value)
            .ok()
            .and_then(|text| i64::from_str_radix(text, radix).ok())
            .ok_or_else(|| CliError::Input(format!("invalid txn compare request: {shown}")))
    };
    let (target, operand) = match target.trim_ascii() {
        b"ver" | b"version" => (CompareTarget::Version, TargetUnion::Version(number(10)?)),
        b"c" | b"create" => (CompareTarget::Create, TargetUnion::CreateRevision(number(10)?)),
        b"m" | b"mod" => (CompareTarget::Mod, TargetUnion::ModRevision(number(10)?)),
        b"val" | b"value" => {
            (CompareTarget::Value, TargetUnion::Value(Bytes::copy_from_slice(&value)))
        }
        // In hexadecimal, as leases are everywhere else on the command line.
        b"lease" => (CompareTarget::Lease, TargetUnion::Lease(number(16)?)),
        _ => return Err(malformed("there are value, version, create, mod and lease")),
    };
    Ok(Compare {
        result: result.into(),
        target: target.into(),
        key: key.into(),
        range_end: Bytes::new(),
        target_union: Some(operand),
    })
}

/// One request: `put`, `get` or `del` with what the commands take.
fn parse_request(line: &[u8]) -> Result<RequestOp, CliError> {
    let shown = String::from_utf8_lossy(line).into_owned();
    let invalid = |why: &str| CliError::Input(format!("invalid txn request: {shown} ({why})"));
    let words = words(line).map_err(invalid)?.into_iter().map(OsString::from_vec);
    let request = match switches::parse(&words.collect::<Vec<_>>()) {
        Ok(TxnLine::Put(args)) => Request::RequestPut(args.request_in_txn()?),
        Ok(TxnLine::Get(args)) => Request::RequestRange(args.request()?),
        Ok(TxnLine::Del(args)) => Request::RequestDeleteRange(args.request()?),
        Err(error) => {
            // The first line says what is wrong; the usage below it would hide the line.
            let text = error.to_string();
            let why = text.lines().next().unwrap_or_default();
            return Err(invalid(why.trim_start_matches("error: ")));
        }
    };
    Ok(RequestOp { request: Some(request) })
}

/// A line of a transaction, to be taken apart as a command line is.
#[derive(clap::Parser, Debug)]
#[command(no_binary_name = true, disable_help_flag = true, disable_help_subcommand = true)]
enum TxnLine {
    Put(PutArgs),
    Get(GetArgs),
    Del(DelArgs),
}

#[cfg(test)]
mod tests;
