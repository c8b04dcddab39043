// Drives the local cloud with the vendor's SDK for Node.js: sdk.js PORT KEY SECRET REGION.
'use strict';

const assert = require('node:assert');
const sdk = require('@alicloud/eci20180808');
const { Config } = require('@alicloud/openapi-client');

const [port, accessKeyId, accessKeySecret, regionId] = process.argv.slice(2);
const endpoint = `127.0.0.1:${port}`;
const client = new sdk.default(new Config({ accessKeyId, accessKeySecret, regionId, endpoint, protocol: 'http' }));

async function ask(action, members) {
  const Request = sdk[`${action[0].toUpperCase()}${action.slice(1)}Request`];
  return (await client[action](new Request({ regionId, ...members }))).body;
}

async function wait(what, look) {
  const deadline = Date.now() + 30000;
  while (Date.now() < deadline) {
    const found = await look();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  throw new Error(`not in time: ${what}`);
}

async function life() {
  const environmentVar = [new sdk.CreateContainerGroupRequestContainerEnvironmentVar({ key: 'LANG', value: '中文' })];
  const command = ['/bin/sh', '-c', "echo a+b *~(c) 'd'!"];
  const created = await ask('createContainerGroup', {
    containerGroupName: 'from-node',
    clientToken: 'token-node',
    container: [new sdk.CreateContainerGroupRequestContainer({ name: 'main', image: 'busybox', command, environmentVar, cpu: 1, memory: 2 })],
    tag: [new sdk.CreateContainerGroupRequestTag({ key: 'who', value: 'node' })],
  });
  const containerGroupId = created.containerGroupId;
  const containerGroupIds = JSON.stringify([containerGroupId]);
  const groups = async () => (await ask('describeContainerGroups', { containerGroupIds })).containerGroups;
  const running = async () => {
    const [group] = await groups();
    return group && group.status === 'Running' && group;
  };
  const restarted = async (count) => {
    const group = await running();
    return group && group.containers[0].restartCount === count;
  };
  const group = await wait('running', running);
  assert.deepStrictEqual(group.containers[0].commands, command);
  assert.strictEqual(group.containers[0].environmentVars[0].value, '中文');
  const status = await ask('describeContainerGroupStatus', { containerGroupIds });
  assert.strictEqual(status.data[0].podStatus.phase, 'Running');
  const log = await ask('describeContainerLog', { containerGroupId, containerName: 'main' });
  assert.ok(log.content.includes(containerGroupId), log.content);
  const executed = await ask('execContainerCommand', {
    containerGroupId, containerName: 'main', command: JSON.stringify(['echo', 'node']), sync: true, TTY: false,
  });
  assert.ok(executed.syncResponse.includes('echo node'), executed.syncResponse);
  await ask('updateContainerGroup', {
    containerGroupId,
    updateType: 'IncrementalUpdate',
    container: [new sdk.UpdateContainerGroupRequestContainer({ name: 'main', image: 'busybox:2' })],
  });
  await wait('updated', () => restarted(1));
  await ask('restartContainerGroup', { containerGroupId });
  await wait('restarted', () => restarted(2));
  // This SDK has no tag actions; an update carries tags, and a description filters by them.
  const tag = new sdk.UpdateContainerGroupRequestTag({ key: 'stage', value: 'test' });
  await ask('updateContainerGroup', { containerGroupId, updateType: 'IncrementalUpdate', tag: [tag] });
  const wanted = [new sdk.DescribeContainerGroupsRequestTag({ key: 'stage', value: 'test' })];
  const tagged = await ask('describeContainerGroups', { tag: wanted });
  assert.strictEqual(tagged.containerGroups[0].containerGroupId, containerGroupId);
  assert.ok(await restarted(2), 'tags alone start nothing anew');
  const price = await ask('describeContainerGroupPrice', { cpu: 2, memory: 4 });
  assert.strictEqual(price.priceInfo.price.tradePrice, 0.00012252);
  await ask('deleteContainerGroup', { containerGroupId });
  await wait('gone', async () => (await groups()).length === 0);
  await assert.rejects(ask('restartContainerGroup', { containerGroupId }), (error) => error.code === 'ContainerGroupNotFound');
}

life().then(
  () => console.log('Node SDK: ok'),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
