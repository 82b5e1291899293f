//! The number of a client among others of its kind.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// The number of a client in a group of clients that are numbered from 0 without gaps: the index of a pod in a Kubernetes
/// `StatefulSet`, of an allocation in a Nomad group, of an instance of a systemd template. By it subsets are
/// [even](crate::Subset::numbered).
///
/// As text it is the group's name and the number, as pods of a `StatefulSet` are called: `frontend-7` is number 7 of the
/// group `frontend`. A number alone is of the group without a name.
///
/// Clients of one kind are one group. Two kinds that are both numbered from 0 are to be two groups: in one, their first clients would
/// connect to the same endpoints.
///
/// ```
/// use waypost_balance::ClientNumber;
///
/// let client: ClientNumber = "web-frontend-7".parse()?;
/// assert_eq!(client, ClientNumber::new("web-frontend", 7));
/// assert_eq!("7".parse(), Ok(ClientNumber::from(7)));
/// assert!("web-frontend-7d9f4".parse::<ClientNumber>().is_err());
/// # Ok::<(), waypost_balance::InvalidClientNumber>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ClientNumber {
    group: Arc<str>,
    number: u64,
}

/// A text is not the number of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidClientNumber {
    text: String,
    /// It has a number, beyond the largest.
    too_large: bool,
}

// === impl ClientNumber ===

impl ClientNumber {
    /// A client's number in the group of this name, which may be empty.
    pub fn new(group: impl Into<Arc<str>>, number: u64) -> Self {
        Self { group: group.into(), number }
    }

    /// The name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The number in the group.
    pub fn number(&self) -> u64 {
        self.number
    }
}

impl From<u64> for ClientNumber {
    /// In the group without a name.
    fn from(number: u64) -> Self {
        Self::new("", number)
    }
}

impl FromStr for ClientNumber {
    type Err = InvalidClientNumber;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (group, number) = text.rsplit_once('-').unwrap_or(("", text));
        let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
        match number.parse() {
            Ok(number) if is_number => Ok(Self::new(group, number)),
            _ => Err(InvalidClientNumber { text: text.to_owned(), too_large: is_number }),
        }
    }
}

impl fmt::Display for ClientNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.group.is_empty() {
            write!(f, "{}-", self.group)?;
        }
        write!(f, "{}", self.number)
    }
}

// === impl InvalidClientNumber ===

impl fmt::Display for InvalidClientNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { text, too_large } = self;
        if *too_large {
            return write!(f, "the client's number of {text:?} is too large: it may be up to {}", u64::MAX);
        }
        write!(f, "{text:?} has no client's number at its end: give it as 7 or frontend-7")
    }
}

impl std::error::Error for InvalidClientNumber {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_what_comes_after_the_last_hyphen() {
        for (text, group, number) in [
            ("0", "", 0),
            ("18446744073709551615", "", u64::MAX),
            ("web-3", "web", 3),
            ("a-b-007", "a-b", 7),
            ("-4", "", 4),
        ] {
            assert_eq!(text.parse(), Ok(ClientNumber::new(group, number)), "{text}");
        }
        assert_eq!(ClientNumber::new("a-b", 7).to_string(), "a-b-7");
        assert_eq!(ClientNumber::from(7).to_string(), "7");
    }

    #[test]
    fn what_is_no_number_is_an_error_that_names_it() {
        for text in ["", "web", "web-", "web7", "+7", "web-+7", "web-7d", "٣", "7 "] {
            let error = text.parse::<ClientNumber>().unwrap_err();
            assert!(error.to_string().starts_with(&format!("{text:?} has no client's number")), "{error}");
        }
    }

    #[test]
    fn a_number_that_is_too_large_is_an_error_that_names_the_largest() {
        let error = "web-18446744073709551616".parse::<ClientNumber>().unwrap_err();
        let expected = "the client's number of \"web-18446744073709551616\" is too large: it may be up to 18446744073709551615";
        assert_eq!(error.to_string(), expected);
    }
}
