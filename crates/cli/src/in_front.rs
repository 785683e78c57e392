//! Flags of client commands in front of the command, as `etcdctl` takes them: `--endpoints a:1 get k`.

use std::ffi::OsString;

use clap::{ArgAction, Args, Command};

use crate::client::ClientFlags;

/// The same arguments with flags of client commands that stand in front of the command moved behind
/// it. Whatever else stands there stays where it is, for the parser of `program` to refuse.
pub(crate) fn moved_behind(arguments: Vec<OsString>, program: &Command) -> Vec<OsString> {
    let flags = ClientFlags::augment_args(Command::new("flags"));
    let is_flag = |word: &OsString| word.to_str().is_some_and(|word| word.starts_with('-'));
    let mut command_at = 1;
    while let Some(word) = arguments.get(command_at).filter(|word| is_flag(word)) {
        let Some(words) = word.to_str().and_then(|word| words_of(&flags, word)) else {
            return arguments;
        };
        command_at += words;
    }
    let mut end = command_at;
    let mut command = program;
    while let Some(inner) = arguments.get(end).and_then(|word| command.find_subcommand(word)) {
        command = inner;
        end += 1;
    }
    if end == command_at {
        return arguments;
    }
    let mut ordered = arguments;
    ordered[1..end].rotate_left(command_at - 1);
    ordered
}

/// How many words a flag takes, itself included; nothing if it is no flag of `flags`.
fn words_of(flags: &Command, word: &str) -> Option<usize> {
    let mut arguments = flags.get_arguments();
    let (argument, has_value) = match word.strip_prefix("--") {
        Some(rest) => {
            let (name, value) = rest.split_once('=').map_or((rest, None), |(n, v)| (n, Some(v)));
            (arguments.find(|it| it.get_long() == Some(name))?, value.is_some())
        }
        None => {
            let mut letters = word.strip_prefix('-')?.chars();
            let letter = letters.next()?;
            (arguments.find(|it| it.get_short() == Some(letter))?, letters.next().is_some())
        }
    };
    let is_switch = matches!(argument.get_action(), ArgAction::SetTrue);
    let is_one_word = is_switch || has_value || argument.is_require_equals_set();
    Some(if is_one_word { 1 } else { 2 })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::Quorate;

    #[test]
    fn flags_of_client_commands_may_stand_in_front() {
        for (line, want) in [
            ("get k", "get k"),
            ("--endpoints a:1 get k", "get --endpoints a:1 k"),
            ("--endpoints=a:1,b:2 get k -w json", "get --endpoints=a:1,b:2 k -w json"),
            ("-w json --hex get k", "get -w json --hex k"),
            ("-wjson get k", "get -wjson k"),
            ("--hex=true get k", "get --hex=true k"),
            ("--user root get k", "get --user root k"),
            ("--insecure-transport get k", "get --insecure-transport k"),
            ("--insecure-transport=false get k", "get --insecure-transport=false k"),
            ("-d a.b get k", "get -d a.b k"),
            ("--endpoints a:1 member list", "member list --endpoints a:1"),
            ("--command-timeout 1s autopilot state", "autopilot state --command-timeout 1s"),
            (
                "--endpoints a:1 lock name cmd --endpoints",
                "lock --endpoints a:1 name cmd --endpoints",
            ),
            // A value that looks like a command is one no more.
            ("--endpoints get put a b", "put --endpoints get a b"),
            // Not of client commands, or no command: as it was.
            ("--nosuch put a b", "--nosuch put a b"),
            ("--endpoints a:1 --nosuch put a b", "--endpoints a:1 --nosuch put a b"),
            ("--endpoints a:1 nosuch", "--endpoints a:1 nosuch"),
            ("--endpoints", "--endpoints"),
            ("--version", "--version"),
            ("-", "-"),
            ("", ""),
        ] {
            let words = ["quorate"].into_iter().chain(line.split_whitespace());
            let ordered = moved_behind(words.map(OsString::from).collect(), &Quorate::command());
            let ordered: Vec<_> = ordered[1..].iter().map(|word| word.to_str().unwrap()).collect();
            assert_eq!(ordered.join(" "), want, "{line}");
        }
    }
}
