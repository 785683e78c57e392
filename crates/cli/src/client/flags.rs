//! Flags of every client command: from the command line first, then from the environment.

use std::time::Duration;

use clap::ValueEnum;
use quorate_server::parse_bool;

use super::endpoints::Target;
use super::error::CliError;
use super::output::Output;
use super::parse_duration;

const ENDPOINTS: &str = "127.0.0.1:2379";
const COMMAND_TIMEOUT: &str = "5s";
const DIAL_TIMEOUT: &str = "2s";

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
    /// Form of the output: simple, json, fields or table [default: simple, for status and members table]
    #[arg(short = 'w', long, value_name = "FORM")]
    write_out: Option<String>,
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
        refuse_unknown(|name| std::env::var(name).ok())?;
        let dial_timeout = timeout(&self.dial_timeout, "DIAL_TIMEOUT", DIAL_TIMEOUT)?;
        Target::new(&endpoint_words(&self.endpoints), dial_timeout, answer_max)
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

/// What `etcdctl` is told in variables about with whom it talks, and as whom, and what each is where it says
/// neither. A client that passes one over does something else than whoever set it believes.
const NOT_PASSED_OVER: &[(&str, &str)] = &[
    ("ETCDCTL_AUTH_JWT_TOKEN", ""),
    ("ETCDCTL_CACERT", ""),
    ("ETCDCTL_CERT", ""),
    ("ETCDCTL_DISCOVERY_SRV", ""),
    ("ETCDCTL_DISCOVERY_SRV_NAME", ""),
    ("ETCDCTL_INSECURE_SKIP_TLS_VERIFY", "false"),
    ("ETCDCTL_INSECURE_TRANSPORT", "true"),
    ("ETCDCTL_KEY", ""),
    ("ETCDCTL_PASSWORD", ""),
    ("ETCDCTL_USER", ""),
];

/// Refuses variables that ask for what this client does not do.
fn refuse_unknown(variable: impl Fn(&str) -> Option<String>) -> Result<(), CliError> {
    for (name, harmless) in NOT_PASSED_OVER {
        let asks = |value: &str| match parse_bool(harmless) {
            None => value != *harmless,
            harmless => parse_bool(value) != harmless,
        };
        if variable(name).is_some_and(|value| !value.is_empty() && asks(&value)) {
            let text = "this client speaks no TLS, sends no credentials and looks up no endpoints";
            return Err(CliError::Arguments(format!("{name} is set, and {text}; unset it")));
        }
    }
    Ok(())
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
        for (name, harmless) in NOT_PASSED_OVER {
            let set = |value: &str| {
                let value = value.to_owned();
                refuse_unknown(move |asked| (asked == *name).then(|| value.clone()))
            };
            for value in ["", harmless] {
                assert!(set(value).is_ok(), "{name}={value}");
            }
            let refused = set("x").unwrap_err();
            assert_eq!(refused.exit_code(), 128);
            assert!(refused.to_string().starts_with(name), "{refused}");
        }
        assert!(refuse_unknown(|name| (name == "ETCDCTL_API").then(|| "3".to_owned())).is_ok());
        let skips = |value: &'static str| {
            let name = "ETCDCTL_INSECURE_SKIP_TLS_VERIFY";
            refuse_unknown(move |asked| (asked == name).then(|| value.to_owned())).is_err()
        };
        assert_eq!(["0", "F", "False", "1", "t"].map(skips), [false, false, false, true, true]);
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
