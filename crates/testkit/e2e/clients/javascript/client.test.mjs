// The official JavaScript client against a live cluster, with node's own test runner.

import assert from 'node:assert/strict';
import { PassThrough } from 'node:stream';
import { test } from 'node:test';
import * as k8s from '@kubernetes/client-node';

const namespace = process.env.TEST_NAMESPACE;
const image = process.env.TEST_IMAGE;
const LIMIT_MS = 60_000;

const config = new k8s.KubeConfig();
config.loadFromDefault();
const core = config.makeApiClient(k8s.CoreV1Api);
const apps = config.makeApiClient(k8s.AppsV1Api);
const objects = k8s.KubernetesObjectApi.makeApiClient(config);

const configMap = (name, data, labels) => ({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name, namespace, labels }, data });
const mapsPath = `/api/v1/namespaces/${namespace}/configmaps`;

// Asks until the answer is true, and returns it.
async function eventually(what, ask) {
  const end = Date.now() + LIMIT_MS;
  for (;;) {
    const answer = await ask();
    if (answer) return answer;
    if (Date.now() > end) throw new Error(`${what}: not within ${LIMIT_MS} ms`);
    await new Promise((done) => setTimeout(done, 100));
  }
}

// Changes one large object until the versions from before are too old to watch from.
async function outliveTheWatchCache() {
  await core.createNamespacedConfigMap({ namespace, body: configMap('churn') });
  for (let turn = 0; turn < 40; turn++) {
    const body = configMap('churn', { large: String(turn % 10).repeat(200_000) });
    await core.replaceNamespacedConfigMap({ namespace, name: 'churn', body });
  }
  await core.deleteNamespacedConfigMap({ namespace, name: 'churn' });
}

// Watches until `enough` of the events seen so far says so; ends with the events and what the watch ended with.
function watch(options, enough) {
  return new Promise((resolve, reject) => {
    const seen = [];
    let request;
    const finish = (error) => resolve({ seen, error });
    const timer = setTimeout(() => reject(new Error(`only ${JSON.stringify(seen)}`)), LIMIT_MS);
    const each = (phase, object) => {
      seen.push([phase, object.metadata?.name ?? object.reason]);
      if (enough(seen)) {
        clearTimeout(timer);
        request.then((controller) => controller.abort());
      }
    };
    request = new k8s.Watch(config).watch(mapsPath, options, each, (error) => {
      clearTimeout(timer);
      finish(error);
    });
    request.catch(reject);
  });
}

test('create, read, update and delete', async () => {
  const made = await core.createNamespacedConfigMap({ namespace, body: configMap('crud', { a: '1' }) });
  assert.equal(made.metadata.namespace, namespace);
  await assert.rejects(core.createNamespacedConfigMap({ namespace, body: configMap('crud') }), { code: 409 });
  made.data.a = '2';
  const replaced = await core.replaceNamespacedConfigMap({ namespace, name: 'crud', body: made });
  assert.notEqual(replaced.metadata.resourceVersion, made.metadata.resourceVersion);
  await assert.rejects(core.replaceNamespacedConfigMap({ namespace, name: 'crud', body: made }), (error) => {
    assert.equal(error.code, 409);
    assert.match(String(error.body), /the object has been modified/);
    return true;
  });
  const list = await core.listNamespacedConfigMap({ namespace, fieldSelector: 'metadata.name=crud' });
  assert.deepEqual(list.items.map((item) => item.data), [{ a: '2' }]);
  await core.deleteNamespacedConfigMap({ namespace, name: 'crud' });
  await assert.rejects(core.readNamespacedConfigMap({ namespace, name: 'crud' }), { code: 404 });
});

test('patches of every type, and scale', async () => {
  const labels = { app: 'patched' };
  const template = { metadata: { labels }, spec: { containers: [{ name: 'c', image }] } };
  const body = { metadata: { name: 'patched' }, spec: { replicas: 0, selector: { matchLabels: labels }, template } };
  await apps.createNamespacedDeployment({ namespace, body });
  const containers = async (patch, strategy) => {
    const request = { namespace, name: 'patched', body: patch };
    const patched = await apps.patchNamespacedDeployment(request, k8s.setHeaderOptions('Content-Type', strategy));
    return patched.spec.template.spec.containers.map((container) => container.name);
  };
  const side = { spec: { template: { spec: { containers: [{ name: 'side', image }] } } } };
  assert.deepEqual(await containers(side, k8s.PatchStrategy.StrategicMergePatch), ['side', 'c']);
  assert.deepEqual(await containers(side, k8s.PatchStrategy.MergePatch), ['side']);
  const rename = [{ op: 'replace', path: '/spec/template/spec/containers/0/name', value: 'other' }];
  assert.deepEqual(await containers(rename, k8s.PatchStrategy.JsonPatch), ['other']);
  // The controller writes too, so that a version may be old at once.
  const scaled = await eventually('scaled', async () => {
    const scale = await apps.readNamespacedDeploymentScale({ namespace, name: 'patched' });
    scale.spec.replicas = 1;
    const replaced = apps.replaceNamespacedDeploymentScale({ namespace, name: 'patched', body: scale });
    return replaced.catch((error) => assert.equal(error.code, 409));
  });
  assert.equal(scaled.spec.replicas, 1);
  await apps.deleteNamespacedDeployment({ namespace, name: 'patched', propagationPolicy: 'Foreground' });
});

