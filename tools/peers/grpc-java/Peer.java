import io.grpc.MethodDescriptor;
import io.grpc.Server;
import io.grpc.ServerServiceDefinition;
import io.grpc.netty.shaded.io.grpc.netty.NettyServerBuilder;
import io.grpc.stub.ServerCalls;
import io.grpc.stub.StreamObserver;
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.UncheckedIOException;
import java.util.concurrent.Executors;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;

/**
 * A grpc-java server with its defaults. /peer.Peer/Silent and /peer.Peer/Unary answer after as many seconds
 * as they are asked to wait; messages are google.protobuf.Int64Value.
 */
final class Peer {
  private static final ScheduledExecutorService TIMERS = Executors.newScheduledThreadPool(1);
  private static final byte[] ONE = {8, 1};

  private static final MethodDescriptor.Marshaller<byte[]> BYTES = new MethodDescriptor.Marshaller<>() {
    @Override
    public InputStream stream(byte[] value) {
      return new ByteArrayInputStream(value);
    }

    @Override
    public byte[] parse(InputStream stream) {
      try {
        return stream.readAllBytes();
      } catch (IOException e) {
        throw new UncheckedIOException(e);
      }
    }
  };

  private static MethodDescriptor<byte[], byte[]> method(String name, MethodDescriptor.MethodType type) {
    return MethodDescriptor.newBuilder(BYTES, BYTES)
        .setType(type)
        .setFullMethodName(MethodDescriptor.generateFullMethodName("peer.Peer", name))
        .build();
  }

  private static void answer(byte[] request, StreamObserver<byte[]> to) {
    long seconds = 0;
    for (int at = 1; at < request.length; at++) {
      seconds |= (long) (request[at] & 0x7f) << (7 * (at - 1));
    }
    TIMERS.schedule(() -> {
      to.onNext(ONE);
      to.onCompleted();
    }, seconds, TimeUnit.SECONDS);
  }

  public static void main(String[] args) throws Exception {
    var silent = method("Silent", MethodDescriptor.MethodType.SERVER_STREAMING);
    var unary = method("Unary", MethodDescriptor.MethodType.UNARY);
    var service = ServerServiceDefinition.builder("peer.Peer")
        .addMethod(silent, ServerCalls.asyncServerStreamingCall(Peer::answer))
        .addMethod(unary, ServerCalls.asyncUnaryCall(Peer::answer))
        .build();
    Server server = NettyServerBuilder.forPort(0).addService(service).build().start();
    System.out.println("listening " + server.getPort());
    System.in.readAllBytes();
    System.exit(0);
  }
}
