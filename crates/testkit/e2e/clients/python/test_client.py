"""The official Python client against a live cluster."""

import threading
import time
import unittest

from kubernetes import client, dynamic, utils, watch
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic.exceptions import ConflictError, NotFoundError
from kubernetes.informer import ADDED, DELETED, MODIFIED, SharedInformer
from kubernetes.leaderelection import electionconfig, leaderelection
from kubernetes.leaderelection.resourcelock.configmaplock import ConfigMapLock
from kubernetes.leaderelection.resourcelock.leaselock import LeaseLock
from kubernetes.stream import portforward, stream

from support import IMAGE, NAMESPACE, config_map, eventually, outlive_the_watch_cache


class Typed(unittest.TestCase):
    def setUp(self):
        self.core = client.CoreV1Api()

    def test_create_read_update_delete(self):
        made = self.core.create_namespaced_config_map(NAMESPACE, config_map("crud", {"a": "1"}, labels={"t": "crud"}))
        self.assertEqual(made.metadata.namespace, NAMESPACE)
        with self.assertRaises(ApiException) as twice:
            self.core.create_namespaced_config_map(NAMESPACE, config_map("crud"))
        self.assertEqual((twice.exception.status, twice.exception.reason), (409, "Conflict"))
        made.data["a"] = "2"
        replaced = self.core.replace_namespaced_config_map("crud", NAMESPACE, made)
        self.assertGreater(int(replaced.metadata.resource_version), int(made.metadata.resource_version))
        with self.assertRaises(ApiException) as stale:
            self.core.replace_namespaced_config_map("crud", NAMESPACE, made)
        self.assertEqual(stale.exception.status, 409)
        listed = self.core.list_namespaced_config_map(NAMESPACE, label_selector="t=crud")
        self.assertEqual([item.data for item in listed.items], [{"a": "2"}])
        with self.assertRaises(ApiException) as invalid:
            self.core.create_namespaced_config_map(NAMESPACE, config_map("Bad_Name"))
        self.assertEqual(invalid.exception.status, 422)
        preconditions = client.V1DeleteOptions(preconditions=client.V1Preconditions(uid="another"))
        with self.assertRaises(ApiException) as other:
            self.core.delete_namespaced_config_map("crud", NAMESPACE, body=preconditions)
        self.assertEqual(other.exception.status, 409)
        self.core.delete_namespaced_config_map("crud", NAMESPACE)
        with self.assertRaises(ApiException) as gone:
            self.core.read_namespaced_config_map("crud", NAMESPACE)
        self.assertEqual(gone.exception.status, 404)

    def test_pages(self):
        for number in range(5):
            self.core.create_namespaced_secret(
                NAMESPACE,
                client.V1Secret(metadata=client.V1ObjectMeta(name=f"page-{number}"), string_data={"n": str(number)}),
            )
        names, token = [], None
        while True:
            page = self.core.list_namespaced_secret(NAMESPACE, limit=2, _continue=token)
            names += [item.metadata.name for item in page.items]
            token = page.metadata._continue
            if not token:
                break
            self.assertEqual(page.metadata.remaining_item_count, 5 - len(names))
        self.assertEqual(names, [f"page-{number}" for number in range(5)])
        self.core.delete_collection_namespaced_secret(NAMESPACE)
        self.assertEqual(self.core.list_namespaced_secret(NAMESPACE).items, [])

    def test_patches(self):
        labels = {"app": "patched"}
        pod = client.V1PodTemplateSpec(
            metadata=client.V1ObjectMeta(labels=labels),
            spec=client.V1PodSpec(containers=[client.V1Container(name="c", image=IMAGE)]),
        )
        spec = client.V1DeploymentSpec(replicas=0, selector=client.V1LabelSelector(match_labels=labels), template=pod)
        apps = client.AppsV1Api()
        deployment = client.V1Deployment(metadata=client.V1ObjectMeta(name="patched"), spec=spec)
        apps.create_namespaced_deployment(NAMESPACE, deployment)
        side = {"spec": {"template": {"spec": {"containers": [{"name": "side", "image": IMAGE}]}}}}

        def containers(body, kind):
            patched = apps.patch_namespaced_deployment("patched", NAMESPACE, body, _content_type=kind)
            return [container.name for container in patched.spec.template.spec.containers]

        self.assertEqual(containers(side, "application/strategic-merge-patch+json"), ["side", "c"])
        self.assertEqual(containers(side, "application/merge-patch+json"), ["side"])
        rename = [{"op": "replace", "path": "/spec/template/spec/containers/0/name", "value": "other"}]
        self.assertEqual(containers(rename, "application/json-patch+json"), ["other"])
        with self.assertRaises(ApiException) as failed:
            containers([{"op": "test", "path": "/spec/replicas", "value": 9}], "application/json-patch+json")
        self.assertEqual(failed.exception.status, 422)

        scale = apps.patch_namespaced_deployment_scale("patched", NAMESPACE, {"spec": {"replicas": 1}})
        self.assertEqual(scale.spec.replicas, 1)
        scale = apps.read_namespaced_deployment_scale("patched", NAMESPACE)
        self.assertEqual((scale.spec.replicas, scale.status.selector), (1, "app=patched"))
        condition = {"type": "Tested", "status": "True", "reason": "Because", "message": "it was"}
        status = apps.patch_namespaced_deployment_status("patched", NAMESPACE, {"status": {"conditions": [condition]}})
        self.assertIn("Tested", [found.type for found in status.status.conditions])
        apps.delete_namespaced_deployment("patched", NAMESPACE, propagation_policy="Foreground")

        def gone():
            return not [d for d in apps.list_namespaced_deployment(NAMESPACE).items if d.metadata.name == "patched"]

        eventually("the deployment is gone", gone)

    def test_tokens_and_reviews(self):
        account = client.V1ServiceAccount(metadata=client.V1ObjectMeta(name="robot"))
        self.core.create_namespaced_service_account(NAMESPACE, account)
        request = client.AuthenticationV1TokenRequest(spec=client.V1TokenRequestSpec(audiences=[]))
        token = self.core.create_namespaced_service_account_token("robot", NAMESPACE, request).status.token
        review = client.V1TokenReview(spec=client.V1TokenReviewSpec(token=token))
        user = client.AuthenticationV1Api().create_token_review(review).status.user
        self.assertEqual(user.username, f"system:serviceaccount:{NAMESPACE}:robot")
        attributes = client.V1ResourceAttributes(namespace=NAMESPACE, verb="list", resource="pods")
        access = client.V1SubjectAccessReview(
            spec=client.V1SubjectAccessReviewSpec(user=user.username, resource_attributes=attributes)
        )
        self.assertFalse(client.AuthorizationV1Api().create_subject_access_review(access).status.allowed)

    def test_documents_are_applied_from_yaml(self):
        document = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "from-yaml"}}
        document["spec"] = {"ports": [{"port": 80}], "selector": {"a": "b"}}
        made = utils.create_from_dict(client.ApiClient(), document, namespace=NAMESPACE)
        self.assertEqual(made[0].spec.type, "ClusterIP")
        with self.assertRaises(utils.FailToCreateError):
            utils.create_from_dict(client.ApiClient(), document, namespace=NAMESPACE)


