//! Flags of every client command: from the command line first, then from the environment.

use std::time::Duration;

use clap::{Arg, ArgAction, ArgMatches, Command, ValueEnum};
use quorate_server::parse_bool;

use super::endpoints::{KeepAlive, Target};
use super::error::CliError;
use super::output::Output;
use super::parse_duration;

const ENDPOINTS: &str = "127.0.0.1:2379";
const COMMAND_TIMEOUT: &str = "5s";
const DIAL_TIMEOUT: &str = "2s";
const KEEPALIVE_TIME: &str = "10s";
const KEEPALIVE_TIMEOUT: &str = "6s";

/// Flags of every client command.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Client options")]
pub(crate) struct ClientFlags {
    #[command(flatten)]
    member: MemberFlags,
    /// How long to wait for an answer, once connected [default: 5s]
    #[arg(long, value_name = "DURATION")]
    command_timeout: Option<String>,
    /// Print keys and values as \xHH
    #[arg(long)]
    hex: bool,
}

/// Flags of everything that talks to members.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Client options")]
pub(crate) struct MemberFlags {
    /// Members to ask; the next one when one cannot be reached
    ///
    /// [default: 127.0.0.1:2379] [env: QUORATE_ENDPOINTS, ETCDCTL_ENDPOINTS]
    #[arg(long, value_name = "HOST:PORT,...")]
    endpoints: Vec<String>,
    /// How long to wait for a connection to one endpoint [default: 2s]
    #[arg(long, value_name = "DURATION")]
    dial_timeout: Option<String>,
    /// How often a member that says nothing in what lasts is asked whether it is there; at least 10s, 0 is
    /// never [default: 10s]
    #[arg(long, value_name = "DURATION")]
    keepalive_time: Option<String>,
    /// After how long without an answer to that its connection is given up [default: 6s]
    #[arg(long, value_name = "DURATION")]
    keepalive_timeout: Option<String>,
    /// Form of the output: simple, json, fields or table [default: simple, for status and members table]
    #[arg(short = 'w', long, value_name = "FORM")]
    write_out: Option<String>,
    #[command(flatten)]
    etcdctls: EtcdctlFlags,
}

/// Form of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Form {
    /// As `etcdctl` prints without flags.
    Simple,
    /// The answer with all its fields, keys and values in base64.
    Json,
    /// A line for each field.
    Fields,
    /// For people.
    Table,
}

impl ClientFlags {
    /// Whom to ask, and how long to wait.
    pub(crate) fn target(&self) -> Result<Target, CliError> {
        self.member.target(timeout(&self.command_timeout, "COMMAND_TIMEOUT", COMMAND_TIMEOUT)?)
    }

    /// How to print.
    pub(crate) fn output(&self) -> Result<Output, CliError> {
        Ok(Output { form: self.member.form()?, hex: self.hex || is_set(named_variable("HEX"))? })
    }
}

impl MemberFlags {
    /// Whom to ask, of whom each answer may take so long.
    pub(crate) fn target(&self, answer_max: Duration) -> Result<Target, CliError> {
        self.etcdctls.refuse()?;
        refuse_variables(|name| std::env::var(name).ok())?;
        let dial_timeout = timeout(&self.dial_timeout, "DIAL_TIMEOUT", DIAL_TIMEOUT)?;
        let keep_alive = KeepAlive::new(
            timeout(&self.keepalive_time, "KEEPALIVE_TIME", KEEPALIVE_TIME)?,
            timeout(&self.keepalive_timeout, "KEEPALIVE_TIMEOUT", KEEPALIVE_TIMEOUT)?,
        );
        let target = Target::new(&endpoint_words(&self.endpoints), dial_timeout, answer_max)?;
        Ok(target.kept_alive(keep_alive))
    }

    /// The form of the output, if one was asked for.
    pub(crate) fn form(&self) -> Result<Option<Form>, CliError> {
        let Some(name) = self.write_out.clone().or_else(|| variable("WRITE_OUT")) else {
            return Ok(None);
        };
        let form = Form::from_str(&name, false).map_err(|_| {
            CliError::Unsupported(format!(
                "{name:?} is an unsupported output format; there are simple, json, fields and table"
            ))
        })?;
        Ok(Some(form))
    }
}

