"""Python's etcd3 against the member at HOST PORT. Ends with an error where an answer is wrong."""

import sys

import etcd3

client = etcd3.client(host=sys.argv[1], port=int(sys.argv[2]), timeout=20)


def check(found, want):
    if found != want:
        raise AssertionError(f"found {found!r}, not {want!r}")


# Keys.
client.put("py/a", "1")
value, meta = client.get("py/a")
check((value, meta.key, meta.version), (b"1", b"py/a", 1))
client.put("py/b", b"\x00\xff")
check([value for value, _ in client.get_prefix("py/")], [b"1", b"\x00\xff"])
descending = client.get_prefix("py/", sort_order="descend", sort_target="key")
check([meta.key for _, meta in descending], [b"py/b", b"py/a"])
check([value for value, _ in client.get_range("py/a", "py/b")], [b"1"])
check(client.replace("py/a", "1", "2"), True)
check(client.replace("py/a", "1", "3"), False)
check(client.put_if_not_exists("py/a", "4"), False)
check(client.get("py/a")[0], b"2")
check(client.get("py/none")[0], None)
check(client.delete("py/b"), True)
check(client.delete("py/b"), False)

# Transactions.
done, responses = client.transaction(
    compare=[client.transactions.value("py/a") == "2", client.transactions.version("py/a") > 1],
    success=[client.transactions.put("py/t", "yes"), client.transactions.get("py/a")],
    failure=[client.transactions.put("py/t", "no")],
)
check(done, True)
check(responses[1][0][0], b"2")
check(client.get("py/t")[0], b"yes")

# Watches.
events, cancel = client.watch_prefix("py/w/")
client.put("py/w/1", "x")
client.delete("py/w/1")
event = next(events)
check((type(event).__name__, event.key, event.value), ("PutEvent", b"py/w/1", b"x"))
event = next(events)
check((type(event).__name__, event.key), ("DeleteEvent", b"py/w/1"))
cancel()
past, cancel = client.watch("py/w/1", start_revision=event.mod_revision)
check(type(next(past)).__name__, "DeleteEvent")
cancel()

# Leases.
lease = client.lease(60)
client.put("py/l", "v", lease=lease)
check((lease.granted_ttl, [bytes(key) for key in lease.keys]), (60, [b"py/l"]))
check([answer.TTL for answer in lease.refresh()], [60])
lease.revoke()
check(client.get("py/l")[0], None)

# Locks, which the client makes of transactions, leases and watches.
lock = client.lock("py", ttl=60)
check(lock.acquire(timeout=10), True)
check(lock.is_acquired(), True)
check(lock.release(), True)
check(lock.is_acquired(), False)

# Members and maintenance.
members = list(client.members)
check(len(members), 1)
status = client.status()
check((status.leader.id, status.db_size > 0), (members[0].id, True))
check(list(client.list_alarms()), [])
client.compact(client.get("py/a")[1].mod_revision)

try:
    client.put("py/l", "v", lease=12345)
    raise AssertionError("an unknown lease was taken")
except Exception as error:
    if "requested lease not found" not in str(getattr(error, "details", lambda: error)()):
        raise

print("ok")
