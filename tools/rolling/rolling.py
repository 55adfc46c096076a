"""rolling.py HOST:PORT SERVICE: nacos-sdk-python chooses an instance for each call of a plain client.

Subscribes, as the SDK's users do, takes one of the list for each POST, over connections that are
kept, and repeats nothing. Ends when its standard input does, with `calls=N failed=M`.
"""

import asyncio
import http.client
import itertools
import logging
import select
import sys
import tempfile
import threading

from v2.nacos import (
    ClientConfigBuilder,
    ListInstanceParam,
    NacosNamingService,
    SubscribeServiceParam,
)


def kept(connections, ip, port):
    """The connection of the call before, unless the server has closed it: a pool looks before it
    uses one (urllib3 does, for requests), and a caller that makes few calls is told nothing else."""
    connection = connections.pop((ip, port), None)
    if connection is not None and select.select([connection.sock], [], [], 0)[0]:
        connection.close()
        connection = None
    return connection


def post(connections, ip, port):
    """One POST, over a connection that is kept until the server says that it closes."""
    connection = kept(connections, ip, port) or http.client.HTTPConnection(ip, port, timeout=60)
    try:
        connection.auto_open = connection.sock is None
        connection.request("POST", "/orders", body=b"order", headers={"x-way": "python"})
        response = connection.getresponse()
        body = response.read()
    except BaseException:
        connection.close()
        raise
    if not response.will_close:
        connections[(ip, port)] = connection
    if response.status != 200 or body != b"order":
        raise RuntimeError(f"{response.status} {body!r}")


async def main(server, service):
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    calls = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        config = (
            ClientConfigBuilder()
            .server_address(server)
            .namespace_id("public")
            .log_level("ERROR")
            .log_dir(folder)
            .cache_dir(folder)
            .build()
        )
        naming = await NacosNamingService.create_naming_service(config)

        async def listener(_):
            pass

        await naming.subscribe(
            SubscribeServiceParam(
                service_name=service, group_name="DEFAULT_GROUP", subscribe_callback=listener
            )
        )
        connections = {}
        listed = ListInstanceParam(
            service_name=service, group_name="DEFAULT_GROUP", subscribe=True, healthy_only=True
        )
        for turn in itertools.count():
            if ended.is_set():
                break
            instances = await naming.list_instances(listed)
            chosen = instances[turn % len(instances)]
            calls += 1
            try:
                await asyncio.to_thread(post, connections, chosen.ip, chosen.port)
            except Exception as error:
                failed += 1
                print(f"python: {chosen.ip}:{chosen.port}: {error!r}", file=sys.stderr)
            await asyncio.sleep(0.01)
        await naming.shutdown()
    print(f"calls={calls} failed={failed}", flush=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.ERROR)
    asyncio.run(main(*sys.argv[1:]))
