"""What a watcher of a long command reads."""

import threading

from fedmd.deploy.narrator import Narrator


def test_a_step_is_named_at_once_and_again_until_the_next() -> None:
    lines: list[str] = []
    again = threading.Event()

    def say(text: str) -> None:
        lines.append(text.partition("] ")[2])
        if len(lines) > 2:
            again.set()

    with Narrator(say, quiet_s=0.01) as narrator:
        narrator.begin("baking")
        narrator.tell("the oven is hot")
        assert lines[:2] == ["baking ...", "the oven is hot"]
        assert again.wait(30)
        narrator.begin("eating")
    assert all(line.startswith("    ... baking: 0 s") for line in lines[2 : lines.index("eating ...")])
    assert not any("baking" in line for line in lines[lines.index("eating ...") :])


def test_silent_while_it_is_not_and_after_its_end() -> None:
    lines: list[str] = []
    with Narrator(lines.append, quiet_s=60) as narrator:
        narrator.begin("baking")
    assert len(lines) == 1 and not narrator._repeater.is_alive()
