"""The monitor: while a model is tuned, an estimate of what it still keeps, from a few general texts.

The base model's outputs on the sample are computed once. A reading compares them with those of the model as it
is (see `retention.estimate`): embeddings of encoders, next-token probabilities of decoders. Readings leave
weights, random numbers and gradients alone, so a run that is only watched gives the same model as one that is not.

    watch     readings as often as SHARE of the measured step time allows; nothing else
    stop      tuning ends at the first reading below the floor; the states so far compete on validation
    rollback  tuning ends there too, and the weights go back to the last reading at or above the floor

Where readings decide, they stand at steps that follow from counted tokens and not from a clock, so that the same
seed gives the same model on every machine, stopped and resumed or not.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from transformers import TrainerCallback

from tunewell.results import MonitorRecord
from tunewell.train.hooks import hooks

if TYPE_CHECKING:
    import torch

    from tunewell.train.trainer import TunewellTrainer

SHARE = 0.03  # of the step time that readings may take
TEXTS = {"cosine": 64, "kl": 16}  # of the sample
LONGEST = {"cosine": 48, "kl": 48}  # tokens of a text
POSITIONS = 256  # tokens whose next-token probabilities are compared; (256, 49,152) floats are 50 MB
LEAST_READINGS = 8  # of a run whose readings decide
WARM_UP = 3  # steps before the step time is taken as measured
KEY = "kept_estimate"  # in the log


class Monitor(TrainerCallback):
    """See the head of this file.

    Args:
        mode: watch, stop or rollback. floor: estimate below which `stop` and `rollback` act.
        source, samples: general text, as in a recipe; texts that a strategy may learn from are left out.

    Attributes:
        readings, seconds: number and time of the readings so far, resumed parts included.
        crossed: (step, estimate) of the reading that ended tuning, empty when none has.
        kept_step: where `rollback` has gone back to.
    """

    def __init__(
        self,
        mode: str,
        *,
        floor: float | None = None,
        source: str | None = None,
        samples: int = 4000,
        seed: int = 42,
        echo: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.mode, self.floor, self._general, self._seed, self._echo = mode, floor, (source, samples), seed, echo
        self.readings, self.seconds = 0, 0.0
        self.crossed: tuple[int, float] | None = None
        self.kept_step = 0
        self.estimate: float | None = None  # of the weights that tuning has left
        self._memory = Memory(self)
        self._steps: deque[float] = deque(maxlen=20)
        self._began = self._cost = 0.0
        self._next = 1
        self.trainer: TunewellTrainer | None = None

    @property
    def decides(self) -> bool:
        return self.mode in ("stop", "rollback")

    @property
    def memory(self) -> Memory:
        """What a checkpoint must hold beside the strategies' states."""
        return self._memory

    # ------------------------------------------------------------ before tuning

    def prepare(self, model: Any, tokenizer: Any, *, bf16: bool, tokens: float, steps: int, cache: Path) -> None:
        """Choose the texts and ask the base model; `model` is still at its base weights.

        Args:
            tokens: mean tokens of a step. steps: planned. cache: folder in which a resumed run finds the answers.
        """
        from tunewell.models.embed import encode, pad

        self.kind = "kl" if is_decoder(model) else "cosine"
        texts = sample_texts(self._general, TEXTS[self.kind], self._seed)
        encoded = encode(tokenizer, texts, None, LONGEST[self.kind])
        lengths = [len(ids) for ids in encoded["input_ids"]]
        least = 2 if self.kind == "kl" else 1  # a token has to stand before one that is foretold
        order = [int(i) for i in np.argsort(lengths, kind="stable") if lengths[i] >= least]
        self._batches = [pad(tokenizer, encoded, order[i : i + 16]) for i in range(0, len(order), 16)]
        self._bf16 = bf16
        counted = sum(int(b["attention_mask"].sum()) for b in self._batches)
        self.texts = len(order)
        # a forward pass is a third of a step's work; the outputs' layer of a decoder is part of both
        self.every = max(1, math.ceil(counted / 3 / (SHARE * max(tokens, 1.0))))
        if self.decides:
            self.every = max(1, min(self.every, steps // LEAST_READINGS))
        self._base = self._cached(model, cache / f"monitor-{self.kind}.npz")
        what = {"cosine": "embeddings", "kl": "next-token probabilities"}[self.kind]
        held = f", held to {self.floor:g}" if self.decides and self.floor else ""
        self._echo(f"monitor: {what} of {self.texts} general texts against the base model{held}")

    def _cached(self, model: Any, path: Path) -> Any:
        from tunewell.results import write_with
        from tunewell.seal import broken, seal

        if path.is_file() and broken(path) is None:
            with np.load(path, allow_pickle=False) as file:
                return {k: file[k] for k in file.files}
        made = {"vectors": self._vectors(model)} if self.kind == "cosine" else self._probabilities(model)

        def save(temporary: Path) -> None:
            with temporary.open("wb") as file:
                np.savez(file, **made)  # type: ignore[arg-type]

        write_with(path, save)
        seal(path)
        return made

    # ------------------------------------------------------------ a reading

    def _outputs(self, model: Any, run: Callable[[Any, dict[str, torch.Tensor]], Any]) -> list[Any]:
        import torch

        training = model.training
        model.eval()
        try:
            with torch.inference_mode(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=self._bf16):
                return [run(model, {k: v.to(model.device) for k, v in b.items()}) for b in self._batches]
        finally:
            model.train(training)

    def _vectors(self, model: Any) -> np.ndarray:
        """(n, H) pooled embeddings."""
        from tunewell.models.embed import mean_pool

        def run(m: Any, batch: dict[str, torch.Tensor]) -> np.ndarray:
            hidden = m.base_model(**batch).last_hidden_state
            return mean_pool(hidden.float(), batch["attention_mask"]).cpu().numpy()

        return np.concatenate(self._outputs(model, run))

    def _logits(self, model: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Logits (P, V) before, and ids (P,) of, the first POSITIONS tokens that have one before them."""
        import torch

        def run(m: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
            ids, mask = batch["input_ids"], batch["attention_mask"].bool()
            real = mask[:, :-1] & mask[:, 1:]  # whichever side is padded
            logits = m(input_ids=ids, attention_mask=batch["attention_mask"]).logits
            return logits[:, :-1][real].float(), ids[:, 1:][real]

        parts = self._outputs(model, run)
        logits, ids = (torch.cat([p[i] for p in parts])[:POSITIONS] for i in (0, 1))
        return logits, ids

    def _probabilities(self, model: Any) -> dict[str, np.ndarray]:
        logits, ids = self._logits(model)
        known = logits.log_softmax(-1)
        nats = -known.gather(1, ids[:, None]).mean()
        return {"logp": known.cpu().numpy(), "nats": np.array(float(nats))}

    def read(self, model: Any) -> dict[str, float]:
        """The estimate of what is kept and the statistic behind it, for the log."""
        from tunewell.retention.estimate import forward_kl, kept_bits, kept_cosine, mean_cosine

        if self.kind == "cosine":
            found = mean_cosine(self._base["vectors"], self._vectors(model))
            return {KEY: round(kept_cosine(found), 6), "cosine": round(found, 6)}
        import torch

        logits, _ = self._logits(model)
        kl = float(forward_kl(torch.from_numpy(self._base["logp"]).to(logits.device), logits))
        return {KEY: round(kept_bits(float(self._base["nats"]), kl), 6), "forward_kl": round(kl, 6)}

    # ------------------------------------------------------------ along tuning

    def _due(self, step: int) -> bool:
        if self.decides:
            return step % self.every == 0
        return len(self._steps) >= WARM_UP and step >= self._next

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if self.mode == "rollback" and not self._memory.weights:
            self._memory.take(self._model())

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._began = time.perf_counter()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._steps.append(time.perf_counter() - self._began)
        if not self._due(state.global_step) and state.global_step != state.max_steps:
            return
        value = self.take(state, control)
        pace = float(np.median(self._steps))
        self._next = state.global_step + max(1, math.ceil(self._cost / (SHARE * max(pace, 1e-9))))
        if not self.decides or self.floor is None:
            return
        if value >= self.floor:
            if self.mode == "rollback":
                self._memory.take(self._model())
                self.kept_step = state.global_step
            return
        self.crossed = (state.global_step, value)
        control.should_training_stop = True
        if self.mode == "stop":  # the state there competes with those before it
            control.should_evaluate = control.should_save = True
        back = f"; back to step {self.kept_step}" if self.mode == "rollback" else ""
        self._echo(f"monitor: at step {state.global_step} about {value:.4f} is kept, below {self.floor:g}{back}")

    def _model(self) -> Any:
        assert self.trainer is not None
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    def take(self, state: Any, control: Any) -> float:
        """A reading for the log; returns the estimate."""
        assert self.trainer is not None
        started, model = time.perf_counter(), self._model()
        with contextlib.ExitStack() as stack:  # what validation scores is what is read
            for validating in hooks(self.trainer.strategies, "validating"):
                stack.enter_context(validating(model))
            found = self.read(model)
        self.readings += 1
        wanted = control.should_log  # logging a reading must not swallow the loss of the same step
        self.trainer.log(dict(found))
        control.should_log = wanted
        self._cost = time.perf_counter() - started
        self.seconds += self._cost
        return found[KEY]

    # ------------------------------------------------------------ afterwards

    def roll_back(self, model: Any) -> bool:
        """Put the last weights at or above the floor in place, where tuning ended below it; whether it did."""
        if self.mode != "rollback" or self.crossed is None:
            return False
        self._memory.put(model)
        return True

    def close(self, model: Any) -> None:
        """Read the weights that tuning leaves, and let go of copies."""
        started = time.perf_counter()
        self.estimate = self.read(model)[KEY]
        self.readings, self.seconds = self.readings + 1, self.seconds + time.perf_counter() - started
        self._memory.weights = {}

    def record(self, seconds: float) -> MonitorRecord:
        """What it did. `seconds`: of all tuning."""
        return MonitorRecord(
            mode=self.mode,
            statistic=self.kind,
            texts=self.texts,
            readings=self.readings,
            seconds=round(self.seconds, 3),
            share=round(self.seconds / seconds, 4) if seconds else 0.0,
            floor=self.floor if self.decides else None,
            estimate=self.estimate,
            ended_at=self.crossed[0] if self.crossed else None,
            back_to=self.kept_step if self.crossed and self.mode == "rollback" else None,
        )


class Memory:
    """What a checkpoint carries of a monitor: counts, and the weights of the last reading at or above the floor."""

    name, title, paper = "monitor", "What the monitor carries in a checkpoint", ""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.weights: dict[str, torch.Tensor] = {}

    def take(self, model: Any) -> None:
        import torch

        with torch.no_grad():
            for name, p in model.named_parameters():
                if name in self.weights:
                    self.weights[name].copy_(p)
                else:
                    self.weights[name] = p.detach().clone()

    def put(self, model: Any) -> None:
        import torch

        with torch.no_grad():
            for name, p in model.named_parameters():
                p.copy_(self.weights[name].to(p.device))

    def state(self) -> dict[str, torch.Tensor]:
        import torch

        m = self.monitor
        step, value = m.crossed or (-1, 0.0)
        counts = torch.tensor([m.readings, m.seconds, m.kept_step, step, value], dtype=torch.float64)
        return {"counts": counts, **{f"weights.{k}": v for k, v in self.weights.items()}}

    def load_state(self, state: dict[str, torch.Tensor]) -> None:
        m = self.monitor
        readings, m.seconds, kept_step, step, value = state["counts"].tolist()
        m.readings, m.kept_step = int(readings), int(kept_step)
        m.crossed = (int(step), value) if step >= 0 else None
        self.weights = {k[8:]: v for k, v in state.items() if k.startswith("weights.")}


def is_decoder(model: Any) -> bool:
    """Whether a model gives next-token probabilities of its own text (and not those of an encoder-decoder)."""
    return model.get_output_embeddings() is not None and not model.config.is_encoder_decoder and model.can_generate()


def sample_texts(general: tuple[str | None, int], n: int, seed: int) -> Sequence[str]:
    """`n` general texts that no strategy learns from; of a file too small for that, any.

    Raises:
        DataError: no such file, or fewer than 16 texts in it.
    """
    from tunewell.data.general import general_texts

    source, samples = general
    used = set(general_texts(source, samples, seed=seed))
    pool = general_texts(source, samples + 8 * n, seed=seed + 1)
    rest = list(dict.fromkeys(t for t in pool if t not in used))
    return (rest if len(rest) >= 16 else list(dict.fromkeys(pool)))[:n]
