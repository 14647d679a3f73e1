"""What the decorators keep, and what is read from the source text."""

import ast
import textwrap
import unittest
from typing import Annotated  # noqa: F401  (named in an annotation)

import headgate
from headgate._sandbox.declare import declare


def read(**files):
    return declare([{"path": p.replace("__", "/") + ".py", "text": textwrap.dedent(t)} for p, t in files.items()])


def problems(text):
    return [(d["error"]["line"], d["error"]["message"]) for d in read(models__m=text) if "error" in d]


class Decorators(unittest.TestCase):
    def test_they_return_the_function_and_keep_what_they_say(self):
        @headgate.model(columns=["a"], key=["a"], materialization_strategy="APPEND")
        @headgate.python("3.11", pip={"pandas": "2.2.2"})
        @headgate.resources(memory="1GiB", timeout="5m")
        def double(x=headgate.Model("x", columns=["a"], filter="a > 1"), p=headgate.Parameter("p")):
            return x * 2

        self.assertEqual(double(21), 42)
        said = headgate.declaration(double)
        self.assertEqual(
            (said.kind, said.name, said.columns, said.key, said.materialization_strategy, said.python, said.pip),
            ("model", "double", ["a"], ["a"], "APPEND", "3.11", {"pandas": "2.2.2"}),
        )
        self.assertEqual((said.memory, said.timeout), ("1GiB", "5m"))

    def test_without_parentheses(self):
        @headgate.model
        def a():
            return 1

        @headgate.expectation
        def b():
            return True

        self.assertEqual((headgate.declaration(a).name, headgate.declaration(b).kind), ("a", "expectation"))

    def test_they_refuse_what_the_server_refuses(self):
        for wrong in (
            lambda: headgate.model(internet_access=True),
            lambda: headgate.model(cache_strategy="NONE"),
            lambda: headgate.resources(memory_swap="1G"),
            lambda: headgate.Model("t", ref="main"),
        ):
            with self.assertRaisesRegex(TypeError, "is not supported: "):
                wrong()

    def test_inputs_are_found_in_defaults_and_annotations(self):
        def f(a=headgate.Model("a"), b: "Annotated[int, headgate.Parameter('b')]" = None, c=3, d=headgate.Secret("D")): ...

        found = headgate.inputs(f)
        self.assertEqual([(k, v.name) for k, v in found.items()], [("a", "a"), ("b", "b"), ("d", "D")])

    def test_an_annotation_that_does_not_resolve_hides_no_other(self):
        def f(a: "Annotated[int, headgate.Model('a')]", b: "Gone | None" = 1) -> "also gone": ...  # noqa: F722, F821

        self.assertEqual([(k, v.name) for k, v in headgate.inputs(f).items()], [("a", "a")])

    def test_a_plain_function_has_no_declaration(self):
        self.assertIsNone(headgate.declaration(len))


