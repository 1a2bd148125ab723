"""Pages that start things: an upload, the form of a recipe, the queue of jobs."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import yaml
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import Route

from tunewell.errors import DataError, TunewellError
from tunewell.ui import form as forms
from tunewell.ui import uploads
from tunewell.ui.asked import form_of
from tunewell.ui.jobs import Queue
from tunewell.ui.pages import fragment, page, size, words
from tunewell.ui.places import Place
from tunewell.ui.scan import is_run


def show_start(request: Request) -> Response:
    """The files that are here and a box for another; with `?file=` the form of a recipe for it."""
    place: Place = request.app.state.place
    asked = request.query_params.get("file", "")
    if not asked:
        names = [place.name_of(f) for f in uploads.data_files(place)]
        return page(
            request, "start.html", title=words(request)["start"], here="start", names=names,
            most=size(request.app.state.most), endings=",".join(uploads.ENDINGS),
        )  # fmt: skip
    stem = uploads.folder_name(Path(asked).name.split(".")[0]) or "run"
    return _form(request, asked, {"name": uploads.free(place.folder, stem).name}, [])


def _form(request: Request, asked: str, values: dict[str, str], faults: list[tuple[str, str]]) -> Response:
    place: Place = request.app.state.place
    path = place.at(asked)
    if not path.is_file():
        raise DataError("is not a file", where=asked, expected="a data file beneath this folder")
    found = uploads.preview(path)
    others = [name for f in uploads.data_files(place) if (name := place.name_of(f)) != asked]
    made = forms.form(values, found.columns, others, faults, words(request))
    named = [s for k, s in faults if k == "name"]
    return page(
        request, "recipe.html", title=words(request)["start"], here="start", status=400 if faults else 200,
        file=asked, preview=found, form=made, name=values.get("name", ""), name_faults=named,
    )  # fmt: skip


async def upload(request: Request) -> Response:
    """Take a file in; the answer says where to go on (`x-go`), or what is wrong with it."""
    place: Place = request.app.state.place
    most: int = request.app.state.most
    name = request.query_params.get("name", "")
    if request.headers.get("content-type", "").partition(";")[0] != "application/octet-stream":
        raise HTTPException(415, "expected application/octet-stream")
    try:
        if int(request.headers.get("content-length") or 0) > most:
            raise DataError("is too large", where=uploads.harmless(name), expected=f"at most {size(most)}")
        kept = await uploads.take_in(place, name, request.stream(), most)
    except TunewellError as error:
        return HTMLResponse(fragment(request, "answer.html", fault=error, a=None), 400)
    to = "/start?" + urlencode({"file": place.name_of(kept)})
    return HTMLResponse("", headers={"x-go": to})


async def start(request: Request) -> Response:
    """Queue a run, or show the form again with all mistakes beside their fields."""
    given = await form_of(request, most=500_000)
    return await run_in_threadpool(_start, request, given)


def _start(request: Request, given: dict[str, str]) -> Response:
    place: Place = request.app.state.place
    queue: Queue = request.app.state.queue
    asked, keys = given.get("file", ""), forms.keys_given(given)
    faults = forms.faults_of(place, keys)
    name = uploads.folder_name(given.get("name", ""))
    target = place.folder / name
    if not name:
        faults.append(("name", words(request)["s_name_help"]))
    elif target.exists() or target.is_symlink() or queue.taken(name):
        faults.append(("name", words(request)["s_taken"]))
    if faults:
        return _form(request, asked, given, faults)
    recipe = {"train": str(place.at(asked)), **forms.placed(place, forms.plain(keys))}
    queue.add(name, yaml.safe_dump(recipe, allow_unicode=True, sort_keys=False, width=10_000))
    return RedirectResponse("/jobs", 303)


def show_jobs(request: Request) -> Response:
    """The queue; with `part=1` only what changes."""
    from tunewell.ui.live import live

    queue: Queue = request.app.state.queue
    place: Place = request.app.state.place
    rows = []
    for job in queue.all()[:50]:
        path = place.folder / job.at
        there = not path.is_symlink() and path.is_dir() and is_run(path)
        entry = request.app.state.shelf.entry(path) if there else None
        now = live(entry, dict(words(request))) if entry is not None and job.state in ("working", "stopping") else None
        rows.append((job, entry, now, queue.log(job.id) if job.state != "waiting" else ""))
    busy = any(job.state in ("waiting", "working", "stopping") for job, *_ in rows)
    if request.query_params.get("part"):
        return HTMLResponse(fragment(request, "jobs_part.html", rows=rows, busy=busy))
    return page(request, "jobs.html", title=words(request)["jobs"], here="jobs", rows=rows, busy=busy)


async def change_job(request: Request) -> Response:
    """Cancel a job, or let it go on."""
    given = await form_of(request, most=10_000)
    queue: Queue = request.app.state.queue
    change = {"cancel": queue.cancel, "again": queue.again}.get(given.get("do", ""))
    if change is None:
        raise HTTPException(400, "expected cancel or again")
    await run_in_threadpool(change, given.get("id", ""))
    return RedirectResponse("/jobs", 303)


ROUTES = [
    Route("/start", show_start, methods=["GET"]),
    Route("/start", start, methods=["POST"]),
    Route("/upload", upload, methods=["POST"]),
    Route("/jobs", show_jobs, methods=["GET"]),
    Route("/jobs", change_job, methods=["POST"]),
]
