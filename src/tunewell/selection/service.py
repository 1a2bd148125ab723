"""The server behind the page of `tunewell label`: this machine only, one file, every answer saved at once."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from tunewell.errors import TunewellError
from tunewell.hosts import hosts_for
from tunewell.selection.sheet import Sheet
from tunewell.serving.page import page

SAFE = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class Answer(BaseModel):
    """A label for row `i`; an empty one takes the label away."""

    model_config = ConfigDict(extra="forbid")

    i: int = Field(ge=0)
    label: str = Field(max_length=200)


def create_app(sheet: Sheet, *, guarded: bool = False) -> Any:
    """The app. A request that names another host than this machine is refused (DNS rebinding), and so is a label
    that does not come as JSON, which other pages cannot send without being asked (CSRF).

    Args:
        guarded: part of an app that has looked at the host already.
    """
    from fastapi import FastAPI, Request
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import HTMLResponse, JSONResponse

    app, local = FastAPI(docs_url=None, redoc_url=None, openapi_url=None), hosts_for("127.0.0.1")

    def refused(status: int, what: str) -> JSONResponse:
        return JSONResponse({"error": {"what": what}}, status, headers=SAFE)

    @app.middleware("http")
    async def local_only(request: Request, call_next: Any) -> Any:
        if not guarded and not local.known(request.headers.get("host", "")):
            return refused(421, "only this machine may label")
        json_sent = request.headers.get("content-type", "").partition(";")[0].strip() == "application/json"
        if request.method == "POST" and not json_sent:
            return refused(415, "expected application/json")
        if int(request.headers.get("content-length") or 0) > 4096:
            return refused(413, "too large")
        response = await call_next(request)
        response.headers.update(SAFE)
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        return refused(422, str(error.errors()[0]["msg"]))

    @app.exception_handler(TunewellError)
    async def mistake(request: Request, error: TunewellError) -> JSONResponse:
        return refused(409, error.what)

    @app.get("/", response_class=HTMLResponse)
    def show() -> HTMLResponse:
        html, policy = page("tunewell.selection", "label.html")
        return HTMLResponse(html, headers={"Content-Security-Policy": policy})

    @app.get("/row/next")
    def first() -> Any:
        return state(sheet, sheet.next_empty(-1) or 0)

    @app.get("/row/{i}")
    def row(i: int) -> Any:
        return state(sheet, i) if 0 <= i < len(sheet.rows) else refused(404, f"no row {i}")

    @app.post("/label")
    def label(given: Answer) -> Any:
        if given.i >= len(sheet.rows):
            return refused(404, f"no row {given.i}")
        sheet.set(given.i, given.label)
        after = sheet.next_empty(given.i) if given.label.strip() else given.i
        return state(sheet, given.i if after is None else after)

    return app


def state(sheet: Sheet, i: int) -> dict[str, Any]:
    """What the page shows."""
    return {
        "name": sheet.path.name,
        "n": len(sheet.rows),
        "done": sheet.done,
        "labels": sheet.labels,
        "row": sheet.show(i),
    }
