"""A kopf operator against a live cluster: its handlers run, and what they do is kept."""

import pathlib
import unittest

from kopf.testing import KopfRunner
from kubernetes import client

from support import NAMESPACE, config_map, eventually

GROUP, VERSION, PLURAL = "operator.example.com", "v1", "gadgets"
HANDLERS = pathlib.Path(__file__).with_name("operator_handlers.py")


def definition():
    schema = {
        "type": "object",
        "properties": {
            "spec": {"type": "object", "properties": {"size": {"type": "integer"}}},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    version = client.V1CustomResourceDefinitionVersion(
        name=VERSION, served=True, storage=True, subresources={"status": {}}, schema={"openAPIV3Schema": schema}
    )
    names = client.V1CustomResourceDefinitionNames(plural=PLURAL, singular="gadget", kind="Gadget")
    spec = client.V1CustomResourceDefinitionSpec(group=GROUP, scope="Namespaced", names=names, versions=[version])
    return client.V1CustomResourceDefinition(metadata=client.V1ObjectMeta(name=f"{PLURAL}.{GROUP}"), spec=spec)


class Operator(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.definitions = client.ApiextensionsV1Api()
        cls.definitions.create_custom_resource_definition(definition())

        def established():
            found = cls.definitions.read_custom_resource_definition(f"{PLURAL}.{GROUP}").status.conditions or []
            return any(condition.type == "Established" and condition.status == "True" for condition in found)

        eventually("the definition is established", established)
        cls.runner = KopfRunner(["run", "--standalone", "--namespace", NAMESPACE, str(HANDLERS)])
        cls.runner.__enter__()

    @classmethod
    def tearDownClass(cls):
        # While the operator is there, for its finalizer.
        custom = client.CustomObjectsApi()
        custom.delete_collection_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL)
        eventually(
            "all gadgets are gone",
            lambda: not custom.list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL)["items"],
        )
        cls.runner.__exit__(None, None, None)
        cls.definitions.delete_custom_resource_definition(f"{PLURAL}.{GROUP}")
        print(cls.runner.output[-4000:])
        if cls.runner.exit_code or cls.runner.exception:
            raise AssertionError(f"the operator ended with {cls.runner.exit_code}: {cls.runner.exception}")

    def setUp(self):
        self.custom, self.core = client.CustomObjectsApi(), client.CoreV1Api()

    def make(self, name, labels=None, **spec):
        metadata = {"name": name, "labels": labels or {}}
        body = {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Gadget", "metadata": metadata, "spec": spec}
        self.custom.create_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, body)

    def read(self, name):
        return self.custom.get_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, name)

    def status_of(self, name, what, good):
        return eventually(what, lambda: good(self.read(name).get("status", {})))

    def test_life(self):
        self.make("life", size=3)
        self.status_of("life", "the create handler's result", lambda status: status.get("made") == {"size": 3})
        self.assertEqual(self.read("life")["metadata"]["finalizers"], ["operator.example.com/kept"])
        resize = {"spec": {"size": 5}}
        self.custom.patch_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, "life", resize)
        self.status_of("life", "the update handler's status", lambda status: status.get("resized") == "3 to 5")

        def events():
            found = self.core.list_namespaced_event(NAMESPACE, field_selector="involvedObject.name=life").items
            return "Making" in [event.reason for event in found]

        eventually("the event", events)
        self.custom.delete_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL, "life")

        def unmade():
            left = self.custom.list_namespaced_custom_object(GROUP, VERSION, NAMESPACE, PLURAL)["items"]
            return "life" not in [item["metadata"]["name"] for item in left]

        eventually("the finalizer is taken away", unmade)
        self.core.read_namespaced_config_map("life-was-here", NAMESPACE)

    def test_temporary_errors_are_tried_again(self):
        self.make("shaky", {"shaky": "yes"}, size=1)
        self.status_of("shaky", "success at last", lambda status: status.get("tried_again") == 2)

    def test_permanent_errors_are_events(self):
        self.make("huge", size=1000)

        def events():
            found = self.core.list_namespaced_event(NAMESPACE, field_selector="involvedObject.name=huge").items
            return any("too large" in event.message for event in found)

        eventually("the event about the error", events)
        self.assertNotIn("made", self.read("huge").get("status", {}))

    def test_timers(self):
        self.make("clock", {"ticking": "yes"}, size=1)
        self.status_of("clock", "three ticks", lambda status: status.get("ticks", 0) >= 3)

    def test_events_of_other_kinds(self):
        self.core.create_namespaced_config_map(NAMESPACE, config_map("mirror", labels={"mirrored": "yes"}))

        def seen():
            return (self.core.read_namespaced_config_map("mirror", NAMESPACE).metadata.annotations or {}).get("seen")

        eventually("the annotation", seen)


if __name__ == "__main__":
    unittest.main(verbosity=2)
