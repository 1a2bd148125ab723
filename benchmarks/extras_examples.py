"""A short real use of each extra, for extras.py; stops with an error where what comes out is not right.

Each takes the environment under test, an empty folder of its own, and the folder `shared`, which the core made:
`reviews.csv`, a finished run `run` on it, and `decoder`, a random Llama of two layers.
"""

from __future__ import annotations

import contextlib
import csv
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
QUICK = ("--model", "splade-tiny", "--probes", "none", "--explain", "0", "--max_steps", "24",
         "--learning_rate", "1e-3", "--task",
         "text-classification", "--strategy")  # fmt: skip
WORDS = {"bad": ("awful", "broken", "rude", "dirty"), "good": ("lovely", "kind", "superb", "bright")}
THINGS = ("crew", "seat", "meal", "room", "phone", "screen", "flight", "hotel", "price", "desk")

DECODER = """
import sys, torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<pad>"]
inner = Tokenizer(models.BPE())
inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
bytes_ = pre_tokenizers.ByteLevel.alphabet()
inner.train_from_iterator(["the crew was kind and the seat was good, say it twice"] * 4, trainers.BpeTrainer(
    vocab_size=300, special_tokens=special, show_progress=False, initial_alphabet=bytes_))
tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, model_max_length=256, pad_token="<pad>",
    eos_token="<|im_end|>", model_input_names=["input_ids", "attention_mask"])
tokenizer.chat_template = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\\\n' + m['content'] + '<|im_end|>' + '\\\\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\\\n' }}{% endif %}")
torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
    num_attention_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=None,
    pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id)).save_pretrained(sys.argv[1])
tokenizer.save_pretrained(sys.argv[1])
"""
BOOK = """
import sys, openpyxl
book = openpyxl.Workbook()
book.create_sheet("Reviews").append(["review"])
for text in sys.argv[2:]:
    book["Reviews"].append([text])
book.save(sys.argv[1])
"""
TASK = """task: colours
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: '{{{{question}}}}'
doc_to_target: '{{{{gold}}}}'
doc_to_choice: '{{{{choices}}}}'
metric_list: [{{metric: acc, aggregation: mean, higher_is_better: true}}]
"""
LOADED = """
import sys, mlflow, pandas
answers = mlflow.pyfunc.load_model(sys.argv[1]).predict(pandas.DataFrame({"text": ["a kind crew"]}))
assert answers["prediction"][0] in ("bad", "good"), answers
"""
NOTEBOOK = """
import sys, nbclient, nbformat
book = nbformat.v4.new_notebook()
book.cells = [nbformat.v4.new_code_cell(text) for text in (
    "import tunewell\\nrun = tunewell.load_run(%r)\\nprint(run.predict(['a kind crew']))" % sys.argv[1],
    "%matplotlib inline\\nimport matplotlib.pyplot as plt\\nplt.plot([0, run.summary.test.value]);")]
nbclient.NotebookClient(book, timeout=300, kernel_name="python3").execute()
kinds = [kind for cell in book.cells for out in cell.outputs for kind in out.get("data", {})]
assert "image/png" in kinds, kinds
"""
WINDOW = """
import sys
from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    browser = p.chromium.launch(executable_path=sys.argv[2] or None, args=["--no-sandbox"])
    page = browser.new_page()
    page.goto(sys.argv[1])
    assert "run" in page.content(), page.content()
    browser.close()
"""
OWN = """
from pathlib import Path
from playwright.sync_api import sync_playwright
with sync_playwright() as p:
    print(Path(p.chromium.executable_path).exists())
"""
PEERS = """
import sys
sys.path.insert(0, sys.argv[1])
from datasets import Dataset
from transformer_ranker import TransformerRanker
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer
data = Dataset.from_dict({"text": ["a kind crew", "a rude crew"] * 8, "label": [1, 0] * 8})
found = TransformerRanker(data, text_column="text", label_column="label").run(
    models=[sys.argv[2]], estimator="hscore", layer_aggregator="layermean", device="cpu")
assert len(found.scores) == 1
rows = Dataset.from_list([{"input_ids": [5, 6, 7], "labels": [-100, 6, 7]}] * 4)
config = SFTConfig(output_dir="trl", max_steps=1, per_device_train_batch_size=2, report_to=[], use_cpu=True, bf16=False,
                   save_strategy="no", gradient_checkpointing=False)
model, tokenizer = (kind.from_pretrained(sys.argv[3]) for kind in (AutoModelForCausalLM, AutoTokenizer))
SFTTrainer(model=model, args=config, train_dataset=rows, processing_class=tokenizer).train()
"""


