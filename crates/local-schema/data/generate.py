#!/usr/bin/env python3
"""Builds the committed tables of this crate; run by hand when the served Kubernetes version changes.

    generate.py <recorded discovery folder> <k8s-openapi src/v1_34> <k8s-pb src>

Writes openapi/<group version>.json.gz (recorded documents as they are, the others composed from type facts),
data/types.txt.gz (one line a field: JSON name|type|flags|list type|patch strategy|default) and data/protobuf.txt.gz
(one line a field: number|JSON name, empty when embedded|type; w = message of strings, or* = unions of JSON schemas).

Types: s b i32 i64 d, y bytes, time micro dur q ios, any raw JSON, #Name struct, [T list, {T map.
Flags: r required, e written even when empty, p a pointer in Go (an explicit zero value is kept).
"""
import glob, gzip, json, os, re, sys

HERE = os.path.dirname(os.path.abspath(__file__))
OPENAPI = os.path.join(HERE, "..", "openapi")
RECORDED = {"core-v1": "api/v1", "apps-v1": "apis/apps/v1", "autoscaling-v2": "apis/autoscaling/v2",
            "batch-v1": "apis/batch/v1", "discovery-v1": "apis/discovery.k8s.io/v1",
            "networking-v1": "apis/networking.k8s.io/v1", "rbac-v1": "apis/rbac.authorization.k8s.io/v1",
            "apiextensions-v1": "apis/apiextensions.k8s.io/v1", "version": "version"}
