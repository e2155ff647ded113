"""The plugin manager: order, failing plugins, disabled ones, entry points; every hook is documented."""

import importlib
import inspect
import logging
import re
import textwrap
from pathlib import Path

import pytest

from smssh_plugin import hookimpl, hookspecs
from smssh_plugin._version import __version__
from smssh_plugin.hookspecs import Context, Failure, Job
from smssh_plugin.plugins import Plugins
from smssh_plugin.settings import Settings, load
from tests.entrypoints.conftest import bundle, container, key  # noqa: F401 - fixtures
from tests.waiting import LIMIT

HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("smssh_")}
CONTAINER = {
    "smssh_configure",
    "smssh_authorized_keys",
    "smssh_start_server",
    "smssh_start_transport",
    "smssh_announce",
    "smssh_ready",
    "smssh_before_entry_point",
    "smssh_after_entry_point",
    "smssh_entry_point_failed",
    "smssh_collect_report",
    "smssh_hold",
    "smssh_notify",
    "smssh_stop",
}


def version(text):
    """A version as a tuple that compares."""
    return tuple(int(part) for part in text.split("."))


@pytest.fixture
def context(tmp_path):
    return Context(Settings(), Job("job", "training", "algo-1"), tmp_path, {}, "/", "")


def plugin(**functions):
    """An object whose attributes are hook implementations."""

    class Made:
        pass

    made = Made()
    for name, function in functions.items():
        setattr(made, name, hookimpl(function))
    return made


def test_the_hooks_of_the_design_are_there() -> None:
    assert CONTAINER | {"smssh_transform_request", "smssh_register_commands", "smssh_probes"} <= set(HOOKS)


@pytest.mark.parametrize("name", sorted(HOOKS))
def test_every_hook_is_documented(name) -> None:
    """One sentence, every argument, the answer if any, "stops at" if the first result wins; limit and version."""
    function = HOOKS[name]
    text = inspect.getdoc(function)
    summary = text.splitlines()[0]
    assert re.fullmatch(r"[A-Z][a-z]+ [^.]+\.", summary)
    assert not summary.startswith("Called")
    assert ("No limit: " in text or "has no limit" in text) == (function.smssh_limit is None)
    assert version(function.smssh_since) <= version(__version__)
    for argument in inspect.signature(function).parameters:
        assert f"\n    {argument}: " in text, argument
    returns = inspect.signature(function).return_annotation
    assert ("Returns:" in text) == (str(returns) != "None"), returns
    assert ("stops at" in summary) == bool(function.smssh_spec["firstresult"])


def test_the_file_begins_with_the_hooks() -> None:
    """A reader of hookspecs.py looks for hooks; the types of their arguments come after them."""
    last_hook = max(inspect.getsourcelines(function)[1] for function in HOOKS.values())
    classes = [
        each
        for each in vars(hookspecs).values()
        if inspect.isclass(each) and each.__module__ == hookspecs.__name__
    ]
    assert len(classes) > 8
    assert all(inspect.getsourcelines(each)[1] > last_hook for each in classes)


def test_every_hook_has_a_typed_method() -> None:
    methods = {"smssh_" + name for name, value in vars(Plugins).items() if inspect.isfunction(value)}
    assert set(HOOKS) <= methods


def test_the_plugin_listed_first_is_asked_first(context) -> None:
    first = plugin(smssh_hold=lambda point: point == "start")
    second = plugin(smssh_hold=lambda: True)
    plugins = Plugins([("first", first), ("second", second)], entry_points=False)
    assert plugins.names == ["first", "second"]
    assert plugins.hold(context, "start", None) is True
    assert plugins.hold(context, "end", 0) is False


def test_none_leaves_it_to_the_next(context) -> None:
    plugins = Plugins(
        [("silent", plugin(smssh_hold=lambda: None)), ("yes", plugin(smssh_hold=lambda: True))],
        entry_points=False,
    )
    assert plugins.hold(context, "end", 0) is True
    assert Plugins(entry_points=False).hold(context, "end", 0) is False


