"""Values and exceptions that lie, fail or never end when they are looked at: a clean error, whatever they do."""

import subprocess

from .harness import Case

HEAD = "import headgate\nimport pyarrow as pa\n"


class Returned(Case):
    def refused(self, body, want, log=""):
        reply = self.run_model(HEAD + body)
        self.assertIsNotNone(reply.error, reply.answer)
        self.assertIn(want, reply.error["message"])
        self.assertEqual(reply.files, {})
        self.assertNotIn("ran", reply.log)
        return reply

    def test_an_object_that_claims_to_be_a_table(self):
        for claimed in ("pa.Table", "pa.RecordBatchReader", "list", "dict"):
            self.refused(
                f"class Liar:\n    __class__ = property(lambda self: {claimed})\ndef m(): return Liar()",
                "model m returned a models.Liar; return a pyarrow Table",
            )

    def test_nothing_of_a_pickle_is_run(self):
        bomb = "class Bomb:\n    def __reduce__(self): return (print, ('ran',))\n"
        self.refused(bomb + "def m(): return Bomb()", "returned a models.Bomb")
        self.refused(bomb + "import pickle\ndef m(): return pickle.dumps(Bomb())", "returned a bytes")
        reply = self.refused(bomb + "def m(): return [{'a': Bomb()}]", "column 'a' has no one type")
        self.assertNotIn("ran", reply.log)

    def test_streams_that_are_none(self):
        for body, want in {
            "return 42": "that is no table",
            "raise RuntimeError('no stream today')": "no stream today",
            "raise SystemExit(3)": "sys.exit(3)",
            "return __import__('ctypes').pythonapi": "that is no table",
            "return pa.schema([]).__arrow_c_schema__()": "that is no table",
        }.items():
            with self.subTest(body):
                self.refused(f"class S:\n    def __arrow_c_stream__(self, requested_schema=None):\n        {body}\ndef m(): return S()", want)

    def test_what_is_shown_is_short_and_cannot_fail(self):
        self.refused("class K:\n    __hash__ = lambda self: 1\n    def __repr__(self): raise SystemExit\ndef m(): return [{K(): 1}]", "the key <")
        reply = self.refused("class K(tuple):\n    def __repr__(self): return 'x' * (1 << 24)\ndef m(): return [{K(): 1}]", "the key ")
        self.assertLess(len(str(reply.answer)), 10_000)
        self.refused("class M(type):\n    @property\n    def __module__(cls): raise ValueError\n    __name__ = 5\nclass X(metaclass=M): pass\ndef m(): return X()", "returned a ")

    def test_recursion(self):
        self.refused("def m(): return m()", "RecursionError")
        self.refused("def m():\n    d = {}\n    d['a'] = d\n    return d", "returned a dict")

    def test_a_generator_is_no_table(self):
        self.refused("def m():\n    while True: yield {'a': 1}", "returned a generator; return a pyarrow Table")

    def test_a_stream_that_fails_half_way(self):
        self.refused(
            "def batches():\n    yield pa.record_batch({'a': [1]})\n    raise OSError('gone')\n"
            "def m(): return pa.RecordBatchReader.from_batches(pa.schema([('a', pa.int64())]), batches())",
            "gone",
        )

    def test_what_never_ends_is_left_to_the_time_limit(self):
        self.write("models/m.py", HEAD + "def m():\n    while True: pass")
        order = {"op": "py-model", "path": self.root, "module": "models/m.py", "function": "m"}
        with self.assertRaises(subprocess.TimeoutExpired):
            self.order(order, timeout=3)

    def test_a_list_that_holds_itself(self):
        # It must not become a table, and it must not hang; that it may end the process is the sandbox's to tell.
        self.write("models/m.py", HEAD + "def m():\n    x = []\n    x.append(x)\n    return [{'a': x}]")
        order = {"op": "py-model", "path": self.root, "module": "models/m.py", "function": "m"}
        try:
            self.assertIsNotNone(self.order(order).error)
        except AssertionError as exc:
            self.assertIn("no answer, exit -11", str(exc))


