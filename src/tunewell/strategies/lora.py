"""Low-rank adapters: the base weights are frozen and a small product of two matrices is learned beside them.

Made by PEFT: LoRA (Hu et al., 2022), DoRA (Liu et al., 2024), rsLoRA (Kalajdzievski, 2023), PiSSA (Meng
et al., 2024), OLoRA (Büyükakyüz, 2024), CorDA in its knowledge-preserving mode (Yang et al., 2024), EVA, which gives
rank to the layers where the task's own inputs vary (Paischer et al., 2024), OFT, which turns weights instead of adding
to them (Qiu et al., 2023), and OSF, which tunes the least of each weight's singular directions with gradients
projected off the others (Nayak et al., 2025), by `lora_variant`. The head is tuned as usual. At the end the adapters
are merged: the run gives a plain model, as every other strategy does. Adapters take a larger learning rate than whole
weights (Biderman et al., 2024, LoRA learns less and forgets less): `lora_rate_factor` times that of the recipe. With
`load_in_4bit` the frozen weights are in 4 bits (QLoRA), see quantised.py.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    import torch

    from tunewell.train.hooks import Tuning

ATTENTION = ("attention", "attn")
ROWS, MOST = 512, 2.0  # training rows at most that EVA looks at; times `lora_rank` that a layer is given at most


def start(model: Any, directions: dict[str, torch.Tensor]) -> None:
    """Begin the first matrix of each named layer's adapter with these rows; the second is zero, so nothing changes."""
    import torch

    with torch.no_grad():
        for name, rows in directions.items():
            model.get_submodule(name).lora_A["default"].weight.copy_(rows)


