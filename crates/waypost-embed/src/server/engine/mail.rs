//! What goes from whoever writes to the lanes: answers to those who asked, and that there is something for a watch.
//!
//! To tell a task on another thread costs a system call, and that thread would begin with the first answer while the others
//! are on their way, and write each to its connection by itself. So the answers of a batch go to each lane together, and so do wake-ups.

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

enum Letter {
    Answer { tell: Tell, verdict: Result<(), Refusal> },
    Wake(Arc<Notify>),
}

/// A task that waits for what is to be said on its watch stream.
#[derive(Clone)]
pub(in crate::server) struct Sleeper {
    waker: Arc<Notify>,
    /// Of the lane where it is, if it is in one.
    mail: Option<Arc<Mail>>,
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
            letters.into_iter().for_each(Letter::open);
        }
    }
}

// === impl Letter ===

impl Letter {
    fn open(self) {
        match self {
            Self::Answer { tell, verdict } => tell(verdict),
            Self::Wake(waker) => waker.notify_one(),
        }
    }
}

// === impl Sleeper ===

impl Sleeper {
    /// A task of this thread that is woken by this.
    pub(super) fn here(waker: &Arc<Notify>) -> Self {
        Self { waker: Arc::clone(waker), mail: Mail::here() }
    }
}

/// Tells requests what became of them.
pub(super) fn answer(settles: impl IntoIterator<Item = Settle>, verdict: &Result<(), Refusal>) {
    let letter = |tell| Letter::Answer { tell, verdict: verdict.clone() };
    post(settles.into_iter().map(|Settle { tell, mail }| (letter(tell), mail)));
}

/// Wakes those who wait for something to say.
pub(super) fn wake(sleepers: impl IntoIterator<Item = Sleeper>) {
    post(sleepers.into_iter().map(|Sleeper { waker, mail }| (Letter::Wake(waker), mail)));
}

/// Delivers what is for this lane or for none, and posts the rest.
fn post(letters: impl Iterator<Item = (Letter, Option<Arc<Mail>>)>) {
    let here = Mail::here();
    let mut sent: Vec<(Arc<Mail>, Vec<Letter>)> = Vec::new();
    for (letter, to) in letters {
        let elsewhere = |to: &Arc<Mail>| here.as_ref().is_none_or(|here| !Arc::ptr_eq(here, to));
        let Some(to) = to.filter(elsewhere) else {
            letter.open();
            continue;
        };
        match sent.iter_mut().find(|(mail, _)| Arc::ptr_eq(mail, &to)) {
            Some((_, letters)) => letters.push(letter),
            None => sent.push((to, vec![letter])),
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
        let sleeper = std::thread::scope(|scope| {
            let lane = scope.spawn(|| {
                mail.settle_here();
                Sleeper::here(&Arc::default())
            });
            lane.join().unwrap()
        });
        wake([sleeper.clone()]);
        assert_eq!(lock(&mail.letters).len(), 1);
        tokio::select! {
            () = mail.deliver() => {}
            () = sleeper.waker.notified() => {}
        }
        mail.settle_here();
        answer([settle(4, Some(&mail))], &Err(Refusal::Stopped));
        let (number, verdict) = told.try_recv().unwrap();
        assert_eq!((number, verdict.is_err()), (4, true));
    }
}
