"""Low-rank adapters: the base weights are frozen and a small product of two matrices is learned beside them.

Made by PEFT: LoRA (Hu et al., 2022), DoRA (Liu et al., 2024), rsLoRA (Kalajdzievski, 2023), PiSSA (Meng
et al., 2024) and OLoRA (Büyükakyüz, 2024), by `lora_variant`. The head is tuned as usual. At the end the
adapters are merged: the run gives a plain model, as every other strategy does. Adapters take a larger
learning rate than whole weights (Biderman et al., 2024, LoRA learns less and forgets less):
`lora_rate_factor` times that of the recipe.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tunewell.errors import RecipeError

if TYPE_CHECKING:
    from tunewell.train.hooks import Tuning

ATTENTION = ("attention", "attn")


class LowRank:
    name = "lora"
    title = "Low-rank adapters (LoRA, DoRA, rsLoRA, PiSSA, OLoRA)"
    paper = "Hu et al., 2022, LoRA: low-rank adaptation of large language models"
    reshapes = True  # `finish` takes the adapters out, so it comes last

    def __init__(self, options: dict[str, Any]) -> None:
        self.variant, self.rank, self.alpha = (options[f"lora_{k}"] for k in ("variant", "rank", "alpha"))
        self.targets, self.factor = list(options["lora_targets"]), float(options["lora_rate_factor"])

    def prepare(self, tuning: Tuning) -> None:
        import torch
        from peft import LoraConfig
        from peft.tuners.lora import LoraModel

        from tunewell.strategies.layers import depths

        places = depths(tuning.model)
        head = [name for name, place in places.items() if place == max(places.values())]
        config = LoraConfig(
            r=self.rank,
            lora_alpha=self.alpha,
            target_modules=self._modules(tuning.model),
            lora_dropout=0.0,
            use_dora=self.variant == "dora",
            use_rslora=self.variant == "rslora",
            init_lora_weights=self.variant if self.variant in ("pissa", "olora") else True,
        )
        with torch.random.fork_rng():  # so that dropout draws what it would draw without adapters
            torch.manual_seed(tuning.seed)
            self.tuner = LoraModel(tuning.model, config, "default")
        for name, p in tuning.model.named_parameters():
            if name in head:
                p.requires_grad_(True)
        trained = sum(p.numel() for p in tuning.model.parameters() if p.requires_grad)
        tuning.echo(f"lora: {self.variant}, rank {self.rank}, {trained:,} parameters are tuned")

    def _modules(self, model: Any) -> list[str]:
        """Names of the linear layers that get an adapter.

        Raises:
            RecipeError: a target that names none of them.
        """
        import torch

        from tunewell.strategies.layers import within

        prefix = model.base_model_prefix + "."
        linear = [
            name
            for name, module in model.named_modules()
            if isinstance(module, torch.nn.Linear)
            and name.startswith(prefix)
            and within(name.removeprefix(prefix) + ".") is not None
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
        return {name: self.factor for name, _ in model.named_parameters() if ".lora_" in name}

    def finish(self, model: Any) -> None:
        self.tuner.merge_and_unload()
        model.requires_grad_(True)
        if hasattr(model, "peft_config"):
            del model.peft_config
