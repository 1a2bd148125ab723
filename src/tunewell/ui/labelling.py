"""The label page of `tunewell label` for files beneath the folder: one room a file, with the same page and server."""

from __future__ import annotations

import hashlib
import threading
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Mount, Route

from tunewell.errors import DataError, TunewellError
from tunewell.ui.pages import page, problem, words
from tunewell.ui.places import Place
from tunewell.ui.uploads import data_files

ENDINGS = (".csv", ".jsonl")  # those that `Sheet` can write in place
MOST = 50_000_000  # bytes of a file: it is held in memory and written whole at each answer
ROOMS = 8  # files that are held at a time
HEAD = 65_536  # bytes of a file that are read to tell whether `tunewell select` wrote it


class Rooms:
    """An ASGI app: `/KEY/...` is the label page of one file. A file that others changed meanwhile is read anew."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self._lock = threading.Lock()
        self._paths: dict[str, Path] = {}
        self._open: dict[str, tuple[Any, Any]] = {}  # key -> sheet, app

    def enter(self, name: str) -> str:
        """The key of a file's room.

        Raises:
            TunewellError: outside of the folder, too large, or without rows that can be labelled.
        """
        path = self.place.at(name)
        if path.suffix.lower() not in ENDINGS or path.stat().st_size > MOST:
            raise DataError("cannot be labelled here", where=name, expected="a .csv or .jsonl file of at most 50 MB")
        key = hashlib.sha256(name.encode()).hexdigest()[:16]
        with self._lock:
            self._paths[key] = path
            self._open.pop(key, None)
            self._enter(key)
        return key

    def _enter(self, key: str) -> Any:
        from tunewell.selection.service import create_app
        from tunewell.selection.sheet import Sheet

        if key not in self._open:
            sheet = Sheet(str(self._paths[key]))
            self._open = dict([*self._open.items(), (key, (sheet, create_app(sheet, guarded=True)))][-ROOMS:])
        return self._open[key][1]

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = Request(scope, receive)
        base = scope.get("root_path", "")
        key, slash, _ = scope["path"][len(base) :].lstrip("/").partition("/")
        if key not in self._paths or not slash:
            await problem(request, words(request)["e_missing"], 404)(scope, receive, send)
            return

        def enter() -> Any:
            with self._lock:
                return self._enter(key)

        try:
            app = await run_in_threadpool(enter)
        except TunewellError as error:
            await problem(request, error, 404)(scope, receive, send)
            return
        await app({**scope, "root_path": f"{base}/{key}"}, receive, send)


def show_files(request: Request) -> Response:
    """The files that can be labelled, those of `tunewell select` first; with `?file=` on to its page."""
    place: Place = request.app.state.place
    rooms: Rooms = request.app.state.rooms
    if asked := request.query_params.get("file", ""):
        return RedirectResponse(f"/labels/{rooms.enter(asked)}/", 303)
    pools: list[str] = []
    others: list[str] = []
    for file in data_files(place, ENDINGS):
        (pools if is_pool(file) else others).append(place.name_of(file))
    return page(request, "label.html", title=words(request)["label_page"], here="label", pools=pools, others=others)


def is_pool(path: Path) -> bool:
    """Whether a file looks as `tunewell select` writes it: rows with a label to be given and a rank."""
    try:
        with path.open("rb") as file:
            first = file.read(HEAD).decode("utf-8-sig", "replace").partition("\n")[0]
    except OSError:
        return False
    columns = {part.strip(' "\r{').partition('"')[0] for part in first.split(",")}
    return {"label", "rank"} <= columns


def routes(rooms: Rooms) -> list[Any]:
    """The routes of this file."""
    return [Route("/label", show_files), Mount("/labels", app=rooms)]
