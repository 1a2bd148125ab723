"""What a browser asks for: the run of an address, the fields of a form."""

from __future__ import annotations

from urllib.parse import parse_qsl

from starlette.exceptions import HTTPException
from starlette.requests import Request

from tunewell.errors import RunFolderError
from tunewell.ui.places import Place
from tunewell.ui.scan import Entry, is_run

FIELDS = 500  # of a form


def run_at(request: Request, asked: str | None = None) -> Entry:
    """The run that an address names with `?at=`.

    Raises:
        RunFolderError: none is there, or it lies outside of the folder.
    """
    place: Place = request.app.state.place
    asked = request.query_params.get("at", "") if asked is None else asked
    path = place.at(asked)
    if not path.is_dir() or not is_run(path):
        raise RunFolderError("is not a run", where=asked, expected=f"a run beneath {place.name}")
    entry: Entry = request.app.state.shelf.entry(path)
    return entry


async def form_of(request: Request, most: int) -> dict[str, str]:
    """The fields of a form, the last of each name.

    Raises:
        HTTPException: more than `most` bytes or FIELDS fields (413), or no form (415).
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "expected a form")
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > most:
            raise HTTPException(413, "too large")
    try:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True, max_num_fields=FIELDS))
    except ValueError:
        raise HTTPException(413, f"more than {FIELDS} fields") from None