class LowRank:
    name = "lora"
    title = "Low-rank adapters (LoRA, DoRA, rsLoRA, PiSSA, OLoRA, CorDA, EVA), rotations (OFT), least directions (OSF)"
    paper = "Hu et al., 2022, LoRA: low-rank adaptation of large language models"
    reshapes = True  # `finish` takes the adapters out, so it comes last

    def __init__(self, options: dict[str, Any]) -> None:
        self.variant, self.rank, self.alpha = (options[f"lora_{k}"] for k in ("variant", "rank", "alpha"))
        self.general = options["general_text"], options["general_samples"]
        self.quantised = bool(options["load_in_4bit"])
        self.targets, self.factor = list(options["lora_targets"]), float(options["lora_rate_factor"])

    def prepare(self, tuning: Tuning) -> None:
        import torch
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel
        from peft.tuners.lora.config import CordaConfig

        from tunewell.strategies.layers import depths, head_depth

        top = head_depth(tuning.model)
        head = [name for name, place in depths(tuning.model).items() if place == top]
        modules = self._modules(tuning.model)
        if self.quantised:
            from tunewell.strategies.quantised import quantise

            quantise(tuning.model, modules, bf16=tuning.bf16)
        with torch.random.fork_rng():  # so that dropout draws what it would draw without adapters
            torch.manual_seed(tuning.seed)
            if self.variant == "oft":
                self.tuner = self._rotations(tuning, modules)
            elif self.variant == "osf":
                self.tuner = self._subspaces(tuning, modules)
            else:
                config = LoraConfig(
                    r=self.rank,
                    lora_alpha=self.alpha,
                    target_modules=modules,
                    lora_dropout=0.0,
                    use_dora=self.variant == "dora",
                    use_rslora=self.variant == "rslora",
                    corda_config=CordaConfig(corda_method="kpm") if self.variant == "corda" else None,
                    init_lora_weights=self.variant if self.variant in ("pissa", "olora", "corda") else True,
                )
                if self.variant == "corda":
                    self._decompose(tuning, config)
                directions = self._directions(tuning, config) if self.variant == "eva" else {}
                self.tuner = LoraModel(tuning.model, config, "default")
                start(tuning.model, directions)
        for name, p in tuning.model.named_parameters():
            if name in head:
                p.requires_grad_(True)
        trained = sum(p.numel() for p in tuning.model.parameters() if p.requires_grad)
        bits = ", 4-bit weights under them" if self.quantised else ""
        tuning.echo(f"lora: {self.variant}, rank {self.rank}, {trained:,} parameters are tuned{bits}")

    def _decompose(self, tuning: Tuning, config: Any) -> None:
        """CorDA: adapters take the directions that matter least for the inputs that general text gives each layer."""
        import contextlib
        import io

        import torch
        from peft.tuners.lora.corda import preprocess_corda

        from tunewell.strategies.quadratic import general_batches

        tuning.echo("lora: corda, gathering the inputs that general text gives to each layer")
        training = tuning.model.training

        def run() -> None:
            with torch.no_grad():
                for batch in general_batches(tuning, self.general, 1):  # PEFT takes one text at a time
                    tuning.model.base_model(**batch)

        with contextlib.redirect_stderr(io.StringIO()):  # a bar of its own
            preprocess_corda(tuning.model, config, run_model=run)
        tuning.model.train(training)

    def _directions(self, tuning: Tuning, config: Any) -> dict[str, torch.Tensor]:
        """EVA: of each layer's inputs on training rows the directions (r, inputs) in which they vary most.

        The ranks of all layers together are those of the configuration, given out in the order of explained variance,
        at most twice `lora_rank` a layer. A layer that is given none is no target any more; `config` is told.

        Raises:
            RecipeError: a layer has fewer inputs, or the rows have fewer tokens, than a layer may be given directions.
        """
        from peft.tuners.lora.config import EvaConfig
        from peft.tuners.lora.eva import get_eva_state_dict

        layers: list[Any] = [tuning.model.get_submodule(name) for name in config.target_modules]
        narrowest = min(layer.in_features for layer in layers)
        if self.rank > narrowest:
            raise RecipeError(
                f"`lora_rank: {self.rank}` is more than the {narrowest} inputs of a layer have directions",
                where="lora_rank",
                expected=f"for `lora_variant: eva` at most {narrowest}",
            )
        config.eva_config = EvaConfig(rho=min(MOST, narrowest / self.rank))
        batches = self._inputs(tuning, round(config.eva_config.rho * self.rank))
        tuning.echo("lora: eva, looking where the training rows vary")
        found = get_eva_state_dict(
            tuning.model, batches, peft_config=config, show_progress_bar=False, gather_distributed_inputs=False,
            forward_fn=lambda model, batch: model.base_model(**batch),
        )  # fmt: skip
        kept = {name: directions for name, directions in found.items() if len(directions)}
        config.target_modules = set(kept)
        config.rank_pattern = {f"{re.escape(name)}$": len(directions) for name, directions in kept.items()}
        # alpha over rank stays the same for all layers
        config.alpha_pattern = {
            f"{re.escape(name)}$": self.alpha * len(directions) / self.rank for name, directions in kept.items()
        }
        ranks = [len(directions) for directions in kept.values()]
        tuning.echo(f"lora: eva, ranks {min(ranks)} to {max(ranks)} in {len(kept)} of {len(found)} layers")
        return kept

    def _inputs(self, tuning: Tuning, least: int) -> list[dict[str, torch.Tensor]]:
        """Batches of training rows, each of more tokens than `least`.

        Raises:
            RecipeError: there are too few tokens in all.
        """
        from tunewell.strategies.quadratic import padded

        rows = tuning.train.select(range(min(len(tuning.train), ROWS)))
        encoded = {k: list(rows[k]) for k in tuning.tokenizer.model_input_names if k in rows.column_names}
        tokens = sum(len(ids) for ids in encoded["input_ids"])
        if tokens <= least:
            raise RecipeError(
                f"the training rows have {tokens} tokens, and a layer may be given {least} directions",
                where="lora_rank",
                expected=f"for `lora_variant: eva` a number below {max(2, tokens // 2)}, or more rows",
            )
        shortest = min(len(ids) for ids in encoded["input_ids"])
        size = max(16, -(-(least + 1) // max(1, shortest)))
        return list(padded(tuning.tokenizer, encoded, size, tuning.model.device))

    def _rotations(self, tuning: Tuning, modules: list[str]) -> Any:
        """OFT: each layer's inputs are turned in blocks of `lora_rank`.

        Raises:
            RecipeError: the inputs of a layer are no multiple of the block.
        """
        from peft import OFTConfig
        from peft.tuners.oft import OFTModel

        for name in modules:
            inputs = tuning.model.get_submodule(name).in_features
            if inputs % self.rank or self.rank < 2:
                raise RecipeError(
                    f"`lora_rank: {self.rank}` does not cut the {inputs} inputs of {name} into blocks",
                    where="lora_rank",
                    expected="for `lora_variant: oft` a number of 2 or more that divides the inputs of every layer",
                )
        return OFTModel(tuning.model, OFTConfig(r=0, oft_block_size=self.rank, target_modules=modules), "default")

    def _subspaces(self, tuning: Tuning, modules: list[str]) -> Any:
        """OSF: of each weight's singular directions the `lora_rank` least are tuned, apart from the others.

        Raises:
            RecipeError: a layer has no more directions than are to be tuned.
        """
        from peft import OSFConfig
        from peft.tuners.osf import OSFModel

        layers: dict[str, Any] = {name: tuning.model.get_submodule(name) for name in modules}
        sizes = {name: min(layer.weight.shape) for name, layer in layers.items()}
        least = min(sizes, key=lambda name: sizes[name])
        if self.rank >= sizes[least]:
            raise RecipeError(
                f"`lora_rank: {self.rank}` leaves none of the {sizes[least]} directions of {least} as it is",
                where="lora_rank",
                expected=f"for `lora_variant: osf` a number below {sizes[least]}",
            )
        kept = {f"{re.escape(name)}$": size - self.rank for name, size in sizes.items()}
        return OSFModel(tuning.model, OSFConfig(rank_pattern=kept, target_modules=modules), "default")

    def _modules(self, model: Any) -> list[str]:
        """Names of the linear layers that get an adapter.

        Raises:
            RecipeError: a target that names none of them.
        """
        import torch

        from tunewell.strategies.layers import numbered

        modules = dict(model.named_modules())
        linear = [
            name
            for name, layer in numbered(model, modules).items()
            if layer is not None and isinstance(modules[name], torch.nn.Linear)
        ]
        chosen: set[str] = set()
        for target in self.targets:
            if target == "all-linear":
                found = set(linear)
            elif target == "attention":
                found = {name for name in linear if any(word in name for word in ATTENTION)}
            else:
                found = {name for name in linear if name.split(".")[-1] == target or name.endswith("." + target)}
            if not found:
                raise RecipeError(
                    f"`lora_targets: {target}` names no linear layer of the model",
                    where="lora_targets",
                    expected="all-linear, attention, or out of "
                    + ", ".join(sorted({name.split(".")[-1] for name in linear})),
                )
            chosen |= found
        return sorted(chosen)

    def rate_factors(self, model: Any) -> dict[str, float]:
        made = {name for name, _ in model.named_parameters() if ".lora_" in name or ".oft_" in name}
        return dict.fromkeys(sorted(made), self.factor)

    def finish(self, model: Any) -> None:
        if self.quantised:
            from tunewell.strategies.quantised import merge

            merge(model)
        else:
            self.tuner.merge_and_unload()
        model.requires_grad_(True)
        if hasattr(model, "peft_config"):
            del model.peft_config
