"""What an operator asks of a server that may be running: a file a wish, taken up when the next round begins."""

from collections.abc import Iterable
from pathlib import Path

Release = tuple[int, int]  # a client, and the round since which it was in quarantine when its release was asked for


def request_release(folder: Path, client: int, since: int) -> None:
    """Ask for the release of `client` from its quarantine `since` that round."""
    folder.mkdir(parents=True, exist_ok=True)
    _path(folder, client).write_text(f"{since}\n")


def pending(folder: Path) -> frozenset[Release]:
    """The releases that are asked for. A file without a number stands for the present."""
    found = ((path.name.removeprefix("release-"), _since(path)) for path in folder.glob("release-*"))
    return frozenset((int(name), since) for name, since in found if name.isdigit())


def discard(folder: Path, releases: Iterable[Release]) -> None:
    """These are fulfilled and recorded, or came to nothing; a later wish for the same client stays."""
    for client, since in releases:
        if _since(path := _path(folder, client)) == since:
            path.unlink(missing_ok=True)


def _since(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):  # taken down meanwhile, or not of `request_release`
        return -1


def _path(folder: Path, client: int) -> Path:
    return folder / f"release-{client}"
