"""One expectation over many cases: each is judged as if it were alone."""

import pyarrow as pa

from .harness import Case

TEXT = """import random
import headgate

@headgate.expectation()
def e(t=headgate.Model("t")):
    n = t["n"].to_pylist()
    assert n != [13], "unlucky"
    if n == [14]:
        raise ValueError("broken")
    if n == [15]:
        raise SystemExit(3)
    return random.random() > 0.8 and n != [16]
"""


class Cases(Case):
    def test_each_case_has_its_check(self):
        self.write("verifiers/e.py", TEXT)
        cases = []
        for n in range(12, 18):
            path = self.parquet(f"{n}.parquet", pa.table({"n": [n]}))
            cases.append([{"name": "t", "param": "t", "files": [path], "columns": []}])
        order = {"op": "py-expect", "path": self.root, "module": "verifiers/e.py", "function": "e", "cases": cases}
        checks = self.order(order).answer["checks"]
        # random() begins with 0.844 in each of them.
        self.assertEqual([c["violations"] for c in checks], [0, 1, 0, 0, 1, 0])
        self.assertEqual([bool(c.get("error")) for c in checks], [False, False, True, True, False, False])
        self.assertEqual(checks[1]["message"], "unlucky")
        self.assertIn("broken", checks[2]["error"]["message"])

    def test_what_cannot_be_loaded_is_one_error(self):
        self.write("verifiers/e.py", "raise ImportError('gone')")
        path = self.parquet("t.parquet", pa.table({"n": [1]}))
        case = [{"name": "t", "param": "t", "files": [path], "columns": []}]
        order = {"op": "py-expect", "path": self.root, "module": "verifiers/e.py", "function": "e", "cases": [case, case]}
        self.assertIn("gone", self.order(order).error["message"])
