package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/ioutil"
	"reflect"
	"sort"
	"strings"
	"sync"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/clientv3/leasing"
	"go.etcd.io/etcd/clientv3/mirror"
	"go.etcd.io/etcd/clientv3/namespace"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
	"go.etcd.io/etcd/mvcc/mvccpb"
)

// part is one thing that Go programs do with etcd.
type part struct {
	name string
	run  func(ctx context.Context, client *clientv3.Client) error
}

var parts = []part{
	{"kv", kv},
	{"transactions", transactions},
	{"watches", watches},
	{"leases", leases},
	{"namespaces", namespaces},
	{"sessions and mutexes", mutexes},
	{"elections", elections},
	{"software transactions", softwareTransactions},
	{"leasing", leasingKV},
	{"mirror", mirrored},
	{"a watch goes on after a restart", reconnect},
	{"cluster and maintenance", maintenance},
	{"compaction", compaction},
	{"users and roles", usersAndRoles},
}

// clientv3Command does what Go programs do with clientv3 and says `ok NAME` after each part. For the part that needs
// the server to go away and come back it says `restart`, and waits.
func clientv3Command(ctx context.Context, arguments []string) error {
	set, opts := flags("clientv3")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	client, err := opts.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	for _, each := range parts {
		if err := each.run(ctx, client); err != nil {
			return fmt.Errorf("%s: %w", each.name, err)
		}
		fmt.Println("ok", each.name)
	}
	fmt.Println("done")
	return nil
}

// same is an error if two values differ.
func same(what string, got, want interface{}) error {
	if reflect.DeepEqual(got, want) {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, got, want)
}

// refused is an error unless err is want.
func refused(what string, err, want error) error {
	if rpctypes.Error(err) == want {
		return nil
	}
	return fmt.Errorf("%s: got %v, want %v", what, err, want)
}

// first is the first error of those that there are.
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// texts are keys and values as `key=value`.
func texts(kvs []*mvccpb.KeyValue) []string {
	found := []string{}
	for _, kv := range kvs {
		found = append(found, fmt.Sprintf("%s=%s", kv.Key, kv.Value))
	}
	return found
}

