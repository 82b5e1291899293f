//! The whole server on disks that fail, and on whatever may be sent.

mod disk;
