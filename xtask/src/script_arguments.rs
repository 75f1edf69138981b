//! `--expect` and `--send` on the command line: their order matters, which clap's derived parsers do not keep.
//!
//! Main type: [`ScriptArguments`], to be flattened into a command's arguments.

use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

use crate::expect::Script;

/// The script told by `--expect REGEX` and `--send TEXT`.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScriptArguments(pub(crate) Script);

impl FromArgMatches for ScriptArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let mut script = Script::default();
        let mut words: Vec<(usize, &str, &String)> =
            ["expect", "send"].iter().flat_map(|&name| of(matches, name)).collect();
        words.sort();
        for (_, name, word) in words {
            let added = if name == "expect" { script.expect(word) } else { script.send(word) };
            added.map_err(|error| Error::raw(ErrorKind::ValueValidation, format!("{error:#}\n")))?;
        }
        Ok(Self(script))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for ScriptArguments {
    fn augment_args(command: Command) -> Command {
        let expect = Arg::new("expect").long("expect").value_name("REGEX").action(ArgAction::Append);
        let send = Arg::new("send").long("send").value_name("TEXT").action(ArgAction::Append);
        command
            .arg(expect.help("Wait until the console or the log shows this (in order; may be repeated)"))
            .arg(send.help("Then type this; \\n, \\r, \\e and \\xHH are as in C").allow_hyphen_values(true))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

/// The values of one option, each with its place on the command line.
fn of<'a>(
    matches: &'a ArgMatches,
    name: &'static str,
) -> impl Iterator<Item = (usize, &'static str, &'a String)> {
    let places = matches.indices_of(name).into_iter().flatten();
    let values = matches.get_many::<String>(name).into_iter().flatten();
    places.zip(values).map(move |(place, value)| (place, name, value))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::ScriptArguments;
    use crate::expect::{Progress, Script};

    fn parse(words: &[&str]) -> Result<Script, clap::Error> {
        let command = ScriptArguments::augment_args(Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(words)?;
        Ok(ScriptArguments::from_arg_matches(&matches)?.0)
    }

    #[test]
    fn answers_belong_to_the_pattern_before_them() {
        let words = ["--expect", "one", "--expect", "two", "--send", "2\\n", "--expect", "three"];
        let mut progress = Progress::new(parse(&words).expect("valid"));
        assert_eq!(progress.console(b"one"), b"");
        assert_eq!(progress.console(b"two"), b"2\n");
        assert_eq!(progress.awaited(), Some("three"));
    }

    #[test]
    fn bad_pattern_is_an_error_of_the_command_line() {
        assert!(parse(&["--expect", "("]).is_err());
    }
}
