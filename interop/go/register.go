package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/naming/endpoints"
)

// leaving bounds what is done after the signal to end.
const leaving = 5 * time.Second

// register puts an endpoint under a lease, prints it, and removes it when ctx ends.
func register(ctx context.Context, arguments []string) error {
	set, opts := flags("register")
	address := set.String("addr", "", "`address` to register")
	metadata := set.String("metadata", "", "`JSON` to register with it")
	ttl := set.Int64("ttl", 10, "`seconds` until the lease expires when it is not renewed")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	if *address == "" {
		return errors.New("-addr is missing")
	}
	endpoint := endpoints.Endpoint{Addr: *address}
	if *metadata != "" {
		if err := json.Unmarshal([]byte(*metadata), &endpoint.Metadata); err != nil {
			return fmt.Errorf("-metadata: %w", err)
		}
	}

	// The client outlives ctx: it has to remove what it has put.
	client, err := opts.connect(context.Background())
	if err != nil {
		return err
	}
	defer client.Close()
	naming, err := endpoints.NewManager(client, opts.target())
	if err != nil {
		return err
	}
	lease, err := client.Grant(ctx, *ttl)
	if err != nil {
		return err
	}
	renewals, err := client.KeepAlive(ctx, lease.ID)
	if err != nil {
		return err
	}
	key := opts.target() + "/" + *address
	if err := naming.AddEndpoint(ctx, key, endpoint, clientv3.WithLease(lease.ID)); err != nil {
		return err
	}
	if err := printLine(map[string]interface{}{"registered": key, "lease": lease.ID, "ttl": lease.TTL}); err != nil {
		return err
	}

	// The channel is closed when ctx ends or the lease is lost.
	for range renewals {
	}
	if ctx.Err() == nil {
		return fmt.Errorf("lease %x is lost", lease.ID)
	}
	ctx, cancel := context.WithTimeout(context.Background(), leaving)
	defer cancel()
	if err := naming.DeleteEndpoint(ctx, key); err != nil {
		return err
	}
	if _, err := client.Revoke(ctx, lease.ID); err != nil {
		return err
	}
	return printLine(map[string]interface{}{"removed": key})
}
