"""The report in a real browser, from disk: no errors, no network, and its controls work."""

from __future__ import annotations

import base64
import csv
import io
import time

import pytest

from ccrl_wsi.outputs.report.page import render_report
from tests.chromium import draw_everything, find_chromium, open_chromium
from tests.report_examples import SCRIPT, made_up_report

N_SLIDES = 9
NAME = f"{SCRIPT}$$x$$"

pytest.importorskip("selenium")
pytestmark = pytest.mark.skipif(
    find_chromium() is None, reason="no Chromium and chromedriver: apt-get install chromium-driver"
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("report")


@pytest.fixture(scope="module")
def content():
    return made_up_report(N_SLIDES, 4, name=NAME, n_crops=2)


@pytest.fixture(scope="module")
def page(folder, content):
    """The page, open; what its console said stays to be read."""
    (folder / "report.html").write_text(render_report(content), encoding="utf-8")
    with open_chromium(folder) as driver:
        driver.get((folder / "report.html").as_uri())
        yield driver


@pytest.fixture(scope="module")
def drawn(page):
    draw_everything(page)
    return page


def factors(driver, name):
    return driver.execute_script(
        "return Bokeh.documents.map(d => d.get_model_by_name(arguments[0])).find(m => m).factors",
        name,
    )


def choose(driver, name, label):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import Select

    element = driver.find_element(By.CSS_SELECTOR, f'select[data-sorts="{name}"]')
    Select(element).select_by_visible_text(label)
    time.sleep(0.3)


def texts(driver, selector):
    return driver.execute_script(
        "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent)", selector
    )


def test_it_opens_without_a_word_on_the_console_and_without_the_network(drawn):
    from selenium.common.exceptions import NoAlertPresentException

    assert [entry for entry in drawn.get_log("browser") if entry["level"] != "INFO"] == []
    asked = drawn.execute_script("return performance.getEntriesByType('resource').map(e => e.name)")
    assert [name for name in asked if not name.startswith(("data:", "blob:"))] == []
    with pytest.raises(NoAlertPresentException):
        _ = drawn.switch_to.alert


def test_the_page_forbids_itself_the_network(drawn):
    answer = drawn.execute_async_script(
        "const done = arguments[0];"
        "fetch('http://127.0.0.1:9/').then(() => done('sent'), error => done(error.name));"
        "document.addEventListener('securitypolicyviolation', () => done('forbidden'))"
    )
    drawn.get_log("browser")  # It said so on the console, as it should.
    assert answer in ("forbidden", "TypeError")


def test_every_figure_is_drawn(drawn):
    empty = drawn.execute_script(
        "return [...document.querySelectorAll('.plot')].filter(e => !e.querySelector('.bk-Figure')"
        " || e.offsetHeight < 100).map(e => e.id)"
    )
    assert empty == []


def test_every_picture_is_decoded(drawn):
    broken = drawn.execute_async_script(
        "const done = arguments[0]; Promise.all([...document.images].map(i => i.decode()"
        ".then(() => i.naturalWidth > 0))).then(done, error => done([String(error)]))"
    )
    assert broken
    assert set(broken) == {True}


def test_bars_are_sorted_by_what_is_chosen(drawn, content):
    given = factors(drawn, "slide-bars")
    first_share = {s.slide_id: s.counts[0] / sum(s.counts) for s in content.slides}
    wanted = sorted(first_share, key=first_share.get)  # the largest on top, which comes last
    choose(drawn, "slide-bars", "share of C01")
    found = factors(drawn, "slide-bars")
    assert [text[-7:] for text in found] == [title[-7:] for title in wanted]
    choose(drawn, "slide-bars", "the order of the run")
    assert factors(drawn, "slide-bars") == given
    assert [text[-7:] for text in given[::-1]] == [s.slide_id[-7:] for s in content.slides]


def test_pointing_at_a_bar_tells_its_slide(drawn, content):
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    plot = drawn.find_element(By.ID, "slide-bars")
    drawn.execute_script(
        "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})", plot
    )
    time.sleep(0.5)
    # The middle of the uppermost bar: the first slide.
    ActionChains(drawn).move_to_element_with_offset(
        plot, 0, 20 - plot.size["height"] // 2
    ).perform()
    time.sleep(0.5)
    told = drawn.execute_script(
        """
        const seen = [];
        const walk = (node) => {
          for (const child of [...(node.shadowRoot?.children ?? []), ...node.children]) {
            if (child.classList.contains("bk-Tooltip")) seen.push(
              (child.shadowRoot ?? child).textContent, String(child.shadowRoot?.querySelectorAll(
              'script').length ?? 0));
            walk(child);
          }
        };
        walk(document.body);
        return seen;
        """
    )
    assert any(f"{NAME}000" in text for text in told), told
    assert "0" in told


def test_the_table_is_sorted_by_a_click_and_downloaded_as_it_stands(drawn, content, folder):
    from selenium.webdriver.common.by import By

    heads = drawn.find_elements(By.CSS_SELECTOR, "#composition-table th button")
    drawn.execute_script("arguments[0].click()", heads[6])
    shares = sorted((s.counts[0] / sum(s.counts) for s in content.slides), reverse=True)
    shown = texts(drawn, "#composition-table tbody tr td:nth-child(7)")
    assert shown == [f"{100 * share:.1f} %" for share in shares]
    drawn.execute_script("document.querySelector('[data-downloads]').click()")
    path = folder / "composition.csv"
    for _ in range(100):
        if path.is_file() and path.stat().st_size:
            break
        time.sleep(0.1)
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    assert [float(row["C01"]) for row in rows] == pytest.approx(shares, abs=1e-6)
    assert {row["slide_id"] for row in rows} == {slide.slide_id for slide in content.slides}
    assert sum(int(row["cells"]) for row in rows) == sum(s.n_cells for s in content.slides)


def test_it_fits_a_phone(drawn):
    drawn.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": 390, "height": 844, "deviceScaleFactor": 2, "mobile": True},
    )
    try:
        time.sleep(1)
        assert drawn.execute_script("return document.documentElement.scrollWidth") <= 390
        wide = drawn.execute_script(
            "return [...document.querySelectorAll('.plot, .card, img')]"
            ".filter(e => e.getBoundingClientRect().right > 391).map(e => e.id || e.className)"
        )
        assert wide == []
    finally:
        drawn.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_it_is_printed_on_some_pages(drawn):
    printed = drawn.execute_cdp_cmd("Page.printToPDF", {"preferCSSPageSize": True})
    pdf = base64.b64decode(printed["data"])
    assert pdf.startswith(b"%PDF")
    assert 3 <= pdf.count(b"/Type /Page\n") + pdf.count(b"/Type /Page/") <= 40


