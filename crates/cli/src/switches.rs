//! Switches as Go's programs take them: by itself one says yes, and it may say yes or no behind an equals
//! sign (`--prefix=true`), in the same word, so that it takes no argument for its own. Of several of them, and
//! of other flags that have one value, the last one counts.

use std::ffi::OsString;

use clap::{Arg, ArgAction, Command, Parser};
use quorate_server::parse_bool;

/// Parses a command line of which every switch may have a value, and every flag may come again. Help does not
/// show that.
///
/// # Errors
///
/// As of [`Parser::try_parse_from`].
pub(crate) fn parse<P: Parser>(arguments: &[OsString]) -> Result<P, clap::Error> {
    match P::try_parse_from(arguments) {
        Err(refused) if refused.use_stderr() => {
            let matches = with_values(P::command()).try_get_matches_from(arguments)?;
            P::from_arg_matches(&matches)
        }
        parsed_or_asked_for_help => parsed_or_asked_for_help,
    }
}

/// The same command, and all below it, with switches that take a value.
fn with_values(command: Command) -> Command {
    let is_switch = |argument: &Arg| matches!(argument.get_action(), ArgAction::SetTrue);
    let command = command.args_override_self(true);
    command.mut_subcommands(with_values).mut_args(|argument| match is_switch(&argument) {
        false => argument,
        true => argument
            .action(ArgAction::Set)
            .num_args(0..=1)
            .require_equals(true)
            .default_missing_value("true")
            .default_value("false")
            .value_name("BOOL")
            .value_parser(|word: &str| parse_bool(word).ok_or("write true or false")),
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    #[derive(clap::Parser, Debug)]
    #[command(no_binary_name = true)]
    enum Program {
        Get {
            key: String,
            end: Option<String>,
            #[arg(long)]
            prefix: bool,
            #[arg(long, short = 'i')]
            interactive: bool,
        },
        Put {
            #[arg(long)]
            limit: Option<u32>,
            #[arg(long)]
            safe: bool,
            #[arg(long, value_delimiter = ',')]
            endpoints: Vec<String>,
        },
        Lock {
            name: String,
            #[arg(trailing_var_arg = true)]
            command: Vec<String>,
            #[arg(long)]
            hex: bool,
        },
    }

    fn words(line: &str) -> Vec<OsString> {
        line.split_whitespace().map(OsString::from).collect()
    }

    #[test]
    fn switches_take_gos_words_and_no_arguments() {
        for (line, want) in [
            ("get a", Ok((None, false, false))),
            ("get --prefix a", Ok((None, true, false))),
            ("get --prefix a b", Ok((Some("b"), true, false))),
            ("get --prefix true false", Ok((Some("false"), true, false))),
            ("get --prefix=true a b", Ok((Some("b"), true, false))),
            ("get a --prefix=T", Ok((None, true, false))),
            ("get a --prefix=1 -i", Ok((None, true, true))),
            ("get a --prefix=FALSE -i=true", Ok((None, false, true))),
            ("get a -i=0", Ok((None, false, false))),
            // The last one counts.
            ("get a --prefix --prefix", Ok((None, true, false))),
            ("get a --prefix --prefix=false", Ok((None, false, false))),
            ("get a --prefix=false --prefix", Ok((None, true, false))),
            ("get a --prefix=yes", Err(ErrorKind::ValueValidation)),
            ("get a --prefix=", Err(ErrorKind::ValueValidation)),
            ("get a --prefix=false b c", Err(ErrorKind::UnknownArgument)),
            ("get --prefix=false", Err(ErrorKind::MissingRequiredArgument)),
        ] {
            let parsed = parse::<Program>(&words(line)).map_err(|error| error.kind());
            let found = parsed.map(|program| match program {
                Program::Get { key: _, end, prefix, interactive } => (end, prefix, interactive),
                other => panic!("{line}: {other:?}"),
            });
            let want = want.map(|(end, prefix, is)| (end.map(str::to_owned), prefix, is));
            assert_eq!(found, want, "{line}");
        }
    }

    #[test]
    fn of_flags_with_one_value_the_last_one_counts() {
        for (line, limit, endpoints) in [
            ("put --limit 1 --limit=2", Some(2), &[][..]),
            ("put --limit 2 --safe --limit 1 --safe", Some(1), &[]),
            ("put --endpoints a,b --limit 1 --endpoints c", Some(1), &["a", "b", "c"]),
            ("put --endpoints a --limit 1 --endpoints c --limit 3", Some(3), &["a", "c"]),
        ] {
            let Ok(Program::Put { limit: found, endpoints: named, .. }) = parse(&words(line))
            else {
                panic!("{line}");
            };
            assert_eq!(
                (found, named.iter().map(String::as_str).collect()),
                (limit, endpoints.to_vec())
            );
        }
    }

    #[test]
    fn what_others_are_to_take_is_left_to_them() {
        for (line, count, want) in [
            ("lock --hex=true l ls --hex=false", 2, true),
            ("lock l ls --hex=true", 2, false),
            ("lock --hex=false l -- --hex", 1, false),
        ] {
            let Ok(Program::Lock { name, command, hex }) = parse(&words(line)) else {
                panic!("{line}");
            };
            assert_eq!((name.as_str(), command.len(), hex), ("l", count, want), "{line}");
        }
    }

    #[test]
    fn help_does_not_show_it() {
        let help = parse::<Program>(&words("get --help")).unwrap_err();
        assert_eq!(help.kind(), ErrorKind::DisplayHelp);
        assert!(!help.to_string().contains("--prefix["), "{help}");
        let refused = parse::<Program>(&words("get a --prefix=yes")).unwrap_err();
        let told = refused.to_string();
        assert!(told.contains("'yes'") && told.contains("write true or false"), "{told}");
    }

    #[test]
    fn every_switch_of_the_program_takes_a_value() {
        fn check(command: &Command) {
            for argument in command.get_arguments() {
                assert!(!matches!(argument.get_action(), ArgAction::SetTrue), "{argument}");
            }
            command.get_subcommands().for_each(check);
        }
        let command = with_values(crate::Quorate::command());
        check(&command);
        command.debug_assert();
    }
}
