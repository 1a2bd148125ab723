"""Teach a small translation model the words of an interface: Home Assistant's texts, English to Portuguese.

python examples/ui_strings.py --limit 2000            packaged texts and model, some minutes on two cores
python examples/ui_strings.py --train app.po          your own: .po, .tmx, CSV, two JSON files en.json,pt.json, ...
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import tunewell
from tunewell.cli.show import interval

TEXTS = ["The device {name} could not be found.", "Turn off the light in the {area}", "Wrong password, try again"]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--train", default="homeassistant-ui", help="pairs; packaged texts when missing")
    parser.add_argument("--source", default="en", help="column of the source (`source` in .po files)")
    parser.add_argument("--target", default="pt", help="column of the translation (`target` in .po files)")
    parser.add_argument("--model", default="bergamot-en-pt")
    parser.add_argument("--limit", type=int, help="train on this many rows at most")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--samples", type=int, default=200, help="test rows that are translated and scored")
    parser.add_argument("--output_dir", default="runs/ui-strings")
    args = parser.parse_args(argv)

    run = tunewell.run(
        train=args.train,
        source=args.source,
        target=args.target,
        task="translation",
        model=args.model,
        duplicates="drop",
        max_train_samples=args.limit,
        num_train_epochs=args.epochs,
        num_beams=4,
        generation_samples=args.samples,
        output_dir=args.output_dir,
    )
    for name in ("chrf", "bleu", "length_ratio", "placeholders"):
        if name in run.metrics:
            print(f"{name}: {run.metrics[name].value:.3f}, 95 % interval {interval(run.metrics[name])}")
            for other in run.baselines:
                if (figure := other.evaluation.metrics.get(name)) is not None and figure.value is not None:
                    print(f"  {other.title}: {figure.value:.3f}")
    for text, translation in zip(TEXTS, run.predict(TEXTS), strict=True):
        print(f"{text} | {translation}")
    print(f"Report: {run.report_path}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