test('objects of any kind, and server-side apply', async () => {
  const applied = (data) => configMap('applied', data);
  const apply = (data, manager, force) =>
    objects.patch(applied(data), undefined, undefined, manager, force, k8s.PatchStrategy.ServerSideApply);
  assert.deepEqual((await apply({ a: '1', b: '1' }, 'one')).data, { a: '1', b: '1' });
  await assert.rejects(apply({ a: '2' }, 'two'), (error) => {
    assert.equal(error.code, 409);
    assert.match(JSON.stringify(error.body), /conflict with .*one.*: \.data\.a/);
    return true;
  });
  assert.deepEqual((await apply({ a: '2' }, 'two', true)).data, { a: '2', b: '1' });
  assert.deepEqual((await apply({}, 'one')).data, { a: '2' });
  const read = await objects.read({ apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'applied', namespace } });
  assert.deepEqual(read.data, { a: '2' });
  const lease = { apiVersion: 'coordination.k8s.io/v1', kind: 'Lease', metadata: { name: 'any', namespace } };
  await objects.create({ ...lease, spec: { holderIdentity: 'me' } });
  const leases = await objects.list(lease.apiVersion, 'Lease', namespace);
  assert.deepEqual(leases.items.map((item) => item.metadata.name), ['any']);
  assert.equal((await objects.delete(lease)).status, 'Success');
  await assert.rejects(objects.read(lease), { code: 404 });
});

test('a watch begins after a version, and ends with 410 when that is too old', async () => {
  const start = (await core.listNamespacedConfigMap({ namespace })).metadata.resourceVersion;
  const labels = { watched: 'yes' };
  await core.createNamespacedConfigMap({ namespace, body: configMap('watched', {}, labels) });
  await core.replaceNamespacedConfigMap({ namespace, name: 'watched', body: configMap('watched', { a: 'b' }, labels) });
  await core.deleteNamespacedConfigMap({ namespace, name: 'watched' });
  const options = { resourceVersion: start, labelSelector: 'watched=yes' };
  const { seen } = await watch(options, (events) => events.length === 3);
  assert.deepEqual(seen, [['ADDED', 'watched'], ['MODIFIED', 'watched'], ['DELETED', 'watched']]);
  await outliveTheWatchCache();
  const late = await watch(options, (events) => events.length === 1);
  const told = late.seen.length > 0 ? late.seen : late.error;
  assert.match(JSON.stringify(told), /ERROR|410|Expired/);
});

test('an informer finds its way back after its version expired', async (context) => {
  const list = () => core.listNamespacedConfigMap({ namespace, labelSelector: 'informed=yes' });
  const informer = k8s.makeInformer(config, mapsPath, list, 'informed=yes');
  context.after(() => informer.stop());
  const seen = [];
  for (const verb of ['add', 'update', 'delete']) {
    informer.on(verb, (object) => seen.push(`${verb} ${object.metadata.name}`));
  }
  // What the documentation advises: begin again after an error.
  informer.on('error', () => setTimeout(() => informer.start(), 100));
  const labels = { informed: 'yes' };
  await core.createNamespacedConfigMap({ namespace, body: configMap('informed-1', {}, labels) });
  await informer.start();
  await eventually('the first object', () => seen.includes('add informed-1'));
  await informer.stop();
  await outliveTheWatchCache();
  await core.createNamespacedConfigMap({ namespace, body: configMap('informed-2', {}, labels) });
  await core.deleteNamespacedConfigMap({ namespace, name: 'informed-1' });
  await informer.start();
  await eventually('what happened meanwhile', () => seen.includes('add informed-2') && seen.includes('delete informed-1'));
  await core.replaceNamespacedConfigMap({ namespace, name: 'informed-2', body: configMap('informed-2', { a: 'b' }, labels) });
  await eventually('the update', () => seen.includes('update informed-2'));
  assert.deepEqual(informer.list(namespace).map((object) => object.metadata.name), ['informed-2']);
});

test('inside a pod: exec, logs, port-forward', async () => {
  const command = ['sh', '-c', 'echo ready; mkdir /tmp/w; echo page > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w'];
  const spec = { terminationGracePeriodSeconds: 0, containers: [{ name: 'main', image, command }] };
  await core.createNamespacedPod({ namespace, body: { metadata: { name: 'shell' }, spec } });
  const read = () => core.readNamespacedPod({ namespace, name: 'shell' });
  await eventually('the pod runs', async () => (await read()).status.phase === 'Running');

  const output = [new PassThrough(), new PassThrough()];
  const printed = ['', ''];
  output.forEach((stream, index) => stream.on('data', (data) => (printed[index] += data)));
  const input = new PassThrough();
  const script = ['sh', '-c', 'read x; echo got $x; echo bad >&2; exit 7'];
  const status = await new Promise((resolve, reject) => {
    const exec = new k8s.Exec(config);
    exec.exec(namespace, 'shell', 'main', script, output[0], output[1], input, false, resolve).catch(reject);
    input.end('typed\n');
  });
  assert.deepEqual(printed, ['got typed\n', 'bad\n']);
  assert.equal(status.reason, 'NonZeroExitCode');
  assert.deepEqual(status.details.causes, [{ reason: 'ExitCode', message: '7' }]);

  const log = new PassThrough();
  let logged = '';
  log.on('data', (data) => (logged += data));
  const following = await new k8s.Log(config).log(namespace, 'shell', 'main', log, { follow: true });
  await eventually('the log', () => logged === 'ready\n');
  following.abort();

  const answer = new PassThrough();
  let page = '';
  answer.on('data', (data) => (page += data));
  const request = new PassThrough();
  const forwarding = await new k8s.PortForward(config).portForward(namespace, 'shell', [8080], answer, null, request);
  request.write('GET / HTTP/1.0\r\n\r\n');
  await eventually('the page', () => page.endsWith('page\n'));
  (typeof forwarding === 'function' ? forwarding() : forwarding)?.close();
});