func kv(ctx context.Context, client *clientv3.Client) error {
	for _, pair := range []string{"a=1", "b=2", "c=3", "a=4"} {
		key, value := pair[:1], pair[2:]
		if _, err := client.Put(ctx, "g/kv/"+key, value); err != nil {
			return err
		}
	}
	put, err := client.Put(ctx, "g/kv/b", "5", clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	revision := put.Header.Revision
	get := func(want []string, options ...clientv3.OpOption) error {
		got, err := client.Get(ctx, "g/kv/", options...)
		if err != nil {
			return err
		}
		return same("range", texts(got.Kvs), want)
	}
	prefix := clientv3.WithPrefix()
	err = first(
		same("previous", string(put.PrevKv.Value), "2"),
		get([]string{"g/kv/a=4", "g/kv/b=5", "g/kv/c=3"}, prefix),
		get([]string{"g/kv/a=4"}, prefix, clientv3.WithLimit(1)),
		get([]string{"g/kv/a=4", "g/kv/b=2", "g/kv/c=3"}, prefix, clientv3.WithRev(revision-1)),
		get([]string{"g/kv/c=3", "g/kv/a=4", "g/kv/b=5"}, prefix, clientv3.WithSort(clientv3.SortByModRevision, clientv3.SortAscend)),
		get([]string{"g/kv/b=5", "g/kv/a=4", "g/kv/c=3"}, prefix, clientv3.WithSort(clientv3.SortByValue, clientv3.SortDescend)),
		get([]string{"g/kv/b=5"}, clientv3.WithLastRev()[0], clientv3.WithLastRev()[1], clientv3.WithLastRev()[2]),
		get([]string{"g/kv/a=", "g/kv/b=", "g/kv/c="}, prefix, clientv3.WithKeysOnly(), clientv3.WithSerializable()),
		get([]string{"g/kv/b=5"}, prefix, clientv3.WithMinModRev(revision)),
		get([]string{"g/kv/a=4"}, prefix, clientv3.WithMaxCreateRev(revision-4)),
		get([]string{"g/kv/a=4", "g/kv/b=5"}, clientv3.WithRange("g/kv/c")),
		get([]string{}, prefix, clientv3.WithCountOnly()),
	)
	if err != nil {
		return err
	}
	if _, err = client.Put(ctx, "g/kv/none", "", clientv3.WithIgnoreValue()); err == nil {
		return errors.New("there is no value to keep")
	}
	deleted, err := client.Delete(ctx, "g/kv/", prefix, clientv3.WithPrevKV())
	if err != nil {
		return err
	}
	_, tooLong := client.Put(ctx, "g/kv/long", strings.Repeat("x", 1600*1024))
	return first(
		same("deleted", deleted.Deleted, int64(3)),
		same("what was deleted", texts(deleted.PrevKvs), []string{"g/kv/a=4", "g/kv/b=5", "g/kv/c=3"}),
		refused("an empty key", putError(client.Put(ctx, "", "")), rpctypes.ErrEmptyKey),
		refused("a request too large", tooLong, rpctypes.ErrRequestTooLarge),
	)
}

func putError(_ *clientv3.PutResponse, err error) error { return err }

func transactions(ctx context.Context, client *clientv3.Client) error {
	create := func() (*clientv3.TxnResponse, error) {
		return client.Txn(ctx).
			If(clientv3.Compare(clientv3.CreateRevision("g/txn"), "=", 0)).
			Then(clientv3.OpPut("g/txn", "mine")).
			Else(clientv3.OpGet("g/txn")).
			Commit()
	}
	one, err := create()
	if err != nil {
		return err
	}
	two, err := create()
	if err != nil {
		return err
	}
	nested, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.Value("g/txn"), "<", "z"), clientv3.Compare(clientv3.Version("g/").WithPrefix(), ">", 0)).
		Then(clientv3.OpTxn(
			[]clientv3.Cmp{clientv3.Compare(clientv3.LeaseValue("g/txn"), "!=", 0)},
			nil,
			[]clientv3.Op{clientv3.OpDelete("g/txn", clientv3.WithPrevKV()), clientv3.OpPut("g/other", "1")},
		)).
		Commit()
	if err != nil {
		return err
	}
	inner := nested.Responses[0].GetResponseTxn()
	_, twice := client.Txn(ctx).Then(clientv3.OpPut("g/twice", "1"), clientv3.OpPut("g/twice", "2")).Commit()
	many := make([]clientv3.Op, 129)
	for i := range many {
		many[i] = clientv3.OpGet("g/txn")
	}
	_, tooMany := client.Txn(ctx).Then(many...).Commit()
	return first(
		same("created", one.Succeeded, true),
		same("created again", two.Succeeded, false),
		same("who was first", texts(two.Responses[0].GetResponseRange().Kvs), []string{"g/txn=mine"}),
		same("nested", inner.Succeeded, false),
		same("deleted", inner.Responses[0].GetResponseDeleteRange().Deleted, int64(1)),
		refused("one key twice", twice, rpctypes.ErrDuplicateKey),
		refused("too many operations", tooMany, rpctypes.ErrTooManyOps),
	)
}

// follow takes events as `TYPE key=value` until there are so many.
func follow(ctx context.Context, channel clientv3.WatchChan, count int) ([]string, error) {
	seen := []string{}
	for len(seen) < count {
		select {
		case answer, open := <-channel:
			if !open {
				return seen, errors.New("the watch has ended")
			}
			if err := answer.Err(); err != nil {
				return seen, err
			}
			for _, event := range answer.Events {
				seen = append(seen, fmt.Sprintf("%s %s=%s", event.Type, event.Kv.Key, event.Kv.Value))
			}
		case <-ctx.Done():
			return seen, ctx.Err()
		}
	}
	return seen, nil
}