class Static(unittest.TestCase):
    def test_everything_that_can_be_said(self):
        found = read(
            models__m='''
            import headgate as hg
            from headgate import Model, python as py

            @hg.model("mart.x", columns=("a", "b"), key=["a"], materialization_strategy="APPEND")
            @py("3.11", pip={"pandas": "2.2.2"})
            @hg.resources(memory=1024, timeout="5m")
            def build(t=Model("trips", columns=["a"], filter="a > 1"), *, all=hg.Model("ns.all"), p=hg.Parameter("q"), n=3):
                return t

            @hg.expectation()
            def fine(t=Model("base.x", columns=["*"])):
                return True
            '''
        )
        self.assertEqual(
            found,
            [
                {
                    "path": "models/m.py", "line": 8, "function": "build", "kind": "model", "name": "mart.x",
                    "columns": ["a", "b"], "key": ["a"], "strategy": "APPEND", "python": "3.11",
                    "packages": {"pandas": "2.2.2"}, "memory": "1024B", "timeout": "5m",
                    "inputs": [
                        {"param": "t", "table": "trips", "columns": ["a"], "filter": "a > 1"},
                        {"param": "all", "table": "ns.all"},
                    ],
                    "params": [{"param": "p", "name": "q"}],
                },
                {
                    "path": "models/m.py", "line": 12, "function": "fine", "kind": "expectation", "name": "fine",
                    "inputs": [{"param": "t", "table": "base.x"}],
                },
            ],
        )  # fmt: skip

    def test_types_strategies_limits_and_secrets(self):
        (found,) = read(
            models__m='''
            import headgate

            @headgate.model(columns={"day": "DATE", "n": None}, materialization_strategy="overwrite_partitions",
                            partitioned_by="hour(ts), location", cache_strategy="DEFAULT", internet_access=False)
            @headgate.resources(cpus=0.5, pids=20)
            def m(key=headgate.Secret("API_KEY"), p=headgate.Parameter(param_name="p")):
                pass
            '''
        )
        self.assertEqual(found, {
            "path": "models/m.py", "line": 7, "function": "m", "kind": "model", "name": "m", "columns": ["day", "n"],
            "types": {"day": "DATE"}, "strategy": "OVERWRITE_PARTITIONS", "partitioned_by": ["hour(ts)", "location"],
            "cpus": 0.5, "pids": 20, "params": [{"param": "p", "name": "p"}], "secrets": [{"param": "key", "name": "API_KEY"}],
        })  # fmt: skip

    def test_without_a_strategy_the_server_decides(self):
        (found,) = read(models__m="import headgate\n@headgate.model()\ndef m(): pass")
        self.assertNotIn("strategy", found)
        (found,) = read(models__m="import headgate\n@headgate.model(materialize=False)\ndef m(): pass")
        self.assertEqual(found["strategy"], "NONE")

    def test_problems_have_lines(self):
        m = "import headgate\n"
        cases = {
            "X = 'a'\n@headgate.model(name=X)\ndef f(): pass": (3, "@model: name must be a literal, since declarations are read without running the file"),
            "@headgate.model(nam='x')\ndef f(): pass": (2, "@model has no argument 'nam' (did you mean 'name'?)"),
            "@headgate.modle()\ndef f(): pass": (2, "headgate has no decorator 'modle' (did you mean 'model'?)"),
            "@headgate.model(columns='abc')\ndef f(): pass": (2, "@model: columns must be a list of column names, not 'abc'"),
            "@headgate.model(key=['a', 'a'])\ndef f(): pass": (2, "@model: key must be a list without repetitions, not ['a', 'a']"),
            "@headgate.model()\ndef f(a): pass": (3, 'argument a needs a default: headgate.Model("table"), headgate.Parameter("name") or headgate.Secret("NAME")'),
            "@headgate.model()\ndef f(a=headgate.Model()): pass": (3, "Model(...) of argument a needs a name"),
            "@headgate.model()\ndef f(a=headgate.Modle('x')): pass": (3, "headgate has no input 'Modle' (did you mean 'Model'?)"),
            "@headgate.model()\ndef f(*a): pass": (3, "argument *a cannot be an input; name the inputs"),
            "@headgate.model()\ndef f(a=headgate.Model('x'), /): pass": (3, "argument a is positional-only; inputs are passed by name"),
            "@headgate.expectation(severity='mild')\ndef f(): pass": (2, "@expectation: severity must be one of error, warn, not 'mild'"),
            "@headgate.model()\n@headgate.expectation()\ndef f(): pass": (4, "function f is declared both as a model and as an expectation"),
            "@headgate.python('3.11')\ndef f(): pass": (3, "function f has @python but neither @model nor @expectation"),
            "@headgate.model(**x)\ndef f(): pass": (2, "@model: **arguments cannot be read; write them out"),
            "def g():\n  @headgate.model()\n  def f(): pass": (4, "function f is not at the top level of the file, so it cannot be found"),
            "@headgate.model()\nclass F: pass": (3, "class F cannot be a model or an expectation; decorate a function"),
            "def f(): pass\n@headgate.model()\ndef f(): pass": (4, "function f is defined a second time (first on line 2)"),
            "@headgate.model(columns={'a': 1})\ndef f(): pass": (2, "@model: columns must be a dict of column names to types such as {\"day\": \"DATE\"}, not {'a': 1}"),
            "@headgate.model(materialization_strategy='VIEW')\ndef f(): pass": (2, "@model: materialization_strategy must be one of NONE, REPLACE, APPEND, OVERWRITE_PARTITIONS, not 'VIEW'"),
            "@headgate.model(partitioned_by='bucket(16, id)')\ndef f(): pass": (2, "@model: partitioned_by must be columns, or year, month, day or hour of one, such as \"hour(ts), location\", not 'bucket(16, id)'"),
            "@headgate.model()\n@headgate.python('3.11', pip={'bauplan': '1'})\ndef f(): pass": (3, "@python: pip must be without 'bauplan', which is the package headgate and always there, not {'bauplan': '1'}"),
            "@headgate.model()\n@headgate.resources(cpus=0)\ndef f(): pass": (3, "@resources: cpus must be a number such as 0.5 or 2, not 0"),
            "@headgate.model()\ndef f(s=headgate.Secret()): pass": (3, "Secret(...) of argument s needs a name"),
            "@headgate.model(internet_access=True)\ndef f(): pass": (2, "@model: internet_access is not supported: functions have no network; bring what the model would fetch into a source table"),
            "@headgate.model(cache_strategy='NONE')\ndef f(): pass": (2, "@model: cache_strategy is not supported: results are kept by content (code, inputs, environment, parameters), so there is no strategy NONE: a push with -o no-cache runs everything again"),
            "@headgate.model(overwrite_filter='a > 1')\ndef f(): pass": (2, "@model: overwrite_filter is not supported: OVERWRITE_PARTITIONS replaces the partitions (values of partitioned_by) that occur in what the model returns, so it takes no filter"),
            "@headgate.model()\ndef f(t=headgate.Model('t', connector='dremio')): pass": (3, "Model(...) of argument t: connector is not supported: inputs are tables of the lake; there are no connectors to other engines: import the data with `headgate import`"),
            "@headgate.model()\n@headgate.extras('ai')\ndef f(): pass": (3, "@extras is not supported: it installs parts of the package bauplan, which is not used here; declare packages by @python(pip={...})"),
            "@headgate.model()\nasync def f(): pass": (3, "function f is async; declare an ordinary function"),
        }  # fmt: skip
        for text, want in cases.items():
            with self.subTest(text):
                self.assertEqual(problems(m + text), [want])

    def test_all_problems_of_all_files(self):
        found = read(
            models__a="import headgate\n@headgate.model(x=1)\ndef f(a): pass",
            models__b="def broken(:\n",
            models__c="import headgate\n@headgate.model()\ndef fine(): pass",
        )
        self.assertEqual([(d["path"], d["line"], "error" in d) for d in found], [
            ("models/a.py", 2, True), ("models/a.py", 3, True), ("models/b.py", 1, True), ("models/c.py", 3, False),
        ])  # fmt: skip

    def test_text_that_is_no_program(self):
        deep = "(" * 5000 + ")" * 5000
        for text, line in [("x = 1\nif:\n", 2), ("a\0b", 1), (deep, 1), ("-" * 200_000 + "1", 1)]:
            with self.subTest(text[:10]):
                (found,) = declare([{"path": "models/m.py", "text": text}])
                self.assertEqual((found["error"]["line"], found["error"]["file"]), (line, "models/m.py"))

    def test_reading_runs_nothing(self):
        read(models__m="raise SystemExit('ran')")

    def test_somebody_elses_decorators_are_left_alone(self):
        self.assertEqual(read(models__m="import other\n@other.model()\ndef f(a): pass"), [])

    def test_local_imports(self):
        entry = "import headgate\n{}\n@headgate.model()\ndef f(): pass\n"
        files = {
            "models/lib.py": "from . import deep",
            "models/deep.py": "def g():\n  import shared.tools",
            "shared/tools.py": "",
            "shared/__init__.py": "",
            "models/json.py": "",
            "other.py": "",
        }
        for line, want in {
            "import lib": ["models/deep.py", "models/lib.py", "shared/__init__.py", "shared/tools.py"],
            "from models.lib import x": ["models/deep.py", "models/lib.py", "shared/__init__.py", "shared/tools.py"],
            "from .deep import g": ["models/deep.py", "shared/__init__.py", "shared/tools.py"],
            "from .. import other": ["other.py"],
            "from models import json": ["models/json.py"],
            "import json": [],  # the standard library wins
            "import pyarrow": [],
            "import importlib; importlib.import_module('other')": ["other.py"],
            "import m": [],
        }.items():
            with self.subTest(line):
                sources = [{"path": "models/m.py", "text": entry.format(line)}]
                sources += [{"path": path, "text": text} for path, text in files.items()]
                (found,) = declare(sources)
                self.assertEqual(found.get("local_files", []), want)


class Sources(unittest.TestCase):
    def test_what_is_installed_is_the_whole_package(self):
        import os
        import re

        from .harness import SDK

        with open(os.path.join(SDK, "pyproject.toml")) as source:
            text = source.read()
        listed = re.search(r"packages = \[(\"headgate\".*)\]", text).group(1).replace('"', "").split(", ")
        there = [
            os.path.relpath(directory, SDK).replace(os.sep, ".")
            for directory, _, files in os.walk(os.path.join(SDK, "headgate"))
            if "__init__.py" in files
        ]
        self.assertEqual(sorted(listed), sorted(there))
        self.assertIn('dependencies = []', text)
        self.assertIn('version = "' + headgate.__version__ + '"', text)
        self.assertTrue(os.path.exists(os.path.join(SDK, "headgate", "py.typed")))

    def test_the_sdk_is_valid_for_the_oldest_python(self):
        import os

        from .harness import SDK

        for directory, _, files in os.walk(os.path.join(SDK, "headgate")):
            for name in files:
                if name.endswith(".py"):
                    with open(os.path.join(directory, name)) as source:
                        ast.parse(source.read(), feature_version=(3, 9))
