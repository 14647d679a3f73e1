import subprocess
import sys
import urllib.request

import headgate


@headgate.model(name="live_weather")
def live_weather(airports=headgate.Model("airports", columns=["iata"])):
    try:
        urllib.request.urlopen("http://203.0.113.80/weather", timeout=2)
    except OSError as e:
        print("no internet:", e)
    # Perhaps a package helps.
    try:
        subprocess.run([sys.executable, "-m", "pip", "install", "--retries=0", "weather"], timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as e:
        print("no pip:", e)
    return airports
