//! The rules of registration, without I/O, clock or randomness: events go in, steps to take and states come out.

pub(crate) mod edit;
mod event;
pub(crate) mod member;
pub(crate) mod owned;
pub(crate) mod packing;
pub(crate) mod placement;
#[cfg(test)]
mod simulation;
mod view;

pub(crate) use self::event::{Event, Guard, Outcome, Removal, Step, Ticket, Write};
pub(crate) use self::member::Member;
pub(crate) use self::owned::OwnedLeases;
pub(crate) use self::placement::{GroupId, Placement};
pub(crate) use self::view::{Held, Holder, Sight};