class Watches(unittest.TestCase):
    def setUp(self):
        self.core = client.CoreV1Api()

    def list_of(self, label):
        return lambda *args, **kwargs: self.core.list_namespaced_config_map(
            *args, label_selector=f"watch={label}", **kwargs
        )

    def make(self, name, label):
        self.core.create_namespaced_config_map(NAMESPACE, config_map(name, labels={"watch": label}))

    def events(self, version, count, label, source=None):
        """So many events after a version."""
        seen, source = [], source or watch.Watch()
        for event in source.stream(
            self.core.list_namespaced_config_map,
            NAMESPACE,
            label_selector=f"watch={label}",
            resource_version=version,
            timeout_seconds=30,
        ):
            seen.append((event["type"], event["object"].metadata.name))
            if len(seen) == count:
                source.stop()
        return seen, source.resource_version

    def test_events_after_a_version(self):
        start = self.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
        self.make("watched", "plain")
        self.core.patch_namespaced_config_map("watched", NAMESPACE, {"data": {"a": "b"}})
        self.core.delete_namespaced_config_map("watched", NAMESPACE)
        self.make("watched-2", "plain")
        first, version = self.events(start, 2, "plain")
        self.assertEqual(first, [("ADDED", "watched"), ("MODIFIED", "watched")])
        rest, _ = self.events(version, 2, "plain")
        self.assertEqual(rest, [("DELETED", "watched"), ("ADDED", "watched-2")])

    def test_a_version_that_is_too_old(self):
        start = self.core.list_namespaced_config_map(NAMESPACE).metadata.resource_version
        outlive_the_watch_cache(self.core)
        with self.assertRaises(ApiException) as expired:
            self.events(start, 1, "none")
        self.assertEqual(expired.exception.status, 410)
        self.assertRegex(expired.exception.reason, r"Expired: too old resource version: \d+ \(\d+\)")
        # What every controller does then.
        listed = self.core.list_namespaced_config_map(NAMESPACE)
        self.make("after-410", "again")
        self.assertEqual(self.events(listed.metadata.resource_version, 1, "again")[0], [("ADDED", "after-410")])

    def test_an_informer_follows(self):
        seen = []
        informer = SharedInformer(
            self.core.list_namespaced_config_map, namespace=NAMESPACE, label_selector="watch=informed"
        )
        self.make("informed-1", "informed")
        for kind in (ADDED, MODIFIED, DELETED):
            informer.add_event_handler(kind, lambda obj, kind=kind: seen.append((kind, obj.metadata.name)))
        informer.start()
        try:
            eventually("the first object", lambda: (ADDED, "informed-1") in seen)
            self.make("informed-2", "informed")
            self.core.patch_namespaced_config_map("informed-1", NAMESPACE, {"data": {"a": "b"}})
            self.core.delete_namespaced_config_map("informed-1", NAMESPACE)
            eventually("all events", lambda: (DELETED, "informed-1") in seen)
            self.assertIn((MODIFIED, "informed-1"), seen)
            self.assertEqual(informer.cache.list_keys(), [f"{NAMESPACE}/informed-2"])
        finally:
            informer.stop()


