package main

import (
	"context"
	"sort"
	"time"

	"go.etcd.io/etcd/clientv3/naming/resolver"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// answers is what calls to a service have met.
type answers struct {
	// Addresses of the servers that answered, sorted, each once.
	Addresses []string `json:"addresses"`
	// Calls answered by each server.
	Calls map[string]int `json:"calls"`
	// Failures are the errors of the calls that failed.
	Failures []string `json:"failures"`
}

// resolve calls a service through etcd's resolver, round robin, and prints who answered.
func resolve(ctx context.Context, arguments []string) error {
	set, opts := flags("resolve")
	calls := set.Int("calls", 10, "`number` of calls")
	servers := set.Int("servers", 1, "`number` of servers that must have answered before calls are counted")
	timeout := set.Duration("timeout", 10*time.Second, "`limit` of one call, and of the wait for the servers")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	connection, close, err := dial(ctx, opts)
	if err != nil {
		return err
	}
	defer close()

	health := grpc_health_v1.NewHealthClient(connection)
	check := func() (string, error) {
		ctx, cancel := context.WithTimeout(ctx, *timeout)
		defer cancel()
		var server peer.Peer
		_, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&server))
		if err != nil {
			return "", err
		}
		return server.Addr.String(), nil
	}

	// The balancer connects to the servers one by one: without this the first calls all go to the fastest.
	known := map[string]bool{}
	for deadline := time.Now().Add(*timeout); len(known) < *servers && time.Now().Before(deadline); {
		address, err := check()
		if err != nil {
			break
		}
		known[address] = true
	}

	seen := answers{Addresses: []string{}, Calls: map[string]int{}, Failures: []string{}}
	for i := 0; i < *calls; i++ {
		address, err := check()
		if err != nil {
			seen.Failures = append(seen.Failures, err.Error())
			continue
		}
		seen.Calls[address]++
	}
	for address := range seen.Calls {
		seen.Addresses = append(seen.Addresses, address)
	}
	sort.Strings(seen.Addresses)
	return printLine(seen)
}

// dial returns a connection that follows the service by etcd's resolver, round robin, and what closes it.
func dial(ctx context.Context, opts *options) (*grpc.ClientConn, func(), error) {
	client, err := opts.connect(ctx)
	if err != nil {
		return nil, nil, err
	}
	builder, err := resolver.NewBuilder(client)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	connection, err := grpc.DialContext(ctx, "etcd:///"+opts.target(),
		grpc.WithInsecure(),
		grpc.WithResolvers(builder),
		// Without it this grpc-go sends the target, services/NAME, as :authority. That is none, for its slash, and
		// HTTP/2 servers that look closely (Rust's h2 among them) reset the stream; later versions escape it.
		grpc.WithAuthority(opts.service),
		grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`),
	)
	if err != nil {
		client.Close()
		return nil, nil, err
	}
	return connection, func() { connection.Close(); client.Close() }, nil
}
