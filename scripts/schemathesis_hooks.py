"""What schemathesis is told besides the published documents: which parameters make answers endless, what may be null."""

import schemathesis

ENDLESS = {"watch", "follow", "timeoutSeconds"}


@schemathesis.hook
def before_load_schema(context, raw_schema):
    # A list that must be there but that nobody gave is null in Kubernetes' answers, which its documents don't say.
    for schema in raw_schema.get("components", {}).get("schemas", {}).values():
        for name in schema.get("required", []):
            field = schema.get("properties", {}).get(name, {})
            if field.get("type") == "array":
                field["nullable"] = True
    for item in raw_schema.get("paths", {}).values():
        allow_objects_that_wait(item)
        for part in [item, *item.values()]:
            if isinstance(part, dict) and "parameters" in part:
                part["parameters"] = [p for p in part["parameters"] if p.get("name") not in ENDLESS]


def allow_objects_that_wait(item):
    # An object that something else has to let go of (a finalizer) is what its deletion answers, not a Status; upstream
    # does the same, and its documents don't say so.
    def bodies(verb):
        return item.get(verb, {}).get("responses", {}).get("200", {}).get("content", {})

    found = bodies("get")
    for media, body in bodies("delete").items():
        if media in found:
            body["schema"] = {"anyOf": [body["schema"], found[media]["schema"]]}


@schemathesis.hook
def before_call(context, case, kwargs):
    for name in ENDLESS:
        if case.query:
            case.query.pop(name, None)
