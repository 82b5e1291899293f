//! The whole server without a network: on disks that fail, in time that passes at once, and with requests that panic.

mod compaction;
mod disk;
mod writing;
