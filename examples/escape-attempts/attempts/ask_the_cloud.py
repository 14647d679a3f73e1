"""Ask the cloud's metadata service for the server's credentials."""

import urllib.request

import headgate


@headgate.model(name="ask_the_cloud")
def ask_the_cloud():
    try:
        token = urllib.request.urlopen("http://169.254.169.254/latest/meta-data/", timeout=2).read()
    except OSError as error:
        token = str(error)
    return [{"token": token}]
