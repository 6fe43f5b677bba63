"""report.html in headless Chromium over its DevTools pipe: as readers see it, at two widths, in two schemes."""

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from fedmd.report.html.write import write_report
from fedmd.report.statistics.comparison import ArmInfo

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--remote-debugging-pipe",
]
WATCHED = ("Log.entryAdded", "Runtime.consoleAPICalled", "Runtime.exceptionThrown")


class Browser:
    """One tab. `problems` collects console messages, exceptions and blocked loads; `requests` every URL asked for."""

    def __init__(self, timeout_s: float = 60.0) -> None:
        self.timeout_s = timeout_s
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._number, self._session, self._buffer = 0, "", b""

    def __enter__(self) -> Self:
        assert CHROMIUM is not None
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._write = os.pipe()
        self._read, from_browser = os.pipe()
        ends = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (to_browser, from_browser)]  # out of the way of 3 and 4
        self._process = subprocess.Popen(
            [
                "bash",
                "-c",
                f'exec "$0" "$@" 3<&{ends[0]} 4>&{ends[1]}',
                CHROMIUM,
                *FLAGS,
                f"--user-data-dir={self._profile.name}",
            ],
            pass_fds=ends,
            stderr=subprocess.DEVNULL,
        )
        for end in (to_browser, from_browser, *ends):
            os.close(end)
        os.set_blocking(self._read, False)
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "Accessibility"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._write)
        os.close(self._read)
        self._profile.cleanup()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """One DevTools command and its result; events that come meanwhile are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self._number:
            self._note(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def open(self, path: Path, width: int, *, scheme: str = "light", height: int = 900) -> None:
        """Load a local page at `width` CSS pixels, with prefers-color-scheme `scheme`."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        self.send("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        self.send("Page.navigate", url=path.resolve().as_uri())
        end = time.monotonic() + self.timeout_s
        while self.evaluate("document.readyState") != "complete" or self.evaluate("location.href") == "about:blank":
            assert time.monotonic() < end, "the page did not load"
            time.sleep(0.02)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.send("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        box = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": box["width"], "height": box["height"], "scale": 1}
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def _receive(self) -> dict[str, Any]:
        end = time.monotonic() + self.timeout_s
        while b"\0" not in self._buffer:
            assert time.monotonic() < end, "the browser does not answer"
            try:
                chunk = os.read(self._read, 1 << 20)
            except BlockingIOError:
                time.sleep(0.005)
                continue
            assert chunk, "the browser is gone"
            self._buffer += chunk
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer: dict[str, Any] = json.loads(message)
        return answer

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") in WATCHED:
            self.problems.append(json.dumps(event["params"]))
        if event.get("method") == "Network.requestWillBeSent":
            self.requests.append(event["params"]["request"]["url"])


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium here")
    with Browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def pages(tmp_path_factory, run_folder, comparison_folder):
    """Reports whose names are long and whose settings want to be HTML."""
    tmp_path = tmp_path_factory.mktemp("pages")
    name = "attack.fraction=0.2,defense=" + "x" * 80
    hostile = "<script>document.title='broken'</script><img src=x onerror=document.title='broken'>" * 3
    run = run_folder(tmp_path / name, config={"data": {"name": "mnist5k", "path": hostile}})
    arms = {
        "a": ArmInfo(hostile, "a", True),
        "b": ArmInfo(name, "b", True),
        "no_attack": ArmInfo("no attack", "c", False),
    }
    return [write_report(run), write_report(comparison_folder(tmp_path / "study", arms))]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_as_a_reader_sees_it(browser, pages, tmp_path, width, scheme):
    for page in pages:
        browser.problems.clear()
        browser.requests.clear()
        browser.open(page, width, scheme=scheme)
        browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
        assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
        assert browser.evaluate("[...document.images].every(image => image.complete && image.naturalWidth > 0)")
        assert browser.evaluate(
            "[...document.querySelectorAll('svg')].every(e => e.getBoundingClientRect().width > 280)"
        )
        luminance = sum(map(int, browser.evaluate(BACKGROUND)))
        assert luminance > 600 if scheme == "light" else luminance < 150
        assert "fedmd" in browser.evaluate("document.title")
        assert browser.problems == []
        assert all(url.startswith("data:") or url == page.resolve().as_uri() for url in browser.requests)
        browser.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 50_000


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser, pages, scheme):
    browser.open(pages[0], 1280, scheme=scheme)
    for selector in ("h1", ".lead", ".cards dt", "caption", "nav a", "svg text"):
        for text, background in ((selector, ".card"), (selector, "body")):
            assert browser.evaluate(CONTRAST % (text, background)) >= 4.5, (selector, background)


def test_the_first_tab_stop_skips_to_the_results(browser, pages):
    browser.open(pages[0], 390)
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.evaluate("document.activeElement.getAttribute('href')") == "#main"
    assert browser.evaluate("document.activeElement.getBoundingClientRect().left >= 0")


BACKGROUND = "getComputedStyle(document.body).backgroundColor.match(/\\d+/g)"
CONTRAST = """(() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255);
    const linear = parts.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2];
  };
  const text = document.querySelector(%r), style = getComputedStyle(text);
  const colours = [text.namespaceURI.endsWith('svg') ? style.fill : style.color];
  colours.push(getComputedStyle(document.querySelector(%r)).backgroundColor);
  const [low, high] = colours.map(light).sort((a, b) => a - b);
  return (high + 0.05) / (low + 0.05);
})()"""


def test_a_click_on_a_heading_sorts_the_table_and_another_turns_it_round(browser, pages):
    browser.open(pages[1], 1280)
    column = "[...document.querySelectorAll('table')].find(t => t.tHead.textContent.includes('trigger drop'))"
    browser.evaluate(f"window.table = {column}; window.head = table.tHead.rows[0].cells[0]")
    values = "[...table.tBodies[0].rows].map(row => row.cells[0].textContent)"
    before = browser.evaluate(values)
    browser.evaluate("head.querySelector('button').click()")
    assert sorted(browser.evaluate(values)) == sorted(before)
    up = browser.evaluate(values)
    assert browser.evaluate("head.getAttribute('aria-sort')") == "ascending"
    browser.evaluate("head.querySelector('button').click()")
    assert browser.evaluate(values) == up[::-1] and len(set(up)) == 3
    assert browser.problems == []
