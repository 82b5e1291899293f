//! Answers on their way from whoever writes to the lanes that asked.
//!
//! To tell a task on another thread costs a system call, and that thread would begin with the first answer while the others
//! are on their way, and write each to its connection by itself. So the answers of a batch go to each lane together.

use std::cell::RefCell;
use std::sync::{Arc, Mutex};

use tokio::sync::Notify;

use super::lock;
use crate::error::Refusal;

/// Tells one request whether its batch is on disk.
pub(super) type Tell = Box<dyn FnOnce(Result<(), Refusal>) + Send>;

/// A request that is to be told, and where.
pub(super) struct Settle {
    pub(super) tell: Tell,
    /// Of the lane that asked, if one did.
    pub(super) mail: Option<Arc<Mail>>,
}

/// What waits for a lane.
#[derive(Default)]
pub(in crate::server) struct Mail {
    letters: Mutex<Vec<Letter>>,
    arrived: Notify,
}

struct Letter {
    tell: Tell,
    verdict: Result<(), Refusal>,
}

thread_local! {
    /// Of the lane whose thread this is.
    static HERE: RefCell<Option<Arc<Mail>>> = const { RefCell::new(None) };
}

// === impl Mail ===

impl Mail {
    /// Has what is asked on this thread answered through this.
    pub(in crate::server) fn settle_here(self: &Arc<Self>) {
        HERE.set(Some(Arc::clone(self)));
    }

    /// Of the lane whose thread this is, if it is one's.
    pub(super) fn here() -> Option<Arc<Self>> {
        HERE.with_borrow(Clone::clone)
    }

    /// Delivers what comes. What has come and is not delivered when this is dropped finds nobody.
    pub(in crate::server) async fn deliver(&self) {
        loop {
            self.arrived.notified().await;
            let letters = std::mem::take(&mut *lock(&self.letters));
            for Letter { tell, verdict } in letters {
                tell(verdict);
            }
        }
    }
}

/// Tells requests what became of them.
pub(super) fn answer(settles: impl IntoIterator<Item = Settle>, verdict: &Result<(), Refusal>) {
    let here = Mail::here();
    let mut sent: Vec<(Arc<Mail>, Vec<Letter>)> = Vec::new();
    for Settle { tell, mail } in settles {
        let Some(mail) = mail.filter(|mail| here.as_ref().is_none_or(|here| !Arc::ptr_eq(here, mail))) else {
            tell(verdict.clone());
            continue;
        };
        let letter = Letter { tell, verdict: verdict.clone() };
        match sent.iter_mut().find(|(to, _)| Arc::ptr_eq(to, &mail)) {
            Some((_, letters)) => letters.push(letter),
            None => sent.push((mail, vec![letter])),
        }
    }
    for (mail, letters) in sent {
        lock(&mail.letters).extend(letters);
        mail.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn answers_of_a_batch_arrive_together_and_those_of_nobodys_lane_at_once() {
        let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
        let mail = Arc::new(Mail::default());
        let settle = |number: u32, mail: Option<&Arc<Mail>>| {
            let sender = sender.clone();
            let tell: Tell = Box::new(move |verdict| sender.send((number, verdict)).unwrap());
            Settle { tell, mail: mail.cloned() }
        };
        answer([settle(1, Some(&mail)), settle(2, None), settle(3, Some(&mail))], &Ok(()));
        assert_eq!(told.try_recv().unwrap().0, 2);
        assert!(told.try_recv().is_err());
        tokio::select! {
            () = mail.deliver() => {}
            first = told.recv() => assert_eq!(first.unwrap().0, 1),
        }
        assert_eq!(told.try_recv().unwrap().0, 3);
        mail.settle_here();
        answer([settle(4, Some(&mail))], &Err(Refusal::Stopped));
        let (number, verdict) = told.try_recv().unwrap();
        assert_eq!((number, verdict.is_err()), (4, true));
    }
}
