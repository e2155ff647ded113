"""Patches: applied exactly as `patch` would, or not at all."""

from __future__ import annotations

import difflib
import subprocess
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smssh_plugin.debug.patch import Change, plan
from smssh_plugin.errors import SmsshError
from tests import needs

if TYPE_CHECKING:
    from pathlib import Path

CODE = {
    "train.py": b"import features\n\n\ndef main():\n    print(1)\n    print(2)\n\n\nmain()\n",
    "lib/util.py": b"x = 1\n",
}


def apply(patch: str | bytes, files: dict[str, bytes] | None = None) -> dict[str, Change]:
    files = CODE if files is None else files
    data = patch.encode() if isinstance(patch, str) else patch
    return {change.path: change for change in plan(data, "Train.patch", files, files.__getitem__)}


def test_a_git_patch_of_a_file_that_lies_deeper_in_the_repository() -> None:
    patch = """\
Some words about the fix.

diff --git a/examples/churn/train.py b/examples/churn/train.py
index 123..456 100644
--- a/examples/churn/train.py
+++ b/examples/churn/train.py
@@ -4,3 +4,3 @@ import features
 def main():
-    print(1)
+    print("one")
     print(2)
"""
    after = apply(patch)["train.py"].after
    assert after == CODE["train.py"].replace(b"print(1)", b'print("one")')


def test_a_moved_hunk_is_found() -> None:
    files = {"train.py": b"# new\n" * 7 + CODE["train.py"]}
    patch = "--- train.py\n+++ train.py\n@@ -5,2 +5,2 @@\n     print(1)\n-    print(2)\n+    print(3)\n"
    assert apply(patch, files)["train.py"].after == files["train.py"].replace(b"print(2)", b"print(3)")


def test_files_are_added_and_removed() -> None:
    patch = (
        "--- /dev/null\n+++ b/new/file.py\n@@ -0,0 +1,2 @@\n+a\n+b\n"
        "--- a/lib/util.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-x = 1\n"
    )
    changes = apply(patch)
    assert changes["new/file.py"] == Change("new/file.py", b"a\nb\n", is_new=True)
    assert changes["lib/util.py"] == Change("lib/util.py", None, is_new=False)


@pytest.mark.parametrize("object_format", ["sha1", "sha256"])
def test_empty_files_are_added_and_removed(tmp_path: Path, object_format: str) -> None:
    """As git writes them: without a hunk."""

    def git(*words: str) -> bytes:
        command = [
            needs.program("git"),
            "-C",
            str(tmp_path),
            "-c",
            "user.name=x",
            "-c",
            "user.email=x@y",
            *words,
        ]
        return subprocess.run(command, check=True, capture_output=True).stdout

    git("init", "-q", f"--object-format={object_format}")
    for name in ("gone", "train.py"):
        (tmp_path / name).write_bytes(CODE.get(name, b""))
    git("add", ".")
    git("commit", "-qm", "one")
    (tmp_path / "gone").unlink()
    (tmp_path / "p\u00e4ck").mkdir()
    (tmp_path / "p\u00e4ck" / "__init__.py").touch()
    git("add", "-A")
    changes = {
        one.path: one
        for one in plan(git("diff", "--no-renames", "--cached"), "x", ["gone", "train.py"], lambda _: b"")
    }
    assert changes == {
        "gone": Change("gone", None, is_new=False),
        "p\u00e4ck/__init__.py": Change("p\u00e4ck/__init__.py", b"", is_new=True),
    }
    with pytest.raises(SmsshError, match="removes gone, which has more lines"):
        plan(git("diff", "--no-renames", "--cached"), "x", ["gone"], lambda _: b"grown\n")


def test_a_line_that_looks_like_a_header_is_content() -> None:
    files = {"q.sql": b"-- old remark\nselect 1;\n"}
    patch = "--- a/q.sql\n+++ b/q.sql\n@@ -1,2 +1,2 @@\n--- old remark\n+++ new remark\n select 1;\n"
    assert apply(patch, files)["q.sql"].after == b"++ new remark\nselect 1;\n"


def test_line_ends_and_the_last_line() -> None:
    crlf = {"a": b"one\r\ntwo\r\n"}
    patch = "--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
    assert apply(patch, crlf)["a"].after == b"one\r\nthree\r\n"
    bare = {"a": b"one\ntwo"}
    patch = f"--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n one\n-two{BARE}+three{BARE}"
    assert apply(patch, bare)["a"].after == b"one\nthree"


