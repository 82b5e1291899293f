"""What programs do with etcd over HTTP and JSON: `with_gateway.py URL`. First as APISIX's client for etcd
(lua-resty-etcd) calls it, then through `etcd3-py`. Each part says `ok NAME`."""

import base64
import json
import sys

import etcd3
import requests

URL = sys.argv[1]
HOST, PORT = URL.removeprefix("http://").split(":")


def b64(text):
    return base64.b64encode(text.encode()).decode()


def text(encoded):
    return base64.b64decode(encoded).decode()


def call(path, body, token=None, status=200):
    headers = {"Content-Type": "application/json"}
    if token is not None:
        headers["Authorization"] = token
    answer = requests.post(f"{URL}/v3{path}", data=json.dumps(body), headers=headers, timeout=30)
    assert answer.status_code == status, (path, answer.status_code, answer.text)
    return answer.json()


def prefix_end(prefix):
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def apisix_version():
    version = requests.get(f"{URL}/version", timeout=30).json()
    assert version["etcdserver"].startswith("3.") and version["etcdcluster"].startswith("3."), version


def apisix_readdir():
    for route in ["1", "2"]:
        put = call("/kv/put", {"key": b64(f"/apisix/routes/{route}"), "value": b64(json.dumps({"uri": f"/{route}"}))})
        assert int(put["header"]["revision"]) > 1, put
    # What is false, zero or empty is left out of answers.
    assert "prev_kv" not in put
    body = {"key": b64("/apisix/routes/"), "range_end": b64(prefix_end("/apisix/routes/")), "serializable": True,
            "limit": 0, "sort_order": "NONE", "sort_target": "KEY", "revision": 0, "keys_only": False}
    found = call("/kv/range", body)
    assert found["count"] == "2" and "more" not in found, found
    assert [text(kv["key"]) for kv in found["kvs"]] == ["/apisix/routes/1", "/apisix/routes/2"]
    assert json.loads(text(found["kvs"][0]["value"])) == {"uri": "/1"}
    assert found["kvs"][0]["version"] == "1" and "lease" not in found["kvs"][0], found
    none = call("/kv/range", {"key": b64("/apisix/none")})
    assert set(none) == {"header"}, none
    gone = call("/kv/deleterange", {"key": b64("/apisix/routes/2"), "prev_kv": True})
    assert gone["deleted"] == "1" and text(gone["prev_kvs"][0]["key"]) == "/apisix/routes/2", gone


def apisix_transaction():
    key = b64("/apisix/once")
    body = {
        "compare": [{"key": key, "target": "CREATE", "result": "EQUAL", "create_revision": "0"}],
        "success": [{"requestPut": {"key": key, "value": b64("mine")}}],
        "failure": [{"requestRange": {"key": key}}],
    }
    assert call("/kv/txn", body)["succeeded"] is True
    again = call("/kv/txn", body)
    assert "succeeded" not in again, again
    assert text(again["responses"][0]["response_range"]["kvs"][0]["value"]) == "mine", again


def apisix_watchdir():
    revision = int(call("/kv/range", {"key": b64("/apisix/")})["header"]["revision"])
    body = {"create_request": {"key": b64("/apisix/"), "range_end": b64(prefix_end("/apisix/")),
                               "start_revision": revision + 1, "prev_kv": True}}
    with requests.post(f"{URL}/v3/watch", data=json.dumps(body), stream=True, timeout=30) as stream:
        lines = stream.iter_lines(chunk_size=1)
        created = json.loads(next(lines))["result"]
        assert created["created"] is True and "events" not in created, created
        call("/kv/put", {"key": b64("/apisix/routes/1"), "value": b64("new")})
        events = json.loads(next(lines))["result"]["events"]
        # A put is the type's default, and left out.
        assert "type" not in events[0] and text(events[0]["kv"]["value"]) == "new", events
        assert json.loads(text(events[0]["prev_kv"]["value"])) == {"uri": "/1"}, events
        call("/kv/deleterange", {"key": b64("/apisix/routes/1")})
        events = json.loads(next(lines))["result"]["events"]
        assert events[0]["type"] == "DELETE" and "value" not in events[0]["kv"], events


