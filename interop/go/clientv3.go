package main

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
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
