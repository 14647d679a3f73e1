"""Install a package that nobody allowed."""

import subprocess
import sys

import headgate


@headgate.model(name="pip_install")
def pip_install(readings=headgate.Model("readings")):
    subprocess.run([sys.executable, "-m", "pip", "install", "--retries=0", "left-pad"], capture_output=True)
    return readings