class FailedError(Exception):
    """A command of an environment did not do what it should; says which and shows the end of what it wrote."""


class Environment:
    """An environment for Python, and what is run in it: nothing of the caller's Python is inherited."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")

    @staticmethod
    def variables(**more: str) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON") and k != "VIRTUAL_ENV"}
        return {**kept, "PYTHONNOUSERSITE": "1", "TOKENIZERS_PARALLELISM": "false", **more}

    def run(self, *arguments: object, cwd: Path | None = None, said: str | None = None, **variables: str) -> str:
        """What Python writes to standard output.

        Args:
            said: given on standard input.

        Raises:
            FailedError: the exit code was not 0.
        """
        done = subprocess.run(
            [str(self.python), *map(str, arguments)], cwd=cwd, env=self.variables(**variables), capture_output=True,
            text=True, encoding="utf-8", input=said if said is not None else "", check=False,
        )  # fmt: skip
        if done.returncode:
            shown = " ".join(str(a) if len(str(a)) < 80 else "…" for a in arguments)
            raise FailedError(f"`{shown}` ended with {done.returncode}:\n{(done.stdout + done.stderr)[-2500:]}")
        return done.stdout

    def tunewell(self, *arguments: object, cwd: Path | None = None, said: str | None = None, **variables: str) -> str:
        return self.run("-m", "tunewell", *arguments, cwd=cwd, said=said, **variables)

    @contextlib.contextmanager
    def server(self, *arguments: object) -> Iterator[str]:
        """The address that a command of tunewell prints in its first line, until the end of the block."""
        command = [str(self.python), "-m", "tunewell", *map(str, arguments)]
        with subprocess.Popen(command, env=self.variables(), stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            try:
                line = process.stdout.readline()
                found = re.search(r"http://\S+", line)
                if found is None:
                    raise FailedError(f"`{' '.join(command[1:])}` said {line!r}")
                yield found[0]
            finally:
                process.send_signal(signal.SIGTERM)
                process.wait(60)


def check(right: object, said: str) -> None:
    if not right:
        raise FailedError(said)


def prepare(env: Environment, shared: Path) -> None:
    """What the examples start from, made by the core alone."""
    rows = [
        (f"the {thing} was {word} on day {day}", mood)
        for day in range(3) for mood, words in WORDS.items() for word in words for thing in THINGS
    ]  # fmt: skip
    with (shared / "reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "mood"), *rows])
    env.tunewell("run", "--train", "reviews.csv", "--text", "review", "--label", "mood", *QUICK, "plain",
                 "--output_dir", "run", cwd=shared)  # fmt: skip
    env.run("-c", DECODER, shared / "decoder")


def tune(env: Environment, place: Path, shared: Path, strategy: str, *more: str, **variables: str) -> None:
    env.tunewell("run", "--train", shared / "reviews.csv", "--text", "review", "--label", "mood", *QUICK, strategy,
                 "--output_dir", place / "run", *more, cwd=place, **variables)  # fmt: skip
    summary = json.loads((place / "run" / "summary.json").read_text(encoding="utf-8"))
    check(0 <= summary["test"]["value"] <= 1, f"no figure in {summary}")


def core(env: Environment, place: Path, shared: Path) -> str:
    tune(env, place, shared, "plain")
    out = env.tunewell("predict", place / "run", "-", said="a kind crew\na rude crew\n")
    check(out.count("good") + out.count("bad") >= 2, f"predict wrote {out!r}")
    return "run, predict"


def data(env: Environment, place: Path, shared: Path) -> str:
    texts = ["a kind crew", "a rude crew", "床前明月光"]
    env.run("-c", BOOK, place / "book.xlsx", *texts)
    with contextlib.closing(sqlite3.connect(place / "shop.db")) as database, database:
        database.execute("create table reviews (review text)")
        database.executemany("insert into reviews values (?)", [(text,) for text in texts])
    (place / "page.csv").write_text("review\n" + "\n".join(texts), encoding="utf-8")
    command = [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(place)]
    answers = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as web:
        try:
            assert web.stdout is not None
            port = re.search(r"port (\d+)", web.stdout.readline())
            assert port is not None
            for name, source in enumerate((
                f"{place / 'book.xlsx'}#Reviews", f"sqlite:///{place / 'shop.db'}#reviews",
                f"http://127.0.0.1:{port[1]}/page.csv",
            )):  # fmt: skip
                out = place / f"{name}.csv"
                env.tunewell("predict", shared / "run", source, "-o", out, TUNEWELL_CACHE=str(place / "cache"))
                with out.open(encoding="utf-8-sig", newline="") as file:
                    answers.append([(row["review"], row["prediction"]) for row in csv.DictReader(file)])
        finally:
            web.terminate()
    check([text for text, _ in answers[0]] == texts, f"read {answers[0]}")
    check(answers[0] == answers[1] == answers[2], f"three sources, not one answer: {answers}")
    return "predict from a spreadsheet, SQLite and http://"


def eval_(env: Environment, place: Path, shared: Path) -> str:
    rows = [{"question": f"Colour {i} is", "choices": ["red", "blue", "one"], "gold": i % 3} for i in range(8)]
    (place / "colours.jsonl").write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    (place / "colours.yaml").write_text(TASK.format(data=place / "colours.jsonl"), encoding="utf-8")
    out = env.tunewell("probe", shared / "decoder", "--probes", f"lm_eval:{place / 'colours.yaml'}", cwd=place)
    check("colours" in out, f"probe wrote {out!r}")
    return "probe lm_eval:FILE"


def export(env: Environment, place: Path, shared: Path) -> str:
    for more in ((), ("--int8",)):
        env.tunewell("export", shared / "run", "--to", "onnx", *more, "-o", place / f"onnx{len(more)}")
    check((place / "onnx1" / "model.onnx").is_file(), "no model.onnx")
    return "export --to onnx, and --int8"


def generate(env: Environment, place: Path, shared: Path) -> str:
    entries = "".join(f'msgid "Light {i} of {{room}}"\nmsgstr "Luz {i} de {{room}}"\n\n' for i in range(60))
    head = 'msgid ""\nmsgstr "Content-Type: text/plain; charset=UTF-8\\n"\n\n'
    (place / "app.po").write_text(head + entries, encoding="utf-8")
    env.tunewell(
        "run", "--train", place / "app.po", "--source", "source", "--target", "target", "--model", shared / "decoder",
        "--probes", "none", "--max_steps", "2", "--generation_samples", "4", "--output_dir", place / "run", cwd=place,
    )  # fmt: skip
    summary = json.loads((place / "run" / "summary.json").read_text(encoding="utf-8"))
    check(summary["task"] == "translation", str(summary))
    return "run on a gettext catalogue"


def gguf(env: Environment, place: Path, shared: Path) -> str:
    env.tunewell("export", shared / "decoder", "--to", "gguf", "--weights", "f32", "-o", place / "gguf")
    check((place / "gguf" / "model.gguf").is_file(), "no model.gguf")
    return "export --to gguf, read by llama.cpp"


def mlflow(env: Environment, place: Path, shared: Path) -> str:
    tune(env, place, shared, "plain", "--report_to", "mlflow", MLFLOW_TRACKING_URI=f"sqlite:///{place / 'mlflow.db'}")
    with contextlib.closing(sqlite3.connect(place / "mlflow.db")) as database:
        check(database.execute("select count(*) from metrics").fetchone()[0], "no metric in mlflow.db")
    env.tunewell("export", shared / "run", "--to", "mlflow", "-o", place / "served")
    env.run("-c", LOADED, place / "served", cwd=place)
    return "run --report_to mlflow; export --to mlflow, loaded"


def optim(env: Environment, place: Path, shared: Path) -> str:
    for name in ("schedule_free_adamw", "prodigy"):
        (place / name).mkdir()
        tune(env, place / name, shared, "plain", "--optim", name)
    return "optim: schedule_free_adamw, prodigy"


def quantize(env: Environment, place: Path, shared: Path) -> str:
    tune(env, place, shared, "lora", "--load_in_4bit")
    return "load_in_4bit"


def ray(env: Environment, place: Path, shared: Path) -> str:
    (place / "new.csv").write_text("review\na kind crew\na rude crew\n", encoding="utf-8")
    answers = place / "answers.csv"
    env.tunewell(
        "predict", shared / "run", place / "new.csv", "--ray", "local", "--threads", 1, "-o", answers, cwd=place
    )
    check(len(answers.read_text(encoding="utf-8").splitlines()) == 3, "not two rows with answers")
    return "predict --ray local"


def serve(env: Environment, place: Path, shared: Path) -> str:
    with env.server("serve", shared / "run", "--port", "0") as address:
        request = urllib.request.Request(
            f"{address}/predict", b'{"texts": ["a kind crew"]}', {"content-type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            check(json.load(answer)["predictions"][0]["prediction"] in ("bad", "good"), "no prediction")
        with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
            check(b"tunewell" in answer.read(), "no metrics")
    return "serve, one request"


def tensorflow(env: Environment, place: Path, shared: Path) -> str:
    env.tunewell("export", shared / "run", "--to", "savedmodel", "-o", place / "saved")
    check((place / "saved" / "saved_model").is_dir(), "no saved_model")
    tune(env, place, shared, "plain", "--framework", "tensorflow")
    return "export --to savedmodel; framework: tensorflow"


def track(env: Environment, place: Path, shared: Path) -> str:
    tune(env, place, shared, "plain", "--report_to", "tensorboard")
    check(list((place / "run").rglob("events.out.tfevents.*")), "no events")
    return "run --report_to tensorboard"


def trackio(env: Environment, place: Path, shared: Path) -> str:
    tune(env, place, shared, "plain", "--report_to", "trackio", TRACKIO_DIR=str(place / "trackio"))
    check(list((place / "trackio").glob("*.db")), "no database")
    return "run --report_to trackio"


def wandb(env: Environment, place: Path, shared: Path) -> str:
    tune(env, place, shared, "plain", "--report_to", "wandb", WANDB_MODE="offline", WANDB_DIR=str(place))
    check(list(place.glob("wandb/offline-run-*/run-*.wandb")), "no offline run")
    return "run --report_to wandb, offline"


def notebooks(env: Environment, place: Path, shared: Path) -> str:
    env.run("-c", NOTEBOOK, shared / "run", cwd=place)
    return "two cells with a chart"


def fuzz(env: Environment, place: Path, shared: Path) -> str:
    with env.server("serve", shared / "run", "--port", "0") as address:
        env.run("-m", "schemathesis.cli", "run", f"{address}/openapi.json", "--phases", "examples", "--no-color",
                "--include-path", "/predict", cwd=place)  # fmt: skip
    return "schemathesis on /predict of a served run"


def browser(env: Environment, place: Path, shared: Path) -> str:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
    check(chromium or env.run("-c", OWN).strip() == "True", "no Chromium: `playwright install chromium`, or CHROMIUM=…")
    with env.server("ui", shared, "--port", "0", "--no-browser") as address:
        env.run("-c", WINDOW, address, chromium)
    return "a page of tunewell ui in Chromium"


def bench(env: Environment, place: Path, shared: Path) -> str:
    env.run("-c", PEERS, ROOT / "benchmarks", env.tunewell("models", "--path", "splade-tiny").strip().splitlines()[-1],
            shared / "decoder", cwd=place)  # fmt: skip
    return "a ranking by transformer-ranker, a step of TRL"


def docs(env: Environment, place: Path, shared: Path) -> str:
    env.run("-m", "mkdocs", "build", "--strict", "--site-dir", place / "site", cwd=ROOT)
    check((place / "site" / "index.html").is_file(), "no page")
    return "mkdocs build --strict"


def dev(env: Environment, place: Path, shared: Path) -> str:
    env.run("-m", "ruff", "check", "--no-cache", ".", cwd=ROOT)
    return "ruff check"


EXAMPLES: dict[str, Callable[[Environment, Path, Path], str]] = {
    "core": core, "data": data, "eval": eval_, "export": export, "generate": generate, "gguf": gguf, "mlflow": mlflow,
    "optim": optim, "quantize": quantize, "ray": ray, "serve": serve, "tensorflow": tensorflow, "track": track,
    "trackio": trackio, "wandb": wandb,
    "notebooks": notebooks, "fuzz": fuzz, "browser": browser, "bench": bench, "docs": docs, "dev": dev,
}  # fmt: skip
