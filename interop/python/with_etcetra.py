"""What a Python program does with etcd through `etcetra`: `with_etcetra.py URL`. Each part says `ok NAME`."""

import asyncio
import sys

import grpc
from etcetra import (
    CompareKey, EtcdClient, EtcdCredential, HostPortPair, RangeRequestSortOrder, RangeRequestSortTarget,
    WatchEventType,
)
from etcetra.grpc_api import rpc_pb2, rpc_pb2_grpc

ADDRESS = HostPortPair.parse(sys.argv[1].removeprefix("http://"))
CLIENT = EtcdClient(ADDRESS)


async def kv():
    async with CLIENT.connect() as etcd:
        for key, value in [("a", "1"), ("b", "2"), ("c", "3"), ("a", "4")]:
            await etcd.put(f"p/kv/{key}", value)
        await etcd.put("p/kv/b", None)
        assert await etcd.get("p/kv/a") == "4"
        assert await etcd.get("p/kv/none") is None
        assert await etcd.get_prefix("p/kv/") == {"p/kv/a": "4", "p/kv/b": "2", "p/kv/c": "3"}
        assert await etcd.get_range("p/kv/a", "p/kv/c") == {"p/kv/a": "4", "p/kv/b": "2"}
        newest = await etcd.keys_prefix(
            "p/kv/", sort_order=RangeRequestSortOrder.DESCEND, sort_target=RangeRequestSortTarget.MOD)
        assert newest == ["p/kv/b", "p/kv/a", "p/kv/c"], newest
        await etcd.delete("p/kv/a")
        assert await etcd.keys_range("p/kv/", "p/kv0") == ["p/kv/b", "p/kv/c"]
        await etcd.delete_prefix("p/kv/")
        assert await etcd.get_prefix("p/kv/") == {}


async def transactions():
    async with CLIENT.connect() as etcd:
        await etcd.put("p/txn", "1")

        def operations(success, failure):
            success.put("p/done", "yes")
            success.get("p/txn")
            failure.delete("p/txn")

        done = await etcd.txn_compare([CompareKey("p/txn").value == "1"], operations)
        assert done.success and done.values[1] == {"p/txn": "1"}, done
        done = await etcd.txn_compare([CompareKey("p/txn").value != "1"], operations)
        assert not done.success and await etcd.get("p/txn") is None, done


async def watches():
    async with CLIENT.connect() as etcd:
        await etcd.put("p/watch/a", "0")
        watching, seen = asyncio.Event(), []

        async def watch():
            async for event in etcd.watch_prefix("p/watch/", ready_event=watching, prev_kv=True):
                if event.key != "p/watch/ready":
                    seen.append((event.event, event.key, event.value, event.prev_value))
                if event.key == "p/watch/end":
                    return
                yielded.set()

        yielded = asyncio.Event()
        task = asyncio.create_task(watch())
        await watching.wait()
        # The request has been written; the first event says that the watch stands.
        while not yielded.is_set():
            await etcd.put("p/watch/ready", "")
            await asyncio.sleep(0.01)
        await etcd.put("p/watch/a", "1")
        await etcd.delete("p/watch/a")
        await etcd.put("p/watch/end", "2")
        await task
        assert seen == [
            (WatchEventType.PUT, "p/watch/a", "1", "0"),
            (WatchEventType.DELETE, "p/watch/a", "", "1"),
            (WatchEventType.PUT, "p/watch/end", "2", ""),
        ], seen


async def leases():
    async with CLIENT.connect() as etcd:
        lease = await etcd.grant_lease(2, id=4711)
        assert lease == 4711
        await etcd.put("p/leased", "x", lease=lease)
        stub = rpc_pb2_grpc.LeaseStub(etcd.channel)
        keeper = etcd.create_lease_keepalive_task(lease, 0.2)
        left = await stub.LeaseTimeToLive(rpc_pb2.LeaseTimeToLiveRequest(ID=lease, keys=True))
        assert left.grantedTTL == 2 and list(left.keys) == [b"p/leased"], left
        # It outlives its time to live, since it is kept.
        await asyncio.sleep(3)
        assert await etcd.get("p/leased") == "x"
        keeper.cancel()
        await etcd.revoke_lease(lease)
        assert await etcd.get("p/leased") is None
        left = await stub.LeaseTimeToLive(rpc_pb2.LeaseTimeToLiveRequest(ID=lease))
        assert left.TTL == -1, left


async def locks():
    inside = total = 0

    async def work():
        nonlocal inside, total
        for _ in range(3):
            async with CLIENT.with_lock("p/lock", ttl=10) as etcd:
                inside += 1
                assert inside == 1
                await etcd.put("p/held", "yes")
                total += 1
                inside -= 1

    await asyncio.gather(work(), work(), work())
    assert total == 9
    async with CLIENT.with_lock("p/lock", ttl=10):
        try:
            async with CLIENT.with_lock("p/lock", ttl=10, timeout=0.5):
                raise AssertionError("a lock that two have")
        except asyncio.TimeoutError:
            pass
    async with CLIENT.with_lock("p/lock", timeout=30):
        pass


async def users():
    async with CLIENT.connect() as etcd:
        auth = rpc_pb2_grpc.AuthStub(etcd.channel)
        await auth.UserAdd(rpc_pb2.AuthUserAddRequest(name="root", password="secret"))
        await auth.UserGrantRole(rpc_pb2.AuthUserGrantRoleRequest(user="root", role="root"))
        await auth.AuthEnable(rpc_pb2.AuthEnableRequest())
        try:
            await etcd.get("p/done")
            raise AssertionError("a read without a user")
        except Exception as error:
            assert "user name is empty" in str(error), error
    async with EtcdClient(ADDRESS, credentials=EtcdCredential("root", "secret")).connect() as etcd:
        assert await etcd.get("p/done") == "yes"
        await rpc_pb2_grpc.AuthStub(etcd.channel).AuthDisable(rpc_pb2.AuthDisableRequest())
    wrong = EtcdClient(ADDRESS, credentials=EtcdCredential("root", "wrong"))
    try:
        async with wrong.connect():
            raise AssertionError("authenticated without authentication")
    except grpc.aio.AioRpcError as error:
        assert "authentication is not enabled" in error.details(), error


async def main():
    for part in [kv, transactions, watches, leases, locks, users]:
        await part()
        print("ok", part.__name__, flush=True)
    print("done", flush=True)


asyncio.run(main())
