"""A decoder learns to answer questions about texts, from packaged forum posts, and shows what that cost.

python examples/instructions.py                        SmolLM2-135M-Instruct on 300 posts
python examples/instructions.py --limit 40 --max_steps 5
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from pathlib import Path

import tunewell
from tunewell.data import packaged

GROUPS = {"rec.sport.baseball": "baseball", "sci.space": "space", "talk.politics.guns": "politics",
          "rec.motorcycles": "motorcycles", "sci.med": "medicine", "comp.graphics": "computer graphics"}  # fmt: skip
ASK = "What is this forum post about? Answer with the topic alone."


def write_chats(path: Path, n: int) -> str:
    """Posts of six forums as conversations in OpenAI's form; the answer is the forum's subject."""
    posts = [(text, GROUPS[group]) for text, group in packaged.newsgroups("odd") if group in GROUPS]
    rows = random.Random(42).sample(posts, min(n, len(posts)))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for text, topic in rows:
            asked = f"{ASK}\n\n{' '.join(text.split()[:60])}"
            talk = [{"role": "user", "content": asked}, {"role": "assistant", "content": topic}]
            file.write(json.dumps({"messages": talk}, ensure_ascii=False) + "\n")
    return str(path)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="SmolLM2-135M-Instruct", help="a decoder")
    parser.add_argument("--limit", type=int, default=300, help="conversations, held-out ones included")
    parser.add_argument("--max_steps", type=int, default=-1)
    parser.add_argument("--probes", default="grammar,instructions", help="what is measured before and after")
    parser.add_argument("--output_dir", default="runs/instructions")
    args = parser.parse_args(argv)

    run = tunewell.run(
        train=write_chats(Path("runs/chats.jsonl"), args.limit),
        model=args.model,
        max_steps=args.max_steps,
        max_new_tokens=12,
        probes=args.probes,
        output_dir=args.output_dir,
    )
    base = next(b for b in run.baselines if b.name == "base-model").evaluation.metrics
    for name in ("exact_match", "bits_per_byte"):
        print(f"{name}: {base[name].value:.3f} -> {run.metrics[name].value:.3f}")
    if run.retention is not None:
        for probe in run.retention.probes:
            print(f"{probe.title}: {probe.before.value:.3f} -> {probe.after.value:.3f}")
    question = f"{ASK}\n\nThe shuttle went into orbit this morning with a new telescope on board."
    print(f"answer: {run.predict([question])[0]}")
    print(f"report: {run.report_path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
