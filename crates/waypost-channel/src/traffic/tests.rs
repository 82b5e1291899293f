use super::*;
use futures::FutureExt;
use futures::future::BoxFuture;

type Entering = BoxFuture<'static, Result<InFlight, Severed>>;

fn traffic(limit: usize) -> Arc<Traffic> {
    let traffic = Arc::new(Traffic::new());
    traffic.set_limit(limit);
    traffic
}

/// Has asked, and waits.
fn waiting(traffic: &Arc<Traffic>) -> Entering {
    let traffic = Arc::clone(traffic);
    let mut entering = async move { traffic.enter().await }.boxed();
    assert!((&mut entering).now_or_never().is_none());
    entering
}

fn enters(entering: &mut Entering) -> Option<InFlight> {
    entering.now_or_never().map(Result::unwrap)
}

#[track_caller]
fn is(traffic: &Traffic, in_flight: usize, waiting: usize) {
    let counted = (traffic.in_flight.load(Ordering::SeqCst), traffic.waiting.load(Ordering::SeqCst));
    assert_eq!(counted, (in_flight, waiting));
    assert_eq!(traffic.queue().waiters.len(), waiting);
}

#[test]
fn places_are_given_in_the_order_of_asking() {
    let traffic = traffic(2);
    let mut places = vec![traffic.try_enter().unwrap(), traffic.try_enter().unwrap()];
    let mut waiters: Vec<_> = (0..3).map(|_| waiting(&traffic)).collect();
    is(&traffic, 2, 3);
    for _ in 0..3 {
        places.remove(0);
        // It is the first one's, though it has not taken it yet.
        assert!(traffic.try_enter().is_none());
        let later = waiters.split_off(1);
        places.push(enters(&mut waiters[0]).unwrap());
        waiters = later;
        assert!(waiters.iter_mut().all(|waiter| enters(waiter).is_none()));
    }
    places.clear();
    is(&traffic, 0, 0);
}

#[test]
fn whoever_no_longer_waits_leaves_nothing_and_passes_on_what_it_was_given() {
    let traffic = traffic(1);
    let place = traffic.try_enter().unwrap();
    let (first, second, mut third) = (waiting(&traffic), waiting(&traffic), waiting(&traffic));
    drop(second);
    is(&traffic, 1, 2);
    drop(place);
    // It is given to the first, which has not looked.
    is(&traffic, 1, 1);
    drop(first);
    is(&traffic, 1, 0);
    assert!(enters(&mut third).is_some());
    is(&traffic, 0, 0);
    assert_eq!(Arc::strong_count(&traffic), 1);
}

#[test]
fn another_limit_holds_at_once_for_those_who_wait_and_those_who_come() {
    let traffic = traffic(0);
    let mut waiters: Vec<_> = (0..3).map(|_| waiting(&traffic)).collect();
    is(&traffic, 0, 3);
    traffic.set_limit(2);
    let mut places: Vec<_> = waiters.iter_mut().filter_map(enters).collect();
    assert_eq!(places.len(), 2);
    traffic.set_limit(1);
    places.pop();
    assert!(enters(&mut waiters[2]).is_none());
    places.pop();
    let last = enters(&mut waiters[2]).unwrap();
    traffic.set_limit(usize::MAX);
    assert!(traffic.try_enter().is_some());
    drop(last);
    is(&traffic, 0, 0);
}

/// However many have gone, each in the instant in which it was its turn.
#[test]
fn a_place_that_nobody_has_taken_goes_to_the_next_who_is_there() {
    let traffic = traffic(1);
    let place = traffic.try_enter().unwrap();
    {
        let mut queue = traffic.queue();
        queue.tickets = 200_000;
        queue.waiters = (1..=queue.tickets).map(|ticket| (ticket, oneshot::channel().0)).collect();
    }
    let mut last = waiting(&traffic);
    is(&traffic, 1, 200_001);
    drop(place);
    let last = enters(&mut last).unwrap();
    is(&traffic, 1, 0);
    drop(last);
    is(&traffic, 0, 0);
}

