// What a Node program does with etcd through npm's `etcd3`: `node main.js URL`.
//
// Each part says `ok NAME`. For the part that needs the server to go away and come back it says `restart`, and waits.
'use strict';

const assert = require('node:assert/strict');
const { once } = require('node:events');
const { setTimeout: sleep } = require('node:timers/promises');
// The packages are installed beside the build's results, not beside this file.
const { createRequire } = require('node:module');
const { Etcd3, EtcdLockFailedError } = createRequire(`${process.argv[3]}/`)('etcd3');

// The library exports its levels of isolation for TypeScript only.
const SERIALIZABLE_SNAPSHOT = 0;

const url = process.argv[2];
const client = new Etcd3({ hosts: url });

// Waits until there is no such key.
async function gone(key) {
  const watcher = await client.watch().key(key).create();
  const deleted = once(watcher, 'delete');
  if (await client.get(key).exists()) await deleted;
  await watcher.cancel();
}

const parts = {
  async 'kv'() {
    await client.put('n/kv/a').value('one');
    const put = await client.put('n/kv/a').value('two').getPrevious();
    assert.equal(put.value.toString(), 'one');
    const first = Number(put.mod_revision);
    assert.equal(await client.get('n/kv/a').revision(first), 'one');
    await client.put('n/kv/b').value(Buffer.from([0, 255]));
    await client.put('n/kv/c').value(JSON.stringify({ is: 3 }));
    await client.put('n/kv/c').touch();
    assert.deepEqual(await client.get('n/kv/c').json(), { is: 3 });
    assert.deepEqual(await client.get('n/kv/b').buffer(), Buffer.from([0, 255]));
    assert.equal(await client.get('n/kv/none'), null);
    const all = client.getAll().prefix('n/kv/');
    assert.deepEqual(await all.keys(), ['n/kv/a', 'n/kv/b', 'n/kv/c']);
    assert.deepEqual(await client.getAll().prefix('n/kv/').sort('Mod', 'Descend').limit(1).keys(), ['n/kv/c']);
    assert.equal(await client.getAll().prefix('n/kv/').count(), 3);
    assert.deepEqual(await client.getAll().inRange({ start: 'n/kv/a', end: 'n/kv/b' }).keys(), ['n/kv/a']);
    const minimum = await client.getAll().prefix('n/kv/').minModRevision(first + 1).keys();
    assert.deepEqual(minimum, ['n/kv/a', 'n/kv/b', 'n/kv/c']);
    assert.equal((await client.delete().key('n/kv/a').getPrevious())[0].value.toString(), 'two');
    assert.equal((await client.delete().prefix('n/kv/')).deleted, '2');
  },

  async 'transactions'() {
    const create = () =>
      client.if('n/txn', 'Create', '==', 0)
        .then(client.put('n/txn').value('mine'))
        .else(client.get('n/txn'))
        .commit();
    assert.equal((await create()).succeeded, true);
    const again = await create();
    assert.equal(again.succeeded, false);
    assert.equal(again.responses[0].response_range.kvs[0].value.toString(), 'mine');
    const and = await client.if('n/txn', 'Value', '==', 'mine').and('n/txn', 'Version', '<', 2).then(client.delete().key('n/txn')).commit();
    assert.equal(and.responses[0].response_delete_range.deleted, '1');
    // Optimistic transactions, which conflict with each other and are tried again.
    await client.put('n/counter').value(0);
    const add = () => client.stm({ retries: 50, isolation: SERIALIZABLE_SNAPSHOT }).transact(async tx =>
      tx.put('n/counter').value(1 + await tx.get('n/counter').number()));
    await Promise.all([add(), add(), add(), add()]);
    assert.equal(await client.get('n/counter').number(), 4);
  },

  async 'namespaces'() {
    const inside = client.namespace('n/space/');
    const watcher = await inside.watch().prefix('').create();
    const put = once(watcher, 'put');
    await inside.put('key').value('inside');
    assert.equal((await put)[0].key.toString(), 'key');
    await watcher.cancel();
    assert.equal(await client.get('n/space/key'), 'inside');
    assert.deepEqual(await inside.getAll().keys(), ['key']);
  },

  async 'watches'() {
    const start = (await client.put('n/watch/a').value('1')).header.revision;
    await client.put('n/watch/a').value('2');
    const seen = [];
    const watcher = await client.watch().prefix('n/watch/').startRevision(start).withPreviousKV().create();
    const ended = new Promise((resolve, reject) => {
      watcher.on('error', reject);
      watcher.on('put', (kv, before) => {
        seen.push(`put ${kv.key} ${kv.value} after ${before ? before.value : 'nothing'}`);
        if (kv.key.toString() === 'n/watch/end') resolve();
      });
      watcher.on('delete', (kv, before) => seen.push(`delete ${kv.key} after ${before.value}`));
    });
    const deletions = [];
    const filtered = await client.watch().prefix('n/watch/').only('delete').create();
    filtered.on('data', answer => deletions.push(...answer.events.map(event => event.type)));
    await client.delete().key('n/watch/a');
    await client.put('n/watch/end').value('3');
    await ended;
    assert.deepEqual(seen, [
      'put n/watch/a 1 after nothing', 'put n/watch/a 2 after 1', 'delete n/watch/a after 2',
      'put n/watch/end 3 after nothing',
    ]);
    await filtered.cancel();
    assert.deepEqual(deletions, ['Delete']);
    await watcher.cancel();
  },

  async 'leases'() {
    const lease = client.lease(5);
    const id = await lease.grant();
    const kept = once(lease, 'keepaliveSucceeded');
    await lease.put('n/leased').value('while it lives');
    assert.equal((await kept)[0].TTL, '5');
    assert.equal((await lease.keepaliveOnce()).TTL, '5');
    const left = await client.leaseClient.leaseTimeToLive({ ID: id, keys: true });
    assert.deepEqual(left.keys.map(String), ['n/leased']);
    const watcher = await client.watch().key('n/leased').create();
    const deleted = once(watcher, 'delete');
    await lease.revoke();
    await deleted;
    await watcher.cancel();
    assert.equal(await client.get('n/leased'), null);
    // One that nobody keeps alive ends by itself.
    const short = client.lease(1, { autoKeepAlive: false });
    await short.put('n/short').value('x');
    await gone('n/short');
  },

  async 'locks'() {
    let inside = 0;
    await Promise.all([1, 2].map(async () => {
      // A lock that somebody has is refused at once: this library waits by trying again.
      for (;;) {
        try {
          await client.lock('n/lock').ttl(10).do(async () => {
            inside += 1;
            assert.equal(inside, 1);
            await client.put('n/held').value('yes');
            inside -= 1;
          });
          return;
        } catch (error) {
          assert.ok(error instanceof EtcdLockFailedError, error);
          await gone('n/lock');
        }
      }
    }));
  },

  async 'elections'() {
    const election = client.election('n/chief', 10);
    const observer = await election.observe();
    const leaders = [];
    const change = wanted => new Promise(resolve => {
      const look = leader => {
        if (leader !== undefined) leaders.push(leader);
        if (leader === wanted) { observer.off('change', look); resolve(); }
      };
      observer.on('change', look);
      if (observer.leader() === wanted) look(wanted);
    });
    const one = election.campaign('one');
    const first = change('one');
    await one.wait();
    await first;
    assert.equal(await election.leader(), 'one');
    const proclaimed = change('uno');
    await one.proclaim('uno');
    await proclaimed;
    const two = election.campaign('two');
    const second = change('two');
    await one.resign();
    await two.wait();
    await second;
    await two.resign();
    await observer.cancel();
    assert.deepEqual(leaders, ['one', 'uno', 'two']);
  },

  async 'a watch goes on after a restart'() {
    const watcher = await client.watch().key('n/reconnect').create();
    const back = new Promise(resolve => watcher.on('put', kv => resolve(kv.value.toString())));
    const disconnected = once(watcher, 'disconnected');
    console.log('restart n/reconnect');
    await disconnected;
    assert.equal(await back, 'back');
    await watcher.cancel();
    // Calls have a connection of their own, which comes back in its own time.
    for (let attempt = 1; ; attempt += 1) {
      try {
        await client.put('n/reconnected').value('yes');
        return;
      } catch (error) {
        if (attempt === 300) throw error;
        await sleep(100);
      }
    }
  },

  async 'cluster and maintenance'() {
    const members = (await client.cluster.memberList({ linearizable: true })).members;
    assert.equal(members.length, 1);
    assert.deepEqual(members[0].clientURLs, [url]);
    const status = await client.maintenance.status();
    assert.match(status.version, /^3\./);
    assert.ok(Number(status.dbSize) > 0);
    await client.maintenance.defragment();
    assert.ok((await client.maintenance.hash()).hash);
    const snapshot = await client.maintenance.snapshot();
    let bytes = 0;
    snapshot.on('data', answer => { bytes += answer.blob.length; });
    await once(snapshot, 'end');
    assert.ok(bytes > 4096);
  },

  async 'compaction'() {
    const put = await client.put('n/old').value('1');
    const now = (await client.put('n/old').value('2')).header.revision;
    await client.kv.compact({ revision: now, physical: true });
    await assert.rejects(client.get('n/old').revision(put.header.revision).string(), /has been compacted/);
    const watcher = client.watch().key('n/old').startRevision(put.header.revision).watcher();
    await once(watcher, 'error');
  },

  async 'users and roles'() {
    const role = client.role('reader');
    await role.create();
    await role.grant({ permission: 'Read', range: client.range({ prefix: 'n/open/' }) });
    await role.grant({ permission: 'Readwrite', key: 'n/one' });
    const permissions = await role.permissions();
    assert.deepEqual(permissions.map(each => each.permission), ['Readwrite', 'Read']);
    await role.revoke({ permission: 'Readwrite', key: 'n/one' });
    const ann = await client.user('ann').create('pass');
    await ann.addRole('reader');
    assert.deepEqual((await ann.roles()).map(each => each.name), ['reader']);
    const root = await client.user('root').create('secret');
    await client.role('root').create().catch(() => {});
    await root.addRole('root');
    await client.put('n/open/a').value('1');
    await client.put('n/shut').value('1');
    await client.auth.authEnable();
    const asked = new Etcd3({ hosts: url, auth: { username: 'ann', password: 'pass' } });
    assert.equal(await asked.get('n/open/a'), '1');
    await assert.rejects(asked.get('n/shut').string(), /permission denied/);
    await assert.rejects(asked.put('n/open/a').value('2').exec(), /permission denied/);
    asked.close();
    const wrong = new Etcd3({ hosts: url, auth: { username: 'ann', password: 'wrong' } });
    await assert.rejects(wrong.get('n/open/a').string(), /authentication failed/);
    wrong.close();
    const chief = new Etcd3({ hosts: url, auth: { username: 'root', password: 'secret' } });
    assert.deepEqual((await chief.getUsers()).map(user => user.name), ['ann', 'root']);
    await chief.user('ann').setPassword('other');
    await chief.user('ann').removeRole('reader');
    await chief.role('reader').delete();
    await chief.user('ann').delete();
    assert.deepEqual((await chief.getRoles()).map(role => role.name), ['root']);
    await chief.auth.authDisable();
    chief.close();
    assert.equal(await client.get('n/shut'), '1');
  },
};

(async () => {
  for (const [name, part] of Object.entries(parts)) {
    await part();
    console.log(`ok ${name}`);
  }
  client.close();
  console.log('done');
})().catch(error => {
  console.error(error);
  process.exit(1);
});
