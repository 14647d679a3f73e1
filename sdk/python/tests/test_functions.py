"""Models and expectations run by the harness, as the server runs them."""

import unittest

import pyarrow as pa
import pyarrow.parquet as pq

from .harness import Case

HEAD = "import headgate\nimport pyarrow as pa\n"


class Models(Case):
    def flights(self):
        return pa.table({"id": pa.array([1, 2, 3], pa.int32()), "origin": ["ZRH", None, "AMS"], "delay": [1.5, 2.5, None]})

    def input(self, table=None, param="t", **more):
        table = self.flights() if table is None else table
        path = self.parquet(f"{param}.parquet", table)
        return {"name": "flights", "param": param, "files": [path], "columns": [], **more}

    def test_a_table_in_and_a_table_out(self):
        reply = self.run_model(
            HEAD + "@headgate.model()\ndef m(t=headgate.Model('flights')):\n    print('hello')\n    return t.slice(1)",
            inputs=[self.input()],
        )
        self.assertEqual(self.output(reply).to_pylist(), self.flights().slice(1).to_pylist())
        self.assertEqual(reply.answer["rows"], 2)
        self.assertEqual(
            [(c["name"], c["type"]) for c in reply.answer["columns"]],
            [("id", "INTEGER"), ("origin", "VARCHAR"), ("delay", "DOUBLE")],
        )
        self.assertEqual(reply.log, "hello\n")

    def test_parts_are_one_table_with_the_selected_columns_in_order(self):
        parts = [self.parquet(f"{n}.parquet", self.flights().slice(n, 1)) for n in range(3)]
        reply = self.run_model(
            HEAD + "def m(t): return t",
            inputs=[{"name": "flights", "param": "t", "files": parts, "columns": [], "select": ["delay", "id"]}],
        )
        self.assertEqual(self.output(reply).to_pydict(), {"delay": [1.5, 2.5, None], "id": [1, 2, 3]})

    def test_an_unknown_column_is_named(self):
        reply = self.run_model(HEAD + "def m(t): return t", inputs=[self.input(select=["dealy"])])
        self.assertEqual(reply.error["message"], "input flights has no column 'dealy' (did you mean 'delay'?)")

    def test_parts_with_unlike_encodings_are_one_table(self):
        plain = self.parquet("0.parquet", pa.table({"a": ["x"], "n": pa.array([None], pa.null())}))
        coded = self.parquet("1.parquet", pa.table({"a": pa.array(["y"]).dictionary_encode(), "n": [1]}))
        reply = self.run_model(
            HEAD + "def m(t): return t", inputs=[{"name": "x", "param": "t", "files": [plain, coded], "columns": []}]
        )
        self.assertEqual(self.output(reply).to_pydict(), {"a": ["x", "y"], "n": [None, 1]})

    def test_a_table_without_parts_has_its_schema(self):
        types = {
            "b": ("BOOLEAN", pa.bool_()), "i": ("INTEGER", pa.int32()), "u": ("UBIGINT", pa.uint64()), "h": ("HUGEINT", pa.float64()),
            "d": ("DECIMAL(10,2)", pa.decimal128(10, 2)), "s": ("VARCHAR", pa.string()), "x": ("BLOB", pa.binary()),
            "day": ("DATE", pa.date32()), "t": ("TIME", pa.time64("us")), "ts": ("TIMESTAMP", pa.timestamp("us")),
            "ns": ("TIMESTAMP_NS", pa.timestamp("ns")), "tz": ("TIMESTAMP WITH TIME ZONE", pa.timestamp("us", tz="UTC")),
            "e": ("ENUM('a', 'it''s, ok)')", pa.string()), "l": ("INTEGER[][]", pa.list_(pa.list_(pa.int32()))), "f": ("DOUBLE[3]", pa.list_(pa.float64())),
            "st": ('STRUCT(a INTEGER, "b ""c" VARCHAR[])', pa.struct([("a", pa.int32()), ('b "c', pa.list_(pa.string()))])),
            "m": ("MAP(VARCHAR, STRUCT(v DOUBLE))", pa.map_(pa.string(), pa.struct([("v", pa.float64())]))),
            "odd": ("SOMETHING NEW(", pa.string()),
        }  # fmt: skip
        columns = [{"name": name, "type": duckdb, "nullable": True} for name, (duckdb, _) in types.items()]
        code = HEAD + "def m(t): return [{'n': t.num_rows, 'schema': t.schema.to_string()}]"
        reply = self.run_model(code, inputs=[{"name": "x", "param": "t", "files": [], "columns": columns}])
        want = pa.schema([pa.field(name, arrow) for name, (_, arrow) in types.items()])
        self.assertEqual(self.output(reply).to_pylist(), [{"n": 0, "schema": want.to_string()}])

    def test_a_filter_is_not_silently_ignored(self):
        reply = self.run_model(HEAD + "def m(t): return t", inputs=[self.input(filter="id > 1")])
        self.assertIn("unapplied filter", reply.error["message"])

    def test_parameters(self):
        reply = self.run_model(HEAD + "def m(p, q='default'): return [{'p': p, 'q': q}]", params={"p": "v"})
        self.assertEqual(self.output(reply).to_pylist(), [{"p": "v", "q": "default"}])

    def test_everything_that_may_be_returned(self):
        want = {"a": [1, 2], "b": ["x", None]}
        for text in [
            "pa.table({'a': [1, 2], 'b': ['x', None]})",
            "pa.record_batch({'a': [1, 2], 'b': ['x', None]})",
            "pa.table({'a': [1, 2], 'b': ['x', None]}).to_reader(max_chunksize=1)",
            "[{'a': 1, 'b': 'x'}, {'a': 2}]",
            "__import__('pandas').DataFrame({'a': [1, 2], 'b': ['x', None]})",
            "__import__('pandas').DataFrame({'a': [1, 2], 'b': ['x', None]}).set_index('a')",
            "__import__('polars').DataFrame({'a': [1, 2], 'b': ['x', None]})",
            "__import__('polars').LazyFrame({'a': [1, 2], 'b': ['x', None]})",
            "type('Stream', (), {'__arrow_c_stream__': lambda self, requested_schema=None: pa.table({'a': [1, 2], 'b': ['x', None]}).__arrow_c_stream__()})()",
        ]:
            with self.subTest(text):
                reply = self.run_model(HEAD + f"def m(): return {text}")
                self.assertEqual(self.output(reply).to_pydict(), want)
                self.assertEqual(reply.answer["rows"], 2)

    def test_types_are_kept(self):
        code = HEAD + "import decimal, datetime\ndef m(): return pa.table({'d': pa.array([decimal.Decimal('1.20')], pa.decimal128(9, 2)), 'i': pa.array([1], pa.int8()), 't': pa.array([datetime.datetime(2024, 1, 1)], pa.timestamp('ns')), 'n': pa.nulls(1), 'c': pa.array(['x']).dictionary_encode()})"
        out = self.output(self.run_model(code))
        self.assertEqual([str(f.type) for f in out.schema], ["decimal128(9, 2)", "int8", "timestamp[ns]", "int32", "string"])

    def test_what_cannot_be_a_table(self):
        for text, want in {
            "None": "model m returned nothing (None); return a pyarrow Table, a pandas or polars DataFrame, or a list of dicts",
            "42": "model m returned a int; return a pyarrow Table, a pandas or polars DataFrame, or a list of dicts",
            "[]": "model m returned an empty list, so its columns are unknown; return a pyarrow Table",
            "[1]": "model m returned a list whose item 0 is a int, not a dict",
            "[{1: 2}]": "model m: item 0 has the key 1; column names are texts",
            "pa.table([[1], [2]], names=['a', 'a'])": "model m returned two columns named 'a'",
            "pa.table([[1], [2]], names=['a', 'A'])": "model m returned columns 'a' and 'A', which SQL cannot tell apart",
            "pa.table({})": "model m returned a table without columns",
            "pa.table({'': [1]})": "model m returned a column without a name",
            "pa.table({'t': pa.array([1], pa.duration('s'))})": "model m: column 't' has type duration[s], which Parquet cannot hold; convert it to a number of seconds",
            "__import__('pandas').DataFrame([[1, 2]], columns=['a', 'a'])": "model m returned two columns named 'a'",
            "__import__('pandas').Series([1])": "model m returned a pandas.Series; return a pyarrow Table, a pandas or polars DataFrame, or a list of dicts",
        }.items():
            with self.subTest(text):
                reply = self.run_model(HEAD + f"def m(): return {text}")
                self.assertEqual((reply.error["kind"], reply.error["message"]), ("data", want))
                self.assertEqual(reply.files, {})

    def test_mixed_types_in_dicts_name_the_column(self):
        reply = self.run_model(HEAD + "def m(): return [{'a': 1}, {'a': 'x'}]")
        self.assertTrue(reply.error["message"].startswith("model m: column 'a' has no one type: "), reply.error)

    def test_declared_columns_come_first_if_all_are_there(self):
        code = HEAD + "@headgate.model(columns=['b', 'a'])\ndef m(): return pa.table({0!r})"
        for returned, want in {
            "{'a': [1], 'b': [2]}": ["b", "a"],
            "{'a': [1], 'c': [3], 'b': [2]}": ["b", "a", "c"],
            "{'a': [1], 'c': [3]}": ["a", "c"],  # the contract is for the server to judge
        }.items():
            with self.subTest(returned):
                out = self.output(self.run_model(code.replace("{0!r}", returned)))
                self.assertEqual(out.column_names, want)

    def test_a_stream_is_not_held_in_memory(self):
        code = HEAD + (
            "import resource\n"
            "schema = pa.schema([('a', pa.binary())])\n"
            "piece = pa.record_batch([pa.array([bytes(1 << 20)] * 8)], schema=schema)\n"
            "def batches():\n"
            "    for n in range(60): yield piece\n"
            "    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "    print(peak - before)\n"
            "def m():\n"
            "    global before\n"
            "    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
            "    return pa.RecordBatchReader.from_batches(schema, batches())\n"
        )
        reply = self.run_model(code)
        self.assertEqual(reply.answer["rows"], 480)
        self.assertLess(int(reply.log), 200_000, "KiB for 480 MiB in batches of 8 MiB")

    def test_small_batches_share_row_groups(self):
        code = HEAD + "def m(): return pa.table({'a': list(range(5000))}).to_reader(max_chunksize=1)"
        reply = self.run_model(code)
        meta = pq.read_metadata(pa.BufferReader(reply.files["output.parquet"]))
        self.assertEqual((meta.num_rows, meta.num_row_groups), (5000, 1))

    def test_random_numbers_are_the_same_at_every_run(self):
        code = "import random\nfirst = random.random()\ndef m(): return [{'a': first, 'b': random.random()}]"
        drawn = [self.output(self.run_model(code)).to_pylist() for _ in range(2)]
        self.assertEqual(drawn[0], drawn[1])

    def test_secrets_are_arguments_and_nothing_else(self):
        secret = 'hunter2 "quoted"\nsecond line'
        code = HEAD + (
            "import os\n"
            "def m(key):\n"
            "    if key != 'hunter2 \"quoted\"\\nsecond line' or 'hunter2' in str(os.environ): return [{'a': 0}]\n"
            "    return [{'a': 1}]\n"
        )
        reply = self.run_model(code, secrets={"key": secret})
        self.assertEqual(self.output(reply).to_pylist(), [{"a": 1}])
        for text in (
            "def m(key): raise ValueError(key)",
            "def m(key): raise ValueError([key])",
            "def m(key): raise ValueError('x' * 3990 + key)",  # where the message is cut in two
            "def m(key): return {key}",
            "def m(key): return [{key: 1}, 2]",
            "def m(key):\n    {}[key]\n",
        ):
            with self.subTest(text):
                reply = self.run_model(HEAD + text, secrets={"key": secret})
                for part in ("hunter2", "second line"):
                    self.assertNotIn(part, str(reply.answer))
                self.assertIsNotNone(reply.error)