#[test]
fn a_place_is_free_once_when_the_server_has_ended_and_when_the_caller_has() {
    let traffic = traffic(2);
    let (mut first, mut second) = (traffic.try_enter().unwrap(), traffic.try_enter().unwrap());
    first.is_on(|| 1);
    // Which the server has ended before.
    traffic.ended(3);
    second.is_on(|| 3);
    let mut third = waiting(&traffic);
    // Of the connection, or of no call.
    traffic.ended(0);
    traffic.ended(5);
    assert!(enters(&mut third).is_none());
    traffic.ended(1);
    let third = enters(&mut third).unwrap();
    drop(first);
    is(&traffic, 2, 0);
    drop((second, third));
    traffic.ended(1);
    is(&traffic, 0, 0);
    traffic.ended(0);
    is(&traffic, 0, 0);
    let mut again = traffic.try_enter().unwrap();
    again.is_on(|| 7);
    drop(again);
    traffic.ended(7);
    is(&traffic, 0, 0);
}

#[test]
fn nobody_waits_on_a_connection_that_has_left() {
    let traffic = traffic(1);
    let place = traffic.try_enter().unwrap();
    let waiter = waiting(&traffic);
    traffic.leave();
    assert!(matches!(waiter.now_or_never(), Some(Err(Severed::Left))));
    assert!(matches!(traffic.enter().now_or_never(), Some(Err(Severed::Left))));
    drop(place);
    is(&traffic, 0, 0);
    traffic.silent.set(Duration::from_secs(5)).unwrap();
    traffic.set_limit(0);
    assert!(matches!(traffic.enter().now_or_never(), Some(Err(Severed::Silent(_)))));
}

/// Where nothing but the limit keeps the calls from the server: whether that lives is to be asked.
#[tokio::test]
async fn a_call_that_waits_is_one() {
    let traffic = traffic(0);
    assert!(traffic.busy().now_or_never().is_none());
    let busy = tokio::spawn({
        let traffic = Arc::clone(&traffic);
        async move { traffic.busy().await }
    });
    tokio::task::yield_now().await;
    let _waiter = waiting(&traffic);
    busy.await.unwrap();
}

/// On real threads, with callers that give up at any point; the limit goes up and down.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_place_is_lost_and_none_is_given_beyond_the_limit() {
    const CALLERS: usize = 16;
    const CALLS: usize = 400;
    const MOST: usize = 3;
    let traffic = traffic(MOST);
    let inside = Arc::new(AtomicUsize::new(0));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (traffic, inside) = (Arc::clone(&traffic), Arc::clone(&inside));
            let mut random = fastrand::Rng::with_seed(u64::try_from(caller).unwrap());
            tokio::spawn(async move {
                for _ in 0..CALLS {
                    let patience = random.usize(0..8);
                    let gives_up = async {
                        for _ in 0..patience {
                            tokio::task::yield_now().await;
                        }
                    };
                    let place = tokio::select! {
                        place = traffic.enter() => place.unwrap(),
                        () = gives_up, if patience < 6 => continue,
                    };
                    assert!(inside.fetch_add(1, Ordering::SeqCst) < MOST);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, Ordering::SeqCst);
                    drop(place);
                }
            })
        })
        .collect();
    let moving = tokio::spawn({
        let traffic = Arc::clone(&traffic);
        async move {
            for turn in 0..CALLS {
                let limit = turn % (MOST + 1);
                traffic.set_limit(limit);
                // Those under way go on.
                while traffic.in_flight.load(Ordering::SeqCst) > limit {
                    tokio::task::yield_now().await;
                }
                for _ in 0..4 {
                    assert!(inside.load(Ordering::SeqCst) <= limit);
                    tokio::task::yield_now().await;
                }
            }
            traffic.set_limit(MOST);
        }
    });
    let all = async {
        moving.await.unwrap();
        for caller in callers {
            caller.await.unwrap();
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    is(&traffic, 0, 0);
}