META = "io.k8s.apimachinery.pkg.apis.meta.v1."
SPECIAL = {META + "Time": "time", META + "MicroTime": "micro", META + "Duration": "dur", META + "FieldsV1": "any",
           META + "Patch": "any", "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
           "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "ios", "io.k8s.apimachinery.pkg.runtime.RawExtension": "any"}
EXT = "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions.v1."
for name in ("JSON", "JSONSchemaPropsOrArray", "JSONSchemaPropsOrBool", "JSONSchemaPropsOrStringArray"):
    SPECIAL[EXT + name] = "any"
# Scalars that are pointers in Go although optional; "Type.field" with the last segment of the type's name, or ".field" for all.
POINTERS = set(open(os.path.join(HERE, "pointers.txt")).read().split())
# Non-pointer structs with omitempty (always written) and Go times without omitzero (written as null).
WRITTEN = set("""Lease.spec PodDisruptionBudget.spec PodDisruptionBudget.status HorizontalPodAutoscaler.spec HorizontalPodAutoscaler.status
APIService.spec APIService.status TokenRequest.status TokenReview.status SubjectAccessReview.status SelfSubjectAccessReview.status
LocalSubjectAccessReview.status SelfSubjectRulesReview.status SelfSubjectReview.status CertificateSigningRequest.status
VolumeAttachment.status ValidatingAdmissionPolicy.spec ValidatingAdmissionPolicy.status Event.regarding Event.deprecatedSource
Event.deprecatedFirstTimestamp Event.deprecatedLastTimestamp Event.eventTime Event.firstTimestamp Event.lastTimestamp
TokenReviewStatus.user FlowSchema.spec FlowSchema.status PriorityLevelConfiguration.spec PriorityLevelConfiguration.status
SelfSubjectReviewStatus.userInfo Role.rules ClusterRole.rules CertificateSigningRequest.spec
TokenRequestStatus.expirationTimestamp ResourceClaim.status HorizontalPodAutoscalerStatus.currentMetrics
CustomResourceDefinitionStatus.conditions CustomResourceDefinitionStatus.storedVersions EndpointSlice.ports TokenRequestSpec.boundObjectRef
ContainerStateTerminated.startedAt ContainerStateTerminated.finishedAt ContainerStateRunning.startedAt EventSeries.lastObservedTime
VolumeError.time ResourceFieldSelector.divisor
ValidatingAdmissionPolicyBinding.spec""".split())
# Written zero by OpenAPI's defaults, left out by Go.
ATOMIC = set()
UNWRITTEN = {"ReplicationControllerSpec.minReadySeconds", "ScaleSpec.replicas"}
# (group version, kind, plural, namespaced, subresources, verbs)
A = "*"
C = "create"
GROUPS = {
    "apis/autoscaling/v1": [("HorizontalPodAutoscaler", "horizontalpodautoscalers", True, ["status"], A)],
    "apis/coordination.k8s.io/v1": [("Lease", "leases", True, [], A)],
    "apis/events.k8s.io/v1": [("Event", "events", True, [], A)],
    "apis/apiregistration.k8s.io/v1": [("APIService", "apiservices", False, ["status"], A)],
    "apis/admissionregistration.k8s.io/v1": [
        ("MutatingWebhookConfiguration", "mutatingwebhookconfigurations", False, [], A),
        ("ValidatingAdmissionPolicy", "validatingadmissionpolicies", False, ["status"], A),
        ("ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", False, [], A),
        ("ValidatingWebhookConfiguration", "validatingwebhookconfigurations", False, [], A)],
    "apis/authentication.k8s.io/v1": [("SelfSubjectReview", "selfsubjectreviews", False, [], C),
                                      ("TokenReview", "tokenreviews", False, [], C)],
    "apis/authorization.k8s.io/v1": [("LocalSubjectAccessReview", "localsubjectaccessreviews", True, [], C),
                                     ("SelfSubjectAccessReview", "selfsubjectaccessreviews", False, [], C),
                                     ("SelfSubjectRulesReview", "selfsubjectrulesreviews", False, [], C),
                                     ("SubjectAccessReview", "subjectaccessreviews", False, [], C)],
    "apis/policy/v1": [("PodDisruptionBudget", "poddisruptionbudgets", True, ["status"], A)],
    "apis/scheduling.k8s.io/v1": [("PriorityClass", "priorityclasses", False, [], A)],
    "apis/storage.k8s.io/v1": [("CSIDriver", "csidrivers", False, [], A), ("CSINode", "csinodes", False, [], A),
                               ("CSIStorageCapacity", "csistoragecapacities", True, [], A),
                               ("StorageClass", "storageclasses", False, [], A),
                               ("VolumeAttachment", "volumeattachments", False, ["status"], A),
                               ("VolumeAttributesClass", "volumeattributesclasses", False, [], A)],
    "apis/certificates.k8s.io/v1": [("CertificateSigningRequest", "certificatesigningrequests", False, ["status", "approval"], A)],
    "apis/flowcontrol.apiserver.k8s.io/v1": [("FlowSchema", "flowschemas", False, ["status"], A),
                                             ("PriorityLevelConfiguration", "prioritylevelconfigurations", False, ["status"], A)],
    "apis/node.k8s.io/v1": [("RuntimeClass", "runtimeclasses", False, [], A)],
    "apis/resource.k8s.io/v1": [("DeviceClass", "deviceclasses", False, [], A), ("ResourceClaim", "resourceclaims", True, ["status"], A),
                                ("ResourceClaimTemplate", "resourceclaimtemplates", True, [], A),
                                ("ResourceSlice", "resourceslices", False, [], A)],
    "apis/metrics.k8s.io/v1beta1": [("NodeMetrics", "nodes", False, [], "get"), ("PodMetrics", "pods", True, [], "get")],
}


def group_version(path):
    parts = path.split("/")
    return ("", "v1") if path == "api/v1" else (parts[1], parts[2])


class Field:
    def __init__(self, name, kind, required=False):
        self.name, self.kind, self.required = name, kind, required
        self.written = self.pointer = False
        self.list_type = self.patch = self.default = ""


# ---- recorded documents ------------------------------------------------------------------------------------------------

def openapi_type(schema):
    if "allOf" in schema: return openapi_type(schema["allOf"][0])
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[1]
        return SPECIAL.get(name, "#" + name)
    kind, form = schema.get("type"), schema.get("format")
    if kind == "string": return {"byte": "y"}.get(form, "s")
    if kind == "boolean": return "b"
    if kind == "integer": return {"int64": "i64"}.get(form, "i32")
    if kind == "number": return "d"
    if kind == "array": return "[" + openapi_type(schema["items"])
    if kind == "object" and "additionalProperties" in schema: return "{" + openapi_type(schema["additionalProperties"])
    return "any"


def openapi_struct(schema):
    fields = {}
    for name, prop in schema.get("properties", {}).items():
        field = Field(name, openapi_type(prop), name in schema.get("required", []))
        field.written = "default" in prop and prop["default"] in ({}, "", 0, False)
        if field.kind[0] in "[{" and field.required: field.written = True
        # The only defaults besides zero that matter: keys of list maps may be left out.
        if name == "protocol" and "default" in prop: field.default = prop["default"]
        list_type, keys = prop.get("x-kubernetes-list-type", ""), prop.get("x-kubernetes-list-map-keys", [])
        field.list_type = "map:" + ",".join(keys) if list_type == "map" else list_type
        if prop.get("x-kubernetes-map-type") == "atomic": field.list_type = "atomic"
        strategy, key = prop.get("x-kubernetes-patch-strategy", ""), prop.get("x-kubernetes-patch-merge-key", "")
        field.patch = strategy.replace(",", "+") + (":" + key if key else "")
        fields[name] = field
    return fields


# ---- k8s-openapi's Rust structs ------------------------------------------------------------------------------------------

def rust_type(text):
    text = text.strip().rstrip(",").strip()
    for wrapper in ("Option<", "std::boxed::Box<"):
        if text.startswith(wrapper): return rust_type(text[len(wrapper):-1])
    if text.startswith("std::vec::Vec<"): return "[" + rust_type(text[14:-1])
    if text.startswith("std::collections::BTreeMap<std::string::String, "):
        return "{" + rust_type(text[len("std::collections::BTreeMap<std::string::String, "):-1])
    simple = {"std::string::String": "s", "i32": "i32", "i64": "i64", "bool": "b", "f64": "d", "crate::ByteString": "y"}
    if text in simple: return simple[text]
    assert text.startswith("crate::"), text
    name = text[len("crate::"):].replace("::", ".")
    name = name.replace("apiextensions_apiserver", "apiextensions-apiserver").replace("kube_aggregator", "kube-aggregator")
    full = "io.k8s." + name
    return SPECIAL.get(full, "#" + full)


def read_k8s_openapi(root):
    structs = {}
    for path in glob.glob(root + "/**/*.rs", recursive=True):
        text = open(path).read()
        head = re.match(r"// Generated from definition (\S+)", text)
        body = re.search(r"pub struct (\w+) \{(.*?)\n\}", text, re.S)
        if not head or not body: continue
        names = dict((rust, json_name) for json_name, rust in re.findall(r'"([^"]+)" => Field::(Key_\w+)', text))
        fields = {}
        for rust, kind in re.findall(r"pub (?:r#)?(\w+): (.*),\n", body.group(2) + "\n"):
            if "Key_" + rust not in names: continue
            required = not kind.startswith("Option<") and rust != "metadata"
            field = Field(names["Key_" + rust], rust_type(kind), required)
            field.written = rust == "metadata" or required
            fields[field.name] = field
        if re.search(r"impl crate::Resource for", text):
            for extra in ("apiVersion", "kind"): fields[extra] = Field(extra, "s")
        structs[head.group(1)] = fields
    return structs


# ---- k8s-pb's messages -----------------------------------------------------------------------------------------------------

def pb_name(module, path):
    """Absolute dotted name of a Rust path seen in a module."""
    parts, base = path.split("::"), module.split(".")
    while parts[0] == "super": parts, base = parts[1:], base[:-1]
    full = ".".join(base + parts)
    return "io.k8s." + full.replace("apiextensions_apiserver", "apiextensions-apiserver").replace("kube_aggregator", "kube-aggregator")


def read_pb(root):
    messages = {}
    for path in glob.glob(root + "/**/mod.rs", recursive=True):
        module = os.path.relpath(path, root)[:-len("/mod.rs")].replace("/", ".")
        text = open(path).read()
        for name in re.findall(r"/// \+structType=atomic\n(?:///[^\n]*\n)*#\[derive[^\n]*\npub struct (\w+)", text):
            ATOMIC.add(pb_name(module, name))
        for match in re.finditer(r"pub struct (\w+) \{(?:\}|(.*?)\n\})", text, re.S):
            fields = []
            pattern = r'((?:\s*///[^\n]*\n)*)\s*#\[prost\(([^\]]*?)\)\]\s*pub (?:r#)?(\w+):\s*(.*?),\n(?=\s*(?:///|#\[|$))'
            for doc, attribute, rust, kind in re.findall(pattern, (match.group(2) or "") + "\n", re.S):
                tag = int(re.search(r'tag = "(\d+)"', attribute).group(1))
                mapped = re.search(r'btree_map = "string, (\w+)"', attribute)
                scalar = {"string": "s", "bool": "b", "int32": "i32", "int64": "i64", "double": "d", "bytes": "y", "uint32": "i64"}
                def message():
                    inner = re.sub(r"\s", "", kind)
                    inner = re.sub(r"^.*?BTreeMap<::prost::alloc::string::String,", "", inner)
                    inner = re.sub(r"^(::core::option::Option<|::prost::alloc::vec::Vec<|::prost::alloc::boxed::Box<)+", "", inner).rstrip(">,")
                    name = pb_name(module, inner)
                    return {META + "Time": "time", META + "MicroTime": "micro", META + "Duration": "dur",
                            "io.k8s.apimachinery.pkg.api.resource.Quantity": "q",
                            "io.k8s.apimachinery.pkg.util.intstr.IntOrString": "ios",
                            "io.k8s.apimachinery.pkg.runtime.RawExtension": "raw", META + "FieldsV1": "raw",
                            EXT + "Json": "raw", EXT + "JsonSchemaPropsOrArray": "orarray", EXT + "JsonSchemaPropsOrBool": "orbool",
                            EXT + "JsonSchemaPropsOrStringArray": "orstrings"}.get(name, "#" + name)
                first = attribute.split(",")[0].split("=")[0].strip()
                if mapped: base = "{" + (scalar[mapped.group(1)] if mapped.group(1) in scalar else message())
                else: base = scalar[first] if first in scalar else message()
                if "repeated" in attribute: base = "[" + base
                fields.append((tag, rust, base, doc))
            name = pb_name(module, match.group(1))
            messages[name] = fields
    return messages


def plain(name): return re.sub("[-_$]", "", name).lower()


def camel(name):
    head, *rest = name.split("_")
    return head + "".join(part.capitalize() for part in rest)


def main():
    recorded, openapi_root, pb_root = sys.argv[1:4]
    structs, kinds, docs, atomic = {}, {}, {}, set()
    messages = read_pb(pb_root)
    for file, path in RECORDED.items():
        lines = [json.loads(line) for line in open(f"{recorded}/openapi-v3-{file}.jsonl")]
        docs[path] = next(l["response"]["body"] for l in lines if l["n"] and "components" in (l["response"]["body"] or {}) or l["n"] and file == "version")
        for name, schema in docs[path].get("components", {}).get("schemas", {}).items():
            if name in SPECIAL: continue
            structs[name] = openapi_struct(schema)
            if schema.get("x-kubernetes-map-type") == "atomic": atomic.add(name)
            for kind in schema.get("x-kubernetes-group-version-kind", []):
                if not name.startswith(META): kinds[(kind["group"], kind["version"], kind["kind"])] = name
    known = set(structs)
    rust = read_k8s_openapi(openapi_root)
    metrics = "io.k8s.metrics.pkg.apis.metrics.v1beta1."
    for name in ("NodeMetrics", "PodMetrics", "ContainerMetrics"):
        fields = {}
        for _, field, base, _ in messages[metrics + name]:
            fields[camel(field)] = Field(camel(field), {"raw": "any"}.get(base, base), field != "metadata")
            fields[camel(field)].written = True
        if name != "ContainerMetrics":
            for extra in ("apiVersion", "kind"): fields[extra] = Field(extra, "s")
        rust[metrics + name] = fields
    wanted = []
    for path, resources in GROUPS.items():
        group, version = group_version(path)
        for kind, *_ in resources:
            found = [n for n in rust if n.endswith(f".{version}.{kind}") and (group.split(".")[0] in n.split("."))]
            assert len(found) == 1, (path, kind, found)
            kinds[(group, version, kind)] = found[0]
            wanted.append(found[0])
    for group, version, kind, name in (("authentication.k8s.io", "v1", "TokenRequest", "io.k8s.api.authentication.v1.TokenRequest"),
                                       ("policy", "v1", "Eviction", "io.k8s.api.policy.v1.Eviction"),
                                       ("autoscaling", "v1", "Scale", "io.k8s.api.autoscaling.v1.Scale")):
        kinds[(group, version, kind)] = name
        wanted.append(name)
    wanted += [n for n in (META + "DeleteOptions", META + "Status")]
    while wanted:
        name = wanted.pop()
        if name in structs: continue
        structs[name] = rust[name]
        for field in rust[name].values():
            ref = field.kind.lstrip("[{")
            if ref.startswith("#"): wanted.append(ref[1:])
    # list types of what was not recorded, from the comments of the messages
    for name, fields in structs.items():
        if name in known or name not in messages: continue
        by_plain = {plain(f.name): f for f in fields.values()}
        for _, rust_name, _, doc in messages[name]:
            field = by_plain.get(plain(rust_name))
            if not field: continue
            list_type = re.search(r"\+listType=(\w+)", doc)
            if list_type:
                keys = re.findall(r"\+listMapKey=(\w+)", doc)
                field.list_type = "map:" + ",".join(keys) if list_type.group(1) == "map" else list_type.group(1)
            if re.search(r"\+(mapType|structType)=atomic", doc): field.list_type = "atomic"
            strategy, key = re.search(r"\+patchStrategy=([\w,]+)", doc), re.search(r"\+patchMergeKey=(\w+)", doc)
            if strategy: field.patch = strategy.group(1).replace(",", "+") + (":" + key.group(1) if key else "")
    webhook = "io.k8s.api.admissionregistration.v1."
    for owner in ("MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"):
        structs[webhook + owner]["webhooks"].list_type, structs[webhook + owner]["webhooks"].patch = "map:name", "merge:name"
    atomic |= ATOMIC & (set(structs) - known)
    for name, fields in structs.items():
        short = name.rsplit(".", 1)[1]
        for field in fields.values():
            if f"{short}.{field.name}" in WRITTEN: field.written = True
            longer = ".".join(name.split(".")[-3:]) + "." + field.name
            field.pointer = bool({f"{short}.{field.name}", longer, "." + field.name} & POINTERS)
            if short.endswith("Condition") and field.kind == "time": field.written = True
            if f"{short}.{field.name}" in UNWRITTEN: field.written = False
            if field.kind in ("ios", "time", "micro", "q", "any") and field.required: field.written = True
    write_types(structs, kinds, atomic)
    write_protobuf(structs, kinds, messages)
    for path, resources in GROUPS.items():
        docs[path] = compose(path, resources, structs, kinds, atomic)
    for path, doc in docs.items():
        data = json.dumps(doc, separators=(",", ":")).encode()
        with open(os.path.join(OPENAPI, path.replace("/", "_") + ".json.gz"), "wb") as out:
            out.write(gzip.compress(data, 9, mtime=0))


def write_types(structs, kinds, atomic):
    out = [f"K {g}|{v}|{k}|{name}" for (g, v, k), name in sorted(kinds.items())]
    for name in sorted(structs):
        out.append(f"S {name}" + (" atomic" if name in atomic else ""))
        for _, field in sorted(structs[name].items()):
            flags = ("r" if field.required else "") + ("e" if field.written else "") + ("p" if field.pointer else "")
            out.append("|".join([field.name, field.kind, flags, field.list_type, field.patch, field.default]).rstrip("|"))
    save("types.txt.gz", out)


# Messages that Go embeds: nested on the wire, flat in JSON.
EMBEDDED = {"LocalObjectReference", "DeviceConfiguration", "IngressRuleValue", "VolumeSource", "PersistentVolumeSource",
            "RuleWithOperations", "Rule", "ProbeHandler", "EphemeralContainerCommon"}


def write_protobuf(structs, kinds, messages):
    extra = {"io.k8s.apimachinery.pkg.apis.meta.v1.DeleteOptions", "io.k8s.apimachinery.pkg.apis.meta.v1.Preconditions"}
    lines, seen, queue = [], set(), sorted(set(kinds.values()) | extra)
    parents, lower = {}, {name.lower(): fields for name, fields in structs.items()}
    for (g, v, k), name in sorted(kinds.items()): lines.append(f"K {g}|{v}|{k}|{name}")
    while queue:
        name = queue.pop(0)
        if name in seen or name not in messages: continue
        seen.add(name)
        fields = dict(lower.get(name.lower(), {}))
        for parent in parents.get(name, []): fields.update(parent)
        by_plain = {plain(f): f for f in fields}
        lines.append("M " + name)
        for tag, rust, base, _ in sorted(messages[name]):
            ref = base.lstrip("[{")
            if ref.startswith("#"):
                target = ref[1:]
                inner = messages.get(target, [])
                if len(inner) == 1 and inner[0][1] == "items" and inner[0][2] == "[s" and target.rsplit(".", 1)[1] in ("ExtraValue", "Verbs"):
                    base, ref = base[:-len(ref)] + "w", "w"
                else: queue.append(target)
            json_name = by_plain.get(plain(rust))
            if json_name is None and base.startswith("#") and base.rsplit(".", 1)[1] in EMBEDDED:
                parents.setdefault(base[1:], []).append(fields)
                json_name = ""
            elif json_name is None and fields: continue  # newer than the served version
            elif json_name is None: json_name = camel(rust)
            lines.append(f"{tag}|{json_name}|{base}")
    save("protobuf.txt.gz", lines)


def save(name, lines):
    with open(os.path.join(HERE, name), "wb") as out: out.write(gzip.compress(("\n".join(lines) + "\n").encode(), 9, mtime=0))


# ---- documents of groups that were not recorded --------------------------------------------------------------------------

def schema_of(kind):
    if kind.startswith("["): return {"type": "array", "items": schema_of(kind[1:])}
    if kind.startswith("{"): return {"type": "object", "additionalProperties": schema_of(kind[1:])}
    special = {v: k for k, v in SPECIAL.items() if v != "any"}
    if kind in special: return {"$ref": "#/components/schemas/" + special[kind]}
    if kind.startswith("#"): return {"$ref": "#/components/schemas/" + kind[1:]}
    return {"s": {"type": "string"}, "b": {"type": "boolean"}, "i32": {"type": "integer", "format": "int32"},
            "i64": {"type": "integer", "format": "int64"}, "d": {"type": "number", "format": "double"},
            "y": {"type": "string", "format": "byte"}, "any": {"type": "object"}}[kind]


ZERO = {"s": "", "b": False, "i32": 0, "i64": 0}


def property_of(field):
    schema = schema_of(field.kind)
    if "$ref" in schema: schema = {"allOf": [schema]}
    if field.kind.startswith("#") and field.written: schema["default"] = {}
    if field.kind in ZERO and field.written: schema["default"] = ZERO[field.kind]
    if field.list_type:
        kind, _, keys = field.list_type.partition(":")
        schema["x-kubernetes-list-type" if field.kind.startswith("[") else "x-kubernetes-map-type"] = kind
        if keys: schema["x-kubernetes-list-map-keys"] = keys.split(",")
    if field.patch:
        strategy, _, key = field.patch.partition(":")
        schema["x-kubernetes-patch-strategy"] = strategy.replace("+", ",")
        if key: schema["x-kubernetes-patch-merge-key"] = key
    return schema


def compose(path, resources, structs, kinds, atomic):
    group, version = group_version(path)
    schemas, wanted = {}, [kinds[(group, version, r[0])] for r in resources] + [META + "DeleteOptions", META + "Status", META + "ListMeta"]
    gvk = {name: [{"group": g, "kind": k, "version": v}] for (g, v, k), name in kinds.items()}
    special = {v: k for k, v in SPECIAL.items() if v != "any"}
    schemas[META + "Patch"] = {"type": "object"}
    while wanted:
        name = wanted.pop()
        if name in schemas: continue
        schema = {"type": "object", "properties": {n: property_of(f) for n, f in sorted(structs[name].items())}}
        required = [n for n, f in sorted(structs[name].items()) if f.required]
        if required: schema["required"] = required
        if name in gvk: schema["x-kubernetes-group-version-kind"] = gvk[name]
        if name in atomic: schema["x-kubernetes-map-type"] = "atomic"
        schemas[name] = schema
        for field in structs[name].values():
            ref = field.kind.lstrip("[{")
            if ref.startswith("#"): wanted.append(ref[1:])
            if ref in special:
                schemas[special[ref]] = {"q": {"oneOf": [{"type": "string"}, {"type": "number"}]},
                                         "ios": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]}}.get(
                                             ref, {"type": "string", "format": "date-time"} if ref != "dur" else {"type": "string"})
    paths = {}
    for kind, plural, namespaced, subresources, verbs in resources:
        name = kinds[(group, version, kind)]
        if verbs != C:
            schemas[name + "List"] = {"type": "object", "required": ["items"], "properties": {
                "apiVersion": {"type": "string"}, "kind": {"type": "string"},
                "items": {"type": "array", "items": {"default": {}, "allOf": [{"$ref": "#/components/schemas/" + name}]}},
                "metadata": {"default": {}, "allOf": [{"$ref": f"#/components/schemas/{META}ListMeta"}]}},
                "x-kubernetes-group-version-kind": [{"group": group, "kind": kind + "List", "version": version}]}
        add_paths(paths, path, (group, version, kind), plural, namespaced, subresources, verbs, name)
    return {"openapi": "3.0.0", "info": {"title": "Kubernetes", "version": "1.34"}, "paths": dict(sorted(paths.items())),
            "components": {"schemas": dict(sorted(schemas.items())),
                           "securitySchemes": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}}}}