class Dynamic(unittest.TestCase):
    def setUp(self):
        self.client = dynamic.DynamicClient(client.ApiClient())

    def test_any_kind(self):
        maps = self.client.resources.get(api_version="v1", kind="ConfigMap")
        body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "dynamic"}, "data": {"a": "1"}}
        maps.create(body=body, namespace=NAMESPACE)
        merge = "application/merge-patch+json"
        patched = maps.patch(body={"data": {"b": "2"}}, name="dynamic", namespace=NAMESPACE, content_type=merge)
        self.assertEqual(dict(patched.data), {"a": "1", "b": "2"})
        names = [item.metadata.name for item in maps.get(namespace=NAMESPACE).items]
        self.assertIn("dynamic", names)
        for event in maps.watch(namespace=NAMESPACE, timeout=5, field_selector="metadata.name=dynamic"):
            self.assertEqual((event["type"], event["object"].metadata.name), ("ADDED", "dynamic"))
            break
        maps.delete(name="dynamic", namespace=NAMESPACE)
        with self.assertRaises(NotFoundError):
            maps.get(name="dynamic", namespace=NAMESPACE)

    def test_server_side_apply(self):
        maps = self.client.resources.get(api_version="v1", kind="ConfigMap")

        def apply(manager, data, **options):
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "applied"}, "data": data}
            return maps.server_side_apply(body=body, namespace=NAMESPACE, field_manager=manager, **options)

        self.assertEqual(dict(apply("one", {"a": "1", "b": "1"}).data), {"a": "1", "b": "1"})
        with self.assertRaises(ConflictError) as conflict:
            apply("two", {"a": "2"})
        self.assertIn('conflict with \\"one\\": .data.a', str(conflict.exception.body))
        self.assertEqual(dict(apply("two", {"a": "2"}, force_conflicts=True).data), {"a": "2", "b": "1"})
        self.assertEqual(dict(apply("one", {}).data), {"a": "2"})
        # The empty map is a field of its own.
        managers = [entry.manager for entry in maps.get(name="applied", namespace=NAMESPACE).metadata.managedFields]
        self.assertEqual(sorted(managers), ["one", "two"])

    def test_custom_resources(self):
        group = f"{NAMESPACE}.example.com"
        schema = {"type": "object", "properties": {"spec": {"type": "object", "properties": {"size": {
            "type": "integer", "minimum": 1}}}}}
        version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
        names = {"plural": "widgets", "singular": "widget", "kind": "Widget"}
        definitions = self.client.resources.get(api_version="apiextensions.k8s.io/v1", kind="CustomResourceDefinition")
        definitions.create(body={
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": f"widgets.{group}"},
            "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [version]},
        })
        try:
            def found():
                try:
                    self.client.resources.invalidate_cache()
                    return self.client.resources.get(api_version=f"{group}/v1", kind="Widget")
                except dynamic.exceptions.ResourceNotFoundError:
                    return None

            widgets = eventually("the kind is served", found)
            widget = {"apiVersion": f"{group}/v1", "kind": "Widget", "metadata": {"name": "w"}, "spec": {"size": 3}}
            self.assertEqual(widgets.create(body=widget, namespace=NAMESPACE).spec.size, 3)
            widget["metadata"]["name"], widget["spec"]["size"] = "bad", 0
            with self.assertRaises(dynamic.exceptions.UnprocessibleEntityError):
                widgets.create(body=widget, namespace=NAMESPACE)
        finally:
            definitions.delete(name=f"widgets.{group}")


