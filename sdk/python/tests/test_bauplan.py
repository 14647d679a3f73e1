"""Pipelines written for Bauplan: the package by its other name, and schemas as classes."""

import textwrap
import unittest

import pyarrow as pa

from headgate._sandbox.declare import declare

from .harness import Case


def read(**files):
    return declare([{"path": p.replace("__", "/") + ".py", "text": textwrap.dedent(t)} for p, t in files.items()])


def functions(**files):
    return [d for d in read(**files) if d.get("kind") != "schema"]


class Declared(unittest.TestCase):
    def test_every_way_to_import(self):
        for line, prefix in {
            "import bauplan": "bauplan.",
            "import bauplan as bp": "bp.",
            "from bauplan import model, python, expectation, Model, Parameter": "",
            "from bauplan import *": "",
            "import bauplan.standard_expectations": "bauplan.",
            "import bauplan\nfrom bauplan.standard_expectations import expect_column_no_nulls": "bauplan.",
        }.items():
            with self.subTest(line):
                text = f"""{line}
@{prefix}model(columns=["*"], materialization_strategy="NONE")
@{prefix}python("3.11")
def source_scan(data={prefix}Model("bauplan.taxi_zones", columns=["*"], filter="a = 'b'"), p={prefix}Parameter("p")):
    return data
"""
                (found,) = declare([{"path": "pipeline/models.py", "text": text}])
                self.assertEqual(found, {
                    "path": "pipeline/models.py", "line": text[: text.index("def ")].count("\n") + 1, "function": "source_scan",
                    "kind": "model", "name": "source_scan", "strategy": "NONE", "python": "3.11",
                    "inputs": [{"param": "data", "table": "bauplan.taxi_zones", "filter": "a = 'b'"}],
                    "params": [{"param": "p", "name": "p"}],
                })  # fmt: skip

    def test_a_file_by_the_packages_name_is_refused(self):
        text = "import bauplan\n@bauplan.model()\ndef m(): return []"
        for path in ("models__bauplan", "bauplan"):
            found = read(models__m=text, **{path: ""})
            message = found[-1]["error"]["message"]
            self.assertIn("bauplan.py cannot be imported: bauplan is the package headgate", message)
        # A directory of that name is nobody's module, and the name headgate does not reach the file.
        self.assertNotIn("error", read(models__m=text, bauplan__x="")[0])
        self.assertNotIn("error", read(models__m=text.replace("bauplan", "headgate"), bauplan="")[0])

    def test_schemas(self):
        found = read(
            models__m='''
            from __future__ import annotations
            from typing import Annotated, Optional
            import typing
            import bauplan
            import pyarrow as pa
            from . import shared
            from .shared import Zone as Place

            class Trip(bauplan.TableSchema):
                """Trips as they are read."""
                pickup: bauplan.TimestampMicro
                miles: bauplan.Float64 | None
                note: Annotated[Optional[bauplan.String], bauplan.TableField(doc="free text")]
                route: bauplan.Any
                paid: typing.Union[bauplan.Bool, None]

            class Clean(Trip):
                day: bauplan.Date32

            @bauplan.model(materialization_strategy="REPLACE")
            @bauplan.python("3.11")
            def clean(
                trips: Annotated[pa.Table, bauplan.Model("bauplan.trips", projection_schema=Trip, filter="miles > 0")],
                zones: Annotated[pa.Table, bauplan.Model("zones", projection_schema=Place)],
                more: "Annotated[pa.Table, bauplan.Model('zones', projection_schema=shared.Zone)]",
                rate: Annotated[float, bauplan.Parameter("rate")],
            ) -> Annotated[pa.Table, Clean]:
                return trips
            ''',
            models__shared="import bauplan as b\nclass Zone(b.TableSchema):\n    id: b.Int64\n    name: b.String | None\n",
        )
        (clean,) = [d for d in found if d["function"] == "clean"]
        self.assertEqual(clean, {
            "path": "models/m.py", "line": 23, "function": "clean", "kind": "model", "name": "clean", "strategy": "REPLACE",
            "python": "3.11", "columns": ["pickup", "miles", "note", "route", "paid", "day"],
            "types": {"pickup": "TIMESTAMP", "miles": "DOUBLE", "note": "VARCHAR", "paid": "BOOLEAN", "day": "DATE"},
            "not_null": ["pickup", "route", "day"],
            "inputs": [
                {"param": "trips", "table": "bauplan.trips", "columns": ["pickup", "miles", "note", "route", "paid"], "filter": "miles > 0"},
                {"param": "zones", "table": "zones", "columns": ["id", "name"]},
                {"param": "more", "table": "zones", "columns": ["id", "name"]},
            ],
            "params": [{"param": "rate", "name": "rate"}],
            "local_files": ["models/shared.py"],
        })  # fmt: skip
        schemas = [(d["path"], d["name"], d.get("not_null")) for d in found if d["kind"] == "schema"]
        self.assertEqual(schemas, [
            ("models/m.py", "Trip", ["pickup", "route"]), ("models/m.py", "Clean", ["pickup", "route", "day"]),
            ("models/shared.py", "Zone", ["id"]),
        ])  # fmt: skip

    def test_problems_of_schemas(self):
        head = "from typing import Annotated\nimport bauplan, pyarrow as pa\nclass S(bauplan.TableSchema):\n    a: bauplan.Int64\n"
        cases = {
            "class T(bauplan.TableSchema):\n    a: int": (6, "field a of T has no field type (there are "),
            "class T(bauplan.TableSchema): pass": (5, "schema T has no fields"),
            "@bauplan.model()\ndef f() -> Annotated[pa.Table, Gone]: pass": (6, "the return annotation of f names a schema that is no class"),
            "@bauplan.model(columns=['a'])\ndef f() -> Annotated[pa.Table, S]: pass": (6, "function f declares its columns twice"),
            "@bauplan.model()\ndef f(t: Annotated[pa.Table, bauplan.Model('t', projection_schema=Nope)]): pass":
                (6, "Model(...) of argument t names a schema that is no class"),
            "@bauplan.model()\ndef f(t: Annotated[pa.Table, bauplan.Model('t')] = None): pass":
                (6, "argument t has both an annotated input and a default"),
            "@bauplan.model()\ndef f(t=bauplan.Model('t', columns=['a'], projection_schema=S)): pass":
                (6, "Model(...) of argument t takes columns or projection_schema, not both"),
            "@bauplan.model()\ndef f(t: pa.Table): pass": (6, "argument t needs a default"),
        }  # fmt: skip
        for text, (line, want) in cases.items():
            with self.subTest(text):
                errors = [d["error"] for d in read(models__m=head + text) if "error" in d]
                self.assertEqual([e["line"] for e in errors], [line], errors)
                self.assertTrue(errors[0]["message"].startswith(want), errors)


    def test_classes_that_are_made_to_be_hard_to_read(self):
        deep = "import bauplan\nclass S(bauplan.TableSchema):\n    a: bauplan.Int64" + " | None" * 3000
        (found,) = read(models__m=deep)
        self.assertIn("error", found)
        # Files that import everything from each other, many times.
        stars = "from .a import *\nfrom .b import *\nfrom .c import *\n" * 50
        use = "from typing import Annotated\nimport bauplan\n@bauplan.model()\ndef m() -> Annotated[int, S]: pass\n"
        found = read(models__a=stars, models__b=stars, models__c=stars, models__m=use + stars)
        self.assertIn("names a schema that is no class", found[-1]["error"]["message"])
        schema = "import bauplan\nclass S(bauplan.TableSchema):\n    a: bauplan.Int64\n"
        found = read(models__a=stars, models__b=stars + schema, models__c=stars, models__m=use + stars)
        self.assertEqual(found[-1]["columns"], ["a"])