/// What `etcdctl` is told about with whom it talks, and as whom: the variable, the flag, and what either is
/// where it says nothing of that. A client that passes one over does something else than whoever set it
/// believes.
const NOT_PASSED_OVER: &[(&str, &str, &str)] = &[
    ("ETCDCTL_AUTH_JWT_TOKEN", "auth-jwt-token", ""),
    ("ETCDCTL_CACERT", "cacert", ""),
    ("ETCDCTL_CERT", "cert", ""),
    ("ETCDCTL_DISCOVERY_SRV", "discovery-srv", ""),
    ("ETCDCTL_DISCOVERY_SRV_NAME", "discovery-srv-name", ""),
    ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "insecure-skip-tls-verify", "false"),
    ("ETCDCTL_INSECURE_TRANSPORT", "insecure-transport", "true"),
    ("ETCDCTL_KEY", "key", ""),
    ("ETCDCTL_PASSWORD", "password", ""),
    ("ETCDCTL_USER", "user", ""),
];

/// Switches of `etcdctl` that change nothing here, and their variables.
const PASSED_OVER: &[(&str, &str)] =
    &[("ETCDCTL_DEBUG", "debug"), ("ETCDCTL_INSECURE_DISCOVERY", "insecure-discovery")];

/// Flags of `etcdctl` that are taken for its sake, hidden in the help, and what was given for those that are
/// not passed over.
#[derive(Clone, Debug, Default)]
struct EtcdctlFlags {
    given: Vec<(&'static str, String)>,
}

/// Each is known by the name of its variable: commands have arguments of their own, such as a key.
impl clap::Args for EtcdctlFlags {
    fn augment_args(command: Command) -> Command {
        let flags = NOT_PASSED_OVER.iter().map(|&(id, name, harmless)| {
            let flag = Arg::new(id).long(name).hide(true);
            let flag = if name == "discovery-srv" { flag.short('d') } else { flag };
            match parse_bool(harmless) {
                None => flag,
                Some(_) => flag.num_args(0..=1).require_equals(true).default_missing_value("true"),
            }
        });
        let switches = PASSED_OVER
            .iter()
            .map(|&(id, name)| Arg::new(id).long(name).hide(true).action(ArgAction::SetTrue));
        command.args(flags).args(switches)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl clap::FromArgMatches for EtcdctlFlags {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut flags = EtcdctlFlags::default();
        flags.update_from_arg_matches(matches)?;
        Ok(flags)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        let given = |(id, ..): &(&'static str, _, _)| Some((*id, matches.get_one(id).cloned()?));
        self.given = NOT_PASSED_OVER.iter().filter_map(given).collect();
        Ok(())
    }
}

impl EtcdctlFlags {
    /// Refuses flags that ask for what this client does not do.
    fn refuse(&self) -> Result<(), CliError> {
        for (id, name, harmless) in NOT_PASSED_OVER {
            let given = self.given.iter().find(|(given, _)| given == id);
            if given.is_some_and(|(_, value)| asks(value, harmless)) {
                return Err(CliError::Arguments(format!("--{name}: {NOT_SPOKEN}; leave it out")));
            }
        }
        Ok(())
    }
}

const NOT_SPOKEN: &str =
    "this client speaks no TLS, sends no credentials and looks up no endpoints";

/// Refuses variables that ask for what this client does not do.
fn refuse_variables(variable: impl Fn(&str) -> Option<String>) -> Result<(), CliError> {
    for (name, _, harmless) in NOT_PASSED_OVER {
        if variable(name).is_some_and(|value| asks(&value, harmless)) {
            return Err(CliError::Arguments(format!("{name} is set, and {NOT_SPOKEN}; unset it")));
        }
    }
    Ok(())
}

/// Whether a value asks for something.
fn asks(value: &str, harmless: &str) -> bool {
    let is_harmless = match parse_bool(harmless) {
        None => value == harmless,
        harmless => parse_bool(value) == harmless,
    };
    !value.is_empty() && !is_harmless
}

/// A limit of time: as given, or from the environment, or the usual one.
fn timeout(given: &Option<String>, name: &str, usual: &str) -> Result<Duration, CliError> {
    let text = given.clone().or_else(|| variable(name));
    let flag = name.to_lowercase().replace('_', "-");
    parse_duration(text.as_deref().unwrap_or(usual))
        .map_err(|why| CliError::Arguments(format!("--{flag}: {why}")))
}

/// Whether a setting of the environment says yes, in one of the words that `etcdctl` takes.
fn is_set(setting: Option<(String, String)>) -> Result<bool, CliError> {
    let Some((name, value)) = setting else { return Ok(false) };
    parse_bool(&value).ok_or_else(|| {
        CliError::Arguments(format!("{name} in the environment is {value:?}; write true or false"))
    })
}

/// The endpoints that were given, or those of the environment, or the usual one; one a word.
fn endpoint_words(given: &[String]) -> Vec<String> {
    let text = match given {
        [] => variable("ENDPOINTS").unwrap_or_else(|| ENDPOINTS.to_owned()),
        given => given.join(","),
    };
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

/// A setting of the environment: ours, or the one that `etcdctl` reads.
fn variable(name: &str) -> Option<String> {
    named_variable(name).map(|(_, value)| value)
}

/// The same, behind the whole name of the variable.
fn named_variable(name: &str) -> Option<(String, String)> {
    ["QUORATE_", "ETCDCTL_"]
        .iter()
        .map(|prefix| format!("{prefix}{name}"))
        .filter_map(|name| std::env::var(&name).ok().map(|value| (name, value)))
        .find(|(_, value)| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_ask_for_what_is_not_done_are_refused_by_name() {
        for (name, _, harmless) in NOT_PASSED_OVER {
            let set = |value: &str| {
                let value = value.to_owned();
                refuse_variables(move |asked| (asked == *name).then(|| value.clone()))
            };
            for value in ["", harmless] {
                assert!(set(value).is_ok(), "{name}={value}");
            }
            let refused = set("x").unwrap_err();
            assert_eq!(refused.exit_code(), 128);
            assert!(refused.to_string().starts_with(name), "{refused}");
        }
        assert!(refuse_variables(|name| (name == "ETCDCTL_API").then(|| "3".to_owned())).is_ok());
        let skips = |value: &'static str| {
            let name = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY";
            refuse_variables(move |asked| (asked == name).then(|| value.to_owned())).is_err()
        };
        assert_eq!(["0", "F", "False", "1", "t"].map(skips), [false, false, false, true, true]);
    }

    /// A command line of flags alone.
    #[derive(clap::Parser, Debug)]
    #[command(no_binary_name = true)]
    struct Line {
        #[command(flatten)]
        flags: ClientFlags,
    }

    #[test]
    fn flags_of_etcdctl_are_taken_or_refused_by_name() {
        let target = |line: &str| {
            let words: Vec<_> = line.split_whitespace().map(std::ffi::OsString::from).collect();
            let line: Line = crate::switches::parse(&words).unwrap();
            line.flags.member.target(Duration::ZERO)
        };
        for taken in [
            "",
            "--debug",
            "--debug=true --insecure-discovery=false",
            "--insecure-transport",
            "--insecure-transport=T",
            "--insecure-skip-tls-verify=0",
            "--user= --password= --cacert= --cert= --key= --discovery-srv=",
        ] {
            assert!(target(taken).is_ok(), "{taken}");
        }
        for refused in [
            "--insecure-transport=false",
            "--insecure-skip-tls-verify",
            "--user root:x",
            "--password x",
            "--cacert /ca",
            "--cert /cert",
            "--key /key",
            "--auth-jwt-token x",
            "-d example.com",
            "--discovery-srv example.com",
            "--discovery-srv-name x",
            "--keepalive-time=x",
            "--keepalive-timeout=1",
        ] {
            let error = target(refused).unwrap_err();
            assert_eq!(error.exit_code(), 128, "{refused}");
            let name = match refused.split([' ', '=']).next() {
                Some("-d") => "--discovery-srv:",
                name => name.unwrap(),
            };
            assert!(error.to_string().starts_with(name), "{refused}: {error}");
        }
        for (line, want) in [
            ("", KeepAlive::new(Duration::from_secs(10), Duration::from_secs(6))),
            (
                "--keepalive-time=1m --keepalive-timeout 2s",
                KeepAlive::new(Duration::from_secs(60), Duration::from_secs(2)),
            ),
        ] {
            assert_eq!(target(line).unwrap().keep_alive(), want, "{line}");
        }
    }

    #[test]
    fn switches_of_the_environment_are_read_as_etcdctl_reads_them() {
        for (value, want) in [
            (None, Ok(false)),
            (Some("1"), Ok(true)),
            (Some("T"), Ok(true)),
            (Some("True"), Ok(true)),
            (Some("0"), Ok(false)),
            (Some("f"), Ok(false)),
            (Some("yes"), Err(128)),
        ] {
            let read = is_set(value.map(|value| ("ETCDCTL_HEX".to_owned(), value.to_owned())));
            assert_eq!(read.map_err(|error| error.exit_code()), want, "{value:?}");
        }
    }
}
