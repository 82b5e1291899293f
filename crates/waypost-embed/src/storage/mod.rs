//! Where the embedded server keeps everything: a durable [`Backend`](crate::backend::Backend).
//!
//! A folder has `waypost.redb`, the database; while the store is open `waypost.log`, the log in front of it; and `lock`. The
//! database has a table for each of etcd's buckets, with etcd's keys and values, and the table `waypost` of names and `u64`:
//! `format` (2), `bytes`, the length of all keys and values, `sequence`, the number of the last batch in it, and `log`, the
//! salt of the log that has the batches after that one, or 0. `docs/formats.md` has the log's frames.
//!
//! # Why a log
//!
//! A commit of redb builds new pages from the leaf to the root of each tree that it touches, writes them wherever there is
//! room, and syncs a file that grows. In the log a commit is one write in a row and one sync, in blocks that the file has
//! already; redb then gets the batches of a second, or of 4 MiB, in one commit, in which most of those pages are shared. Beside
//! etcd with one client, in the same run of `just bench-embed`: puts/s from 0.45 to 1.3 times etcd's, the server's CPU for a
//! put from 340 µs to 115 µs (etcd: 235 µs), a put's way to a watch from 1.3 to 0.5 times etcd's.
//!
//! # Why redb
//!
//! It and fjall were measured on the server's pattern: one writer, 17-byte keys in ascending order, values of 256 bytes that do
//! not compress, every commit durable, 256 MiB of cache (`cargo bench -p waypost-embed --bench storage`).
//!
//! | | append-only file | fjall 3.1.13 | redb 4.4.0 | redb, quick repair | [`Store`] on redb |
//! |---|---|---|---|---|---|
//! | commit of 1 entry, p10 / p50 µs | 117 / 173 | 82 / 143 | 164 / 267 | 324 / 482 | 177 / 294 |
//! | of 8 | 130 / 258 | 129 / 200 | 232 / 367 | 393 / 644 | 243 / 441 |
//! | of 64 | 238 / 2489 | 198 / 3153 | 404 / 2745 | 597 / 4189 | 454 / 3008 |
//! | of 256 | 440 / 2288 | 367 / 545 | 681 / 2529 | 908 / 3920 | 830 / 2735 |
//! | reads/s of one thread beside a writer of 64 | | 373 k | 370 k | 435 k | 360 k |
//! | reads/s of one thread at 1 M entries | | 70 k | 156 k | 197 k | 293 k |
//! | 1 M entries loaded by 256, s | | 9.1 | 8.7 | 20.1 | 6.3 |
//! | on disk, MiB (content 260) | | 325 | 284 | 284 | 284 |
//! | resident after opening / 300 k reads, MiB | | 5 / 271 | 3 / 267 | 3 / 267 | 3 / 268 |
//! | opening after a clean end / SIGKILL, s | | 0.3 / 1.0 | 0.0 / 1.3 | 0.0 / 0.0 | 0.0 / 0.4 |
//! | every other entry deleted, MiB | | 352 | 294 | 294 | 294 |
//! | then compacted, MiB | | 425 | 293 | 293 | 151 |
//! | power lost with one page of the last batch unwritten | | **does not open** | | | opens |
//!
//! Two cores and a virtual disk that were shared with other work (load 5 to 10), so rates vary by a factor of three from run to
//! run. Commits went round the engines one by one, which makes a line of the commits comparable within itself, best in its
//! p10; the other lines were measured one engine after the other and are no ranking.
//!
//! fjall commits as fast as the disk appends, in half the time of redb. But a value that is longer than a page, of which the
//! power took one, makes its journal fail the checksum, and it then refuses to open, with all that was acknowledged. redb opens
//! with the last whole commit, from any subset of unwritten sectors (a test here tries it), and is one file. Quick repair costs a second sync for each commit; the server reads all of its keys
//! when it starts anyway. redb's own compaction moves pages but does not merge those that are half empty, so
//! [`Store::defragment`] copies instead.

mod engine;
mod error;
#[cfg(test)]
mod failures;
mod faulty;
mod folder;
mod frame;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzed;
mod log;
mod medium;
mod overlay;
#[cfg(test)]
mod simulated;
#[cfg(test)]
mod simulation;
mod store;
#[cfg(test)]
mod tests;
mod tiers;
mod view;

pub use faulty::FaultyBackend;
#[cfg(test)]
pub(crate) use simulation::Simulation;
pub use store::{Store, StoreOptions};
pub use view::View;
