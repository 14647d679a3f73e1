"""Functions on a checkout, in this interpreter: local_run and python -m headgate."""

import contextlib
import datetime
import io
import json
import os
import subprocess
import sys
import tempfile
import textwrap
import unittest
import warnings
from unittest import mock

import pyarrow as pa
import pyarrow.parquet as pq

import headgate
from headgate import _settings
from headgate.__main__ import main
from headgate._sandbox.errors import UserError

from .harness import SDK

FILES = {
    "headgate.yaml": """
        parameters:
          day: {type: date, default: 2024-05-02}
          least: {type: float}
        """,
    "models/enrich.py": """
        import headgate
        from lib import doubled

        @headgate.model(columns={"id": "BIGINT", "twice": "BIGINT"})
        def enriched(t=headgate.Model("trips", columns=["miles", "id"], filter="day = $day"), day=headgate.Parameter("day")):
            assert t.column_names == ["miles", "id"], t.column_names
            assert day.year == 2024
            return doubled(t)
        """,
    "models/lib.py": "def doubled(t):\n    return [{'id': i, 'twice': 2 * i} for i in t['id'].to_pylist()]\n",
    "models/top.sql": "-- headgate: name=mart.top params=[least]\nSELECT id FROM enriched WHERE twice >= getvariable('least')\n",
    "models/more.py": """
        import headgate, pyarrow as pa

        @headgate.model()
        def far(t=headgate.Model("mart.top")):
            return pa.table({"n": [t.num_rows]}).to_reader()

        @headgate.model()
        def keyed(key=headgate.Secret("API_KEY")):
            return [{"length": len(key)}]

        @headgate.expectation()
        def some_are_far(t=headgate.Model("far")):
            assert t["n"][0].as_py() > 2, "too few"
        """,
    "pipeline/bauplan_project.yml": "project:\n  id: a\nparameters:\n  n:\n    default: 2  # rows\n    type: int\n",
    "pipeline/few.sql": "SELECT id FROM trips LIMIT $n",
    "pipeline/models.py": """
        import bauplan
        from bauplan.standard_expectations import expect_column_no_nulls

        @bauplan.model(materialization_strategy="NONE")
        def fewer(t=bauplan.Model("few", filter="id >= $n"), zones=bauplan.Model("zones")):
            assert zones.column_names == ["zone"]
            return t
        """,
    ".venv/broken.py": "import headgate\n@headgate.model(\n",
}


