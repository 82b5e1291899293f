//! `hertz`: the etcd registry of Hertz, which is that of Kitex under a prefix of its own.
//!
//! `hertz/registry-etcd/Hello/[2001:db8::1]:8888` →
//! `{"network":"tcp","address":"[2001:db8::1]:8888","weight":10,"tags":{"zone":"a"}}`.

use crate::layout::kitex::Kitex;

pub(super) fn hertz(prefix: Option<&str>) -> Kitex {
    Kitex::named("hertz", prefix.unwrap_or("hertz/registry-etcd"))
}
