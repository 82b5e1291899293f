package main

import (
	"context"
	"io"
	"io/ioutil"
	"sort"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/etcdserver/api/v3rpc/rpctypes"
)

// What an administrator does.

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
