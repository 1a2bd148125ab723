"""The app in a real headless Chromium: a file becomes a run, is compared, tried and labelled, by mouse and keyboard.

Needs Playwright and a Chromium (its own, or one on the PATH); without them the tests are left out.
"""

from __future__ import annotations

import csv
import os
import re
import shutil
import signal
import subprocess
import sys

import pytest

playwright = pytest.importorskip("playwright.sync_api")
pytestmark = pytest.mark.slow

ROWS = 10_000


@pytest.fixture(scope="module")
def folder(tmp_path_factory, make_records, tiny_model, tiny_classifier):
    folder = tmp_path_factory.mktemp("browser") / "runs"
    for name in ("one", "two"):
        make_records(folder / name, word='<b id="planted">word</b>')
        shutil.copytree(tiny_classifier, folder / name / "model", dirs_exist_ok=True)
    (folder / "two" / "report.html").write_text("<script>document.title = 'ran'</script>", encoding="utf-8")
    shutil.copytree(tiny_model, folder / "tiny-bert")
    return folder


@pytest.fixture(scope="module")
def address(folder):
    """A running `tunewell ui`, and the address that it printed."""
    command = [sys.executable, "-m", "tunewell", "ui", str(folder), "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        found = re.search(r" at (http://\S+)", process.stdout.readline())
        assert found
        yield found[1]
        process.send_signal(signal.SIGTERM)
        process.wait(30)
        process.stdout.close()


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as p:
        where = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
        try:
            made = p.chromium.launch(executable_path=where, args=["--no-sandbox"])
        except playwright.Error as error:
            pytest.skip(f"no Chromium: {error}")
        yield made
        made.close()


@pytest.fixture
def page(browser, address):
    """A window with an open session; at the end nothing has been refused by the policy or failed in a script."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, locale="en-US")
    page, faults = context.new_page(), []
    page.set_default_timeout(120_000)
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda m: faults.append(m.text) if m.type == "error" and "status of 400" not in m.text else None)
    page.goto(address)
    yield page
    context.close()
    assert not faults


def names(page):
    return page.eval_on_selector_all("#runs tbody tr:not([hidden]) th a", "found => found.map(a => a.textContent)")


def test_the_key_leaves_the_address_and_the_list_sorts_and_filters(page, browser, address):
    assert "token" not in page.url
    page.get_by_role("button", name=re.compile("^name")).click()
    assert names(page) == ["one", "two"]
    page.keyboard.press("Enter")  # the header has the focus still
    assert names(page) == ["two", "one"]
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("name")
    page.get_by_label("Filter").fill("tw")
    assert names(page) == ["two"]
    assert page.locator("#shown").inner_text() == "1 of 2 shown"
    stranger = browser.new_context().new_page()
    stranger.goto(address.partition("?")[0])
    assert "holds the key" in stranger.inner_text("body")


def test_by_keyboard_alone(page):
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "filter"


def test_light_dark_and_chinese_stay(page):
    before = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    after = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert before != after
    page.get_by_role("link", name="中文").click()
    page.goto(page.url.partition("?")[0])
    assert page.inner_text("h1") == "运行"
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == after


def test_nothing_planted_in_data_is_an_element(page):
    for path in ("/", "/run?at=one", "/compare?at=one&at=two"):
        page.goto(page.url.split("/", 3)[0] + "//" + page.url.split("/", 3)[2] + path)
        assert page.locator("#planted").count() == 0
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def test_a_report_runs_shut_in(page):
    page.get_by_role("link", name="two").click()
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Open the report").click()
    report = popup.value
    report.wait_for_function("document.title === 'ran'")
    assert report.evaluate("self.origin") == "null"
    assert report.evaluate("fetch('/').then(() => 'reached', () => 'refused')") == "refused"


def test_a_model_answers_and_explains(page):
    page.get_by_role("link", name="one").click()
    page.get_by_role("link", name="Try it").click()
    page.get_by_label("Text").fill("the crew was lovely")
    page.keyboard.press("Control+Enter")
    page.wait_for_selector("#answer .bars")
    page.get_by_role("button", name="Predict and explain").click()
    page.wait_for_selector("#answer .why")
    assert page.inner_text("#answer .why").startswith("the crew was lovely")


def test_a_file_of_10_000_rows_becomes_a_run(page, folder, tmp_path, make_reviews):
    fake = tmp_path / "fake.csv"
    fake.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    large = tmp_path / "large.csv"
    with large.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows(make_reviews(ROWS))
    page.get_by_role("link", name="Start a run").click()
    page.set_input_files("#file", fake)
    page.get_by_role("button", name="Upload and read").click()
    page.wait_for_selector("#said .verdict")
    assert "binary data" in page.inner_text("#said")
    page.set_input_files("#file", large)
    page.get_by_role("button", name="Upload and read").click()
    page.wait_for_url("**/start?file=**")
    assert f"{ROWS:,} rows, csv" in page.inner_text("main")
    page.fill("#k-name", "from the form")
    page.fill("#k-model", "tiny-bert")
    page.fill("#k-keep", "7")
    page.get_by_role("button", name="Start", exact=True).click()
    assert page.locator("#k-keep[aria-invalid=true]").count() == 1
    page.fill("#k-keep", "")
    page.fill("#k-num_train_epochs", "0.2")
    for section, key, value in (
        ("Data", "max_train_samples", "200"),
        ("Keeping what the base model knows", "probes", "none"),
        ("Output", "explain", "0"),
        ("Output", "calibrate", "none"),
    ):
        if not page.locator(f"#k-{key}").is_visible():
            page.get_by_text(section).first.click()
        field = page.locator(f"#k-{key}")
        field.select_option(value) if key == "calibrate" else field.fill(value)
    page.get_by_role("button", name="Start", exact=True).click()
    page.wait_for_url("**/jobs")
    page.get_by_text("finished").wait_for(timeout=900_000)  # the page looks again by itself
    assert (folder / "from-the-form" / "report.html").is_file()
    page.get_by_role("link", name="from-the-form").click()
    page.get_by_role("link", name="Curves").click()
    assert page.locator(".curves svg").count() >= 2
    assert page.locator("progress[value='1.0000']").count() == 1


def test_rows_are_labelled(page, folder, save_csv):
    save_csv(folder / "to-label.csv", [("1", "one", ""), ("2", "two", "bad")], ("rank", "text", "label"))
    page.get_by_role("link", name="Label").click()
    with page.expect_popup() as popup:
        page.get_by_role("link", name="Label to-label.csv").click()
    popup.value.wait_for_selector("#labels button")
    popup.value.keyboard.press("1")
    playwright.expect(popup.value.locator("#count")).to_have_text("2 of 2 labelled")
    assert "1,one,bad" in (folder / "to-label.csv").read_text(encoding="utf-8")
