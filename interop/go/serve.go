package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// serve runs a gRPC server with the health service and prints its address. It does not register it: see register.
func serve(ctx context.Context, arguments []string) error {
	set, opts := flags("serve")
	address := set.String("listen", "127.0.0.1:0", "`address` to listen on")
	if err := set.Parse(arguments); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", *address)
	if err != nil {
		return err
	}
	state := health.NewServer()
	state.SetServingStatus(opts.service, grpc_health_v1.HealthCheckResponse_SERVING)
	server := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(server, state)
	go func() {
		<-ctx.Done()
		state.Shutdown()
		server.GracefulStop()
	}()
	if err := printLine(map[string]interface{}{"serving": listener.Addr().String()}); err != nil {
		return err
	}
	return server.Serve(listener)
}
