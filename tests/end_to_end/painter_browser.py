"""The painter in a real browser: a server of its own, its page by mouse and keyboard, and what must come out."""

import os
import shutil
import subprocess
import time
from contextlib import contextmanager

import numpy as np
import painter_tools as tools
import pytest
import raw_data
import tiny

from nnunet_gmabs.annotation.painter.scans import Scan

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
needs_browser = pytest.mark.skipif(
    not (BROWSER and DRIVER),
    reason="needs a browser: chromium and chromedriver (Debian: apt install chromium chromium-driver)",
)
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


@contextmanager
def painter_page(raw, width=1440, height=900):
    """The page with the list of scans; its server ends with it."""
    with chromium(width, height) as driver:
        page = Page(driver, Server(raw))
        try:
            driver.get(page.server.address)
            page.wait_for_list()
            yield page
        finally:
            page.server.kill()


class Page:
    """The painter's page, by mouse and keyboard."""

    def __init__(self, driver, server):
        self.driver, self.server = driver, server

    def start_server_again(self, raw):
        """Where the old one was, which was killed; the open page finds it by itself."""
        self.server = Server(raw, port=self.server.port)

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

    def open_scan(self, name):
        """From the list to a scan's first plane."""
        self.wait_for_list()
        self.click(f"button[data-scan={name}]")
        self.wait_for_scan()

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


def line(row, columns):
    return [(row, column) for column in columns]


def picture_of(raw, plane, strokes, name=tools.NAME):
    """The picture in which exactly these pixels are painted: [(pixels, value), ...]."""
    picture = np.zeros(Scan(raw, name).picture_shape(plane[0]), np.uint8)
    for pixels, value in strokes:
        for pixel in pixels:
            picture[pixel] = value
    return picture


def expected_answer(raw, pictures, name=tools.NAME):
    """The label map that done planes must give, later planes over earlier ones."""
    scan = Scan(raw, name)
    labels = np.full(scan.shape, raw_data.IGNORE)
    for (axis, index), picture in pictures.items():
        labels[tuple(index if a == axis else slice(None) for a in range(3))] = scan.views[axis].from_screen(picture)
    return labels


def errors_of(driver):
    """What the page complained about, but for the server that was killed."""
    quiet = ("ERR_CONNECTION_REFUSED", "401 (Unauthorized)", "ERR_CONNECTION_RESET", "ERR_EMPTY_RESPONSE")
    return [entry for entry in driver.get_log("browser") if not any(word in entry["message"] for word in quiet)]
