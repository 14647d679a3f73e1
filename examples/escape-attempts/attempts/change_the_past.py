"""Change the readings themselves: write to a part, remove it, put another in its place."""

import os

import headgate


@headgate.model(name="change_the_past")
def change_the_past(readings=headgate.Model("readings")):
    for directory, _, files in os.walk("/in"):
        for part in (os.path.join(directory, name) for name in files if name.endswith(".parquet")):
            for change in (lambda: open(part, "wb"), lambda: os.unlink(part), lambda: os.rename(part, part + ".old")):
                try:
                    change()
                except OSError:
                    pass
    return readings
