//! The whole server without a network: on disks that fail, and in time that passes at once.

mod compaction;
mod disk;