def test_bytes_of_any_encoding_go_through() -> None:
    files = {"a": b"caf\xe9 \x0c\x85 form feed\nold\n"}
    patch = b"--- a/a\n+++ b/a\n@@ -1,2 +1,2 @@\n caf\xe9 \x0c\x85 form feed\n-old\n+n\xc3\xa9w\n"
    assert apply(patch, files)["a"].after == b"caf\xe9 \x0c\x85 form feed\nn\xc3\xa9w\n"


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("", "changes no file"),
        ("not a patch\n", "changes no file"),
        ("--- a/train.py\n+++ b/train.py\n@@ -1,3 +1,3 @@\n-import features\n", "not a unified diff"),
        ("--- a/nope.py\n+++ b/nope.py\n@@ -1 +1 @@\n-a\n+b\n", "nope.py, which is not in the job's code"),
        ("--- a/train.py\n+++ b/train.py\n@@ -5 +5 @@\n-    print(9)\n+    print(3)\n", r"part 1 \(line 5\)"),
        ("--- /dev/null\n+++ b/train.py\n@@ -0,0 +1 @@\n+a\n", "adds train.py, which is there already"),
        ("--- a/../x\n+++ b/../x\n@@ -1 +1 @@\n-a\n+b\n", "outside of the code"),
        ("--- /etc/passwd\n+++ /etc/passwd\n@@ -1 +1 @@\n-a\n+b\n", "outside of the code"),
        ("--- a/lib/util.py\n+++ b/train.py\n@@ -1 +1 @@\n-x = 1\n+b\n", "renames"),
        ("--- a/src/train.py\n+++ b/lib/train.py\n@@ -1 +1 @@\n-import features\n+b\n", "renames"),
        ('--- "a/\\u1234.py"\n+++ "b/\\u1234.py"\n@@ -1 +1 @@\n-a\n+b\n', "in a way that git does not"),
        ("diff --git a/x b/x\nindex 1..2 100644\nBinary files a/x and b/x differ\n", "not text"),
        (
            "diff --git a/x b/x\nnew file mode 100644\nindex 0000000..12ab34c\nBinary files differ\n",
            "not text",
        ),
        ("diff --git a/x b/x\nnew file mode 100644\nindex\n", "not text"),
        (
            "--- a/train.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-import features\n",
            "more lines than the patch knows",
        ),
    ],
)
def test_what_cannot_be_applied_says_why(patch: str, why: str) -> None:
    with pytest.raises(SmsshError, match=why) as caught:
        apply(patch)
    assert caught.value.reference == "patch-does-not-apply"


def test_a_mismatch_shows_both_lines() -> None:
    patch = "--- a/train.py\n+++ b/train.py\n@@ -4,2 +4,2 @@\n def main():\n-    print(0)\n+    print(3)\n"
    with pytest.raises(SmsshError) as caught:
        apply(patch)
    assert caught.value.hint == "line 5: the patch expects '    print(0)', the file has '    print(1)'"


def test_a_difference_of_two_folders(tmp_path: Path) -> None:
    """`diff -ru old new`, and `diff -u` of a copy elsewhere."""
    for name, text in (("old", "a\n"), ("new", "b\n")):
        (tmp_path / name / "src").mkdir(parents=True)
        (tmp_path / name / "src" / "train.py").write_text(text)
    made = subprocess.run(["diff", "-ru", "old", "new"], cwd=tmp_path, capture_output=True, check=False)
    assert apply(made.stdout, {"src/train.py": b"a\n"})["src/train.py"].after == b"b\n"
    assert apply(made.stdout, {"train.py": b"a\n"})["train.py"].after == b"b\n"


@pytest.mark.parametrize("ends", [b"\n", b"\r\n"])
def test_a_patch_that_an_editor_saved_with_crlf(ends: bytes) -> None:
    patch = b"--- a/t\r\n+++ b/t\r\n@@ -1,2 +1,2 @@\r\n a\r\n-b\r\n+c\r\n"
    assert apply(patch, {"t": b"a" + ends + b"b" + ends})["t"].after == b"a" + ends + b"c" + ends


BARE = "\n\\ No newline at end of file\n"
LINES = st.lists(st.sampled_from(["a", "b", "", "-- c", "++ d", " e", "@@ f", "\tg"]), max_size=30)


@settings(max_examples=200)
@given(LINES, LINES, st.booleans(), st.booleans(), st.integers(0, 3))
def test_any_difference_comes_out(old, new, old_end, new_end, context) -> None:
    before = "\n".join(old) + ("\n" if old and old_end else "")
    after = "\n".join(new) + ("\n" if new and new_end else "")
    if not before or not after or before == after:
        return
    old_lines, new_lines = before.splitlines(keepends=True), after.splitlines(keepends=True)
    lines = [
        line if line.endswith("\n") else line + BARE
        for line in difflib.unified_diff(old_lines, new_lines, "a/f", "b/f", n=context)
    ]
    assert apply("".join(lines), {"f": before.encode()})["f"].after == after.encode()


@pytest.mark.needs("git")
def test_what_git_writes_is_understood(tmp_path: Path) -> None:
    def git(*words: str) -> bytes:
        who = ["-c", "user.name=x", "-c", "user.email=x@y"]
        return subprocess.run(["git", *who, *words], cwd=tmp_path, capture_output=True, check=True).stdout

    git("init", "-q")
    (tmp_path / "sub dir").mkdir()
    first = tmp_path / "sub dir" / "fünf.py"
    first.write_text("a\nb\nc\n")
    (tmp_path / "plain.py").write_text("x\n")
    git("add", ".")
    git("commit", "-qm", "first")
    files = {"sub dir/fünf.py": first.read_bytes(), "plain.py": b"x\n"}
    first.write_text("a\nB\nc\nd")
    (tmp_path / "plain.py").write_text("y\n")
    changes = apply(git("diff"), files)
    assert {path: change.after for path, change in changes.items()} == {
        "sub dir/fünf.py": b"a\nB\nc\nd",
        "plain.py": b"y\n",
    }
