"""Open a shell."""

import os

import headgate


@headgate.model(name="shell")
def shell():
    return [{"code": os.system("id > /tmp/who")}]
