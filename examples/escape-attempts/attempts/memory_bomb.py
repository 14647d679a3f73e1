"""Take all memory."""

import headgate


@headgate.model(name="memory_bomb")
def memory_bomb():
    hoard = []
    while True:
        hoard.append(b"x" * (16 << 20))
