"""What the audience of the demo is shown, and what is folded."""

import sys

import pytest

from reconciler.simulator.screen import Screen, show_edit

WIRES = "  set by the environment: STALWART_URL=http://127.0.0.1:1"
AGAIN = "  … the same plan …"


@pytest.fixture
def shown(tmp_path, capsys):
    screen = Screen()

    def run(*lines, code=0):
        program = (
            f"import sys; sys.stdout.reconfigure(encoding='utf-8'); print({chr(10).join(lines)!r}); sys.exit({code})"
        )
        ended = screen.run([sys.executable, "-c", program], tmp_path, {})
        return ended, capsys.readouterr().out.splitlines()

    return run


def test_the_plan_that_an_apply_repeats_is_folded(shown):
    assert shown("mana", WIRES, "  + a", "Plan: 1") == (0, ["mana", WIRES, "  + a", "Plan: 1"])
    assert shown("mana", WIRES, "  + a", "Plan: 1", "  ✓ + a") == (0, [AGAIN, "  ✓ + a"])


def test_another_plan_is_shown_whole(shown):
    shown("mana", WIRES, "  + a", "Plan: 1")
    assert shown("mana", WIRES, "  + b", "Plan: 1", code=4) == (4, ["mana", "  + b", "Plan: 1"])
    assert shown("mana", "  + b") == (0, ["mana", "  + b"])


def test_an_edit_is_shown_between_the_lines_around_it(capsys):
    show_edit("a.yaml", "one\ntwo\nthree\nfour\nfive\nsix\n", "one\nTWO\nthree\nfour\nfive\nsix\nseven\n")
    lines = ["  a.yaml", "   one", "  -two", "  +TWO", "   three", "   …", "   six", "  +seven"]
    assert capsys.readouterr().out.splitlines() == lines
