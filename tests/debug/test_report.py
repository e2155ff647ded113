"""The report: complete, safe to open, and the same whatever was written into the job's log."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smssh_plugin.debug import report as reports
from smssh_plugin.debug import report_html
from smssh_plugin.debug.incidents import Action, Event, Incident, Report, Step
from smssh_plugin.debug.report_html import page
from smssh_plugin.errors import SmsshError
from tests.rights import ordinary

from .container import GOOD_PATCH, REPORT

VOID = {"meta", "br", "hr", "img", "input", "link"}
EVIL = "</pre><script>alert(1)</script><img src=x onerror=alert(1)>\"'&\x1b[31m"


class Checker(html.parser.HTMLParser):
    """Well-formed: every tag closed in order; collects what a browser would see."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.text = ""
        self.styles = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
        self.styles += "".join(f"{value}\n" for name, value in attrs if name == "style")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] == "style":
            self.styles += data
        else:
            self.text += data


def check(text: str) -> Checker:
    checker = Checker()
    checker.feed(text)
    checker.close()
    assert checker.open == []
    assert checker.tags.isdisjoint({"script", "img", "link", "iframe", "object", "a"})
    assert not [name for name in checker.attributes if name.startswith("on") or name in ("src", "href")]
    assert checker.styles
    assert not re.search(r"url\(|@import|https?://", checker.styles)
    return checker


def full(evil: str = "") -> Report:
    incident = Incident(
        step=f"Train{evil}",
        address=f"Train.x.pipe.pipeline.sagemaker{evil}",
        point="failure",
        attempt=1,
        found=1012.0,
        held_since=1010.0,
        deadline=1600.0,
        report={
            **REPORT,
            "gpu": evil or None,
            "error": f"ValueError: bad{evil}",
            "traceback": f"Traceback{evil}\nValueError",
        },
        log_tail=[f"read 600 customers{evil}"],
        probes={"gpu": f"Tesla T4{evil}", "queue": {"length": 3, "ended": 1.0, "text": evil}},
        actions=[
            Action(
                "patch",
                1013.0,
                0.5,
                True,
                f"applied Train.patch{evil}",
                GOOD_PATCH + evil,
                ["/opt/ml/code/train.py"],
            ),
            Action("retry", 1014.0, 3.0, True, "the entry point succeeded on attempt 2", evil),
        ],
        resolution="fixed",
        resolved=1017.0,
    )
    left = dataclasses.replace(
        incident, step="Score", actions=[Action("leave", 1013.0, summary=evil)], resolution="held"
    )
    return Report(
        pipeline=f"pipe{evil}",
        execution=f"x{evil}",
        arn=f"arn{evil}",
        region="us-east-1",
        status="Succeeded",
        failure_reason=evil,
        started=1000.0,
        ended=1030.0,
        steps=[
            Step("Prepare", "processing", "Succeeded", "j", "a", 1001.0, 1003.0, cached=True),
            Step(f"Train{evil}", "training", "Succeeded", "j", "a", 1003.0, 1020.0, log_tail=["done", evil]),
            Step("Score", "transform", "Executing", "j", "a", 1020.0),
            Step(
                "Notify",
                "Lambda",
                "Failed",
                f"j{evil}",
                "a",
                1020.0,
                1021.0,
                f"no function{evil}",
                log_tail=[evil],
            ),
            Step("Later", "Model", "Starting"),
        ],
        incidents=[incident, left],
        events=[Event(1001.0, f"something{evil}", "good")],
        generated=1031.0,
    )


def test_the_page_says_it_all() -> None:
    text = check(page(full())).text
    for part in (
        "Train and Score failed and were held.",
        "Train succeeded on the retry.",
        "ValueError: bad",
        "read 600 customers",
        "Probe gpu",
        "Tesla T4",
        '"length": 3',
        "Applied Train.patch",
        '+print("trained")',
        "The entry point succeeded on attempt 2",
        "no function",
        "SM_HOSTS",
        "10.0 GB".replace("10.0 GB", "9.3 GiB"),
        "1970-01-01 00:16:40",
    ):
        assert part in text


def test_nothing_from_a_job_becomes_markup() -> None:
    checker = check(page(full(EVIL)))
    assert checker.text.count("<script>alert(1)</script>") > 10
    assert "\x1b" not in page(full(EVIL))


def test_a_value_is_not_taken_for_markup_anywhere() -> None:
    folder = Path(report_html.__file__).parent
    sources = [*folder.glob("templates/*.html"), folder / "report_html.py"]
    assert len(sources) == 3
    for source in sources:
        assert not re.search(r"\bsafe\b|autoescape (true|false)|Markup\(", source.read_text())


