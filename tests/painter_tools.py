"""What the painter's tests share: a small round of questions, and a client that talks to a real server."""

import http.client
import json
import threading
from contextlib import contextmanager

import numpy as np
import raw_data
import uvicorn

from nnunet_gmabs.annotation.painter.painter import Painter
from nnunet_gmabs.annotation.painter.security import Door
from nnunet_gmabs.annotation.painter.server import listen, make_app
from nnunet_gmabs.annotation.raw_folder import RawFolder
from nnunet_gmabs.annotation.requests import Request, RequestedPlane, RequestedScan, round_folder, write_request

PLANES = [(0, 6), (1, 8), (2, 9)]
NAME = raw_data.name(0)


def make_request(folder, numbers=(0, 1), planes=PLANES, proposals=()):
    """A round 0 that asks for planes of some scans; folder is the data set's."""
    target = round_folder(folder, 0)
    (target / "proposals").mkdir(parents=True)
    scans = []
    for number in numbers:
        name = raw_data.name(number)
        proposal = f"proposals/{name}.nii.gz" if number in proposals else None
        if proposal:
            raw_data.write_image(target / proposal, raw_data.scan_labels(number), raw_data.scan_spacing(number))
        requested = tuple(RequestedPlane(axis, index, 0.5, "for a test") for axis, index in planes)
        scans.append(RequestedScan(name, (f"imagesTr/{name}_0000.nii.gz",), requested, 0.5, "a test", proposal))
    write_request(target, Request(0, "2025-01-01T00:00:00+00:00", "random", 0, tuple(scans)))
    return target


def make_round(folder, scans=2, labelled=(), **more):
    """A data set with two classes and a request, both tiny; returns the data set."""
    raw_data.write_raw(folder, scans, labelled, raw_data.SPARSE_LABELS)
    make_request(folder, range(scans), **more)
    return RawFolder(folder)


class Client:
    """Talks to a server at 127.0.0.1 as the page does."""

    def __init__(self, port, address=None):
        self.port = port
        self.origin = f"http://127.0.0.1:{port}"
        self.cookie = None
        if address:
            status, _, headers = self.send("GET", address.removeprefix(self.origin))
            assert status == 200
            self.cookie = headers["set-cookie"].split(";")[0]

    def send(self, method, path, body=None, **headers):
        """Status, body and headers; a header given as None is left out."""
        sent = {"Origin": None if method == "GET" else self.origin, "Cookie": self.cookie} | headers
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)
        connection.request(method, path, body, {k: v for k, v in sent.items() if v is not None})
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        return answer.status, content, {k.lower(): v for k, v in answer.getheaders()}

    def json(self, method, path, content=None, expect=200):
        status, body, _ = self.send(method, path, None if content is None else json.dumps(content))
        assert status == expect, (status, body)
        return json.loads(body)

    def open(self, name=NAME):
        return self.json("POST", f"/api/scans/{name}/open", {})

    def picture(self, plane, what, dtype=np.uint8, name=NAME):
        """A picture as it is shown: (rows, columns)."""
        described = next(p for p in self.open(name)["planes"] if p["axis"] == plane[0])
        status, body, _ = self.send("GET", f"{path_of(plane, name)}/{what}")
        assert status == 200, body
        return np.frombuffer(body, dtype).reshape(described["rows"], described["columns"])

    def save(self, plane, picture, base, action="brush", name=NAME, expect=200):
        path = f"{path_of(plane, name)}/mask?base={base}&action={action}"
        status, body, _ = self.send("PUT", path, np.asarray(picture, np.uint8).tobytes())
        assert status == expect, (status, body)
        return json.loads(body)

    def done(self, plane, base, done=True, name=NAME):
        return self.json("POST", f"{path_of(plane, name)}/done", {"done": done, "base": base})


def path_of(plane, name=NAME):
    return f"/api/scans/{name}/{plane[0]}/{plane[1]}"


@contextmanager
def serving(painter: Painter):
    """A real server on a free port; gives its Door."""
    with listen(0) as listening:
        door = Door(listening.getsockname()[1])
        server = uvicorn.Server(uvicorn.Config(make_app(painter, door), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
            yield door
        finally:
            server.should_exit = True
            thread.join()


@contextmanager
def client_of(raw, annotator="anna", **more):
    """A client that was let in to a server of its own."""
    with serving(Painter(raw, 0, annotator, **more)) as door:
        yield Client(door.port, door.address)
