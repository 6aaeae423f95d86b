"""A person's way through the painter in a real browser: paint, undo, reload, kill the server, finish, merge.

What must come out is written down here pixel by pixel, apart from what the page believes.
"""

import os
import time

import numpy as np
import painter_tools as tools
import pytest
import raw_data
import SimpleITK as sitk
import tiny
from painter_browser import (
    LEFT,
    RIGHT,
    errors_of,
    expected_answer,
    line,
    needs_browser,
    painter_page,
    picture_of,
)

from nnunet_gmabs.annotation.painter.painter import Painter
from nnunet_gmabs.annotation.requests import arrived_answers, round_folder

pytestmark = [pytest.mark.slow, needs_browser]
AXIAL, CORONAL, SAGITTAL = tools.PLANES


@pytest.fixture
def raw(tmp_path):
    return tools.make_round(tmp_path / "data", proposals=[0])


def test_from_the_first_stroke_to_merged_labels(raw):
    with painter_page(raw) as page:
        assert "token" not in page.driver.current_url
        page.open_scan(tools.NAME)
        axial = paint_undo_and_reload(page, raw)
        coronal = paint_while_the_server_is_dead(page, raw)
        assert page.plane() == SAGITTAL
        page.keys("n")
        page.until("document.getElementById('finish').classList.contains('primary')", "all planes done")
        finish(page)
        assert errors_of(page.driver) == []
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


def paint_while_the_server_is_dead(page, raw):
    """The coronal plane: SIGKILL between two strokes, a new server, the page goes on; what must be there."""
    assert page.plane() == CORONAL
    page.keys("[" * 8, "2")
    first, second = (line(3, range(5, 11)), RIGHT), (line(8, range(9, 12)), RIGHT)
    page.gesture(first[0])
    page.wait_until_saved()
    page.server.kill()
    page.gesture(second[0])
    page.until("!document.getElementById('banner').hidden", "the loss of the server")
    assert "NOT SAVED" in page.text("banner") and page.text("saved") == "NOT SAVED"
    page.driver.refresh()  # nothing answers
    page.start_server_again(raw)
    page.driver.get(page.server.address)
    page.open_scan(tools.NAME)
    page.wait_until_saved()
    picture = picture_of(raw, CORONAL, [first, second])
    assert np.array_equal(page.painting(), picture)
    page.keys("d")
    page.until("document.querySelectorAll('.plane')[2].classList.contains('current')", "the next plane")
    return picture


def finish(page):
    """Through the question about planes that disagree, to the list."""
    page.click("#finish")
    page.until("document.getElementById('dialog').open", "the question")
    assert "disagree" in page.text("dialog-text")
    page.click("#dialog-yes")
    page.wait_for_list()
    page.until("document.querySelector('.state.finished')", "the finished scan")


def test_a_scan_that_cannot_be_opened_is_told_and_leaves_the_others_alone(raw):
    raw_data.write_image(raw.images_of(tools.NAME)[0], raw_data.scan_image(1))  # exported again, with another shape
    with painter_page(raw) as page:
        page.click(f"button[data-scan={tools.NAME}]")
        page.until("document.getElementById('dialog').open", "the reason")
        assert "was the image exported again after round 0?" in page.text("dialog-text")
        page.click("#dialog-yes")
        page.open_scan("scan_01")
        page.keys("[" * 8)
        page.gesture(line(4, range(3, 9)))
        time.sleep(4)  # longer than a retry takes
        page.wait_until_saved()
        assert page.text("scan-name") == "scan_01" and not page.shown("banner")
        assert np.array_equal(page.painting(), picture_of(raw, AXIAL, [(line(4, range(3, 9)), LEFT)], "scan_01"))
        assert Painter(raw, 0, "bert").state_of(tools.NAME)[0] == "free"


def test_an_open_page_goes_on_with_a_new_server_by_itself(raw):
    with painter_page(raw) as page:
        page.open_scan(tools.NAME)
        page.keys("[" * 8)
        page.server.kill()
        page.gesture(line(5, range(3, 6)))
        page.gesture(line(6, range(3, 6)))
        page.start_server_again(raw)
        page.until("document.getElementById('banner').textContent.includes('started anew')", "the new server")
        first = page.driver.current_window_handle
        page.driver.switch_to.new_window("tab")
        page.driver.get(page.server.address)
        page.wait_for_list()
        page.driver.close()
        page.driver.switch_to.window(first)
        page.wait_until_saved()
        assert not page.shown("banner")
        expected = picture_of(raw, AXIAL, [(line(5, range(3, 6)) + line(6, range(3, 6)), LEFT)])
        assert np.array_equal(Painter(raw, 0, "anna").picture_of_draft(tools.NAME, AXIAL), expected)
        page.keys("z")
        page.until("!document.getElementById('redo').disabled", "undo")
        assert np.array_equal(page.painting(), picture_of(raw, AXIAL, [(line(5, range(3, 6)), LEFT)]))


def test_what_follows_an_undo_at_once_is_what_the_page_shows_and_the_server_has(raw):
    with painter_page(raw) as page:
        page.open_scan(tools.NAME)
        page.keys("[" * 8)
        page.gesture(line(4, range(3, 9)))
        page.gesture(line(6, range(3, 9)))
        page.wait_until_saved()
        page.server.kill()  # so that nothing is answered before the next key
        page.keys("z", "p", "a")  # undo; the proposal is shown and taken over
        page.start_server_again(raw)
        page.driver.switch_to.new_window("tab")
        page.driver.get(page.server.address)  # lets the browser in again
        page.driver.switch_to.window(page.driver.window_handles[0])
        page.wait_until_saved()
        proposal = Painter(raw, 0, "x").picture_of_proposal(tools.NAME, AXIAL)
        assert np.array_equal(Painter(raw, 0, "anna").picture_of_draft(tools.NAME, AXIAL), proposal)
        assert np.array_equal(page.painting(), proposal)


def test_tools_neighbours_and_proposal(raw):
    """Lasso, fill, eraser by Shift; neighbours take no paint; a proposal is accepted only when it is seen."""
    from selenium.webdriver.common.keys import Keys

    with painter_page(raw, 1000, 680) as page:
        page.open_scan(tools.NAME)
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
        assert errors_of(page.driver) == []
        (state, *_) = Painter(raw, 0, "anna").states(tools.NAME)
        assert state.done and state.proposal_accepted


def test_the_picture_lies_where_the_mouse_paints(raw):
    """The brightest pixel on the canvas is where the page says that voxel is."""
    with painter_page(raw) as page:
        page.open_scan(tools.NAME)
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
