"""What is told of a bad message: one short, printable line, whatever the client made of it."""

from flwr.app import Message

_MOST = 300


def shown(value: object) -> str:
    """A client's value in a few printable characters (a `repr` escapes what is not)."""
    text = _short(value)
    return text if len(text) <= 120 else text[:117] + "..."


def _short(value: object) -> str:
    """A `repr` that never looks at more than the beginning of a long value."""
    if isinstance(value, list):
        inner = ", ".join(map(_short, value[:5]))
        return f"[{inner}, ...]" if len(value) > 5 else f"[{inner}]"
    return f"{value[:40]!r}..." if isinstance(value, str | bytes) and len(value) > 40 else repr(value)


def error_of(message: Message) -> str:
    """What an error reply says: the line its traceback ends with.

    The lines before differ from run to run (process ids, addresses).
    """
    lines = (message.error.reason or "no reason given")[-10_000:].strip().splitlines() or [""]
    last = "".join(character for character in lines[-1].strip() if character.isprintable())
    return f"the node answered with error {message.error.code}: {last[-_MOST:] or 'no reason given'}"
