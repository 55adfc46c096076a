"""A grpc-python server (C-core) with its defaults. `/peer.Peer/Silent` answers after as many seconds as it
is asked to wait; messages are google.protobuf.Int64Value."""

import concurrent.futures
import os
import sys
import time

sys.path.pop(0)  # this file is not the package
import grpc  # noqa: E402


def varint(message):
    value = 0
    for at, byte in enumerate(message[1:]):
        value |= (byte & 0x7F) << (7 * at)
    return value


def silent(request, context):
    time.sleep(varint(request))
    yield b"\x08\x01"


def unary(request, context):
    time.sleep(varint(request))
    return b"\x08\x01"


handler = grpc.method_handlers_generic_handler(
    "peer.Peer",
    {
        "Silent": grpc.unary_stream_rpc_method_handler(silent),
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
    },
)
server = grpc.server(concurrent.futures.ThreadPoolExecutor(16))
server.add_generic_rpc_handlers((handler,))
port = server.add_insecure_port("127.0.0.1:0")
server.start()
print("listening", port, flush=True)
sys.stdin.buffer.read()
os._exit(0)
