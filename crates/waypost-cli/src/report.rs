//! An error as the one line that a reader sees, and what to do about it.

use std::io::{self, Write as _};

use waypost::etcd::{self, ErrorKind};

use crate::exit::Exit;

/// Tells the error on standard error, unless it is a closed pipe, and answers how the command ends.
pub(crate) fn report(error: &anyhow::Error) -> Exit {
    let exit = Exit::of(error);
    if exit != Exit::Ok {
        warn(&line(error));
        if let Some(hint) = hint(error) {
            note("hint", hint);
        }
    }
    exit
}

/// One line on standard error, under the name of the program.
pub(crate) fn warn(text: &str) {
    note("waypost", text);
}

fn note(who: &str, text: &str) {
    // With standard error closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{who}: {text}");
}

/// The error and its causes, from the outermost to the one that says something new last.
fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain() {
        let text = cause.to_string();
        if !line.contains(&text) {
            if !line.is_empty() {
                line.push_str(": ");
            }
            line.push_str(&text);
        }
        // Its text has its own causes in it.
        if cause.is::<etcd::Error>() {
            break;
        }
    }
    printable(&line)
}

/// The text without line breaks and control characters, which could be anything that somebody wrote into etcd.
pub(crate) fn printable(text: &str) -> String {
    if !text.contains(char::is_control) {
        return text.to_owned();
    }
    text.chars()
        .flat_map(|char| {
            let escaped = char.is_control().then(|| char.escape_default());
            let plain = escaped.is_none().then_some(char);
            escaped.into_iter().flatten().chain(plain)
        })
        .collect()
}

fn hint(error: &anyhow::Error) -> Option<&'static str> {
    let error = error.chain().find_map(|cause| cause.downcast_ref::<etcd::Error>())?;
    Some(match error.kind() {
        ErrorKind::Unavailable | ErrorKind::TimedOut => {
            "is etcd there? Name where it is: --endpoints http://HOST:2379, or WAYPOST_ENDPOINTS; \
             --endpoints embedded:DIR needs none"
        }
        ErrorKind::Unauthenticated => {
            "name a user of etcd: --user NAME, with its password in WAYPOST_PASSWORD"
        }
        ErrorKind::PermissionDenied => {
            "this user may not touch these keys: name another with --user, or grant its role the prefix"
        }
        ErrorKind::Compacted => "that revision is gone from etcd's history: name a later one, or none",
        ErrorKind::NoSpace => "etcd's quota is used up: compact, defragment, then `etcdctl alarm disarm`",
        ErrorKind::LeaseNotFound => {
            "the lease has expired or never was: `etcdctl lease list` shows what there is"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context as _;

    use super::*;

    #[test]
    fn causes_are_told_once_and_in_one_line() {
        let error = Err::<(), _>(io::Error::other("no\nroute"))
            .context("connection: no\nroute")
            .context("register")
            .unwrap_err();
        assert_eq!(line(&error), "register: connection: no\\nroute");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb é"), "a\\u{1b}[31mb é");
    }
}
