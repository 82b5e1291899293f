package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
	"go.etcd.io/etcd/clientv3/leasing"
	"go.etcd.io/etcd/clientv3/mirror"
	"go.etcd.io/etcd/clientv3/namespace"
)

// The packages that come with clientv3 and are made of it.

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