class OnALake(unittest.TestCase):
    def setUp(self):
        made = tempfile.TemporaryDirectory()
        self.addCleanup(made.cleanup)
        self.root = os.path.realpath(made.name)
        for path, text in FILES.items():
            self.write(path, text)
        days = [datetime.date(2024, 5, 1 + i % 3) for i in range(9)]
        trips = pa.table({"id": list(range(9)), "miles": [float(i) for i in range(9)], "day": days, "rider": ["x"] * 9})
        self.table("trips", [trips.slice(0, 4), trips.slice(4)])
        self.table("bauplan/zones", [pa.table({"zone": ["a"]})], described=False)

    def write(self, path, text):
        full = os.path.join(self.root, path)
        os.makedirs(os.path.dirname(full), exist_ok=True)
        with open(full, "w") as out:
            out.write(textwrap.dedent(text))

    def table(self, name, parts, described=True):
        from headgate._sandbox.types import to_duckdb

        directory = os.path.join(self.root, "tables", name)
        os.makedirs(directory)
        files = []
        for number, part in enumerate(parts):
            # In the order of the parts, which is not that of their names.
            files.append({"file": f"{9 - number}.parquet"})
            pq.write_table(part, os.path.join(directory, files[-1]["file"]))
        if described:
            columns = [{"name": f.name, "type": to_duckdb(f.type), "nullable": True} for f in parts[0].schema]
            with open(os.path.join(directory, "table.json"), "w") as out:
                json.dump({"format": 1, "columns": columns, "parts": files, "key": []}, out)

    def run_local(self, *args, **more):
        return headgate.local_run(*args, lake=self.root, **more)

    def test_a_model_with_its_columns_filter_parameters_and_imports(self):
        for target in ("enriched", "models/enrich.py", "models/enrich.py:enriched"):
            self.assertEqual(self.run_local(target).to_pydict(), {"id": [1, 4, 7], "twice": [2, 8, 14]})
        self.assertEqual(self.run_local("enriched", params={"day": "2024-05-01"}).to_pydict()["id"], [0, 3, 6])
        self.assertNotIn("models.enrich", sys.modules)
        self.assertNotIn("lib", sys.modules)

    def test_an_edit_counts_at_once(self):
        self.run_local("enriched")
        self.write("models/lib.py", "def doubled(t):\n    return [{'id': 1, 'twice': 3}]\n")
        self.assertEqual(self.run_local("enriched").to_pylist(), [{"id": 1, "twice": 3}])

    def test_inputs_are_stored_or_computed(self):
        self.assertEqual(self.run_local("far", params={"least": 8}).to_pylist(), [{"n": 2}])
        self.table("mart/top", [pa.table({"id": [1]})])
        self.assertEqual(self.run_local("far").to_pylist(), [{"n": 1}])
        self.assertEqual(self.run_local("far", params={"least": 8}, upstream=True).to_pylist(), [{"n": 2}])

    def test_a_whole_lake_in_order(self):
        found = self.run_local(params={"least": 0}, secrets={"API_KEY": "hunter2"})
        names = list(found)
        self.assertEqual(sorted(names), ["enriched", "far", "few", "fewer", "keyed", "mart.top"])
        self.assertLess(names.index("enriched"), names.index("mart.top"))
        self.assertLess(names.index("mart.top"), names.index("far"))
        self.assertEqual(found["far"].to_pylist(), [{"n": 3}])
        self.assertEqual(found["keyed"].to_pylist(), [{"length": 7}])
        self.assertEqual(found["fewer"].num_rows, 0)  # of the rows 0 and 1, none is 2 or more

    def test_expectations(self):
        self.assertIs(self.run_local("some_are_far", params={"least": 0}), True)
        with self.assertRaisesRegex(AssertionError, "too few"):
            self.run_local("some_are_far", params={"least": 100})

    def test_a_pipeline_of_bauplan(self):
        self.assertEqual(self.run_local("few").num_rows, 2)
        self.assertEqual(self.run_local("fewer", params={"n": "5"}).num_rows, 0)
        self.assertEqual(self.run_local("few", params={"n": "5"}).num_rows, 5)
        self.assertNotIn("bauplan", sys.modules)

    def test_a_function_of_ones_own(self):
        @headgate.model(columns=["id", "missing"])
        def mine(t=headgate.Model("trips", columns=["id"])):
            return t.slice(0, 1)

        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            self.assertEqual(self.run_local(mine).to_pylist(), [{"id": 0}])
        self.assertEqual([str(w.message) for w in caught], ["model mine: no column 'missing'"])
        with self.assertRaisesRegex(UserError, "no column 'missing'"):
            self.run_local(mine, strict=True)

    def test_what_is_wrong_is_said(self):
        cases = {
            ("far", ()): "parameter 'least' has no value; give params=",
            ("far", (("least", "much"),)): "parameter 'least': 'much' is not a float such as 0.5",
            ("keyed", ()): "secret 'API_KEY' has no value",
            ("nothing", ()): "the lake has no model or expectation 'nothing' .it has enriched, ",
            ("models/gone.py", ()): "there is no file models/gone.py in the lake ",
            ("models/more.py", ()): "models/more.py has several functions: far, keyed, some_are_far; name one",
            ("models/more.py:gone", ()): "models/more.py has no function 'gone'",
        }
        for (target, params), want in cases.items():
            with self.subTest(target), self.assertRaisesRegex(UserError, want):
                self.run_local(target, params=dict(params))
        os.remove(os.path.join(self.root, "tables/trips/8.parquet"))
        with self.assertRaisesRegex(UserError, "part 8.parquet of table trips is not in this checkout"):
            self.run_local("enriched")
        self.write("models/m.py", "import headgate\n@headgate.model()\ndef m(t=headgate.Model('tripz')): pass")
        with self.assertRaisesRegex(UserError, "m reads table 'tripz', which is neither in tables/ nor made by a model"):
            self.run_local("m")
        self.write("models/m.py", "import headgate\n@headgate.model()\ndef m(t=headgate.Model('m')): pass")
        with self.assertRaisesRegex(UserError, "models need each other: m -> m"):
            self.run_local("m", upstream=True)
        self.write("models/m.py", "import headgate\n@headgate.model(nam='x')\ndef m(): pass")
        with self.assertRaisesRegex(UserError, "@model has no argument 'nam'"):
            self.run_local("enriched")
        with tempfile.TemporaryDirectory() as empty, self.assertRaisesRegex(UserError, "is in no lake"):
            headgate.local_run("x", lake=empty)

    def test_without_duckdb(self):
        with mock.patch.dict(sys.modules, {"duckdb": None}):
            with self.assertRaisesRegex(UserError, "the filter of input trips needs duckdb in this interpreter: pip install duckdb"):
                self.run_local("enriched")
            self.write("models/m.py", "import headgate\n@headgate.model()\ndef m(t=headgate.Model('trips', columns=['id'])): return t")
            self.assertEqual(self.run_local("m").num_rows, 9)

    def command(self, *argv):
        out, err = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(["run", *argv, "--lake", self.root])
        return code, out.getvalue(), err.getvalue()

    def test_the_command(self):
        code, out, _ = self.command("enriched", "--rows", "2")
        self.assertEqual((code, out), (0, "enriched: 3 rows\nid  twice\n1   2\n4   8\n... 1 more\n"))
        code, out, _ = self.command("models/more.py", "far", "--param", "least=8", "--json")
        self.assertEqual((code, json.loads(out)), (0, {
            "table": "models/more.py", "rows": 1, "columns": [{"name": "n", "type": "BIGINT"}], "data": [{"n": 2}],
        }))  # fmt: skip
        self.assertEqual(self.command("some_are_far", "--param", "least=100"), (1, "", "not met: too few\n"))
        self.assertEqual(self.command("far", "--param", "least")[0], 2)
        code, _, err = self.command("far")
        self.assertEqual(code, 1)
        self.assertIn("--param least=...", err)
        with mock.patch.dict(os.environ, {"API_KEY": "12345"}):
            self.assertIn('"data": [{"length": 5}]', self.command("keyed", "--secret", "API_KEY", "--json")[1])
        self.write("models/m.py", "import headgate\n@headgate.model()\ndef m(): raise KeyError('x')")
        code, _, err = self.command("m")
        self.assertEqual(code, 1)
        self.assertIn("KeyError: 'x'", err)

    def test_the_module_runs_as_a_program(self):
        done = subprocess.run(
            [sys.executable, "-m", "headgate", "run", "models/enrich.py"],
            cwd=self.root, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": SDK},
        )  # fmt: skip
        self.assertEqual((done.returncode, done.stderr), (0, ""))
        self.assertIn("models/enrich.py: 3 rows\n", done.stdout)


