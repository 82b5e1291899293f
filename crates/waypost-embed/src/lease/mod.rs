//! Leases: keys attached to one vanish together when it is not renewed in time.
//!
//! Deterministic: `now` is monotonic milliseconds given by the caller, and nothing happens by itself. The caller asks for
//! [`Lessor::next_due`], sleeps until then, and does what [`Lessor::due`] says.
//!
//! # Remaining time across a restart
//!
//! A record says how many seconds were left when it was written (0: all of them). Renewals write nothing, so a record may
//! be older than the last renewal, but it never promises less than the lease had at that moment:
//!
//! - A lease that has gone without renewal for half of what its record says gets a new record (a *checkpoint*); so a
//!   lease costs at most log2(TTL) records in its life, and one that is renewed in the first half of its time costs none.
//! - Renewing a lease whose record promises less than the full time first writes that promise anew
//!   ([`Renewal::NeedsRecord`]), and is answered when that is on disk.
//! - An orderly end writes the time left of every lease ([`Lessor::save_all`]).
//!
//! So after a kill a lease has never less time left than it had, and at most twice as much (rounded up to a second; not
//! counting the time in between, during which it does not age).

mod lessor;
mod record;

pub use lessor::{Due, Lessor, MAX_TTL, Mark, Remaining, Renewal};
