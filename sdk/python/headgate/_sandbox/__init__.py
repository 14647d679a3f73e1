"""The harness around a user's function inside a sandbox.

``python -m headgate._sandbox`` reads one order (JSON) from standard input up to
end of file and answers with frames on the standard output it was started with.
It knows nothing of how the sandbox is made, and of the lake only what the order
says.
"""
