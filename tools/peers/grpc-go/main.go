// A grpc-go server with its defaults. /peer.Peer/Silent and /peer.Peer/Unary answer after as many seconds
// as they are asked to wait; messages are google.protobuf.Int64Value.
package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

func wait(ctx context.Context, seconds *wrapperspb.Int64Value) error {
	select {
	case <-time.After(time.Duration(seconds.Value) * time.Second):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func silent(_ any, stream grpc.ServerStream) error {
	seconds := new(wrapperspb.Int64Value)
	if err := stream.RecvMsg(seconds); err != nil {
		return err
	}
	if err := wait(stream.Context(), seconds); err != nil {
		return err
	}
	return stream.SendMsg(wrapperspb.Int64(1))
}

func unary(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
	seconds := new(wrapperspb.Int64Value)
	if err := decode(seconds); err != nil {
		return nil, err
	}
	return wrapperspb.Int64(1), wait(ctx, seconds)
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "peer.Peer",
		HandlerType: (*any)(nil),
		Methods:     []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams:     []grpc.StreamDesc{{StreamName: "Silent", Handler: silent, ServerStreams: true}},
	}, nil)
	go server.Serve(listener)
	fmt.Println("listening", listener.Addr().(*net.TCPAddr).Port)
	io.Copy(io.Discard, os.Stdin)
}
