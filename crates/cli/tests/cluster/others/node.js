// Node's etcd3 against the member at ENDPOINT. Ends with an error where an answer is wrong.
"use strict";

const assert = require("node:assert/strict");
const { Etcd3, EtcdLockFailedError } = require("etcd3");

async function main() {
  const client = new Etcd3({ hosts: `http://${process.argv[2]}` });
  const keys = client.namespace("node/");

  // Keys.
  await keys.put("a").value("1");
  assert.equal(await keys.get("a").string(), "1");
  await keys.put("b").value(Buffer.from([0, 255]));
  assert.deepEqual(await keys.get("b").buffer(), Buffer.from([0, 255]));
  await keys.put("c").value("3");
  assert.deepEqual(await keys.getAll().prefix("").keys(), ["a", "b", "c"]);
  assert.deepEqual(await keys.getAll().prefix("").sort("Key", "Descend").limit(2).keys(), ["c", "b"]);
  assert.equal(await keys.getAll().prefix("").count(), 3);
  assert.equal(await keys.get("none"), null);
  assert.equal((await keys.delete().key("b")).deleted, "1");
  const before = (await keys.get("a").exec()).header.revision;
  await keys.put("a").value("2");
  assert.equal(await keys.get("a").revision(before).string(), "1");

  // Transactions.
  const done = await keys
    .if("a", "Value", "==", "2")
    .and("none", "Version", "==", 0)
    .then(keys.put("t").value("yes"), keys.get("a"))
    .else(keys.put("t").value("no"))
    .commit();
  assert.equal(done.succeeded, true);
  assert.equal(await keys.get("t").string(), "yes");

  // Watches.
  const watcher = await keys.watch().prefix("w/").create();
  const seen = [];
  const told = new Promise((resolve) => {
    watcher.on("put", (pair) => seen.push(["put", pair.key.toString(), pair.value.toString()]));
    watcher.on("delete", (pair) => {
      seen.push(["delete", pair.key.toString()]);
      resolve();
    });
  });
  await keys.put("w/1").value("x");
  await keys.delete().key("w/1");
  await told;
  assert.deepEqual(seen, [["put", "w/1", "x"], ["delete", "w/1"]]);
  await watcher.cancel();

  // Leases.
  const lease = client.lease(60, { autoKeepAlive: false });
  await lease.put("node/l").value("v");
  await lease.keepaliveOnce();
  assert.equal(await keys.get("l").string(), "v");
  await lease.revoke();
  assert.equal(await keys.get("l"), null);

  // Locks and elections, which the client makes of transactions, leases and watches.
  const lock = client.lock("node");
  await lock.acquire();
  await assert.rejects(client.lock("node").acquire(), EtcdLockFailedError);
  await lock.release();
  await client.lock("node").do(async () => {});
  const election = client.election("node", 60);
  const campaign = election.campaign("me");
  await new Promise((resolve, reject) => {
    campaign.on("elected", resolve);
    campaign.on("error", reject);
  });
  assert.equal(await election.leader(), "me");
  await campaign.resign();

  // Maintenance.
  assert.ok(0 < Number((await client.maintenance.status()).dbSize));

  client.close();
  console.log("ok");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