class Failures(Case):
    def test_the_traceback_starts_at_the_users_file(self):
        self.write("models/lib.py", "def fail(x):\n    return x['nope']\n")
        text = HEAD + "from .lib import fail\n\ndef m():\n    return fail({})\n"
        reply = self.run_model(text)
        self.assertEqual(
            reply.error["traceback"],
            "Traceback (most recent call last):\n"
            '  File "models/m.py", line 6, in m\n'
            "    return fail({})\n" + self.carets(reply, "           ^^^^^^^^\n") + '  File "models/lib.py", line 2, in fail\n'
            "    return x['nope']\n" + self.carets(reply, "           ~^^^^^^^^\n") + "KeyError: 'nope'\n",
        )
        self.assertEqual(
            (reply.error["kind"], reply.error["message"], reply.error["file"], reply.error["line"]),
            ("python", "KeyError: 'nope'", "models/lib.py", 2),
        )

    def carets(self, reply, line):
        return line if line in reply.error["traceback"] else ""

    def test_no_path_of_the_machine_is_shown(self):
        reply = self.run_model(HEAD + "import json\ndef m(): return json.loads('{')")
        self.assertNotIn(self.root, str(reply.error))
        self.assertIn('File "json/__init__.py"', reply.error["traceback"])

    def test_a_failure_while_the_file_is_loaded(self):
        reply = self.run_model("import headgate\n1 / 0\n")
        self.assertEqual((reply.error["file"], reply.error["line"]), ("models/m.py", 2))
        self.assertTrue(reply.error["traceback"].startswith('Traceback (most recent call last):\n  File "models/m.py", line 2'))

    def test_a_syntax_error_in_an_imported_file(self):
        self.write("models/lib.py", "x = (\n")
        reply = self.run_model("import lib\ndef m(): pass")
        self.assertEqual(reply.error["file"], "models/lib.py")

    def test_out_of_memory_has_its_own_kind(self):
        for text in ("[0] * 2**60", "__import__('numpy').zeros(2**50)"):
            reply = self.run_model(HEAD + f"def m(): return {text}")
            self.assertEqual(reply.error["kind"], "memory")
            self.assertTrue(reply.error["message"].startswith("model m ran out of memory"), reply.error)

    def test_exits_are_failures(self):
        reply = self.run_model(HEAD + "import sys\ndef m(): sys.exit(0)")
        self.assertEqual(reply.error["message"], "model m called sys.exit(0); a function ends by returning")

    def test_a_missing_function(self):
        reply = self.run_model("x = 1")
        self.assertEqual(reply.error["message"], "models/m.py has no function 'm' after it was run")

    def test_an_error_whose_text_fails(self):
        code = "class E(Exception):\n  def __str__(self): raise ValueError\ndef m(): raise E()"
        self.assertIn("E", self.run_model(code).error["message"])

    def test_output_of_the_function_is_never_a_frame(self):
        code = HEAD + (
            "import os, subprocess, sys\nos.write(1, b'A\\0\\0\\0\\2{}')\n"
            "def m():\n    subprocess.run(['echo', 'from a child'])\n    sys.__stdout__.write('direct')\n    return [{'a': 1}]\n"
        )
        reply = self.run_model(code)
        self.assertEqual(self.output(reply).to_pylist(), [{"a": 1}])
        for part in ("from a child", "direct", "{}"):
            self.assertIn(part, reply.log)

    def test_standard_input_is_empty(self):
        self.assertEqual(self.output(self.run_model("import sys\ndef m(): return [{'a': sys.stdin.read()}]")).to_pylist(), [{"a": ""}])

    def test_threads_left_behind_do_not_hold_the_answer(self):
        code = "import threading\ndef m():\n    threading.Thread(target=threading.Event().wait).start()\n    return [{'a': 1}]"
        self.assertIsNone(self.run_model(code).error)

    def test_local_files_come_before_packages_and_after_the_standard_library(self):
        self.write("models/polars.py", "mine = True")
        self.write("models/pandas.py", "mine = True")
        self.write("models/json.py", "mine = True")
        code = "import polars, pandas, json\ndef m(): return [{'mine': [hasattr(x, 'mine') for x in (polars, pandas, json)]}]"
        self.assertEqual(self.output(self.run_model(code)).to_pylist(), [{"mine": [True, False, False]}])

    def test_imports_from_the_root_and_from_packages(self):
        self.write("shared/__init__.py", "a = 1")
        self.write("shared/deep/x.py", "from .. import a\nfrom . import y\nb = a + y.c")
        self.write("shared/deep/y.py", "c = 1")
        self.write("models/ns/__init__.py", "d = 5")
        self.write("models/ns/e.py", "f = 7")
        code = "from shared.deep import x\nfrom . import d\nimport models.ns.e as e\nimport e as e2\ndef m(): return [{'a': [x.b, d, e.f, e2.f]}]"
        reply = self.run_model(code, path="models/ns/m.py")
        self.assertEqual(self.output(reply).to_pylist(), [{"a": [2, 5, 7, 7]}])

    def test_without_pyarrow(self):
        self.write("models/m.py", "def m(): return []")
        order = {"op": "py-model", "path": self.root, "module": "models/m.py", "function": "m"}
        reply = self.order(order, preamble="import sys; sys.modules['pyarrow'] = None")
        self.assertIn("has no usable pyarrow", reply.error["message"])
        declared = {"op": "declare", "sources": [{"path": "models/m.py", "text": "import headgate\n@headgate.model()\ndef m(): pass"}]}
        reply = self.order(declared, preamble="import sys; sys.modules['pyarrow'] = None")
        self.assertEqual(reply.answer["declared"][0]["name"], "m")


