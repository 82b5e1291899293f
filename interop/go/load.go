package main

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"sort"
	"strconv"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"
)

// stretch is what calls for some time have come to. Times are in nanoseconds.
type stretch struct {
	Calls    int           `json:"calls"`
	Failures int           `json:"failures"`
	Time     time.Duration `json:"nanos"`
	P50      time.Duration `json:"p50"`
	P99      time.Duration `json:"p99"`
}

// load calls a service through etcd's resolver, round robin, for each line of its input: the line says for how many nanoseconds. It
// prints a line when all servers have answered, and one for each stretch of calls.
func load(ctx context.Context, arguments []string) error {
	set, opts := flags("load")
	callers := set.Int("callers", 1, "`number` of calls at one time")
	servers := set.Int("servers", 1, "`number` of servers that must have answered before calls are counted")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	connection, close, err := dial(ctx, opts)
	if err != nil {
		return err
	}
	defer close()
	health := grpc_health_v1.NewHealthClient(connection)
	if err := await(ctx, health, *servers); err != nil {
		return err
	}
	if err := printLine(map[string]interface{}{"ready": *servers}); err != nil {
		return err
	}
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		nanos, err := strconv.ParseInt(lines.Text(), 10, 64)
		if err != nil {
			return err
		}
		if err := printLine(run(ctx, health, *callers, time.Duration(nanos))); err != nil {
			return err
		}
	}
	return lines.Err()
}

// await returns when so many servers have answered.
func await(ctx context.Context, health grpc_health_v1.HealthClient, servers int) error {
	known := map[string]bool{}
	for deadline := time.Now().Add(time.Minute); len(known) < servers; {
		if time.Now().After(deadline) {
			return fmt.Errorf("only %d of %d servers have answered", len(known), servers)
		}
		var server peer.Peer
		_, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}, grpc.WaitForReady(true), grpc.Peer(&server))
		if err != nil {
			return err
		}
		known[server.Addr.String()] = true
	}
	return nil
}

// run calls for some time; each caller makes its next call when it has the answer to its last.
func run(ctx context.Context, health grpc_health_v1.HealthClient, callers int, limit time.Duration) stretch {
	var group sync.WaitGroup
	times := make([][]time.Duration, callers)
	failures := make([]int, callers)
	began := time.Now()
	for caller := 0; caller < callers; caller++ {
		group.Add(1)
		go func(caller int) {
			defer group.Done()
			for time.Since(began) < limit {
				sent := time.Now()
				if _, err := health.Check(ctx, &grpc_health_v1.HealthCheckRequest{}); err != nil {
					failures[caller]++
				} else {
					times[caller] = append(times[caller], time.Since(sent))
				}
			}
		}(caller)
	}
	group.Wait()
	sum := stretch{Time: time.Since(began)}
	all := []time.Duration{}
	for caller := range times {
		all = append(all, times[caller]...)
		sum.Failures += failures[caller]
	}
	sum.Calls = len(all)
	sort.Slice(all, func(a, b int) bool { return all[a] < all[b] })
	if len(all) > 0 {
		sum.P50, sum.P99 = all[len(all)/2], all[len(all)*99/100]
	}
	return sum
}
