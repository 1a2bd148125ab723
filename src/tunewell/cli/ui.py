"""`tunewell ui`: one page over all runs of a folder."""

from __future__ import annotations

import click

from tunewell.cli.as_json import ADDRESS, json_option, show_json
from tunewell.cli.base import Command, say

_EXAMPLES = ("tunewell ui", "tunewell ui runs --port 0 --no-browser")


@click.command("ui", cls=Command, examples=_EXAMPLES)
@click.argument("folder", default="runs")
@click.option("--host", default="127.0.0.1", metavar="TEXT", help="Address; 0.0.0.0 is all. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), default=8765, metavar="INTEGER", help="0: a free one. [8765]")
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser. [on]")
@json_option(ADDRESS)
def command(folder: str, host: str, port: int, browser: bool, as_json: bool) -> None:
    """See, compare, try and start the runs of a folder in the browser.

    FOLDER holds runs at any depth [runs]. The page lists them, compares them row by row, shows the curves of a
    run at work, tries a tuned model, starts runs from a file and labels rows. It answers this machine only, and
    only to who has the address that is printed: the key in it is new each time. Ctrl-C ends it.
    """
    from tunewell.extras import need

    need("serve", "tunewell ui")
    from tunewell.ui.places import Place

    place = Place(folder)
    from tunewell.serving.server import bind
    from tunewell.ui.server import serve

    sock = bind(host, port)

    def ready(url: str) -> None:
        if as_json:
            show_json({"url": url, "folder": str(place.folder)}, indent=None)
        else:
            click.echo(f"runs of {place.folder} at {url}")
        if host not in ("127.0.0.1", "::1", "localhost"):
            say("whoever reaches this machine and has that address may start runs here")
        if browser:
            import webbrowser

            webbrowser.open(url)

    try:
        serve(place, sock, host=host, ready=ready)
    finally:
        sock.close()


__all__ = ["command"]