def add_paths(paths, path, gvk, plural, namespaced, subresources, verbs, name):
    group, version, kind = gvk
    tag = group.split(".")[0] + "_" + version
    title = "".join(part.capitalize() for part in group.replace(".k8s.io", "").split(".")) + version.capitalize()
    scope = "Namespaced" if namespaced else ""

    def content(ref, types): return {t: {"schema": {"$ref": "#/components/schemas/" + ref}} for t in types}
    answers = ["application/json", "application/vnd.kubernetes.protobuf", "application/yaml"]

    def query(*names):
        kinds_of = {"force": "boolean", "limit": "integer", "timeoutSeconds": "integer", "watch": "boolean",
                    "allowWatchBookmarks": "boolean", "gracePeriodSeconds": "integer", "orphanDependents": "boolean"}
        return [{"name": n, "in": "query", "schema": {"type": kinds_of.get(n, "string"), "uniqueItems": True}} for n in names]

    def operation(verb, id_verb, ref, parameters=(), body=None, codes=("200",), suffix="", body_types=("*/*",)):
        result = {"tags": [tag], "operationId": id_verb + title + scope + kind + suffix}
        if parameters: result["parameters"] = query(*parameters)
        if body: result["requestBody"] = {"content": content(body, body_types), "required": True}
        result["responses"] = {**{c: {"content": content(ref, answers)} for c in codes}, "401": {}}
        result["x-kubernetes-action"] = verb
        result["x-kubernetes-group-version-kind"] = {"group": group, "version": version, "kind": kind}
        return result
    write = ("dryRun", "fieldManager", "fieldValidation")
    lists = ("allowWatchBookmarks", "continue", "fieldSelector", "labelSelector", "limit", "resourceVersion",
             "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds", "watch")
    patches = ("application/apply-patch+yaml", "application/json-patch+json", "application/merge-patch+json",
               "application/strategic-merge-patch+json")
    place = [{"name": "namespace", "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}] if namespaced else []
    pretty = query("pretty")
    base = f"/{path}/namespaces/{{namespace}}/{plural}" if namespaced else f"/{path}/{plural}"
    collection = {}
    if verbs != C: collection["get"] = operation("list", "list", name + "List", lists)
    if verbs != "get": collection["post"] = operation("post", "create", name, write, name, ("200", "201", "202"))
    if verbs == A: collection["delete"] = operation("deletecollection", "deletecollection", META + "Status", ("dryRun",) + lists, META + "DeleteOptions")
    collection["parameters"] = place + pretty
    paths[base] = collection
    if verbs != C and namespaced:
        paths[f"/{path}/{plural}"] = {"get": operation("list", "list", name + "List", lists, suffix="ForAllNamespaces"), "parameters": pretty}
    if verbs == C: return
    for sub in [""] + subresources:
        item = {"get": operation("get", "read", name, suffix=sub.capitalize())}
        if verbs == A:
            item["put"] = operation("put", "replace", name, write, name, ("200", "201"), sub.capitalize())
            item["patch"] = operation("patch", "patch", name, write + ("force",), META + "Patch", ("200", "201"), sub.capitalize(), patches)
            if not sub: item["delete"] = operation("delete", "delete", META + "Status",
                                                   ("dryRun", "gracePeriodSeconds", "orphanDependents", "propagationPolicy"),
                                                   META + "DeleteOptions", ("200", "202"))
        item["parameters"] = [{"name": "name", "in": "path", "required": True, "schema": {"type": "string", "uniqueItems": True}}] + place + pretty
        paths[base + "/{name}" + ("/" + sub if sub else "")] = item


if __name__ == "__main__":
    main()
