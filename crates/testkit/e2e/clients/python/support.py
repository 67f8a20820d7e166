"""What the tests of the Python client share: the cluster that they were given, and waiting."""

import os
import threading
import time

from kubernetes import client, config

NAMESPACE = os.environ["TEST_NAMESPACE"]
IMAGE = os.environ["TEST_IMAGE"]
LIMIT_SECONDS = 60

config.load_kube_config()


def eventually(what, ask):
    """Asks until the answer is true, and returns it."""
    end = time.monotonic() + LIMIT_SECONDS
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {LIMIT_SECONDS} s")
        threading.Event().wait(0.1)


def config_map(name, data=None, **metadata):
    return client.V1ConfigMap(metadata=client.V1ObjectMeta(name=name, **metadata), data=data)


def outlive_the_watch_cache(core, name="churn"):
    """Changes one large object until the versions from before are too old to watch from."""
    core.create_namespaced_config_map(NAMESPACE, config_map(name))
    for turn in range(40):
        core.patch_namespaced_config_map(name, NAMESPACE, {"data": {"large": str(turn % 10) * 200_000}})
    core.delete_namespaced_config_map(name, NAMESPACE)
