"""`tunewell serve`: answer over HTTP with tuned models."""

from __future__ import annotations

import os

import click

from tunewell.cli.as_json import ADDRESS, json_option, show_json
from tunewell.cli.base import Command, say
from tunewell.hosts import fault_of_host, is_loopback, origin_of

_EXAMPLES = (
    "tunewell serve runs/reviews",
    "tunewell serve runs/reviews topics=runs/topics-2 --port 0",
    "TUNEWELL_API_KEY=secret tunewell serve runs/reviews --host 0.0.0.0",
)


def _hosts(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    names = [part.strip() for cell in value for part in cell.split(",")]
    for name in names:
        if fault := fault_of_host(name):
            raise click.BadParameter(f"{name!r}: {fault}", ctx, param)
    return tuple(names)


def _origins(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    found = []
    for given in value:
        if (origin := origin_of(given)) is None:
            near = origin_of(given.rstrip("/"))
            meant = f"; did you mean {near}?" if near else ""
            raise click.BadParameter(
                f"{given!r}: expected an origin without a path, such as https://app.example{meant}", ctx, param
            )
        found.append(origin)
    return tuple(found)


@click.command("serve", cls=Command, examples=_EXAMPLES)
@click.argument("runs", nargs=-1, required=True, metavar="RUN [RUN]...")
@click.option("--host", default="127.0.0.1", metavar="TEXT", help="Address; 0.0.0.0 is all. [127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, metavar="INTEGER", help="0: a free one. [8000]")
@click.option(
    "--allowed_hosts",
    multiple=True,
    callback=_hosts,
    metavar="LIST",
    help="More names to answer to, such as a proxy's; *.example.org: all below it, *: any. [none]",
)
@click.option(
    "--cors", multiple=True, callback=_origins, metavar="ORIGIN", help="Pages of this origin may call; *: any. [none]"
)
@click.option(
    "--bf16/--no-bf16",
    default=None,
    help="Calculate in bfloat16, and close calls again in fp32: the same labels, probabilities within about 0.01. "
    "[where the processor has it]",
)
@click.option("--batch_size", type=click.IntRange(1), default=64, metavar="INTEGER", help="Texts a batch. [64]")
@click.option(
    "--max_wait_ms",
    type=click.FloatRange(0, 1000),
    default=2.0,
    metavar="NUMBER",
    help="Milliseconds that a batch waits for company under load. [2]",
)
@click.option("--max_texts", type=click.IntRange(1), default=256, metavar="INTEGER", help="Texts a request. [256]")
@click.option("--max_body", type=click.IntRange(64), default=1 << 20, metavar="BYTES", help="Size a request. [1048576]")
@click.option("--queue", type=click.IntRange(1), default=1024, metavar="INTEGER", help="Texts that may wait. [1024]")
@click.option("--timeout", type=click.FloatRange(0.01), default=30.0, metavar="SECONDS", help="A request's end. [30]")
@click.option("--threads", type=click.IntRange(1), metavar="INTEGER", help="Threads of the model. [all cores]")
@json_option(ADDRESS)
def command(
    runs: tuple[str, ...],
    host: str,
    port: int,
    allowed_hosts: tuple[str, ...],
    cors: tuple[str, ...],
    bf16: bool | None,
    batch_size: int,
    max_wait_ms: float,
    max_texts: int,
    max_body: int,
    queue: int,
    timeout: float,
    threads: int | None,
    as_json: bool,
) -> None:
    """Answer over HTTP with one or several tuned models.

    RUN is a run folder or a plain Transformers classification folder, NAME=RUN gives it a name.
    `POST /predict` with {"texts": [...]} labels texts, `GET /healthz` and
    `GET /metrics` watch it, `/` is a page to try it. With the environment variable TUNEWELL_API_KEY
    set, callers must send that key. SIGTERM finishes what is under way and exits with 0; SIGHUP loads
    the models again without losing a request.
    """
    from tunewell.extras import need

    need("serve", "tunewell serve")
    if max_texts > queue:
        raise click.BadParameter(f"--queue {queue} is less than --max-texts {max_texts}", param_hint="--queue")
    from tunewell.serving.models import Models, named

    key = _key()
    paths = named(runs)
    from tunewell.serving.server import Limits, bind, serve

    sock = bind(host, port)
    try:
        import torch

        if threads:
            torch.set_num_threads(threads)
        from tunewell.train.tune import use_bf16

        models = Models(paths, bf16=use_bf16(bf16), batch_size=batch_size)
        shown = f"[{host}]" if ":" in host else host
        url = f"http://{shown}:{sock.getsockname()[1]}"
        for served in models.all.values():
            about = served.describe()
            say(f"{served.name}: {about['task']}, {served.path}, version {about['version']}, {about['precision']}")
        if key is None and not is_loopback(host):
            say("anyone who reaches this machine may call, but for /influence, which shows training rows:")
            say("no TUNEWELL_API_KEY is set")

        def ready() -> None:
            if as_json:
                show_json({"url": url, "models": list(models.all)}, indent=None)
            else:
                click.echo(f"serving {', '.join(models.all)} at {url}")

        limits = Limits(max_texts, max_body, queue, timeout, batch_size, max_wait_ms)
        serve(
            models,
            sock,
            limits=limits,
            api_key=key,
            host=host,
            allowed_hosts=allowed_hosts,
            cors=cors,
            ready=ready,
            say=say,
        )
    finally:
        sock.close()


def _key() -> str | None:
    """The API key of the environment; an empty one is a mistake, since it would let everyone in."""
    key = os.environ.get("TUNEWELL_API_KEY")
    if key is not None and not key.strip():
        raise click.UsageError(
            "the environment variable TUNEWELL_API_KEY is set but empty; give it a value or unset it"
        )
    return key.strip() if key else None


__all__ = ["command"]
