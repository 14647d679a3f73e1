"""A client of the conformance suite on pygit2, that is libgit2: a request a line, an answer a line."""

import json
import os
import re
import sys
import tempfile

import pygit2

# The key is that of the program that other clients start.
with open(os.environ["GIT_SSH"], encoding="utf-8") as script:
    KEY = re.search(r'-i "([^"]+)"', script.read()).group(1)


class Callbacks(pygit2.RemoteCallbacks):
    def __init__(self, r):
        super().__init__()
        self.r = r
        self.rejected = {}

    def credentials(self, url, username, allowed):
        if self.r.get("password"):
            return pygit2.UserPass(self.r["user"], self.r["password"])
        if allowed & pygit2.credentials.GIT_CREDENTIAL_SSH_KEY:
            return pygit2.Keypair(username or "git", KEY + ".pub", KEY, "")
        return pygit2.Username("git")

    def certificate_check(self, certificate, valid, host):
        return valid  # by ~/.ssh/known_hosts

    def push_update_reference(self, name, message):
        if message:
            self.rejected[name] = message


def remote(repo, r):
    """Returns a remote that has no refs of its own."""
    for old in repo.remotes:
        if old.name == "asked":
            repo.remotes.delete("asked")
    return repo.remotes.create("asked", r["url"], "+refs/none:refs/none")


def refs(r):
    with tempfile.TemporaryDirectory() as path:
        repo = pygit2.init_repository(path, bare=True)
        found = remote(repo, r).ls_remotes(callbacks=Callbacks(r))
    return {"refs": {ref["name"]: str(ref["oid"]) for ref in found}}


def clone(r):
    repo = pygit2.clone_repository(
        r["url"], r["dir"], bare=r.get("bare", False), checkout_branch=r.get("branch"), callbacks=Callbacks(r)
    )
    repo.free()
    return {}


def fetch(r):
    repo = pygit2.Repository(r["dir"])
    specs = list(r["refspecs"])
    if r.get("tags"):
        specs.append("refs/tags/*:refs/tags/*")
    remote(repo, r).fetch(specs, callbacks=Callbacks(r))
    repo.free()
    return {}


def push(r):
    repo = pygit2.Repository(r["dir"])
    callbacks = Callbacks(r)
    remote(repo, r).push(r["refspecs"], callbacks=callbacks)
    repo.free()
    return {"rejected": callbacks.rejected}


for line in sys.stdin:
    r = json.loads(line)
    try:
        answer = {"refs": refs, "clone": clone, "fetch": fetch, "push": push}[r["op"]](r)
    except Exception as e:  # whatever a library throws is its answer
        answer = {"error": f"{type(e).__name__}: {e}"}
    print(json.dumps(answer), flush=True)