class ImportedAhead(Case):
    def test_packages_that_fail_when_they_are_imported_ahead(self):
        """They are the business of a function that imports them, and of no other."""
        for body in ("raise ValueError('numpy.dtype size changed')", "raise SystemExit(3)", "raise KeyboardInterrupt", "import gone", "1 / 0"):
            with self.subTest(body):
                self.write("../packages/pandas.py", body)
                ahead = f"import os, sys\nsys.path.insert(0, {self._dir.name!r} + '/packages')\nos.environ['HEADGATE_PREIMPORT'] = 'pandas'"
                order = {"op": "py-expect", "path": self.root, "module": "verifiers/e.py", "function": "e", "inputs": []}
                self.write("verifiers/e.py", "def e(): return True")
                self.assertEqual(self.order(order, ahead).answer["checks"], [{"name": "e", "violations": 0}])
                self.write("verifiers/e.py", "def e():\n    import pandas\n    return True")
                self.assertEqual(self.order(order, ahead).error["kind"], "python")


class Raised(Case):
    def test_exceptions_that_cannot_be_shown(self):
        for body in (
            "class E(Exception):\n    def __str__(self): raise SystemExit\ndef m(): raise E",
            "class E(Exception):\n    def __str__(self): raise KeyboardInterrupt\ndef m(): raise E",
            "class E(Exception):\n    __traceback__ = property(lambda self: 1 / 0)\n    __cause__ = property(lambda self: 1 / 0)\ndef m(): raise E",
            "class E(Exception):\n    __class__ = property(lambda self: 1 / 0)\ndef m(): raise E",
            "class E(SystemExit):\n    code = property(lambda self: 1 / 0)\ndef m(): raise E",
            "class E(MemoryError):\n    def __str__(self): raise MemoryError\ndef m(): raise E",
        ):
            with self.subTest(body):
                error = self.run_model(HEAD + body).error
                self.assertIn(error["kind"], ("python", "memory"))
                self.assertTrue(error["message"])

    def test_a_message_of_any_size(self):
        error = self.run_model(HEAD + "def m(): raise ValueError('x' * (1 << 26))").error
        self.assertLess(len(error["message"]), 5_000)

    def test_the_harness_cannot_be_impersonated(self):
        body = "from headgate._sandbox.errors import UserError\nclass E(UserError):\n    def to_json(self): return 1\ndef m(): raise E('data', 'x')"
        self.assertEqual(self.run_model(HEAD + body).error["kind"], "python")

    def test_standard_streams_that_are_gone(self):
        for body in ("import sys\ndef m():\n    sys.stdout = None\n    return [{'a': 1}]", "import os\ndef m():\n    os.close(1)\n    os.close(2)\n    return [{'a': 1}]"):
            self.assertEqual(self.output(self.run_model(body)).to_pylist(), [{"a": 1}])


class Verdicts(Case):
    def test_truth_is_a_bool(self):
        for body, want in {
            "class bool_:\n    def __bool__(self): return True\ndef e(): return bool_()": "returned ",
            "class T:\n    def as_py(self): return True\ndef e(): return T()": "return True or False, or assert",
            "class T:\n    def __repr__(self): raise SystemExit\ndef e(): return T()": "returned <",
            "def e(): return [1] * 10_000_000": "returned [1, 1, 1",
        }.items():
            with self.subTest(body):
                error = self.run_expectation(HEAD + body).error
                self.assertIn(want, error["message"])
                self.assertLess(len(error["message"]), 300)

    def test_an_assertion_whose_text_fails(self):
        body = "class T:\n    def __str__(self): raise SystemExit\ndef e():\n    assert False, T()\n"
        (check,) = self.run_expectation(HEAD + body).answer["checks"]
        self.assertEqual(check["violations"], 1)
        self.assertTrue(check["message"].startswith("verifiers/e.py:6: assert False"), check)