class Pods(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.core = client.CoreV1Api()
        command = ["sh", "-c", "echo ready; mkdir /tmp/w; echo page > /tmp/w/index.html; httpd -f -p 8080 -h /tmp/w"]
        container = client.V1Container(name="main", image=IMAGE, command=command)
        spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
        pod = client.V1Pod(metadata=client.V1ObjectMeta(name="shell"), spec=spec)
        cls.core.create_namespaced_pod(NAMESPACE, pod)
        eventually("the pod runs", lambda: cls.core.read_namespaced_pod("shell", NAMESPACE).status.phase == "Running")

    def run_in_pod(self, command, **options):
        return stream(
            self.core.connect_get_namespaced_pod_exec, "shell", NAMESPACE, command=command,
            stdout=True, stderr=True, tty=False, **{"stdin": False, **options},
        )

    def test_exec(self):
        self.assertEqual(self.run_in_pod(["echo", "hi"]), "hi\n")
        channel = self.run_in_pod(["sh", "-c", "read x; echo got $x; echo bad >&2; exit 7"],
                                  stdin=True, _preload_content=False)
        channel.write_stdin("typed\n")
        channel.run_forever(timeout=30)
        self.assertEqual((channel.read_stdout(), channel.read_stderr()), ("got typed\n", "bad\n"))
        self.assertEqual(channel.returncode, 7)

    def test_logs(self):
        eventually("the log", lambda: self.core.read_namespaced_pod_log("shell", NAMESPACE) == "ready\n")
        follow = watch.Watch()
        for line in follow.stream(self.core.read_namespaced_pod_log, "shell", NAMESPACE):
            self.assertEqual(line, "ready")
            follow.stop()

    def test_port_forward(self):
        def page():
            forward = portforward(self.core.connect_get_namespaced_pod_portforward, "shell", NAMESPACE, ports="8080")
            connection = forward.socket(8080)
            connection.settimeout(20)
            connection.sendall(b"GET / HTTP/1.0\r\n\r\n")
            answer = b""
            while part := connection.recv(4096):
                answer += part
            return answer.endswith(b"page\n")

        eventually("the page", page)
        proxied = self.core.connect_get_namespaced_pod_proxy("shell:8080", NAMESPACE)
        self.assertEqual(proxied, "page\n")

    def test_eviction(self):
        container = client.V1Container(name="main", image=IMAGE, command=["sleep", "3600"])
        spec = client.V1PodSpec(containers=[container], termination_grace_period_seconds=0)
        metadata = client.V1ObjectMeta(name="evicted", labels={"guard": "yes"})
        self.core.create_namespaced_pod(NAMESPACE, client.V1Pod(metadata=metadata, spec=spec))
        eviction = client.V1Eviction(metadata=client.V1ObjectMeta(name="evicted"))
        self.core.create_namespaced_pod_eviction("evicted", NAMESPACE, eviction)

        def gone():
            return "evicted" not in [pod.metadata.name for pod in self.core.list_namespaced_pod(NAMESPACE).items]

        eventually("the pod is gone", gone)


class Elections(unittest.TestCase):
    """Two candidates: the second leads when the first has given up."""

    def elect(self, lock):
        leads, over = {}, {}

        def candidate(name):
            leads[name], over[name] = threading.Event(), threading.Event()

            def lead():
                leads[name].set()
                over[name].wait(60)
                raise RuntimeError("enough led")

            settings = electionconfig.Config(
                lock(name), lease_duration=3, renew_deadline=2, retry_period=1,
                onstarted_leading=lead, onstopped_leading=lambda: None,
            )
            threading.Thread(target=leaderelection.LeaderElection(settings).run, daemon=True).start()

        candidate("first")
        self.assertTrue(leads["first"].wait(30))
        candidate("second")
        self.assertFalse(leads["second"].wait(2))
        over["first"].set()
        self.assertTrue(leads["second"].wait(30))
        over["second"].set()

    def test_by_a_lease(self):
        self.elect(lambda name: LeaseLock("leader", NAMESPACE, name))
        self.assertEqual(client.CoordinationV1Api().read_namespaced_lease("leader", NAMESPACE).spec.holder_identity, "second")

    def test_by_a_config_map(self):
        self.elect(lambda name: ConfigMapLock("leader", NAMESPACE, name))


if __name__ == "__main__":
    unittest.main(verbosity=2)
