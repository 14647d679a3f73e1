"""The standard expectations: what each says of values, NULLs, NaNs and tables without rows."""

import decimal
import unittest

import pyarrow as pa

from headgate import standard_expectations as std
from headgate._sandbox import run

from .harness import Case

NAN = float("nan")


def column(values, kind=None):
    return pa.table({"a": pa.array(values, kind)})


class OneColumn(unittest.TestCase):
    def holds(self, name, cases, *args):
        for values, kind, want in cases:
            with self.subTest(expectation=name, values=values, kind=kind):
                got = getattr(std, f"expect_column_{name}")(column(values, kind), "a", *args)
                self.assertIs(got, want)

    def test_nulls(self):
        f64, null = pa.float64(), pa.null()
        rows = [  # values, no_nulls, some_null, all_null
            ([], f64, True, False, True),
            ([1.0, NAN], f64, True, False, False),  # NaN is a value
            ([1.0, None], f64, False, True, False),
            ([None, None], f64, False, True, True),
            ([None], null, False, True, True),
            ([], null, True, False, True),
        ]
        for name, at in (("no_nulls", 2), ("some_null", 3), ("all_null", 4)):
            self.holds(name, [(row[0], row[1], row[at]) for row in rows])

    def test_nulls_of_dictionaries_are_found_in_the_dictionary_too(self):
        coded = pa.DictionaryArray.from_arrays(pa.array([0, 1]), pa.array(["x", None]))
        self.assertFalse(std.expect_column_no_nulls(pa.table({"a": coded}), "a"))

    def test_uniqueness(self):
        rows = [  # values, all_unique; not_unique is its opposite
            ([], pa.int64(), True),
            ([1, 2, 3], pa.int64(), True),
            ([1, 2, 1], pa.int64(), False),
            ([1, None], pa.int64(), True),
            ([None, None], pa.int64(), False),
            ([NAN, 1.0], pa.float64(), True),
            ([NAN, NAN], pa.float64(), False),
            (["a", "A"], pa.string(), True),
            ([True, False, True], pa.bool_(), False),
        ]
        self.holds("all_unique", rows)
        self.holds("not_unique", [(values, kind, not unique) for values, kind, unique in rows])

    def test_accepted_values(self):
        self.holds("accepted_values", [
            ([], pa.string(), True), (["x", "y"], pa.string(), True), (["x", "z"], pa.string(), False),
            (["x", None], pa.string(), False), (["x"], pa.large_string(), True),
        ], ["x", "y"])  # fmt: skip
        self.holds("accepted_values", [(["x", None], pa.string(), True)], ["x", None])
        self.holds("accepted_values", [([1, 2], pa.int32(), True), ([3], pa.int8(), False), ([1.0], pa.float64(), True)], (1, 2))
        self.holds("accepted_values", [([NAN], pa.float64(), True), ([1.5], pa.float64(), False)], [NAN])
        self.holds("accepted_values", [([1], pa.int64(), False), ([], pa.int64(), True)], [])
        coded = pa.table({"a": pa.array(["x", "z"]).dictionary_encode()})
        self.assertFalse(std.expect_column_accepted_values(coded, "a", ["x"]))
        with self.assertRaisesRegex(TypeError, "accepted_values are not of column 'a's type int64|accepted_values are not of column 'a'"):
            std.expect_column_accepted_values(column([1]), "a", ["x"])

    def test_means(self):
        cases = [  # values, kind, > 2, >= 2, < 2, <= 2
            ([1, 3], pa.int64(), False, True, False, True),
            ([1, 4], pa.int32(), True, True, False, False),
            ([1.0, 2.0], pa.float64(), False, False, True, True),
            ([1.0, 5.0, None], pa.float64(), True, True, False, False),  # NULLs do not count
            ([NAN, 5.0], pa.float64(), False, False, False, False),  # NaN compares with nothing
            ([], pa.float64(), False, False, False, False),
            ([None], pa.int64(), False, False, False, False),
            ([2**62] * 4, pa.int64(), True, True, False, False),  # no wrap-around
            ([True, False], pa.bool_(), False, False, True, True),
            ([decimal.Decimal("2.50")], pa.decimal128(9, 2), True, True, False, False),
        ]
        names = ("mean_greater_than", "mean_greater_or_equal_than", "mean_smaller_than", "mean_smaller_or_equal_than")
        for at, name in enumerate(names, start=2):
            self.holds(name, [(case[0], case[1], case[at]) for case in cases], 2)

    def test_decimal_means_are_exact(self):
        cents = column([decimal.Decimal("0.01"), decimal.Decimal("0.02"), None], pa.decimal128(5, 2))
        self.assertIs(std.expect_column_mean_smaller_than(cents, "a", decimal.Decimal("0.0151")), True)
        self.assertIs(std.expect_column_mean_greater_than(cents, "a", decimal.Decimal("0.0149")), True)
        large = column([decimal.Decimal("9" * 38)] * 2, pa.decimal128(38, 0))
        self.assertIs(std.expect_column_mean_greater_or_equal_than(large, "a", decimal.Decimal("9" * 38)), True)
        tenths = column([decimal.Decimal("0.10")] * 3, pa.decimal128(5, 2))
        self.assertIs(std.expect_column_mean_greater_or_equal_than(tenths, "a", 0.1), True)
        self.assertIs(std.expect_column_mean_greater_than(tenths, "a", 0.1), False)
        empty = column([None], pa.decimal128(5, 2))
        self.assertIs(std.expect_column_mean_smaller_than(empty, "a", 1), False)

    def test_zero_has_one_sign(self):
        for kind in (pa.float32(), pa.float64()):
            zeros = column([0.0, -0.0], kind)
            self.assertIs(std.expect_column_all_unique(zeros, "a"), False)
            self.assertIs(std.expect_column_not_unique(zeros, "a"), True)
            self.assertIs(std.expect_column_accepted_values(zeros, "a", [0.0]), True)
            self.assertIs(std.expect_column_accepted_values(zeros, "a", [-0.0]), True)

    def test_a_reason_is_of_this_expectation(self):
        std.expect_column_no_nulls(column([None], pa.int64()), "a")
        self.assertNotEqual(std.last_failure(), "")
        said = run.check(lambda: False, {}, "later", {})
        self.assertEqual(said, {"name": "later", "violations": 1, "message": "later returned False"})

    def test_concatenation(self):
        def equal(a, b, target, separator=""):
            table = pa.table({"a": a, "b": b, "t": target})
            return std.expect_column_equal_concatenation(table, "t", ["a", "b"], separator)

        self.assertIs(equal(["x"], ["y"], ["xy"]), True)
        self.assertIs(equal(["x"], ["y"], ["x-y"], "-"), True)
        self.assertIs(equal(["x", "x"], ["y", "y"], ["xy", "yx"]), False)
        self.assertIs(equal([1], [2], ["12"]), True)
        self.assertIs(equal([1], [2], [12]), True)
        self.assertIs(equal(pa.array(["x"]).dictionary_encode(), ["y"], pa.array(["xy"], pa.large_string())), True)
        # A row without a concatenation, or without a target, is not compared.
        self.assertIs(equal(["x", None], ["y", "y"], ["xy", "?"]), True)
        self.assertIs(equal(["x"], ["y"], pa.array([None], pa.string())), True)
        self.assertIs(equal(pa.array([], pa.string()), pa.array([], pa.string()), pa.array([], pa.string())), True)

    def test_what_cannot_be_judged_is_no_verdict(self):
        with self.assertRaisesRegex(KeyError, "the table has no column 'dealy' .did you mean 'delay'"):
            std.expect_column_no_nulls(pa.table({"delay": [1]}), "dealy")
        for call in (
            lambda: std.expect_column_mean_greater_than(column(["x"]), "a", 1),
            lambda: std.expect_column_all_unique(column([[1]]), "a"),
            lambda: std.expect_column_equal_concatenation(column([[1]]), "a", ["a"]),
            lambda: std.expect_column_equal_concatenation(column(["x"]), "a", []),
        ):
            with self.assertRaises(TypeError):
                call()

    def test_a_record_batch_will_do(self):
        self.assertTrue(std.expect_column_no_nulls(pa.record_batch({"a": [1]}), "a"))

    def test_all_names_are_there(self):
        self.assertEqual(len(std.__all__), 12)
        for name in std.__all__:
            self.assertTrue(getattr(std, name).__doc__)

    def test_why(self):
        for call, want in {
            lambda: std.expect_column_no_nulls(column([1, None, None]), "a"): "column 'a' has 2 NULLs in 3 values",
            lambda: std.expect_column_all_unique(column([1, 1, 2]), "a"): "column 'a' has 2 distinct values in 3 rows",
            lambda: std.expect_column_accepted_values(column(["x", "y", "z", "z"]), "a", ["x"]):
                "column 'a' has 3 of 4 values that are not accepted, among them 'y', 'z'",
            lambda: std.expect_column_mean_smaller_than(column([1, 2]), "a", 1): "the mean of column 'a' is 1.5, not smaller than 1",
            lambda: std.expect_column_mean_greater_than(column([], pa.int64()), "a", 1):
                "column 'a' has no values, so no mean that is greater than 1",
            lambda: std.expect_column_equal_concatenation(column(["x"]), "a", ["a", "a"], "-"):
                "column 'a' is not the concatenation of a, a in 1 of 1 rows: it has 'x', they give 'x-x'",
        }.items():  # fmt: skip
            self.assertFalse(call())
            self.assertEqual(std.last_failure(), want)


class UnderTheHarness(Case):
    def message(self, body):
        path = self.parquet("t.parquet", pa.table({"a": [1, None]}))
        inputs = [{"name": "t", "param": "t", "files": [path], "columns": []}]
        head = "from headgate.standard_expectations import expect_column_no_nulls as ok\n"
        (check,) = self.run_expectation(head + body, inputs=inputs).answer["checks"]
        return check["message"]

    def test_a_failure_says_why(self):
        why = "column 'a' has 1 NULLs in 2 values"
        self.assertEqual(self.message("def e(t): return ok(t, 'a')"), f"e returned False ({why})")
        self.assertEqual(self.message("def e(t):\n    assert ok(t, 'a')"), f"verifiers/e.py:3: assert ok(t, 'a') ({why})")
        self.assertEqual(self.message("def e(t):\n    assert ok(t, 'a'), 'mine'"), "mine")


if __name__ == "__main__":
    unittest.main()
