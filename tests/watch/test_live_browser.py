"""The live page in headless Chromium, on a federation that trains meanwhile."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.browser import CHROMIUM, Browser

FEDMD = str(Path(sys.executable).parent / "fedmd")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here"),
]


@contextmanager
def started(*command: str, cache: Path) -> Iterator[subprocess.Popen[str]]:
    """Ended with the block, if it has not ended by itself."""
    environment = {**os.environ, "FEDMD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_the_page_follows_a_federation_by_itself(tmp_path: Path) -> None:
    run = tmp_path / "run"
    settings = [
        "experiment=smoke", "defense=drop", "attack=label_flip", "quarantine=evidence", "stream.clean_rounds=20",
        "stream.accumulative_rounds=300", "runtime.evaluate_every=1", f"hydra.run.dir={run}",
    ]  # fmt: skip
    with Browser() as browser, started(FEDMD, "run", *settings, cache=tmp_path / "cache") as federation:
        browser.wait_until((run / "config.json").exists)
        with started(FEDMD, "watch", str(run), "--serve", "0", cache=tmp_path) as watching:
            assert watching.stdout is not None
            (url,) = re.findall(r"http://127\.0\.0\.1:\d+/", watching.stdout.readline())
            browser.open(url, 1280)
            browser.evaluate("window.untouched = true")
            done = "Number(document.querySelector('.cards').textContent.match(/(\\d+) of 322 rounds/)?.[1] ?? 0)"
            seen = browser.wait_for(done)
            seen = browser.wait_for(f"{done} > {seen} && {done}")
            assert federation.poll() is None and seen < 322  # it trains while we look
            browser.wait_for("document.querySelectorAll('svg.plot').length >= 5")
            choice = "document.querySelector('.follow select')"
            browser.evaluate(f"{choice}.value = '3'; {choice}.dispatchEvent(new Event('change'))")
            browser.wait_for(
                "document.querySelector('.follow [role=status]').textContent.startsWith('Client 3 in round')"
            )
            browser.wait_for(f"{done} > {seen + 10}")
            assert browser.evaluate(f"{choice}.value") == "3"  # kept while the page changes around it
            assert federation.wait(timeout=240) == 0  # a busy machine takes its time
            browser.wait_for("document.querySelector('.lead').textContent.includes('is finished')")
            assert browser.evaluate("window.untouched")  # and never loaded anew
            for width in (390, 768, 1280):
                browser.open(url, width, scheme="dark")
                assert browser.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
            assert browser.problems == []
            assert all(asked.startswith((url, "data:")) for asked in browser.requests)
            browser.evaluate("window.untouched = true")
            watching.kill()
            browser.wait_for("document.getElementById('live').textContent.includes('is gone')")
