"""A person's way through the painter in a real browser: paint, undo, reload, kill the server, finish, merge.

What must come out is written down here pixel by pixel, apart from what the page believes.
"""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager

import numpy as np
import painter_tools as tools
import pytest
import raw_data
import SimpleITK as sitk
import tiny

from nnunet_gmabs.annotation.painter.painter import Painter
from nnunet_gmabs.annotation.requests import arrived_answers, round_folder

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (BROWSER and DRIVER),
        reason="needs a browser: chromium and chromedriver (Debian: apt install chromium chromium-driver)",
    ),
]
AXIAL, CORONAL, SAGITTAL = tools.PLANES
PATIENCE_S = 60
LEFT, RIGHT = 1, 2


@contextmanager
def chromium(width=1440, height=900):
    """A headless browser that remembers nothing afterwards."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    options.unhandled_prompt_behavior = "accept"  # "leave this page?" is answered with yes: the hard case
    for argument in ("--headless=new", "--disable-gpu", "--disable-dev-shm-usage", f"--window-size={width},{height}"):
        options.add_argument(argument)
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        options.add_argument("--no-sandbox")  # Chromium's sandbox refuses to work for root
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE_S)
    try:
        yield driver
    finally:
        driver.quit()


class Server:
    """`gmabs annotate` in a process of its own."""

    def __init__(self, raw, annotator="anna", port=None):
        if port is None:
            with tools.listen(0) as free:
                port = free.getsockname()[1]
        self.port = port
        arguments = ("annotate", "-d", str(raw.folder), "--annotator", annotator, "--port", str(port))
        command = (*tiny.executable("gmabs"), *arguments, "--generalist", "none")
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in self.process.stdout:
            if line.startswith("open "):
                self.address = line.split()[1]
                return
        raise AssertionError("the server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Page:
    """The painter's page, by mouse and keyboard."""

    def __init__(self, driver):
        self.driver = driver

    def script(self, body):
        """What JavaScript returns that has the page's own modules `state`, `viewport` and `saver` at hand."""
        return self.driver.execute_async_script(
            """const answer = arguments[0];
            Promise.all(["state", "viewport", "saver"].map((name) => import(`/page/js/${name}.js`)))
              .then(async ([state, viewport, saver]) => answer(await (async () => {"""
            + body
            + "})()));"
        )

    def until(self, condition, what):
        end = time.monotonic() + PATIENCE_S
        while not self.driver.execute_script(f"return Boolean({condition})"):
            assert time.monotonic() < end, (what, self.driver.get_log("browser"))
            time.sleep(0.03)

    def text(self, identifier):
        return self.driver.execute_script("return document.getElementById(arguments[0]).textContent", identifier)

    def shown(self, identifier):
        return self.driver.execute_script("return !document.getElementById(arguments[0]).hidden", identifier)

    def click(self, selector):
        self.driver.find_element("css selector", selector).click()

    def wait_for_list(self):
        self.until("document.getElementById('list')?.hidden === false", "the list of scans")

    def wait_for_scan(self):
        self.until("document.getElementById('painter')?.hidden === false", "the open scan")

    def wait_until_saved(self):
        self.until("document.getElementById('saved').textContent === 'All saved'", "saved")

    def keys(self, *keys):
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def gesture(self, pixels, release=True):
        """Press at the middle of the first pixel (row, column), go over the others, let go."""
        from selenium.webdriver.common.action_chains import ActionChains

        places = [self.place(row, column) for row, column in pixels]
        chain = ActionChains(self.driver, duration=10)
        chain.w3c_actions.pointer_action.move_to_location(*places[0]).pointer_down()
        for place in places[1:]:
            chain.w3c_actions.pointer_action.move_to_location(*place)
        if release:
            chain.w3c_actions.pointer_action.pointer_up()
        chain.perform()

    def place(self, row, column):
        return self.script(
            f"""const rect = document.getElementById("canvas").getBoundingClientRect();
            const {{ x, y }} = viewport.toCanvas({column} + 0.5, {row} + 0.5);
            return [Math.round(rect.left + x), Math.round(rect.top + y)];"""
        )

    def painting(self):
        """What the page shows of the open plane, (rows, columns)."""
        rows, columns, values = self.script("const p = state.plane(); return [p.rows, p.columns, [...p.mask]];")
        return np.array(values, np.uint8).reshape(rows, columns)

    def plane(self):
        """Axis and index of the open plane."""
        return tuple(self.script("const p = state.plane(); return [p.axis, p.index];"))


