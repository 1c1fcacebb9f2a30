"""What the audience of the demo is shown, and what is folded."""

import sys

import pytest

from reconciler.simulator.screen import INDENT, Aside, Ended, Screen, gist, show_edit

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


def test_the_lines_that_matter_are_shown_without_the_rest_and_their_colours_stay(capsys):
    with Aside() as seen:
        print("one\n  \x1b[31m✗\x1b[0m two\nthree 3\nthree 4")
    gist(seen.getvalue(), ["✗ two", "three"])
    assert capsys.readouterr().out == f"{' ' * INDENT}\x1b[31m✗\x1b[0m two\n{' ' * INDENT}three 4\n"
    with pytest.raises(Ended, match="no line was printed that has: four"):
        gist(seen.getvalue(), ["four"])


def test_what_was_played_aside_is_seen_where_it_fails(capsys):
    def play():
        with Aside():
            print("one")
            raise Ended

    with pytest.raises(Ended):
        play()
    assert capsys.readouterr().out == "one\n"
