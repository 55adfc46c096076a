"""interop.py HOST:PORT: nacos-sdk-python registers on a registry, subscribes, and sees a removal."""

import asyncio
import logging
import sys
import tempfile

from v2.nacos import (
    ClientConfigBuilder,
    DeregisterInstanceParam,
    NacosNamingService,
    RegisterInstanceParam,
    SubscribeServiceParam,
)

SERVICE = "interop-python"
HANG = 30


async def client(server, folder):
    config = (
        ClientConfigBuilder()
        .server_address(server)
        .namespace_id("public")
        .log_level("WARNING")
        .log_dir(folder)
        .cache_dir(folder)
        .build()
    )
    return await NacosNamingService.create_naming_service(config)


async def main(server):
    seen = asyncio.Queue()

    async def listener(instances):
        await seen.put(sorted(instance.port for instance in instances))

    async def wait_for(ports):
        while await asyncio.wait_for(seen.get(), HANG) != ports:
            pass

    with tempfile.TemporaryDirectory() as folder:
        subscriber = await client(server, folder)
        providers = [await client(server, folder), await client(server, folder)]
        await subscriber.subscribe(
            SubscribeServiceParam(
                service_name=SERVICE, group_name="DEFAULT_GROUP", subscribe_callback=listener
            )
        )
        for port, provider in zip((9001, 9002), providers):
            await provider.register_instance(
                RegisterInstanceParam(
                    service_name=SERVICE, group_name="DEFAULT_GROUP", ip="127.0.0.1", port=port,
                    weight=1.0, enabled=True, healthy=True, ephemeral=True, metadata={},
                )
            )
        await wait_for([9001, 9002])
        await providers[0].deregister_instance(
            DeregisterInstanceParam(
                service_name=SERVICE, group_name="DEFAULT_GROUP", ip="127.0.0.1", port=9001,
                ephemeral=True,
            )
        )
        await wait_for([9002])
        for each in [subscriber, *providers]:
            await each.shutdown()
    print("interop: nacos-sdk-python registered, subscribed and saw a removal")


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    asyncio.run(asyncio.wait_for(main(sys.argv[1]), 120))
