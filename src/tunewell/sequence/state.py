"""What one task leaves for the next, on disk: the shared body and every head so far."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tunewell.results import write_with
from tunewell.sequence.heads import Head


@dataclass(frozen=True)
class State:
    """Shared weights and heads by name, all named as in the whole model."""

    body: Head
    heads: dict[str, Head]

    def write(self, folder: Path) -> None:
        """A folder with body.safetensors and heads/NAME.safetensors; it appears whole or not at all."""
        from safetensors.torch import save_file

        def save(path: Path) -> None:
            (path / "heads").mkdir(parents=True)
            save_file(self.body, str(path / "body.safetensors"))
            for name, head in self.heads.items():
                save_file(head, str(path / "heads" / f"{name}.safetensors"))

        write_with(folder, save)

    @classmethod
    def read(cls, folder: Path) -> State:
        from safetensors.torch import load_file

        heads = {p.stem: load_file(str(p)) for p in sorted((folder / "heads").glob("*.safetensors"))}
        return cls(load_file(str(folder / "body.safetensors")), heads)