class Run(Case):
    def test_one_package_by_two_names(self):
        code = (
            "import headgate, bauplan, bauplan.standard_expectations as b, headgate.standard_expectations as h\n"
            "from bauplan.standard_expectations import expect_column_no_nulls\n"
            "from bauplan import *\n"
            "import importlib, sys\n"
            "def m():\n"
            "    import bauplan as again\n"
            "    same = [again is headgate, b is h, expect_column_no_nulls is h.expect_column_no_nulls, Model is headgate.Model,\n"
            "            headgate.__spec__.name == 'headgate', h.__spec__.name == 'headgate.standard_expectations',\n"
            "            importlib.import_module('bauplan._sandbox.errors') is sys.modules['headgate._sandbox.errors']]\n"
            "    return [{'same': all(same)}]\n"
        )
        self.assertEqual(self.output(self.run_model(code)).to_pylist(), [{"same": True}])

    def test_what_it_has_not(self):
        error = self.run_model("import bauplan.client\ndef m(): pass").error
        self.assertEqual(error["message"], "ModuleNotFoundError: No module named 'bauplan.client'")
        error = self.run_model("import bauplan\ndef m(): return bauplan.Client()").error
        self.assertEqual(
            error["message"], "AttributeError: headgate has no Client: a function has no network, and outside of one git is the client"
        )

    TYPED = (
        "from typing import Annotated, Optional\nimport bauplan\nimport pyarrow as pa\n"
        "class In(bauplan.TableSchema):\n    a: bauplan.Int64\n    b: Optional[bauplan.String]\n"
        "class Out(bauplan.TableSchema):\n    b: Optional[bauplan.String]\n    a: bauplan.Int64\n"
        "@bauplan.model()\n"
        "def m(t: Annotated[pa.Table, bauplan.Model('t', projection_schema=In)]) -> Annotated[pa.Table, Out]:\n    return t\n"
    )

    def typed(self, table):
        inputs = [{"name": "t", "param": "t", "files": [self.parquet("t.parquet", table)], "columns": [], "select": ["a", "b"]}]
        return self.run_model(self.TYPED, inputs=inputs)

    def test_a_typed_model(self):
        reply = self.typed(pa.table({"a": [1], "b": pa.array([None], pa.string())}))
        self.assertEqual(self.output(reply).to_pylist(), [{"b": None, "a": 1}])
        self.assertEqual(self.output(reply).column_names, ["b", "a"])

    def test_an_input_that_is_not_what_its_schema_says(self):
        for table, want in (
            (pa.table({"a": pa.array([1], pa.int32()), "b": ["x"]}), "input t: column 'a' is INTEGER, but In says BIGINT"),
            (pa.table({"a": [1, None], "b": ["x", "y"]}), "input t: column 'a' has 1 NULLs, but In does not say Optional"),
        ):
            self.assertEqual(self.typed(table).error["message"], want)


if __name__ == "__main__":
    unittest.main()
