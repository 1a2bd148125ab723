"""`tunewell label`: label rows in the browser, by keyboard."""

from __future__ import annotations

import click

from tunewell.cli.as_json import ADDRESS, json_option, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = (
    "tunewell label to-label.csv",
    "tunewell label to-label.csv --labels positive,negative,neutral --no-browser",
)


@click.command("label", cls=Command, examples=_EXAMPLES)
@click.argument("file")
@click.option(
    "--labels", multiple=True, metavar="LIST", help="Classes, in the order of their keys. [those in the file]"
)
@click.option("--text", metavar="TEXT", help="Column with the text; inferred when missing.")
@click.option("--port", type=click.IntRange(0, 65535), default=0, metavar="INTEGER", help="0: a free one. [0]")
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser. [on]")
@json_option(ADDRESS)
def command(file: str, labels: tuple[str, ...], text: str | None, port: int, browser: bool, as_json: bool) -> None:
    """Label rows on a page of this machine, by keyboard; every answer is saved at once.

    FILE is CSV or JSONL with texts, such as `tunewell select` writes. Keys 1 to 9 and letters give a label
    and go on to the next row without one; arrows go back and skip, N adds a label. Ctrl-C ends it.
    """
    from tunewell.extras import need

    need("serve", "tunewell label")
    import uvicorn

    from tunewell.selection.service import create_app
    from tunewell.selection.sheet import Sheet
    from tunewell.serving.server import bind

    wanted = tuple(part.strip() for cell in labels for part in cell.split(",") if part.strip())
    sheet = Sheet(file, text=text, labels=wanted)
    sock = bind("127.0.0.1", port)
    sock.listen()  # whoever reads the address may call at once; the server takes it from there
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    if as_json:
        show_json({"url": url, "file": file, "rows": len(sheet.rows), "labelled": sheet.done}, indent=None)
    else:
        click.echo(f"{sheet.done:,} of {len(sheet.rows):,} rows are labelled; label the rest at {url}")
    if browser:
        import webbrowser

        webbrowser.open(url)
    try:
        config = uvicorn.Config(create_app(sheet), log_level="error", access_log=False, server_header=False)
        uvicorn.Server(config).run(sockets=[sock])
    except KeyboardInterrupt:
        pass
    finally:
        sock.close()
        say(f"{sheet.done:,} of {len(sheet.rows):,} rows are labelled: {file}")


__all__ = ["command"]