class Settings(unittest.TestCase):
    def test_parameters(self):
        found = _settings.parameters(
            textwrap.dedent("""
            # the policy
            branches:
              main: {gate: required}
            grants:
              - {who: [a, b], push: ["x/*"]}
              - who: [c]
            parameters:
              day:   {type: date, default: 2001-02-28}   # with a comment
              "n":
                type: int
                description: |
                  default: 9
                default: 3
              on: {type: bool, default: false}
              name: {type: str, default: "00#7, a: b"}
              quoted: {type: str, default: 'it''s'}
              at: {type: timestamp, default: 2001-02-28T10:00:00.25+02:00}
              rate: {default: 0.5}
              free: {}
              key: {type: secret, default: |, key: x}
            tables:
              t: {key: [id]}
            """),
            "headgate.yaml",
        )
        self.assertEqual({name: p.default for name, p in found.items()}, {
            "day": datetime.date(2001, 2, 28), "n": 3, "on": False, "name": "00#7, a: b", "quoted": "it's",
            "at": datetime.datetime(2001, 2, 28, 8, 0, 0, 250000), "rate": 0.5, "free": None, "key": None,
        })  # fmt: skip
        self.assertEqual(found["key"].type, "secret")

    def test_what_cannot_be_followed(self):
        for text, want in {
            "parameters: [a]": "headgate.yaml:1: parameters must be a mapping",
            "parameters: {a: 3}": "parameter 'a' must be a mapping",
            "parameters: {a: {type: number}}": "parameter 'a' has the type 'number'",
            "parameters: {a: {type: int, default: x}}": "the default of parameter 'a': 'x' is not an int",
            "parameters: {a: {type: str, default: [x]}}": "the default of parameter 'a' cannot be read here",
        }.items():
            with self.subTest(text), self.assertRaisesRegex(_settings.SettingsError, want):
                _settings.parameters(text, "headgate.yaml")

    def test_values(self):
        for text, kind, want in [
            ("007", "str", "007"), ("True", "bool", True), ("-5", "int", -5), (".5", "float", 0.5), ("3", "float", 3.0),
            ("2001-02-28T10:00", "timestamp", datetime.datetime(2001, 2, 28, 10)), ("2001-02-28T10:00:00Z", "timestamp", datetime.datetime(2001, 2, 28, 10)),
            ("3", "", 3), ("true", "", True), ("007", "", "007"), ("x", "", "x"), ("[1]", "", "[1]"),
        ]:  # fmt: skip
            self.assertEqual(_settings.convert(text, kind), want)
        for text, kind in [("1.0", "int"), ("yes", "bool"), ("nan", "float"), ("2001-02-29", "date"), ("10:00", "timestamp"), ("2001-02-28T10:00:00.1234567", "timestamp")]:
            with self.assertRaises(ValueError):
                _settings.convert(text, kind)


if __name__ == "__main__":
    unittest.main()
