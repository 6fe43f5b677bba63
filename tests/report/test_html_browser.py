"""report.html in headless Chromium: as readers see it, at two widths, in two schemes."""

import pytest

from fedmd.report.html.write import write_report
from fedmd.report.statistics.comparison import ArmInfo
from tests.browser import CHROMIUM, Browser


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


@pytest.mark.parametrize("page", [0, 1])
def test_the_words_of_a_figure_are_neither_cut_off_nor_on_top_of_each_other(browser, pages, page):
    browser.open(pages[page], 1280)
    browser.evaluate("document.querySelectorAll('details').forEach(part => part.open = true)")
    assert browser.evaluate(COLLISIONS) == []


COLLISIONS = """[...document.querySelectorAll('svg.plot')].flatMap(plot => {
  const whole = plot.getBoundingClientRect();
  const words = [...plot.querySelectorAll('text')].map(e => ({said: e.textContent, at: e.getBoundingClientRect()}));
  const cut = words.filter(({at}) => at.left < whole.left - 1 || at.right > whole.right + 1);
  const over = words.filter(({at}, i) => words.slice(i + 1).some(({at: other}) =>
    Math.min(at.right, other.right) - Math.max(at.left, other.left) > 2
    && Math.min(at.bottom, other.bottom) - Math.max(at.top, other.top) > 0.3 * at.height));
  return [...cut, ...over].map(({said}) => `${plot.getAttribute('aria-label')}: ${said}`);
})"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_background(browser, pages, scheme):
    browser.open(pages[0], 1280, scheme=scheme)
    for selector in ("h1", ".lead", ".cards dt", "caption", "nav a", "svg text"):
        for text, background in ((selector, ".card"), (selector, "body")):
            assert browser.evaluate(CONTRAST % (text, background)) >= 4.5, (selector, background)


@pytest.mark.parametrize("page", [0, 1])
def test_tab_reaches_everything_in_order_and_shows_where_it_is(browser, pages, page):
    """All that can be used has a name, is reached from above to below, and has an outline while it has the focus."""
    browser.open(pages[page], 1280)
    usable = browser.evaluate(USABLE)
    seen = []
    for _ in range(usable):
        for kind in ("keyDown", "keyUp"):
            browser.send("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        seen.append(browser.evaluate(FOCUSED))
    assert all(place["outline"] and place["name"] for place in seen), seen
    assert [place["number"] for place in seen] == sorted({place["number"] for place in seen})
    nodes = browser.send("Accessibility.getFullAXTree")["nodes"]
    for role in ("image", "img", "table", "button", "link", "combobox"):
        found = [node for node in nodes if node.get("role", {}).get("value") == role and not node.get("ignored")]
        assert all(node.get("name", {}).get("value") for node in found), role


USABLE = """(window.usable = [...document.querySelectorAll('a[href], button, select, summary, [tabindex="0"]')]
  .filter(e => e.checkVisibility())).length"""
FOCUSED = """(() => {
  const e = document.activeElement, style = getComputedStyle(e);
  return {number: usable.indexOf(e), outline: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
    name: (e.getAttribute('aria-label') || e.labels?.[0]?.textContent || e.textContent).trim()};
})()"""


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


def test_a_client_is_followed_by_list_by_map_and_by_dot(browser, pages):
    """Client 1 is malicious and poisons in rounds 2 and 3; every client sends four samples a round."""
    browser.problems.clear()
    browser.open(pages[0], 1280)
    browser.evaluate("window.choices = document.querySelectorAll('.follow select')")
    told = "document.querySelector('.follow [role=status]').textContent"
    rows = "[...document.querySelectorAll('.follow tbody tr')].map(row => row.textContent)"

    def choose(place: int, value: int) -> None:
        browser.evaluate(f"choices[{place}].value = {value}; choices[{place}].dispatchEvent(new Event('change'))")

    choose(0, 1)
    choose(1, 2)
    assert browser.evaluate(told) == "Client 1 in round 2: 4 samples."
    assert [text.count("poisoned") for text in browser.evaluate(rows)] == [1, 1, 1, 1]
    assert browser.evaluate("[...document.querySelectorAll('tbody th')].every(head => head.scope === 'row')")
    assert browser.evaluate(
        "[...document.querySelectorAll('table')].every(t => t.caption && t.tHead.rows.length === 1)"
    )
    choose(1, 0)
    assert [text.count("poisoned") for text in browser.evaluate(rows)] == [0, 0, 0, 0]
    browser.evaluate("document.querySelector('[data-client=\"3\"]').dispatchEvent(new Event('click'))")
    assert browser.evaluate("choices[0].value") == "3"
    dots = "document.querySelectorAll('.follow .dot')"
    assert browser.evaluate(f"{dots}.length") == 6
    browser.evaluate(f"{dots}[4].dispatchEvent(new Event('click'))")
    assert browser.evaluate("choices[1].value") == "4" and browser.evaluate(told).startswith("Client 3 in round 4")
    assert "round 4" in browser.evaluate(f"{dots}[4].textContent")
    assert browser.problems == []


def test_points_and_rows_have_values_under_the_pointer(browser, pages):
    browser.open(pages[0], 1280)
    titles = browser.evaluate("[...document.querySelectorAll('svg.plot title')].map(title => title.textContent)")
    for words in ("round 0: ", "round 3, poisoned: median ", "client 1: mean "):
        assert any(title.startswith(words) for title in titles), words
