package main

import (
	"context"
	"errors"

	"go.etcd.io/etcd/clientv3/naming/endpoints"
)

// update is one change of a service's endpoints.
type update struct {
	Op       string      `json:"op"`
	Key      string      `json:"key"`
	Addr     string      `json:"addr,omitempty"`
	Metadata interface{} `json:"metadata,omitempty"`
}

// watch prints the endpoints of a service and every change of them, until ctx ends.
func watch(ctx context.Context, arguments []string) error {
	set, opts := flags("watch")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	client, err := opts.connect(ctx)
	if err != nil {
		return err
	}
	defer client.Close()
	naming, err := endpoints.NewManager(client, opts.target())
	if err != nil {
		return err
	}
	updates, err := naming.NewWatchChannel(ctx)
	if err != nil {
		return err
	}
	if err := printLine(map[string]interface{}{"watching": opts.target()}); err != nil {
		return err
	}
	for batch := range updates {
		for _, change := range batch {
			line := update{Op: "add", Key: change.Key, Addr: change.Endpoint.Addr, Metadata: change.Endpoint.Metadata}
			if change.Op == endpoints.Delete {
				line.Op = "delete"
			}
			if err := printLine(line); err != nil {
				return err
			}
		}
	}
	if ctx.Err() == nil {
		return errors.New("the watch has ended")
	}
	return nil
}
