"""Never end, whatever one is told."""

import signal

import headgate


@headgate.model(name="endless")
def endless():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    while True:
        pass
