// A grpc-go server with its defaults; messages are google.protobuf.Int64Value. /peer.Peer/Silent and
// /peer.Peer/Unary answer after as many seconds as they are asked to wait, /peer.Peer/Work after as many ms, or at
// once with RESOURCE_EXHAUSTED if more run than /peer.Peer/Limit allows. /peer.Peer/Health makes the server SERVING (1)
// or not (2). /peer.Peer/Served and Refused say how many calls of Work were. /peer.Peer/Canceled and Ended
// answer once the contexts of so many calls ended with Canceled, or with that or their deadline.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What calls did.
var (
	mutex                                              sync.Mutex
	changed                                            = sync.NewCond(&mutex)
	running, limit, served, refused, canceled, expired int64
	checks                                             = health.NewServer()
)

func wait(ctx context.Context, duration time.Duration) error {
	select {
	case <-time.After(duration):
		return nil
	case <-ctx.Done():
	}
	mutex.Lock()
	defer mutex.Unlock()
	if errors.Is(ctx.Err(), context.Canceled) {
		canceled++
	} else {
		expired++
	}
	changed.Broadcast()
	return ctx.Err()
}

func silent(_ any, stream grpc.ServerStream) error {
	seconds := new(wrapperspb.Int64Value)
	if err := stream.RecvMsg(seconds); err != nil {
		return err
	}
	if err := wait(stream.Context(), time.Duration(seconds.Value)*time.Second); err != nil {
		return err
	}
	return stream.SendMsg(wrapperspb.Int64(1))
}

func work(ctx context.Context, ms int64) (int64, error) {
	mutex.Lock()
	if limit > 0 && running >= limit {
		refused++
		mutex.Unlock()
		return 0, status.Error(codes.ResourceExhausted, "too much to do")
	}
	running++
	mutex.Unlock()
	err := wait(ctx, time.Duration(ms)*time.Millisecond)
	mutex.Lock()
	defer mutex.Unlock()
	running--
	served++
	return 1, err
}

// Reads a number, under the lock.
func tell(number *int64) func(context.Context, int64) (int64, error) {
	return func(context.Context, int64) (int64, error) {
		mutex.Lock()
		defer mutex.Unlock()
		return *number, nil
	}
}

// Waits until a number is as large as asked for.
func await(number func() int64) func(context.Context, int64) (int64, error) {
	return func(_ context.Context, least int64) (int64, error) {
		mutex.Lock()
		defer mutex.Unlock()
		for number() < least {
			changed.Wait()
		}
		return number(), nil
	}
}

func setLimit(_ context.Context, calls int64) (int64, error) {
	mutex.Lock()
	defer mutex.Unlock()
	limit = calls
	return calls, nil
}

func setHealth(_ context.Context, to int64) (int64, error) {
	for _, service := range []string{"", "peer.Peer"} {
		checks.SetServingStatus(service, healthpb.HealthCheckResponse_ServingStatus(to))
	}
	return to, nil
}

func unary(name string, answer func(context.Context, int64) (int64, error)) grpc.MethodDesc {
	handler := func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		asked := new(wrapperspb.Int64Value)
		if err := decode(asked); err != nil {
			return nil, err
		}
		number, err := answer(ctx, asked.Value)
		return wrapperspb.Int64(number), err
	}
	return grpc.MethodDesc{MethodName: name, Handler: handler}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	seconds := func(ctx context.Context, seconds int64) (int64, error) {
		return 1, wait(ctx, time.Duration(seconds)*time.Second)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "peer.Peer",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{
			unary("Unary", seconds),
			unary("Work", work),
			unary("Limit", setLimit),
			unary("Health", setHealth),
			unary("Served", tell(&served)),
			unary("Refused", tell(&refused)),
			unary("Canceled", await(func() int64 { return canceled })),
			unary("Ended", await(func() int64 { return canceled + expired })),
		},
		Streams: []grpc.StreamDesc{{StreamName: "Silent", Handler: silent, ServerStreams: true}},
	}, nil)
	checks.SetServingStatus("peer.Peer", healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, checks)
	go server.Serve(listener)
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	io.Copy(io.Discard, os.Stdin)
}
