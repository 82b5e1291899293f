//! Alarms that are on.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use prost::Message as _;
use waypost_proto::etcdserverpb::{AlarmMember, AlarmType};

use crate::backend::{Backend, Bucket, WriteBatch};
use crate::mvcc::{Malformed, StoreError};

/// Alarms: which, and of which member. Changes follow the batch.
#[derive(Debug, Default)]
pub(in crate::server) struct Alarms {
    committed: BTreeSet<Alarm>,
    pending: BTreeSet<Alarm>,
}

/// The kind, then the member.
type Alarm = (i32, u64);

// === impl Alarms ===

impl Alarms {
    pub(super) fn load(backend: &dyn Backend) -> Result<Self, StoreError> {
        let mut found = BTreeSet::new();
        let mut malformed = None;
        backend.scan(Bucket::Alarm, &[], &[], &mut |key, _| match AlarmMember::decode(key) {
            Ok(AlarmMember { member_id, alarm }) => {
                found.insert((alarm, member_id));
                ControlFlow::Continue(())
            }
            Err(error) => {
                malformed = Some(Malformed::new(Bucket::Alarm, key, error.to_string()));
                ControlFlow::Break(())
            }
        })?;
        match malformed {
            Some(error) => Err(error.into()),
            None => Ok(Self { committed: found.clone(), pending: found }),
        }
    }

    /// Whether space has run out, as far as is known.
    pub(in crate::server) fn no_space(&self) -> bool {
        self.pending.iter().any(|(kind, _)| *kind == AlarmType::Nospace as i32)
    }

    /// Whether the store is known to be corrupt.
    pub(in crate::server) fn corrupt(&self) -> bool {
        self.pending.iter().any(|(kind, _)| *kind == AlarmType::Corrupt as i32)
    }

    /// The alarms of a kind that are on; 0 for all.
    pub(in crate::server) fn list(&self, kind: i32) -> Vec<AlarmMember> {
        self.committed
            .iter()
            .filter(|(on, _)| kind == 0 || *on == kind)
            .map(|alarm| message(*alarm))
            .collect()
    }

    /// Raises an alarm; gives it as it is told.
    pub(in crate::server) fn raise(&mut self, batch: &mut WriteBatch, kind: i32, member: u64) -> AlarmMember {
        let alarm = message((kind, member));
        if self.pending.insert((kind, member)) {
            batch.put(Bucket::Alarm, alarm.encode_to_vec(), Vec::new());
        }
        alarm
    }

    pub(super) fn raise_no_space(&mut self, batch: &mut WriteBatch, member: u64) {
        self.raise(batch, AlarmType::Nospace.into(), member);
    }

    /// Ends an alarm; gives it if it was on.
    pub(in crate::server) fn disarm(
        &mut self,
        batch: &mut WriteBatch,
        kind: i32,
        member: u64,
    ) -> Option<AlarmMember> {
        self.pending.remove(&(kind, member)).then(|| {
            let alarm = message((kind, member));
            batch.delete(Bucket::Alarm, alarm.encode_to_vec());
            alarm
        })
    }

    /// Space has run out on the disk, which is why that could not be written down.
    pub(super) fn remember_no_space(&mut self, member: u64) {
        self.pending.insert((AlarmType::Nospace.into(), member));
        self.committed.clone_from(&self.pending);
    }

    pub(super) fn committed(&mut self) {
        if self.committed != self.pending {
            self.committed.clone_from(&self.pending);
        }
    }

    pub(super) fn roll_back(&mut self) {
        self.pending.clone_from(&self.committed);
    }
}

fn message((kind, member): Alarm) -> AlarmMember {
    AlarmMember { member_id: member, alarm: kind }
}
