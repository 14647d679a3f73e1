"""A client of the conformance suite on dulwich: a request a line, an answer a line."""

import json
import sys

from dulwich import porcelain
from dulwich.client import HTTPUnauthorized, SendPackResult, get_transport_and_path
from dulwich.errors import GitProtocolError, HangupException
from dulwich.objects import Tag
from dulwich.repo import Repo


class Quiet:
    """Takes what the porcelain prints, so that it is not taken for an answer."""

    def write(self, data):
        return len(data)

    def flush(self):
        pass


QUIET = Quiet()


def transport(r):
    extra = {}
    if r.get("password"):
        extra = {"username": r["user"], "password": r["password"]}
    return get_transport_and_path(r["url"], **extra)


def refs(r):
    client, path = transport(r)
    found = client.get_refs(path) or {}
    return {"refs": {name.decode(): oid.decode() for name, oid in found.items()}}


def clone(r):
    client, path = transport(r)
    branch = r["branch"].encode() if r.get("branch") else None
    repo = client.clone(
        path,
        r["dir"],
        mkdir=True,
        bare=r.get("bare", False),
        branch=branch,
        checkout=not r.get("bare", False),
        depth=r.get("depth") or None,
        progress=lambda _: None,
    )
    repo.close()
    return {}


def matches(pattern, name):
    """Returns what * stands for, "" for an equal name, None for no match."""
    if b"*" not in pattern:
        return b"" if pattern == name else None
    before, after = pattern.split(b"*", 1)
    if name.startswith(before) and name.endswith(after) and len(name) >= len(before) + len(after):
        return name[len(before) : len(name) - len(after)]
    return None


def fetch(r):
    client, path = transport(r)
    specs = [s.lstrip("+").encode().split(b":") for s in r["refspecs"]]
    if r.get("tags"):
        specs.append([b"refs/tags/*", b"refs/tags/*"])
    with Repo(r["dir"]) as repo:
        moved = {}

        def wants(remote, **_):
            moved.clear()
            for name, oid in remote.items():
                for source, target in specs:
                    star = matches(source, name)
                    if star is not None and not name.endswith(b"^{}"):
                        moved[target.replace(b"*", star)] = oid
            if r.get("depth"):
                return list(set(moved.values()))
            return [oid for oid in set(moved.values()) if oid not in repo.object_store]

        client.fetch(path, repo, determine_wants=wants, progress=lambda _: None, depth=r.get("depth") or None)
        for name, oid in moved.items():
            repo.refs[name] = oid
    return {}


def push(r):
    client, path = transport(r)
    rejected = {}
    with Repo(r["dir"]) as repo:
        targets = {}

        def update(remote):
            targets.clear()
            for spec in r["refspecs"]:
                force, plain = spec.startswith("+"), spec.lstrip("+")
                source, target = (part.encode() for part in plain.split(":"))
                new = repo.refs[source] if source else b"0" * 40
                old = remote.get(target)
                if source and old and not force and not ancestor(repo, old, new):
                    rejected[target.decode()] = "non-fast-forward"
                    continue
                targets[target] = new
            return targets

        result = client.send_pack(path, update, repo.generate_pack_data, progress=lambda _: None)
        for name, reason in (result.ref_status or {}).items():
            if reason:
                rejected[name.decode()] = reason
    return {"rejected": rejected}


def ancestor(repo, old, new):
    if old not in repo.object_store:
        return False
    if isinstance(repo[new], Tag) or isinstance(repo[old], Tag):
        return old == new
    return any(entry.commit.id == old for entry in repo.get_walker(include=[new]))


for line in sys.stdin:
    r = json.loads(line)
    try:
        answer = {"refs": refs, "clone": clone, "fetch": fetch, "push": push}[r["op"]](r)
    except Exception as e:  # whatever a library throws is its answer
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
