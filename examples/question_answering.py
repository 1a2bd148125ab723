"""Answer questions from a text: tune on a SQuAD file, or on rows as SubjQA has them, and ask.

python examples/question_answering.py --train train-v2.0.json --test dev-v2.0.json       SQuAD, CMRC: nested JSON
python examples/question_answering.py --train train.jsonl --test test.jsonl   SubjQA: question, context, answers
python examples/question_answering.py --train trial.json --test dev.json --model multilingual-e5-small   Chinese

Rows with empty answers are questions that the text does not answer; a threshold for saying so is tuned on validation.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import tunewell

CONTEXT = "The hotel has 40 rooms and a pool on the roof. Breakfast is served from seven to ten."
QUESTIONS = ["How many rooms are there?", "Where is the pool?", "Who is the owner?"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", required=True, help="SQuAD JSON, or rows with question, context and answers")
    parser.add_argument("--test", help="split off train when missing")
    parser.add_argument("--model", default="all-MiniLM-L6-v2")
    parser.add_argument("--limit", type=int, help="train on this many questions at most")
    parser.add_argument("--output_dir", default="runs/questions")
    args = parser.parse_args(argv)

    run = tunewell.run(
        train=args.train,
        test=args.test,
        task="question-answering",
        model=args.model,
        max_train_samples=args.limit,
        probes="none",
        output_dir=args.output_dir,
    )
    for name in ("f1", "exact_match", "no_answer_accuracy"):
        if run.metrics[name].value is not None:
            others = ", ".join(f"{b.name} {b.evaluation.metrics[name].value:.3f}" for b in run.baselines)
            print(f"{name}: {run.metrics[name].value:.3f} ({others})")
    for question, answer in zip(QUESTIONS, run.predict(QUESTIONS, [CONTEXT] * len(QUESTIONS)), strict=True):
        print(f"{question} {answer or '(no answer)'}")
    first = json.loads((Path(run.dir) / "nbest.jsonl").read_text(encoding="utf-8").splitlines()[0])
    for guess in first["nbest"][:3]:
        print(f"  {guess['probability']:.3f}  {guess['text'] or '(no answer)'}")
    print(f"Report: {run.report_path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