func watches(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	put, err := client.Put(ctx, "g/watch/a", "1")
	if err != nil {
		return err
	}
	from := clientv3.WithRev(put.Header.Revision)
	all := client.Watch(ctx, "g/watch/", clientv3.WithPrefix(), from, clientv3.WithPrevKV())
	deletions := client.Watch(ctx, "g/watch/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	created := client.Watch(ctx, "g/watch/", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithFragment())
	if answer := <-created; !answer.Created {
		return fmt.Errorf("not told that it is created: %v", answer)
	}
	_, err = client.Txn(ctx).Then(clientv3.OpDelete("g/watch/a"), clientv3.OpPut("g/watch/b", "2")).Commit()
	if err != nil {
		return err
	}
	seen, err := follow(ctx, all, 3)
	if err != nil {
		return err
	}
	deleted, err := follow(ctx, deletions, 1)
	if err != nil {
		return err
	}
	news, err := follow(ctx, created, 2)
	if err != nil {
		return err
	}
	// Nothing is under way any more: progress is told at once.
	if err := client.RequestProgress(ctx); err != nil {
		return err
	}
	return first(
		same("events", seen, []string{"PUT g/watch/a=1", "DELETE g/watch/a=", "PUT g/watch/b=2"}),
		same("deletions", deleted, []string{"DELETE g/watch/a="}),
		same("news", news, []string{"DELETE g/watch/a=", "PUT g/watch/b=2"}),
	)
}

func leases(ctx context.Context, client *clientv3.Client) error {
	lease, err := client.Grant(ctx, 3)
	if err != nil {
		return err
	}
	if _, err := client.Put(ctx, "g/leased", "x", clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	kept, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	// The first at once, the second after a third of the time to live.
	for i := 0; i < 2; i++ {
		if answer := <-kept; answer == nil || answer.TTL != 3 {
			return fmt.Errorf("kept alive: %v", answer)
		}
	}
	left, err := client.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	list, err := client.Leases(ctx)
	if err != nil {
		return err
	}
	found := false
	for _, each := range list.Leases {
		found = found || each.ID == lease.ID
	}
	watch := client.Watch(ctx, "g/leased")
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	gone, err := follow(ctx, watch, 1)
	if err != nil {
		return err
	}
	// Whoever keeps a lease alive that is gone is told by the end of the channel.
	for range kept {
	}
	_, again := client.KeepAliveOnce(ctx, lease.ID)
	_, unknown := client.Put(ctx, "g/leased", "x", clientv3.WithLease(lease.ID))
	_, revoked := client.Revoke(ctx, lease.ID)
	none, err := client.TimeToLive(ctx, lease.ID)
	if err != nil {
		return err
	}
	return first(
		same("attached", fmt.Sprintf("%s", left.Keys), "[g/leased]"),
		same("granted", left.GrantedTTL, int64(3)),
		same("listed", found, true),
		same("gone", gone, []string{"DELETE g/leased="}),
		same("time left of none", none.TTL, int64(-1)),
		refused("kept alive again", again, rpctypes.ErrLeaseNotFound),
		refused("put under none", unknown, rpctypes.ErrLeaseNotFound),
		refused("revoked again", revoked, rpctypes.ErrLeaseNotFound),
	)
}

func namespaces(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	inside, watcher := namespace.NewKV(client.KV, "g/space/"), namespace.NewWatcher(client.Watcher, "g/space/")
	lessor := namespace.NewLease(client.Lease, "g/space/")
	lease, err := lessor.Grant(ctx, 60)
	if err != nil {
		return err
	}
	watch := watcher.Watch(ctx, "", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	_, err = inside.Txn(ctx).
		If(clientv3.Compare(clientv3.Version("key"), "=", 0)).
		Then(clientv3.OpPut("key", "inside", clientv3.WithLease(lease.ID))).
		Commit()
	if err != nil {
		return err
	}
	outside, err := client.Get(ctx, "g/space/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	all, err := inside.Get(ctx, "k", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	seen, err := follow(ctx, watch, 1)
	if err != nil {
		return err
	}
	left, err := lessor.TimeToLive(ctx, lease.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	return first(
		same("outside", texts(outside.Kvs), []string{"g/space/key=inside"}),
		same("inside", texts(all.Kvs), []string{"key=inside"}),
		same("events", seen, []string{"PUT key=inside"}),
		same("attached", fmt.Sprintf("%s", left.Keys), "[key]"),
	)
}

func mutexes(ctx context.Context, client *clientv3.Client) error {
	var within, total int
	var counting sync.Mutex
	ends := make(chan error)
	for i := 0; i < 4; i++ {
		go func() {
			session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
			if err != nil {
				ends <- err
				return
			}
			defer session.Close()
			mutex := concurrency.NewMutex(session, "g/mutex")
			for j := 0; j < 5; j++ {
				if err := mutex.Lock(ctx); err != nil {
					ends <- err
					return
				}
				counting.Lock()
				within++
				alone := within == 1
				total++
				within--
				counting.Unlock()
				owner, err := client.Txn(ctx).If(mutex.IsOwner()).Commit()
				if err == nil && (!owner.Succeeded || !alone) {
					err = errors.New("a lock that two have")
				}
				if err := first(err, mutex.Unlock(ctx)); err != nil {
					ends <- err
					return
				}
			}
			ends <- nil
		}()
	}
	for i := 0; i < 4; i++ {
		if err := <-ends; err != nil {
			return err
		}
	}
	// A session that ends gives its locks away.
	holder, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	if err := concurrency.NewMutex(holder, "g/mutex").Lock(ctx); err != nil {
		return err
	}
	waiter, err := concurrency.NewSession(client, concurrency.WithTTL(10))
	if err != nil {
		return err
	}
	defer waiter.Close()
	go holder.Close()
	second := concurrency.NewMutex(waiter, "g/mutex")
	if err := second.Lock(ctx); err != nil {
		return err
	}
	<-holder.Done()
	return first(same("times locked", total, 20), second.Unlock(ctx))
}

func elections(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	elect := func() (*concurrency.Session, *concurrency.Election, error) {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(10))
		if err != nil {
			return nil, nil, err
		}
		return session, concurrency.NewElection(session, "g/chief"), nil
	}
	one, first1, err := elect()
	if err != nil {
		return err
	}
	defer one.Close()
	two, second, err := elect()
	if err != nil {
		return err
	}
	defer two.Close()
	observed := second.Observe(ctx)
	leader := func(want string) error {
		for {
			answer, open := <-observed
			if !open {
				return errors.New("no longer observed")
			}
			if string(answer.Kvs[0].Value) == want {
				return nil
			}
		}
	}
	if err := first(first1.Campaign(ctx, "one"), leader("one"), first1.Proclaim(ctx, "uno"), leader("uno")); err != nil {
		return err
	}
	won := make(chan error, 1)
	go func() { won <- second.Campaign(ctx, "two") }()
	now, err := first1.Leader(ctx)
	if err != nil {
		return err
	}
	if err := first(same("leader", string(now.Kvs[0].Value), "uno"), first1.Resign(ctx), <-won, leader("two")); err != nil {
		return err
	}
	resumed := concurrency.ResumeElection(two, "g/chief", second.Key(), second.Rev())
	if err := first(resumed.Proclaim(ctx, "dos"), leader("dos"), resumed.Resign(ctx)); err != nil {
		return err
	}
	_, err = second.Leader(ctx)
	return same("without a leader", err, concurrency.ErrElectionNoLeader)
}

func softwareTransactions(ctx context.Context, client *clientv3.Client) error {
	levels := []concurrency.Isolation{
		concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads,
	}
	if _, err := client.Put(ctx, "g/stm", ""); err != nil {
		return err
	}
	ends := make(chan error)
	for i := 0; i < 12; i++ {
		level := levels[i%len(levels)]
		go func() {
			_, err := concurrency.NewSTM(client, func(stm concurrency.STM) error {
				stm.Put("g/stm", stm.Get("g/stm")+"x")
				return nil
			}, concurrency.WithIsolation(level), concurrency.WithPrefetch("g/stm"))
			ends <- err
		}()
	}
	for i := 0; i < 12; i++ {
		if err := <-ends; err != nil {
			return err
		}
	}
	got, err := client.Get(ctx, "g/stm")
	if err != nil {
		return err
	}
	return same("count", string(got.Kvs[0].Value), strings.Repeat("x", 12))
}

func leasingKV(ctx context.Context, client *clientv3.Client) error {
	one, closeOne, err := leasing.NewKV(client, "g/leasing/")
	if err != nil {
		return err
	}
	defer closeOne()
	two, closeTwo, err := leasing.NewKV(client, "g/leasing/")
	if err != nil {
		return err
	}
	defer closeTwo()
	if _, err := client.Put(ctx, "g/cached", "1"); err != nil {
		return err
	}
	// Read and kept by the one; written by the other, which asks the first to give it up.
	for i := 0; i < 2; i++ {
		got, err := one.Get(ctx, "g/cached")
		if err != nil {
			return err
		}
		if err := same("cached", texts(got.Kvs), []string{"g/cached=1"}); err != nil {
			return err
		}
	}
	if _, err := two.Put(ctx, "g/cached", "2"); err != nil {
		return err
	}
	got, err := one.Get(ctx, "g/cached")
	if err != nil {
		return err
	}
	return same("written by another", texts(got.Kvs), []string{"g/cached=2"})
}

func mirrored(ctx context.Context, client *clientv3.Client) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	// More than one page of a thousand.
	for page := 0; page < 10; page++ {
		ops := []clientv3.Op{}
		for i := 0; i < 120; i++ {
			ops = append(ops, clientv3.OpPut(fmt.Sprintf("g/mirror/%02d/%03d", page, i), "x"))
		}
		if _, err := client.Txn(ctx).Then(ops...).Commit(); err != nil {
			return err
		}
	}
	syncer := mirror.NewSyncer(client, "g/mirror/", 0)
	pages, failed := syncer.SyncBase(ctx)
	count := 0
	for page := range pages {
		count += len(page.Kvs)
	}
	if err := <-failed; err != nil {
		return err
	}
	updates := syncer.SyncUpdates(ctx)
	if _, err := client.Put(ctx, "g/mirror/new", "y"); err != nil {
		return err
	}
	seen, err := follow(ctx, updates, 1)
	if err != nil {
		return err
	}
	return first(same("keys", count, 1200), same("updates", seen, []string{"PUT g/mirror/new=y"}))
}

func reconnect(ctx context.Context, client *clientv3.Client) error {
	session, err := concurrency.NewSession(client, concurrency.WithTTL(60))
	if err != nil {
		return err
	}
	defer session.Close()
	watch := client.Watch(ctx, "g/reconnect", clientv3.WithCreatedNotify())
	<-watch
	put, err := client.Put(ctx, "g/reconnect", "before")
	if err != nil {
		return err
	}
	fmt.Println("restart g/reconnect")
	seen, err := follow(ctx, watch, 2)
	if err != nil {
		return err
	}
	// The lease was kept, on the disk and by its keeper.
	left, err := client.TimeToLive(ctx, session.Lease())
	if err != nil {
		return err
	}
	if left.TTL <= 0 {
		return errors.New("the session's lease is lost")
	}
	got, err := client.Get(ctx, "g/reconnect")
	if err != nil {
		return err
	}
	return first(
		same("events", seen, []string{"PUT g/reconnect=before", "PUT g/reconnect=back"}),
		same("revision", got.Kvs[0].ModRevision, put.Header.Revision+1),
	)
}

func maintenance(ctx context.Context, client *clientv3.Client) error {
	endpoint := client.Endpoints()[0]
	members, err := client.MemberList(ctx)
	if err != nil {
		return err
	}
	status, err := client.Status(ctx, endpoint)
	if err != nil {
		return err
	}
	hash, err := client.HashKV(ctx, endpoint, 0)
	if err != nil {
		return err
	}
	if _, err := client.Defragment(ctx, endpoint); err != nil {
		return err
	}
	again, err := client.HashKV(ctx, endpoint, 0)
	if err != nil {
		return err
	}
	alarms, err := client.AlarmList(ctx)
	if err != nil {
		return err
	}
	snapshot, err := client.Snapshot(ctx)
	if err != nil {
		return err
	}
	defer snapshot.Close()
	bytes, err := io.Copy(ioutil.Discard, snapshot)
	if err != nil {
		return err
	}
	_, unknown := client.MemberRemove(ctx, 7)
	if err := client.Sync(ctx); err != nil {
		return err
	}
	return first(
		same("members", len(members.Members), 1),
		same("client URLs", members.Members[0].ClientURLs, []string{endpoint}),
		same("leader", status.Leader, members.Members[0].ID),
		same("hash", again.Hash, hash.Hash),
		same("alarms", len(alarms.Alarms), 0),
		// Whole pages, and a checksum of 32 bytes.
		same("bytes of the snapshot past its pages", bytes%512, int64(32)),
		same("endpoints", client.Endpoints(), []string{endpoint}),
		refused("a member that is none", unknown, rpctypes.ErrMemberNotFound),
	)
}

func compaction(ctx context.Context, client *clientv3.Client) error {
	old, err := client.Put(ctx, "g/old", "1")
	if err != nil {
		return err
	}
	put, err := client.Put(ctx, "g/old", "2")
	if err != nil {
		return err
	}
	now := put.Header.Revision
	if _, err := client.Compact(ctx, now, clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	_, read := client.Get(ctx, "g/old", clientv3.WithRev(old.Header.Revision))
	_, again := client.Compact(ctx, now)
	_, future := client.Compact(ctx, now+100)
	_, tomorrow := client.Get(ctx, "g/old", clientv3.WithRev(now+100))
	answer := <-client.Watch(ctx, "g/old", clientv3.WithRev(old.Header.Revision))
	return first(
		refused("an old revision", read, rpctypes.ErrCompacted),
		refused("compacted again", again, rpctypes.ErrCompacted),
		refused("compaction of what is to come", future, rpctypes.ErrFutureRev),
		refused("what is to come", tomorrow, rpctypes.ErrFutureRev),
		refused("a watch of the past", answer.Err(), rpctypes.ErrCompacted),
		same("where to go on", answer.CompactRevision, now),
	)
}

func usersAndRoles(ctx context.Context, client *clientv3.Client) error {
	read, readwrite := clientv3.PermissionType(clientv3.PermRead), clientv3.PermissionType(clientv3.PermReadWrite)
	steps := []func() error{
		func() error { _, err := client.RoleAdd(ctx, "reader"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "reader", "g/open/", clientv3.GetPrefixRangeEnd("g/open/"), read)
			return err
		},
		func() error { _, err := client.RoleGrantPermission(ctx, "reader", "g/one", "", readwrite); return err },
		func() error { _, err := client.RoleRevokePermission(ctx, "reader", "g/one", ""); return err },
		func() error { _, err := client.UserAdd(ctx, "root", "secret"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(ctx, "ann", "pass"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "ann", "reader"); return err },
		func() error { _, err := client.Put(ctx, "g/open/a", "1"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	as := func(name, password string) (*clientv3.Client, error) {
		return clientv3.New(clientv3.Config{
			Context: ctx, Endpoints: client.Endpoints(), DialTimeout: 10 * time.Second, Username: name, Password: password,
		})
	}
	ann, err := as("ann", "pass")
	if err != nil {
		return err
	}
	defer ann.Close()
	root, err := as("root", "secret")
	if err != nil {
		return err
	}
	defer root.Close()
	_, nobody := client.Get(ctx, "g/open/a")
	got, err := ann.Get(ctx, "g/open/", clientv3.WithPrefix())
	if err != nil {
		return err
	}
	_, wide := ann.Get(ctx, "g/", clientv3.WithPrefix())
	_, write := ann.Put(ctx, "g/open/a", "2")
	_, list := ann.UserList(ctx)
	_, wrong := as("ann", "wrong")
	watch := ann.Watch(ctx, "g/open/", clientv3.WithPrefix(), clientv3.WithRev(got.Kvs[0].ModRevision))
	seen, err := follow(ctx, watch, 1)
	if err != nil {
		return err
	}
	shut := <-ann.Watch(ctx, "g/shut/", clientv3.WithPrefix())
	users, err := root.UserList(ctx)
	if err != nil {
		return err
	}
	sort.Strings(users.Users)
	role, err := root.RoleGet(ctx, "reader")
	if err != nil {
		return err
	}
	err = first(
		refused("nobody", nobody, rpctypes.ErrUserEmpty),
		same("what may be read", texts(got.Kvs), []string{"g/open/a=1"}),
		refused("a wider range", wide, rpctypes.ErrPermissionDenied),
		refused("a write", write, rpctypes.ErrPermissionDenied),
		refused("the list of users", list, rpctypes.ErrPermissionDenied),
		refused("a wrong password", wrong, rpctypes.ErrAuthFailed),
		same("what may be watched", seen, []string{"PUT g/open/a=1"}),
		same("what may not be watched is cancelled", shut.Canceled, true),
		same("users", users.Users, []string{"ann", "root"}),
		same("permissions", len(role.Perm), 1),
	)
	if err != nil {
		return err
	}
	for _, step := range []func() error{
		func() error { _, err := root.UserChangePassword(ctx, "ann", "other"); return err },
		func() error { _, err := root.UserRevokeRole(ctx, "ann", "reader"); return err },
		func() error { _, err := root.RoleDelete(ctx, "reader"); return err },
		func() error { _, err := root.UserDelete(ctx, "ann"); return err },
		func() error { _, err := root.AuthDisable(ctx); return err },
		func() error { _, err := client.Get(ctx, "g/open/a"); return err },
	} {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}
