"""Instances on uvicorn: asgi.py INSTANCES KEEP_ALIVE_S"""

import asyncio
import collections
import os
import sys
import threading

import uvicorn

seen = collections.Counter()


async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    for name, value in scope["headers"]:
        if name == b"x-id":
            seen[value] += 1
    path = scope["path"]
    if path == "/panic":
        raise RuntimeError("a handler that panics")
    while (await receive()).get("more_body"):
        pass
    length, body = [], b"good"
    if path == "/cut":
        length, body = [(b"content-length", b"100")], b"ten bytes."
    elif path == "/twice":
        body = str(sum(times > 1 for times in seen.values())).encode()
    await send({"type": "http.response.start", "status": 200, "headers": length})
    await send({"type": "http.response.body", "body": body, "more_body": path == "/cut"})
    if path == "/cut":
        raise RuntimeError("it breaks off")  # uvicorn closes the connection


async def main(instances, keep_alive):
    servers = [
        uvicorn.Server(
            uvicorn.Config(
                app,
                port=0,
                timeout_keep_alive=keep_alive,
                log_level="critical",
                lifespan="off",
            )
        )
        for _ in range(instances)
    ]
    running = [asyncio.create_task(server.serve()) for server in servers]
    while not all(server.started for server in servers):
        await asyncio.sleep(0.01)
    ports = [server.servers[0].sockets[0].getsockname()[1] for server in servers]
    print("listening", *ports, flush=True)
    await asyncio.gather(*running)


def end_with_stdin():
    sys.stdin.buffer.read()
    os._exit(0)


threading.Thread(target=end_with_stdin, daemon=True).start()
asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
