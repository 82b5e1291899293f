// Command waypost-interop is the Go half of Waypost's interoperability tests: it registers, resolves and watches
// services with etcd's own naming packages, so that what Rust writes is read by what Go programs use, and the
// other way round.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io/ioutil"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"google.golang.org/grpc/grpclog"
)

// command is one way to run the program. It runs until it is done or ctx ends.
type command func(ctx context.Context, arguments []string) error

var commands = map[string]command{
	"clientv3": clientv3Command,
	"serve":    serve,
	"register": register,
	"resolve":  resolve,
	"watch":    watch,
	"load":     load,
}

func main() {
	grpclog.SetLoggerV2(grpclog.NewLoggerV2(ioutil.Discard, os.Stderr, os.Stderr))
	if len(os.Args) < 2 || commands[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: waypost-interop serve|register|resolve|watch [flags]")
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := commands[os.Args[1]](ctx, os.Args[2:]); err != nil {
		fmt.Fprintf(os.Stderr, "waypost-interop %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

// options are the flags that every command has.
type options struct {
	etcd    string
	service string
}

// flags returns a flag set with the flags that every command has.
func flags(name string) (*flag.FlagSet, *options) {
	set := flag.NewFlagSet(name, flag.ExitOnError)
	opts := &options{}
	set.StringVar(&opts.etcd, "etcd", "http://127.0.0.1:2379", "`URL` of etcd")
	set.StringVar(&opts.service, "service", "greeter", "`name` of the service")
	return set, opts
}

// target is the prefix of the service's keys, without the slash that follows it.
func (o *options) target() string {
	return "services/" + o.service
}

// connect returns a client that has a connection to etcd.
func (o *options) connect(ctx context.Context) (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Context:     ctx,
		Endpoints:   []string{o.etcd},
		DialTimeout: 10 * time.Second,
	})
}

// stdout keeps lines whole that several goroutines print.
var stdout sync.Mutex

// printLine prints a value as one line of JSON.
func printLine(value interface{}) error {
	stdout.Lock()
	defer stdout.Unlock()
	return json.NewEncoder(os.Stdout).Encode(value)
}
