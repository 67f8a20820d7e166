"""A kopf operator: what it does with Gadgets is seen in their status, finalizers and events."""

import kopf

GADGETS = {"group": "operator.example.com", "version": "v1", "plural": "gadgets"}


@kopf.on.startup()
def configure(settings, **_):
    settings.peering.standalone = True
    settings.persistence.finalizer = "operator.example.com/kept"
    settings.posting.loggers = True
    settings.batching.worker_limit = 4


@kopf.on.create(**GADGETS)
def made(spec, name, namespace, body, **_):
    if spec.get("size", 0) > 100:
        raise kopf.PermanentError("too large")
    kopf.info(body, reason="Making", message=f"makes {name}")
    return {"size": spec.get("size")}


@kopf.on.create(**GADGETS, labels={"shaky": "yes"})
def tried_again(retry, **_):
    if retry < 2:
        raise kopf.TemporaryError("not yet", delay=0.2)
    return retry


@kopf.on.update(**GADGETS, field="spec.size")
def resized(old, new, patch, **_):
    patch.status["resized"] = f"{old} to {new}"


@kopf.on.delete(**GADGETS)
def unmade(name, namespace, logger, **_):
    from kubernetes import client

    body = client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"{name}-was-here"))
    client.CoreV1Api().create_namespaced_config_map(namespace, body)


@kopf.timer(**GADGETS, interval=0.5, labels={"ticking": "yes"})
def tick(patch, status, **_):
    patch.status["ticks"] = status.get("ticks", 0) + 1


@kopf.on.event("configmaps", labels={"mirrored": kopf.PRESENT})
def mirrored(event, name, namespace, meta, **_):
    from kubernetes import client

    if event["type"] != "DELETED" and "seen" not in meta.annotations:
        client.CoreV1Api().patch_namespaced_config_map(name, namespace, {"metadata": {"annotations": {"seen": "yes"}}})
