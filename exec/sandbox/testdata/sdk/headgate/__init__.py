"""The harness of the sandbox tests."""
