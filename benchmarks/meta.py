"""Meta-learning over the domains of CLINC150: what an initialisation is worth on domains that took no part.

The family: ten domains of fifteen intents each (Larson et al., 2019, EMNLP, with the published list of which intent
belongs to which domain). Each seed holds out other domains: two are reported on, one chooses, seven are learned from.
Measured by `tunewell meta`, on the same episodes for both: the base model and the learned one, with prototypes on the
frozen body and tuned in a few steps. With `--tunings` whole runs beside it: so many labels of each of the fifteen
intents of a held-out domain, tuned by `tunewell run` from the base model and from the learned one, and scored on the
domain's test rows.

    python benchmarks/meta.py --data-root DATA --methods protonet fomaml reptile anil --seeds 1 2 3 --output meta.jsonl

Rows that stand in `--output` are not measured again.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from common import file_of, once, parser, spread

SET = "clinc150_small"
DOMAINS = {
    "banking": "freeze_account routing pin_change bill_due pay_bill account_blocked interest_rate min_payment "
    "bill_balance transfer order_checks balance spending_history transactions report_fraud",
    "credit_cards": "replacement_card_duration expiration_date damaged_card improve_credit_score report_lost_card "
    "card_declined credit_limit_change apr redeem_rewards credit_limit rewards_balance application_status "
    "credit_score new_card international_fees",
    "kitchen_and_dining": "food_last confirm_reservation how_busy ingredients_list calories nutrition_info recipe "
    "restaurant_reviews restaurant_reservation meal_suggestion restaurant_suggestion cancel_reservation "
    "ingredient_substitution cook_time accept_reservations",
    "home": "what_song play_music todo_list_update reminder reminder_update calendar_update order_status "
    "update_playlist shopping_list calendar next_song order todo_list shopping_list_update smart_home",
    "auto_and_commute": "current_location oil_change_when oil_change_how uber traffic tire_pressure "
    "schedule_maintenance gas mpg distance directions last_maintenance gas_type tire_change jump_start",
    "travel": "plug_type travel_notification translate flight_status international_visa timezone exchange_rate "
    "travel_suggestion travel_alert vaccines lost_luggage book_flight book_hotel carry_on car_rental",
    "utility": "weather alarm date find_phone share_location timer make_call calculator definition "
    "measurement_conversion flip_coin spelling time roll_dice text",
    "work": "pto_request_status next_holiday insurance_change insurance meeting_schedule payday taxes income "
    "rollover_401k pto_balance pto_request w2 schedule_meeting direct_deposit pto_used",
    "small_talk": "who_made_you meaning_of_life who_do_you_work_for do_you_have_pets what_are_your_hobbies fun_fact "
    "what_is_your_name where_are_you_from goodbye thank_you greeting tell_joke are_you_a_bot how_old_are_you "
    "what_can_i_ask_you",
    "meta": "change_speed user_name whisper_mode yes change_volume no change_language repeat change_accent cancel "
    "sync_device change_user_name change_ai_name reset_settings maybe",
}
OF = {intent: domain for domain, intents in DOMAINS.items() for intent in intents.split()}
METHODS = ("protonet", "anil", "fomaml", "reptile")


def rows_of(root: Path, split: str) -> list[dict[str, str]]:
    """Rows of a split with their domain."""
    with file_of(root, SET, split).open(encoding="utf-8") as file:
        return [{**row, "domain": OF[row["label"]]} for row in map(json.loads, file)]


def write(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def measure(job: dict[str, Any]) -> dict[str, Any]:
    """One method and seed; runs in the child process."""
    import tunewell

    say = lambda line: print(line, file=sys.stderr, flush=True)  # noqa: E731
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        root = Path(job["root"])
        family = write(folder / "clinc150.jsonl", rows_of(root, "train"))
        learned = tunewell.meta(
            family, job["method"], task_column="domain", text="text", label="label", model=job["model"],
            seed=job["seed"], ways=job["ways"], shots=job["shots"], steps=job["steps"], episodes=job["episodes"],
            probes=["none"] if job["no_probes"] else ["auto"], output_dir=str(folder / "meta"), echo=say,
            progress=False, **job["keys"],
        )  # fmt: skip
        out: dict[str, Any] = {
            "uses": {f"{u.body} {u.use}": u.accuracy.value for u in learned.uses},
            "rates": {f"{u.body} {u.use}": u.rate for u in learned.uses},
            "own": learned.own, "base_best": learned.base_best, "meta_best": learned.meta_best,
            "best_step": learned.best_step,
            "gain": learned.gain.value, "gain_low": learned.gain.low, "gain_high": learned.gain.high,
            "gain_best": learned.gain_best.value, "gain_prototypes": learned.gain_prototypes.value,
            "reported": learned.names("report"), "seconds": learned.seconds,
            "retention": learned.retention.mean.value if learned.retention else None,
            "worst": learned.retention.worst.value if learned.retention else None, "runs": {},
        }  # fmt: skip
        for name, model in (("base", job["model"]), ("meta", str(learned.model_path))):
            for strategy in job["tunings"]:
                found = [tuned(job, root, folder, domain, model, strategy, say) for domain in out["reported"]]
                out["runs"][f"{name} {strategy}"] = float(np.mean(found))
        return out


def tuned(job: dict[str, Any], root: Path, folder: Path, domain: str, model: str, strategy: str, say: Any) -> float:
    """Test accuracy of a whole run on a held-out domain, from so many labels of each of its intents."""
    import tunewell

    train = [r for r in rows_of(root, "train") if r["domain"] == domain]
    test = [r for r in rows_of(root, "test") if r["domain"] == domain]
    order = np.random.default_rng(job["seed"]).permutation(len(train))
    taken: dict[str, list[dict[str, str]]] = {row["label"]: [] for row in train}
    for i in order:
        if len(taken[train[i]["label"]]) < job["shots"]:
            taken[train[i]["label"]].append(train[i])
    more = {} if strategy == "fewshot" else {"num_train_epochs": 10}
    run = tunewell.run(
        train=write(folder / "train.jsonl", [row for label in sorted(taken) for row in taken[label]]),
        test=write(folder / "test.jsonl", test), text="text", label="label", task="text-classification",
        model=model, strategy=[strategy], seed=job["seed"], probes=["none"], explain=0, validation_size=0,
        monitor="off", output_dir=str(folder / "run"), overwrite_output_dir=True, progress=False, echo=say, **more,
    )  # fmt: skip
    return run.metrics["accuracy"].value


def main() -> None:
    args = parser(__doc__ or "")
    args.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    args.add_argument("--ways", type=int, default=5)
    args.add_argument("--shots", type=int, default=5)
    args.add_argument("--steps", type=int, default=100, help="of the outer loop")
    args.add_argument("--episodes", type=int, default=100, help="reported, over both held-out domains")
    args.add_argument("--tunings", nargs="*", default=[], help="strategies of whole runs on held-out domains")
    args.add_argument("--no-probes", action="store_true", help="do not measure retention")
    args.add_argument("--keys", type=json.loads, default={}, help="further options of `tunewell.meta`, as JSON")
    options = args.parse_args()
    if options.child:
        print(json.dumps(measure(json.loads(options.child))))
        return
    found: dict[str, list[dict[str, Any]]] = {}
    for method in options.methods:
        for seed in options.seeds:
            job = {
                "method": method, "seed": seed, "model": options.model, "root": str(options.data_root),
                "ways": options.ways, "shots": options.shots, "steps": options.steps, "episodes": options.episodes,
                "tunings": options.tunings, "no_probes": options.no_probes, "keys": options.keys,
            }  # fmt: skip
            started = time.perf_counter()
            row, fresh = once(__file__, job, "meta", options.output)
            if fresh:
                print(
                    f"{method}, seed {seed} ({', '.join(row['reported'])}): base {row['uses']['base whole']:.4f} "
                    f"tuned, {row['uses']['base prototypes']:.4f} prototypes; learned "
                    f"{row['uses']['meta ' + row['own']]:.4f}, {time.perf_counter() - started:.0f} s",
                    flush=True,
                )
            found.setdefault(method, []).append(row)
    print(
        f"\n{options.shots} rows of {options.ways} classes, domains that took no part; mean over seeds, 95 % t interval"
    )
    for method, rows in found.items():
        print(f"\n{method}")
        for name in rows[0]["uses"]:
            print(f"  {name:<28}{spread([r['uses'][name] for r in rows]):>20}")
        for name in rows[0]["runs"]:
            print(f"  run: {name:<23}{spread([r['runs'][name] for r in rows]):>20}")
        for name in ("gain", "gain_best", "gain_prototypes", "retention", "worst"):
            values = [r[name] for r in rows if r[name] is not None]
            if values:
                print(f"  {name:<28}{spread(values):>20}")
        print(f"  {'learning (s)':<28}{spread([r['seconds']['learn'] for r in rows]):>20}")


if __name__ == "__main__":
    main()