def test_a_hook_that_raises_is_named_and_skipped(context, caplog) -> None:
    def broken():
        raise ValueError("it broke")

    plugins = Plugins(
        [
            ("broken", plugin(smssh_authorized_keys=broken, smssh_hold=broken)),
            ("fine", plugin(smssh_authorized_keys=lambda: ["key", "key", " "], smssh_hold=lambda: True)),
        ],
        entry_points=False,
    )
    assert plugins.authorized_keys(context) == ("key",)
    assert plugins.hold(context, "end", 0) is True
    assert "smssh_authorized_keys of plugin broken failed and is skipped: ValueError: it broke" in caplog.text


@pytest.mark.parametrize(
    "hook",
    ["authorized_keys", "collect_report", "start_server", "start_transport", "ask_hosts", "other_hosts"],
)
@pytest.mark.parametrize(
    "answer", [["ssh-ed25519 AAAA", 5], "ssh-ed25519 AAAA", 5, {"algo-2": "held"}, object()]
)
def test_an_answer_of_another_type_is_named_and_skipped(context, caplog, hook, answer) -> None:
    if hook == "collect_report" and isinstance(answer, dict):
        answer = [answer]
    plugins = Plugins([("odd", plugin(**{f"smssh_{hook}": lambda: answer}))], entry_points=False)
    arguments = [Failure(1, (), 1)] if hook == "collect_report" else [None] if hook == "ask_hosts" else []
    assert not getattr(plugins, hook)(context, *arguments)
    assert f"smssh_{hook} of plugin odd failed and is skipped: TypeError" in caplog.text


@pytest.mark.parametrize(
    "changes", [{"hold_secs": 5}, {"hold_seconds": "soon"}, {"hold_seconds": -1}, ["hold"]]
)
def test_settings_that_are_not_usable_are_skipped(context, caplog, changes) -> None:
    odd = plugin(smssh_configure=lambda: changes)
    fine = plugin(smssh_configure=lambda: {"hold_seconds": "10m", "hold": "failure", "agent_sha256": ()})
    plugins = Plugins([("odd", odd), ("fine", fine)], entry_points=False)
    found = plugins.configure(Settings(), context.job)
    assert found == {"hold_seconds": 600, "hold": ("failure",), "agent_sha256": ()}
    assert "smssh_configure of plugin odd failed and is skipped" in caplog.text


def test_settings_that_are_parsed_already_are_taken(context) -> None:
    """As a plugin has them that changes some of what it was given."""
    whole = load(
        {
            "SMSSH_AGENT_SHA256": "x86_64=" + "0" * 64,
            "SMSSH_WAIT": "5m",
            "SMSSH_NOTIFY": "https://a/b",
            "SMSSH_HOLD": "end",
        }
    )

    def every(settings):
        return vars(settings)

    plugins = Plugins([("all", plugin(smssh_configure=every))], entry_points=False)
    assert plugins.configure(whole, context.job) == vars(whole)


def test_disabled_plugins_are_not_loaded(context, caplog) -> None:
    caplog.set_level(logging.INFO)
    plugins = Plugins([("mine", plugin(smssh_hold=lambda: True))], disabled=["mine"], entry_points=False)
    assert plugins.names == []
    assert plugins.hold(context, "end", 0) is False
    assert "plugin mine is disabled" in caplog.text


def test_a_misspelt_hook_is_refused(caplog) -> None:
    plugins = Plugins([("typo", plugin(smssh_redy=lambda: None))], entry_points=False)
    assert plugins.names == []
    assert "smssh_redy is not a hook of smssh" in caplog.text


def test_an_unknown_argument_is_refused(caplog) -> None:
    plugins = Plugins([("typo", plugin(smssh_ready=lambda contxt: None))], entry_points=False)
    assert plugins.names == []
    assert "plugin typo is skipped" in caplog.text


def test_mappings_are_merged_and_the_first_wins(context) -> None:
    plugins = Plugins(
        [
            (
                "a",
                plugin(
                    smssh_collect_report=lambda: {"x": 1, "y": 1}, smssh_configure=lambda: {"hold": ("end",)}
                ),
            ),
            ("b", plugin(smssh_collect_report=lambda: {"y": 2, "z": 2}, smssh_configure=lambda: None)),
        ],
        entry_points=False,
    )
    assert plugins.collect_report(context, Failure(1, (), 1)) == {"x": 1, "y": 1, "z": 2}
    assert plugins.configure(Settings(), context.job) == {"hold": ("end",)}


