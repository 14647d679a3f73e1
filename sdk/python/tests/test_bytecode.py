import importlib.util
import marshal
import os
import unittest

from .harness import Case


class Bytecode(Case):
    def test_modules_are_compiled_and_never_run(self):
        ran = os.path.join(self._dir.name, "ran")
        self.write("0.py", f"open({ran!r}, 'w').close()\nvalue = 41 + 1\n")
        self.write("1.py", "print 'Python 2'\n")
        self.write("2.py", "(" * 5000)
        self.write("3.py", "x = '\\N{BULLET}'\n")
        names = ["/env/a.py", "/env/old.py", "/env/deep.py", "/env/b.py"]
        reply = self.order({"op": "compile", "path": self.root, "files": names})
        self.assertIsNone(reply.error)
        self.assertEqual(sorted(reply.files), ["0.pyc", "3.pyc"])
        self.assertEqual(reply.answer["rows"], 2)
        self.assertFalse(os.path.exists(ran))
        code = reply.files["0.pyc"]
        self.assertEqual(code[:4], importlib.util.MAGIC_NUMBER)
        # By hash and unchecked: the interpreter believes it, whatever the source's time.
        self.assertEqual(code[4:8], b"\x01\x00\x00\x00")
        self.assertEqual(marshal.loads(code[16:]).co_filename, "/env/a.py")


if __name__ == "__main__":
    unittest.main()
