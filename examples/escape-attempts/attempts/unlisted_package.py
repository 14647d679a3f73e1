"""Declare a package that the policy does not list."""

import headgate


@headgate.model(name="unlisted_package")
@headgate.python("3.11", pip={"left-pad": "1.0.0"})
def unlisted_package(readings=headgate.Model("readings")):
    return readings
