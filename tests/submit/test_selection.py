"""Which steps are meant."""

from __future__ import annotations

from typing import Any

import pytest

from smssh_plugin.errors import SmsshError
from smssh_plugin.submit.selection import EVERYTHING, Selection

STEPS = [
    ("training", ("Train-1",)),
    ("training", ("Train-2", "If")),
    ("processing", ("Prepare",)),
    ("model", ("Model-CreateModel", "Model")),
    (None, ("If",)),
]


def chosen(wanted: Any) -> list[str]:
    selection = Selection(wanted)
    selection.check(STEPS)
    return [names[0] for kind, names in STEPS if selection.has(kind, names)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("Train-1", ["Train-1"]),
        ("Train*", ["Train-1", "Train-2"]),
        ("Train-[!1]", ["Train-2"]),
        ("training", ["Train-1", "Train-2"]),
        ("processing, Train-1", ["Train-1", "Prepare"]),
        (["model", "Prepare"], ["Prepare", "Model-CreateModel"]),
        ("Model", ["Model-CreateModel"]),
        ("If", ["Train-2"]),
        (("*",), ["Train-1", "Train-2", "Prepare", "Model-CreateModel"]),
        (None, ["Train-1", "Train-2", "Prepare", "Model-CreateModel"]),
    ],
)
def test_names_patterns_kinds(wanted: Any, expected: list[str]) -> None:
    if wanted is None:
        assert [names[0] for kind, names in STEPS if EVERYTHING.has(kind, names) and kind] == expected
    else:
        assert chosen(wanted) == expected


@pytest.mark.parametrize("wanted", ["", " , ", [], [""], 1, [1], ["Train", None]])
def test_what_is_no_selection(wanted: Any) -> None:
    with pytest.raises(SmsshError) as caught:
        Selection(wanted)
    assert caught.value.reference == "bad-selection"


def test_what_chooses_nothing_is_an_error_that_names_the_steps() -> None:
    with pytest.raises(SmsshError, match="'Trian' matches no step that supports SSH") as caught:
        chosen(["Prepare", "Trian"])
    assert caught.value.hint == "use one of Model-CreateModel, Prepare, Train-1, Train-2"
    with pytest.raises(SmsshError, match="'tuning' matches no step"):
        chosen("tuning")


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("Train-1", ["Train-1"]),
        ("T*, Pre*", ["Train-1", "Train-2", "Prepare"]),
        ("model", ["Model-CreateModel"]),
        ("Model", ["Model-CreateModel"]),
        # Everything is not a name, and a condition is not what is inside.
        ("*", []),
        ("**", []),
        ("If", []),
        ("*, If, training", ["Train-1", "Train-2"]),
        (None, []),
    ],
)
def test_what_somebody_named(wanted: Any, expected: list[str]) -> None:
    own = {"Model-CreateModel": 2}
    selection = Selection(wanted)
    named = [
        names[0] for kind, names in STEPS if selection.names(kind, names[: own.get(names[0], 1)]) and kind
    ]
    assert named == expected