def test_requests_are_handed_from_plugin_to_plugin() -> None:
    def broken():
        raise ValueError

    plugins = Plugins(
        [
            ("a", plugin(smssh_transform_request=lambda request: {**request, "a": 1})),
            ("broken", plugin(smssh_transform_request=broken)),
            ("b", plugin(smssh_transform_request=lambda kind, request, options: {**request, kind: options})),
        ],
        entry_points=False,
    )
    assert plugins.transform_request("training", {}, "options") == {"a": 1, "training": "options"}
    assert plugins.register_commands({"x": "y"}) == {"x": "y"}
    assert plugins.probes() == []


def test_entry_points(tmp_path, monkeypatch, context, caplog) -> None:
    """Third-party packages: found by their entry point, a broken one is named, the others are loaded."""
    (tmp_path / "theirs.py").write_text(
        textwrap.dedent(
            """
            from smssh_plugin import hookimpl

            @hookimpl
            def smssh_hold(point):
                return point == "end"
            """
        )
    )
    info = tmp_path / "theirs-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: theirs\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[smssh]\nbroken = no_such_module\ntheirs = theirs\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    plugins = Plugins()
    assert "theirs" in plugins.names
    assert plugins.hold(context, "end", 0) is True
    assert "plugin broken is skipped" in caplog.text
    assert "theirs" not in Plugins(disabled=["theirs"]).names


def test_container_hooks_are_called(container) -> None:  # noqa: F811 - the fixture
    """Every container-side hook, from a third-party plugin in the job's image, in the design's order."""
    site = container.folder / "site"
    site.mkdir()
    calls = "\n".join(
        f"@hookimpl\ndef {name}():\n    say({name!r})\n" for name in sorted(CONTAINER - {"smssh_hold"})
    )
    (site / "seen.py").write_text(
        "from smssh_plugin import hookimpl\n"
        "def say(name):\n"
        f"    with open({str(container.folder / 'calls')!r}, 'a') as file:\n"
        "        print(name, file=file)\n"
        f"{calls}\n"
        "@hookimpl\ndef smssh_hold(point):\n    say('smssh_hold')\n    return point == 'failure'\n"
    )
    info = site / "seen-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: seen\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[smssh]\nseen = seen\n")
    # The job's PYTHONPATH is not the supervisor's: the image's site-packages are. A .pth stands for
    # installing it.
    import subprocess

    environment = container.folder / "venv"
    subprocess.run(
        ["python3", "-m", "venv", "--without-pip", "--system-site-packages", str(environment)], check=True
    )
    packages = next(environment.glob("lib/python*/site-packages"))
    (packages / "seen.pth").write_text(str(site))
    process = container.wrap(
        "sh",
        "-c",
        "while [ ! -e go ]; do sleep 0.05; done; exit 3",
        PATH=f"{environment}/bin:{container.environ['PATH']}",
        SMSSH_HOLD_SECONDS=1,
        SMSSH_TRANSPORT="native",
        SMSSH_SSH_SERVER="asyncssh" if not Path("/usr/sbin/sshd").exists() else "auto",
    )
    container.wait_for("running")
    container.script("", name="go")
    assert process.wait(LIMIT) == 3
    calls = (container.folder / "calls").read_text().split()
    order = list(dict.fromkeys(calls))
    # This job does not say where it is announced (SMSSH_ANNOUNCE): that is where this start ends.
    assert order[0] == "smssh_configure"
    assert order.index("smssh_authorized_keys") < order.index("smssh_start_server")
    assert order.index("smssh_start_server") < order.index("smssh_start_transport")
    assert order.index("smssh_before_entry_point") < order.index("smssh_entry_point_failed")
    assert order.index("smssh_entry_point_failed") < order.index("smssh_collect_report")
    assert order[-1] == "smssh_stop"
    assert set(order) >= CONTAINER - {"smssh_announce", "smssh_ready"}
