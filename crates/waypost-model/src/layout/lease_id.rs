//! Ids that are numbers: that of the lease, or one that the caller has chosen.

use crate::{
    instance::Instance,
    layout::{Carries, EncodeError, Field},
};

/// The number that names `instance` in its key, and what of the instance is lost. A positive number brought as id is
/// used as it is; any other id gives way to the lease, and is lost unless it is the default one.
pub(super) fn number(
    layout: &'static str,
    carries: Carries,
    instance: &Instance,
    lease: i64,
) -> Result<(String, Vec<Field>), EncodeError> {
    let mut lost = carries.lost(instance, &[]);
    let id = instance.id.as_str();
    if is_number(id) {
        lost.retain(|field| *field != Field::Id);
        return Ok((id.to_owned(), lost));
    }
    if lease <= 0 {
        return Err(EncodeError::LeaseNeeded { layout, service: instance.service.to_string() });
    }
    Ok((lease.to_string(), lost))
}

/// Whether `text` is a positive 64-bit number as it is written in decimal.
pub(super) fn is_number(text: &str) -> bool {
    text.parse::<i64>().is_ok_and(|number| number > 0 && number.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_positive_and_written_plainly() {
        for good in ["1", "7587862094531234567", "9223372036854775807"] {
            assert!(is_number(good), "{good}");
        }
        for bad in ["", "0", "-1", "+1", "01", "1a", "9223372036854775808", "10.0.0.1:80"] {
            assert!(!is_number(bad), "{bad}");
        }
    }

    #[test]
    fn the_lease_stands_in_for_any_other_id() {
        let instance = Instance::new("s".parse().unwrap(), "a:1".parse().unwrap());
        let number = |id: Option<&str>, lease| {
            let id = id.map_or_else(|| instance.id.clone(), |id| id.parse().unwrap());
            number("test", Carries::NOTHING, &instance.clone().with_id(id), lease)
        };
        assert_eq!(number(None, 7).unwrap(), ("7".to_owned(), vec![]));
        assert_eq!(number(Some("5"), 7).unwrap(), ("5".to_owned(), vec![]));
        assert_eq!(number(Some("5"), 0).unwrap(), ("5".to_owned(), vec![]));
        assert_eq!(number(Some("pod"), 7).unwrap(), ("7".to_owned(), vec![Field::Id]));
        let error = number(None, 0).unwrap_err().to_string();
        assert_eq!(error, "layout test needs a lease to write s: the lease id is part of the key");
    }
}