def apisix_lease():
    granted = call("/lease/grant", {"TTL": 60, "ID": 0})
    lease = granted["ID"]
    assert isinstance(lease, str) and granted["TTL"] == "60", granted
    call("/kv/put", {"key": b64("/apisix/leased"), "value": b64("x"), "lease": lease})
    kept = call("/lease/keepalive", {"ID": lease})
    assert kept["result"]["TTL"] == "60", kept
    left = call("/kv/lease/timetolive", {"ID": lease, "keys": True})
    assert [text(key) for key in left["keys"]] == ["/apisix/leased"] and left["grantedTTL"] == "60", left
    leases = call("/lease/leases", {})
    assert {"ID": lease} in leases["leases"], leases
    call("/kv/lease/revoke", {"ID": lease})
    assert "kvs" not in call("/kv/range", {"key": b64("/apisix/leased")})
    refused = call("/kv/lease/revoke", {"ID": lease}, status=404)
    assert refused == {"error": "etcdserver: requested lease not found", "code": 5,
                       "message": "etcdserver: requested lease not found"}, refused


def apisix_auth():
    call("/auth/user/add", {"name": "root", "password": "secret"})
    call("/auth/user/grant", {"user": "root", "role": "root"})
    call("/auth/role/add", {"name": "gateway"})
    call("/auth/role/grant", {"name": "gateway", "perm": {
        "permType": "READ", "key": b64("/apisix/"), "range_end": b64(prefix_end("/apisix/"))}})
    call("/auth/user/add", {"name": "apisix", "password": "pass"})
    call("/auth/user/grant", {"user": "apisix", "role": "gateway"})
    call("/auth/enable", {})
    once = {"key": b64("/apisix/once")}
    refused = call("/kv/range", once, status=400)
    assert refused["error"] == "etcdserver: user name is empty" and refused["code"] == 3, refused
    wrong = call("/auth/authenticate", {"name": "apisix", "password": "wrong"}, status=400)
    assert wrong["error"] == "etcdserver: authentication failed, invalid user ID or password", wrong
    token = call("/auth/authenticate", {"name": "apisix", "password": "pass"})["token"]
    assert text(call("/kv/range", once, token)["kvs"][0]["value"]) == "mine"
    refused = call("/kv/put", {**once, "value": b64("x")}, token, status=403)
    assert refused["error"] == "etcdserver: permission denied" and refused["code"] == 7, refused
    refused = call("/kv/range", once, "no token", status=401)
    assert refused["error"] == "etcdserver: invalid auth token" and refused["code"] == 16, refused
    root = call("/auth/authenticate", {"name": "root", "password": "secret"})["token"]
    assert call("/auth/user/list", {}, root)["users"] == ["apisix", "root"]
    call("/auth/disable", {}, root)


def etcd3_py():
    client = etcd3.Client(HOST, int(PORT))
    client.put("py/a", "1")
    client.put("py/b", "2")
    assert client.put("py/a", "3", prev_kv=True).prev_kv.value == b"1"
    found = client.range("py/", prefix=True)
    assert [(kv.key, kv.value) for kv in found.kvs] == [(b"py/a", b"3"), (b"py/b", b"2")], found
    txn = client.Txn()
    txn.If(txn.key("py/a").value == "3")
    txn.Then(txn.put("py/a", "4"))
    txn.Then(txn.range("py/b"))
    txn.Else(txn.delete("py/a"))
    done = txn.commit()
    assert done.succeeded and done.responses[1].response_range.kvs[0].value == b"2", done
    lease = client.Lease(ttl=30)
    lease.grant()
    client.put("py/leased", "x", lease=lease.ID)
    assert lease.alive() and 0 < lease.ttl() <= 30
    assert lease.keepalive_once() is not None
    lease.revoke()
    assert not client.range("py/leased").kvs
    watcher = client.Watcher(key="py/", prefix=True, start_revision=found.header.revision + 1)
    event = watcher.watch_once(timeout=30)
    assert (event.key, event.value) == (b"py/a", b"4"), event
    with client.Lock("py/lock", lock_ttl=30) as lock:
        assert lock.is_acquired
    assert len(client.member_list().members) == 1
    assert client.status().version.startswith("3.")
    client.compact(client.put("py/a", "5").header.revision)
    try:
        client.compact(2)
        raise AssertionError("compacted again")
    except etcd3.errors.ErrCompacted:
        pass
    client.role_add("reader")
    client.role_grant_permission("reader", prefix=True, key="py/")
    assert client.role_get("reader").perm[0].key == b"py/"
    client.user_add("ann", "pass")
    client.user_grant_role("ann", "reader")
    assert client.user_get("ann").roles == ["reader"]
    assert client.delete_range("py/", prefix=True).deleted == 2


for part in [apisix_version, apisix_readdir, apisix_transaction, apisix_watchdir, apisix_lease, apisix_auth, etcd3_py]:
    part()
    print("ok", part.__name__, flush=True)
print("done", flush=True)