@pytest.fixture
def raw(tmp_path):
    return tools.make_round(tmp_path / "data", proposals=[0])


def line(row, columns):
    return [(row, column) for column in columns]


def picture_of(raw, plane, strokes):
    """The picture in which exactly these pixels are painted: [(pixels, value), ...]."""
    picture = np.zeros(Painter(raw, 0, "x").scan(tools.NAME).picture_shape(plane[0]), np.uint8)
    for pixels, value in strokes:
        for pixel in pixels:
            picture[pixel] = value
    return picture


def expected_answer(raw, pictures):
    """The label map that done planes must give, later planes over earlier ones."""
    scan = Painter(raw, 0, "x").scan(tools.NAME)
    labels = np.full(scan.shape, raw_data.IGNORE)
    for (axis, index), picture in pictures.items():
        labels[tuple(index if a == axis else slice(None) for a in range(3))] = scan.views[axis].from_screen(picture)
    return labels


def errors_of(driver):
    """What the page complained about, but for the server that was killed."""
    quiet = ("ERR_CONNECTION_REFUSED", "401 (Unauthorized)", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    return [entry for entry in driver.get_log("browser") if not any(word in entry["message"] for word in quiet)]


def test_from_the_first_stroke_to_merged_labels(raw):
    server = Server(raw)
    try:
        with chromium() as driver:
            page = Page(driver)
            driver.get(server.address)
            page.wait_for_list()
            assert "token" not in driver.current_url
            page.click(f"button[data-scan={tools.NAME}]")
            page.wait_for_scan()
            axial = paint_undo_and_reload(page, raw)
            coronal, server = paint_while_the_server_is_dead(page, raw, server)
            assert page.plane() == SAGITTAL
            page.keys("n")
            page.until("document.getElementById('finish').classList.contains('primary')", "all planes done")
            finish(page)
            assert errors_of(driver) == []
    finally:
        server.kill()
    pictures = {AXIAL: axial, CORONAL: coronal, SAGITTAL: picture_of(raw, SAGITTAL, [])}
    expected = expected_answer(raw, pictures)
    answer = round_folder(raw.folder, 0) / "answers" / f"{tools.NAME}.nii.gz"
    assert np.array_equal(sitk.GetArrayFromImage(sitk.ReadImage(str(answer))), expected)
    (said,) = arrived_answers(round_folder(raw.folder, 0))
    assert (said.annotator, said.planes_done, said.proposal_accepted) == ("anna", (AXIAL, CORONAL, SAGITTAL), ())
    assert 0 < said.seconds < 300
    tiny.run_command("gmabs", "merge", "-d", str(raw.folder), environment=dict(os.environ))
    assert np.array_equal(raw.read_labels(raw.label_path(tools.NAME))[0], expected)


def paint_undo_and_reload(page, raw):
    """The axial plane: two classes, undo and redo, a reload in the middle of a stroke; what must be there."""
    assert page.plane() == AXIAL
    page.keys("[" * 8)  # a brush of one pixel
    first, second = (line(4, range(3, 9)), LEFT), (line(9, range(2, 5)), RIGHT)
    page.gesture(first[0])
    page.keys("2")
    page.gesture(second[0])
    page.wait_until_saved()
    assert np.array_equal(page.painting(), picture_of(raw, AXIAL, [first, second]))
    page.keys("z")
    page.until("!document.getElementById('redo').disabled", "undo")
    assert np.array_equal(page.painting(), picture_of(raw, AXIAL, [first]))
    page.driver.refresh()
    page.wait_for_scan()
    assert np.array_equal(page.painting(), picture_of(raw, AXIAL, [first]))
    page.keys("y")
    page.until("document.getElementById('redo').disabled", "redo after a reload")
    assert np.array_equal(page.painting(), picture_of(raw, AXIAL, [first, second]))
    page.keys("[" * 8, "1")
    third = (line(12, range(6, 10)), LEFT)
    page.gesture(third[0], release=False)
    page.driver.refresh()  # the button is still held down
    page.wait_for_scan()
    page.wait_until_saved()
    picture = picture_of(raw, AXIAL, [first, second, third])
    assert np.array_equal(page.painting(), picture)
    page.keys("d")
    page.until("document.querySelectorAll('.plane')[1].classList.contains('current')", "the next plane")
    return picture


def paint_while_the_server_is_dead(page, raw, server):
    """The coronal plane: SIGKILL between two strokes, a new server, the page goes on; what must be there, and it."""
    assert page.plane() == CORONAL
    page.keys("[" * 8, "2")
    first, second = (line(3, range(5, 11)), RIGHT), (line(8, range(9, 12)), RIGHT)
    page.gesture(first[0])
    page.wait_until_saved()
    server.kill()
    page.gesture(second[0])
    page.until("!document.getElementById('banner').hidden", "the loss of the server")
    assert "NOT SAVED" in page.text("banner") and page.text("saved") == "NOT SAVED"
    page.driver.refresh()  # nothing answers
    server = Server(raw, port=server.port)
    page.driver.get(server.address)
    page.wait_for_list()
    page.click(f"button[data-scan={tools.NAME}]")
    page.wait_for_scan()
    page.wait_until_saved()
    picture = picture_of(raw, CORONAL, [first, second])
    assert np.array_equal(page.painting(), picture)
    page.keys("d")
    page.until("document.querySelectorAll('.plane')[2].classList.contains('current')", "the next plane")
    return picture, server


def finish(page):
    """Through the question about planes that disagree, to the list."""
    page.click("#finish")
    page.until("document.getElementById('dialog').open", "the question")
    assert "disagree" in page.text("dialog-text")
    page.click("#dialog-yes")
    page.wait_for_list()
    page.until("document.querySelector('.state.finished')", "the finished scan")


def test_an_open_page_goes_on_with_a_new_server_by_itself(raw):
    server = Server(raw)
    try:
        with chromium() as driver:
            page = Page(driver)
            driver.get(server.address)
            page.wait_for_list()
            page.click(f"button[data-scan={tools.NAME}]")
            page.wait_for_scan()
            page.keys("[" * 8)
            server.kill()
            page.gesture(line(5, range(3, 6)))
            page.gesture(line(6, range(3, 6)))
            server = Server(raw, port=server.port)
            page.until("document.getElementById('banner').textContent.includes('started anew')", "the new server")
            first = driver.current_window_handle
            driver.switch_to.new_window("tab")
            driver.get(server.address)
            page.wait_for_list()
            driver.close()
            driver.switch_to.window(first)
            page.wait_until_saved()
            assert not page.shown("banner")
            expected = picture_of(raw, AXIAL, [(line(5, range(3, 6)) + line(6, range(3, 6)), LEFT)])
            assert np.array_equal(Painter(raw, 0, "anna").picture_of_draft(tools.NAME, AXIAL), expected)
            page.keys("z")
            page.until("!document.getElementById('redo').disabled", "undo")
            assert np.array_equal(page.painting(), picture_of(raw, AXIAL, [(line(5, range(3, 6)), LEFT)]))
    finally:
        server.kill()


def test_tools_neighbours_and_proposal(raw):
    """Lasso, fill, eraser by Shift; neighbours take no paint; a proposal is accepted only when it is seen."""
    from selenium.webdriver.common.keys import Keys

    server = Server(raw)
    try:
        with chromium(1000, 680) as driver:
            page = Page(driver)
            driver.get(server.address)
            page.wait_for_list()
            page.click(f"button[data-scan={tools.NAME}]")
            page.wait_for_scan()
            page.keys("l")
            page.gesture([(3, 3), (3, 8), (9, 8), (9, 3)])
            page.wait_until_saved()
            square = page.painting()
            assert square[4:9, 4:8].all() and not np.delete(square, range(3, 10), axis=0).any()
            page.keys("z")
            page.until("!document.getElementById('redo').disabled", "undo")
            assert not page.painting().any()
            page.keys("b", "[" * 8)
            outline = [(4, c) for c in range(2, 7)] + [(8, c) for c in range(6, 1, -1)]
            page.gesture([(4, 2), (4, 6), (8, 6), (8, 2), (4, 2)])
            page.keys("f", "2")
            page.gesture([(6, 4)])
            page.gesture([(1, 1)])
            assert "open" in page.text("toast")
            page.wait_until_saved()
            expected = picture_of(raw, AXIAL, [(outline, LEFT), ([(r, c) for r in (5, 6, 7) for c in (2, 6)], LEFT)])
            expected[5:8, 3:6] = RIGHT
            assert np.array_equal(page.painting(), expected)
            page.keys(Keys.ARROW_UP, "b")
            page.until("!document.getElementById('read-only').hidden", "a neighbour")
            page.gesture([(10, 10)])
            assert "read-only" in page.text("toast")
            page.keys("a", Keys.ESCAPE, "a")
            assert "first" in page.text("toast") and np.array_equal(page.painting(), expected)
            page.keys("pa")
            page.wait_until_saved()
            view = Painter(raw, 0, "x").scan(tools.NAME).views[0]
            assert np.array_equal(page.painting(), view.to_screen(raw_data.scan_labels(0)[AXIAL[1]]))
            page.keys("d")
            page.until("document.querySelectorAll('.plane')[1].classList.contains('current')", "the next plane")
            page.keys(Keys.ARROW_LEFT)
            page.gesture([(1, 1)])
            assert "done" in page.text("toast")
            assert errors_of(driver) == []
            (state, *_) = Painter(raw, 0, "anna").states(tools.NAME)
            assert state.done and state.proposal_accepted
    finally:
        server.kill()


def test_the_picture_lies_where_the_mouse_paints(raw):
    """The brightest pixel on the canvas is where the page says that voxel is."""
    server = Server(raw)
    try:
        with chromium() as driver:
            page = Page(driver)
            driver.get(server.address)
            page.wait_for_list()
            page.click(f"button[data-scan={tools.NAME}]")
            page.wait_for_scan()
            page.keys("s", "c")
            shown = Painter(raw, 0, "x").picture_of_scan(tools.NAME, AXIAL, 0)
            row, column = np.unravel_index(shown.argmax(), shown.shape)
            page.until("document.getElementById('canvas').width > 300", "a canvas")
            time.sleep(0.3)  # the next frame is drawn
            rows, columns, found = page.script(
                """const canvas = document.getElementById("canvas"), ratio = canvas.width / canvas.clientWidth;
                const value = (r, c) => {
                  const { x, y } = viewport.toCanvas(c + 0.5, r + 0.5);
                  return canvas.getContext("2d").getImageData(x * ratio, y * ratio, 1, 1).data[0];
                };
                const p = state.plane(), found = [];
                for (let r = 0; r < p.rows; r++) for (let c = 0; c < p.columns; c++) found.push(value(r, c));
                return [p.rows, p.columns, found];"""
            )
            found = np.array(found, float).reshape(rows, columns)
            assert found[row, column] == found.max()
            assert np.corrcoef(found.ravel(), shown.astype(float).ravel())[0, 1] > 0.98
    finally:
        server.kill()
