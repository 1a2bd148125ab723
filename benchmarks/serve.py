"""The service against what people write first: a `transformers` pipeline behind FastAPI, under the same load.

Each server runs in a process of its own with the same weights, one text a request, on all cores. A number of
connections ask again as soon as they are answered (closed loop); the two servers take turns, `--rounds` times.
For each number of connections: answers a second and the 99th percentile of the time to an answer. Then, at
equal p99: the most answers a second that tunewell gives while its p99 is not above the pipeline's at the
pipeline's best rate.

    python benchmarks/serve.py --data-root DATA

The load comes from this process on the same machine, so it takes its share of the cores on both sides.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from common import ROOT, file_of, parser, record

PLAIN = """
import sys
import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from transformers import pipeline

answer = pipeline("text-classification", model=sys.argv[1], device="cpu", truncation=True)
app = FastAPI()

class Body(BaseModel):
    texts: list[str]

@app.get("/healthz")
def healthz():
    return {"status": "ok"}

@app.post("/predict")
def predict(body: Body):
    return {"predictions": answer(body.texts)}

uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="error")
"""


def model_folder(job: dict[str, str], folder: Path) -> None:
    """A model that has learned: answers of a head drawn at random are all close calls, which no tuned model's are."""
    import tunewell

    run = tunewell.run(
        train=job["train"], test=job["test"], text="text", label="label", task="text-classification",
        model=job["model"], probes="none", explain=0, max_train_samples=800, output_dir=str(folder / "run"),
        progress=False,
    )  # fmt: skip
    shutil.copytree(run.model_path, folder / "model")


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextlib.contextmanager
def server(command: list[str], port: int) -> Iterator[None]:
    """A server process from the moment it answers `/healthz` until the end of the block."""
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(600):
            if process.poll() is not None:
                sys.exit(f"{command} ended:\n{process.stderr.read() if process.stderr else ''}")
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1) as sock:
                sock.sendall(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                if b" 200 " in sock.recv(64):
                    break
            time.sleep(0.2)
        else:
            sys.exit(f"{command} did not answer within two minutes")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


async def ask(port: int, requests: Iterator[bytes], until: float, times: list[float]) -> None:
    """One connection that asks until the time is over; appends the seconds of each answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while time.perf_counter() < until:
        started = time.perf_counter()
        writer.write(next(requests))
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 200 " not in head[:20]:
            sys.exit(f"the server answered {head[:40]!r}")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await reader.readexactly(int(length.split(b":")[1]))
        times.append(time.perf_counter() - started)
    writer.close()


def load(port: int, texts: list[str], connections: int, seconds: float) -> dict[str, float]:
    """Answers a second, median and 99th percentile in milliseconds, under that many connections."""

    def forever() -> Iterator[bytes]:
        while True:
            for text in texts:
                body = json.dumps({"texts": [text]}).encode()
                head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: "
                yield f"{head}{len(body)}\r\n\r\n".encode() + body

    async def all_of_them(span: float) -> tuple[list[float], float]:
        times: list[float] = []
        started = time.perf_counter()
        requests = forever()
        await asyncio.gather(*(ask(port, requests, started + span, times) for _ in range(connections)))
        return times, time.perf_counter() - started

    asyncio.run(all_of_them(min(2.0, seconds)))  # warm
    times, span = asyncio.run(all_of_them(seconds))
    milliseconds = np.array(times) * 1000
    return {
        "rate": len(times) / span,
        "p50": float(np.percentile(milliseconds, 50)),
        "p99": float(np.percentile(milliseconds, 99)),
        "n": len(times),
    }


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--set", default="sst2", help="texts to ask about")
    args.add_argument("--connections", type=int, nargs="+", default=[1, 2, 4, 8, 16, 32, 64])
    args.add_argument("--span", type=float, default=8.0, help="seconds of load for each figure")
    args.add_argument("--rounds", type=int, default=2)
    options = args.parse_args()
    with file_of(options.data_root, options.set, "test").open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"] for line in file]
    figures: dict[tuple[str, int], list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        files = {split: str(file_of(options.data_root, options.set, split)) for split in ("train", "test")}
        model_folder({"model": options.model, **files}, Path(place))
        for turn in range(options.rounds):
            for side in ("pipeline", "tunewell"):
                port = free_port()
                command = {
                    "pipeline": [sys.executable, "-c", PLAIN, str(folder), str(port)],
                    "tunewell": [sys.executable, "-m", "tunewell", "serve", str(folder), "--port", str(port)],
                }[side]
                with server(command, port):
                    for connections in options.connections:
                        found = load(port, texts, connections, options.span)
                        figures.setdefault((side, connections), []).append(found)
                        row = {"side": side, "round": turn, "connections": connections, **found}
                        record(options.output, {"benchmark": "serve", **row})
    print("| connections | pipeline, answers/s | p99, ms | tunewell, answers/s | p99, ms | ratio |")
    print("| --- | --- | --- | --- | --- | --- |")
    mean = {
        key: {name: float(np.mean([row[name] for row in rows])) for name in ("rate", "p99")}
        for key, rows in figures.items()
    }
    for n in options.connections:
        a, b = mean["pipeline", n], mean["tunewell", n]
        ratio = b["rate"] / a["rate"]
        print(f"| {n} | {a['rate']:.0f} | {a['p99']:.0f} | {b['rate']:.0f} | {b['p99']:.0f} | {ratio:.2f} |")
    best = max((mean["pipeline", n] for n in options.connections), key=lambda row: row["rate"])
    within = [mean["tunewell", n] for n in options.connections if mean["tunewell", n]["p99"] <= best["p99"]]
    if within:
        most = max(row["rate"] for row in within)
        print(
            f"at a p99 of at most {best['p99']:.0f} ms, the pipeline's at its best rate: "
            f"{most:.0f} against {best['rate']:.0f} answers a second, {most / best['rate']:.2f} times"
        )
    else:
        print(f"tunewell's p99 is above the pipeline's {best['p99']:.0f} ms at every number of connections")


if __name__ == "__main__":
    main()
