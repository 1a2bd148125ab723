"""What one task leaves for the next, on disk: the shared body and every head so far."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tunewell.results import write_with
from tunewell.sequence.heads import Head


@dataclass(frozen=True)
class State:
    """Shared weights and heads by name, all named as in the whole model; `left`, what a method keeps for itself."""

    body: Head
    heads: dict[str, Head]
    left: dict[str, Head] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """A folder with body.safetensors, heads/NAME and left/METHOD; it appears whole or not at all."""
        from safetensors.torch import save_file

        def save(path: Path) -> None:
            (path / "heads").mkdir(parents=True)
            save_file(self.body, str(path / "body.safetensors"))
            (path / "left").mkdir()
            for place, named in (("heads", self.heads), ("left", self.left)):
                for name, tensors in named.items():
                    save_file(tensors, str(path / place / f"{name}.safetensors"))

        write_with(folder, save)

    @classmethod
    def read(cls, folder: Path) -> State:
        from safetensors.torch import load_file

        heads, left = (
            {p.stem: load_file(str(p)) for p in sorted((folder / place).glob("*.safetensors"))}
            for place in ("heads", "left")
        )
        return cls(load_file(str(folder / "body.safetensors")), heads, left)