def test_dollars_in_names_are_written_as_they_are(drawn, folder):
    """What the canvases are told to write when everything is painted once more."""
    titled = made_up_report(N_SLIDES, 2, name="a$$b$$", n_pictures=0, n_crops=0)
    (folder / "dollars.html").write_text(render_report(titled), encoding="utf-8")
    drawn.get((folder / "dollars.html").as_uri())
    draw_everything(drawn)
    written = drawn.execute_async_script(
        """
        const done = arguments[0], seen = [], own = CanvasRenderingContext2D.prototype;
        const fill = own.fillText;
        own.fillText = function (text, ...more) {
          seen.push(text);
          return fill.call(this, text, ...more);
        };
        document.body.style.width = "480px";
        setTimeout(() => { own.fillText = fill; done(seen); }, 2500);
        """
    )
    assert any("a$$b$$008" in text for text in written), written
    assert sum("a$$b$$008" in text for text in written) >= 3, written  # bars twice, heat map
    assert any("a$$b$$ group 1 minus a$$b$$ group 0" in text for text in written), written
    legends = drawn.execute_script(
        """
        const inside = (n) => [...(n.shadowRoot?.children ?? []), ...n.children]
          .map((c) => (c.children.length || c.shadowRoot ? "" : c.textContent) + "|" + inside(c))
          .join("|");
        return inside(document.getElementById("components"));
        """
    )
    assert "a$$b$$ group 0" in legends, legends