class Expectations(Case):
    def check(self, text, **more):
        reply = self.run_expectation(HEAD + text, **more)
        self.assertIsNone(reply.error)
        (check,) = reply.answer["checks"]
        return check

    def test_passes(self):
        for value in ("True", "None", "__import__('numpy').bool_(True)", "pa.scalar(True)"):
            self.assertEqual(self.check(f"def e(): return {value}"), {"name": "e", "violations": 0})

    def test_fails(self):
        for value in ("False", "__import__('numpy').bool_(False)", "pa.scalar(False)"):
            check = self.check(f"def e(): return {value}")
            self.assertEqual(check, {"name": "e", "violations": 1, "message": "e returned False"})

    def test_an_assertion_speaks(self):
        self.assertEqual(self.check("def e(): assert 1 == 2, 'sums differ'")["message"], "sums differ")
        self.assertEqual(self.check("def e():\n    assert 1 == 2\n")["message"], "verifiers/e.py:4: assert 1 == 2")

    def test_sees_its_tables(self):
        path = self.parquet("t.parquet", pa.table({"a": [1, None]}))
        inputs = [{"name": "base.t", "param": "t", "files": [path], "columns": []}]
        self.assertEqual(self.check("def e(t): return t['a'].null_count == 0", inputs=inputs)["violations"], 1)

    def test_what_is_no_verdict_is_an_error(self):
        for value, shown in {"3": "3 (int)", "'no'": "'no' (str)", "pa.table({'a': [1]}).num_rows": "1 (int)"}.items():
            reply = self.run_expectation(HEAD + f"def e(): return {value}")
            self.assertEqual(reply.error["message"], f"expectation e returned {shown}; return True or False, or assert")

    def test_other_exceptions_are_errors(self):
        reply = self.run_expectation(HEAD + "def e(): raise KeyError('x')")
        self.assertEqual((reply.error["kind"], reply.error["line"]), ("python", 3))


class Frames(Case):
    def test_a_large_table_arrives_whole(self):
        code = HEAD + "import random\ndef m(): return pa.table({'a': [random.random() for _ in range(400000)]})"
        reply = self.run_model(code)
        self.assertEqual(pq.read_metadata(pa.BufferReader(reply.files["output.parquet"])).num_rows, 400000)


if __name__ == "__main__":
    unittest.main()
