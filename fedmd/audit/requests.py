"""What an operator asks of a server that may be running: a file a wish, taken up when the next round begins."""

from collections.abc import Iterable
from pathlib import Path


def request_release(shelf: Path, client: int) -> None:
    """Ask for the release of `client`."""
    shelf.mkdir(parents=True, exist_ok=True)
    _path(shelf, client).touch()


def pending(shelf: Path) -> frozenset[int]:
    """The clients whose release is asked for."""
    names = (path.name.removeprefix("release-") for path in shelf.glob("release-*"))
    return frozenset(int(name) for name in names if name.isdigit())


def settle(shelf: Path, clients: Iterable[int]) -> None:
    """Their requests are fulfilled and recorded."""
    for client in clients:
        _path(shelf, client).unlink(missing_ok=True)


def _path(shelf: Path, client: int) -> Path:
    return shelf / f"release-{client}"
