"""The app's routes. Each page is one function here or in its own file; `Room` is what they share."""

from __future__ import annotations

import shlex
from functools import cache
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, Response
from starlette.routing import Route

from tunewell.errors import RunFolderError, TunewellError
from tunewell.hosts import Hosts
from tunewell.ui import about as abouts
from tunewell.ui import labelling, starting
from tunewell.ui.asked import form_of, run_at
from tunewell.ui.guard import Guard
from tunewell.ui.jobs import Queue
from tunewell.ui.pages import fragment, language, page, problem, words
from tunewell.ui.places import Place
from tunewell.ui.scan import FAULTS, Shelf, told
from tunewell.ui.tryit import Desk, kind_of
from tunewell.ui.uploads import MOST

# a report is a file of the folder: whatever it holds runs in an origin of its own and reaches nothing
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
STATIC = {"ui.css": "text/css", "ui.js": "text/javascript"}


def create_app(
    place: Place, *, token: str, hosts: Hosts | None = None, queue: Queue | None = None, most: int = MOST
) -> Any:
    """The ASGI app over a folder.

    Args:
        token: of the session, see `guard`. hosts: that are answered; by default the loopback's.
        queue: of the runs that are started here. most: bytes of an upload.
    """
    rooms = labelling.Rooms(place)
    app = Starlette(
        routes=[
            Route("/", show_runs),
            Route("/run", show_run),
            Route("/report", show_report),
            Route("/file", send_file),
            Route("/compare", show_comparison),
            Route("/live", show_live),
            *starting.ROUTES,
            *labelling.routes(rooms),
            Route("/try", show_try, methods=["GET"]),
            Route("/try", answer, methods=["POST"]),
            Route("/static/{name}", send_static),
        ],
        exception_handlers={TunewellError: _mistake, HTTPException: _http_error, Exception: _fault},
    )
    app.state.place, app.state.shelf, app.state.desk = place, Shelf(place), Desk()
    app.state.rooms = rooms
    app.state.queue, app.state.most = Queue(place) if queue is None else queue, most
    return Guard(app, token=token, hosts=hosts)


# ---------------------------------------------------------------- pages


def show_runs(request: Request) -> Response:
    """All runs."""
    entries = request.app.state.shelf.all()
    return page(request, "runs.html", title=words(request)["runs"], here="runs", entries=entries)


def show_run(request: Request) -> Response:
    """One run; of a broken one what is wrong."""
    entry = run_at(request)
    found, why = None, entry.why
    if entry.state != "broken":
        try:
            found = abouts.about(entry, language(request))
        except FAULTS as error:
            why = told(error, "a record")
    return page(
        request, "run.html", title=entry.name, here="runs", entry=entry, found=found, why=why,
        again=shlex.join(["tunewell", "run", f"{entry.path}/recipe.yaml", "--output_dir", str(entry.path)]),
        has_report=(entry.path / "report.html").is_file(),
        files=found.files if found is not None else abouts.files(entry.path),
    )  # fmt: skip


def show_comparison(request: Request) -> Response:
    """Two runs or more side by side."""
    from tunewell.evaluate.metrics import LOWER_IS_BETTER
    from tunewell.ui.compare import side_by_side

    asked = list(dict.fromkeys(request.query_params.getlist("at")))
    if len(asked) < 2:
        return problem(request, words(request)["c_need"], 400)
    found = side_by_side([run_at(request, at) for at in asked], request.query_params.get("with", ""))
    return page(
        request, "compare.html", title=words(request)["compare"], here="runs", found=found, lower=LOWER_IS_BETTER
    )


def show_live(request: Request) -> Response:
    """The curves of a run at work; with `part=1` only what changes."""
    from tunewell.ui.live import live

    found = live(run_at(request), dict(words(request)))
    if request.query_params.get("part"):
        return HTMLResponse(fragment(request, "live_part.html", live=found))
    return page(request, "live.html", title=f"{words(request)['curves']}: {found.entry.name}", here="runs", live=found)


def show_try(request: Request) -> Response:
    """The box to try a model."""
    entry = run_at(request)
    title = f"{words(request)['try']}: {entry.name}"
    return page(request, "try.html", title=title, here="runs", entry=entry, kind=kind_of(entry))


async def answer(request: Request) -> Response:
    """What a run's model says to a text, as a piece of the page."""
    given = await form_of(request, most=200_000)
    desk: Desk = request.app.state.desk

    def ask() -> Response:
        entry = run_at(request)
        about = (entry, given.get("text", ""), given.get("pair"))
        try:
            found = desk.ask(*about, task=given.get("task", ""), explain=bool(given.get("explain")))
        except TunewellError as error:
            return HTMLResponse(fragment(request, "answer.html", fault=error, a=None), 400)
        return HTMLResponse(fragment(request, "answer.html", fault=None, a=found, at=entry.path))

    return await run_in_threadpool(ask)


def show_report(request: Request) -> Response:
    """A run's report.html, shut in: its scripts cannot reach this app."""
    entry = run_at(request)
    path = request.app.state.place.at("report.html", inside=entry.path)
    return FileResponse(path, media_type="text/html", headers={"content-security-policy": REPORT_POLICY})


def send_file(request: Request) -> Response:
    """One file of a run, to be saved and never shown."""
    entry = run_at(request)
    name = request.query_params.get("name", "")
    path = request.app.state.place.at(name, inside=entry.path)
    if not path.is_file() or any(part.startswith(".") for part in Path(name).parts):
        raise RunFolderError("is not a file of this run", where=ascii(name[:100]))
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


def send_static(request: Request) -> Response:
    """The style and the script, which are the package's own."""
    name = request.path_params["name"]
    if name not in STATIC:
        raise HTTPException(404)
    return Response(static(name), media_type=STATIC[name], headers={"cache-control": "max-age=300"})


@cache
def static(name: str) -> str:
    """A file of the package; the style begins with that of the report, so that both look alike."""
    own = package_files("tunewell.ui").joinpath("static", name).read_text(encoding="utf-8")
    if name == "ui.css":
        own = package_files("tunewell.report").joinpath("templates/report.css").read_text(encoding="utf-8") + own
    return own


# ---------------------------------------------------------------- what goes wrong


async def _mistake(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, TunewellError)
    return problem(request, error, 404 if isinstance(error, RunFolderError) else 400)


async def _http_error(request: Request, error: Exception) -> HTMLResponse:
    assert isinstance(error, HTTPException)
    said = words(request)["e_missing"] if error.status_code == 404 else str(error.detail)
    return problem(request, said, error.status_code)


async def _fault(request: Request, error: Exception) -> HTMLResponse:
    return problem(request, words(request)["e_ours"], 500)