def test_a_bar_says_what_it_is_without_its_colour() -> None:
    css = (Path(report_html.__file__).parent / "templates" / "report.css").read_text()
    marks = {kind: re.search(rf'\.bar\.{kind} {{ --mark: "(.)"; }}', css) for kind in report_html._PARTS}
    assert len({found[1] for found in marks.values() if found}) == len(marks) - 1
    assert marks["run"] is None  # all others have one


def test_what_is_unknown_of_a_container_is_left_out() -> None:
    report = full()
    report.incidents[0].report = {"error": "ValueError: bad"}
    assert page(report).count("<summary>The container</summary>") == 1
    report.incidents[0].report = {"exit_code": 0, "disk": [{}], "processes": [{"pid": 7}]}
    assert page(report).count("<summary>The container</summary>") == 2


@settings(deadline=None)
@given(st.text(max_size=200))
def test_any_text_is_text(text: str) -> None:
    check(page(full(text)))


@pytest.mark.parametrize("count", ["²", "9" * 5000, "x", ""])
def test_a_patch_may_say_anything_of_its_lines(count: str) -> None:
    report = full()
    report.incidents[0].actions = [Action("patch", 5.0, detail=f"@@ -1,{count} +1,{count} @@\n+new\n")]
    assert "+new" in page(report)


def test_reports_of_every_ending() -> None:
    for status in ("Executing", "Succeeded", "Failed", "Stopped", "CompletedWithFailures"):
        for because in ("ended", "interrupted", "timeout", "error"):
            empty = Report("pipe", "x", "arn", "us-east-1", status=status, stopped_because=because)
            check(page(empty))
            assert empty.finished == (status != "Executing")
    assert "The pipeline completed with failures." in page(empty)
    for resolution in ("open", "fixed", "failed", "held", "released", "lost"):
        report = full()
        report.incidents[0].resolution = resolution
        check(page(report))


def test_the_bars_of_a_step_follow_its_story() -> None:
    body = page(full())
    row = body.split('<div class="row">')[2]
    assert row.startswith('\n<div class="name" title="Train">')
    bars = re.findall(r'class="bar (\w+)[^"]*" style="left:([0-9.]+)%;width:([0-9.]+)%"', row)
    assert [kind for kind, _, _ in bars] == ["bad", "hold", "retry", "good"]
    ends = [float(left) + float(width) for _, left, width in bars]
    assert [float(left) for _, left, _ in bars][1:] == pytest.approx(ends[:-1], abs=0.01)


def test_the_json_has_the_documented_schema(tmp_path: Path) -> None:
    path, _ = reports.write(full(), tmp_path / "new" / "folder")
    found = json.loads(path.read_text())
    assert next(iter(found)) == "version"
    assert found["version"] == 1
    assert set(found) == {field.name for field in dataclasses.fields(Report)} - {"patches"}
    assert set(found["steps"][0]) == {field.name for field in dataclasses.fields(Step)}
    assert set(found["incidents"][0]) == {field.name for field in dataclasses.fields(Incident)} | {"error"}
    assert found["started"] == "1970-01-01T00:16:40.000Z"
    assert found["incidents"][0]["actions"][0]["seconds"] == 0.5
    assert found["incidents"][0]["report"] == full().incidents[0].report
    assert found["incidents"][0]["probes"] == full().incidents[0].probes
    assert list((tmp_path / "new" / "folder").iterdir()) != []
    assert {one.name for one in path.parent.iterdir()} == {"report.json", "report.html"}


def test_halves_of_characters_do_not_stop_it(tmp_path: Path) -> None:
    reports.write(full("\udcff"), tmp_path)


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SmsshError, match="cannot write the report"):
        reports.write(full(), tmp_path / "file" / "x")
    for folder in (tmp_path / "file" / "x", tmp_path / "file"):
        with pytest.raises(SmsshError, match=r"cannot write the report to .*: .*/file is not a folder"):
            reports.check(folder)
    reports.check(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()


def test_a_folder_in_which_nothing_can_be_made(tmp_path: Path) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom smssh_plugin.debug import report\nfrom smssh_plugin.errors import "
        "SmsshError\ntry:\n    report.check(Path(sys.argv[1]))\nexcept SmsshError as error:\n    print(error)\n"
    )
    for mode, expected in ((0o755, ""), (0o555, f"{tmp_path} is not writable")):
        tmp_path.chmod(mode)
        words = [*ordinary(), sys.executable, "-c", code, str(tmp_path / "new")]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert expected in done.stdout
        assert bool(expected) == bool(done.stdout)


@pytest.mark.parametrize(("broken", "kept"), [("page", "report.json"), ("as_json", "report.html")])
def test_one_file_is_written_where_the_other_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, kept: str
) -> None:
    def fails(_report: Report) -> None:
        raise ValueError("a fault of ours")

    monkeypatch.setattr(reports, broken, fails)
    with pytest.raises(SmsshError, match="is missing: ValueError: a fault of ours"):
        reports.write(full(), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [kept]
    assert (tmp_path / kept).stat().st_size > 100
