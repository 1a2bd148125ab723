"""Paths that a browser names: always beneath the folder that the app was started on, links followed first."""

from __future__ import annotations

from pathlib import Path

from tunewell.errors import RunFolderError

LONGEST = 1000  # characters of a path that is asked for


class Place:
    """The folder that the app shows, and nothing outside of it.

    Raises:
        RunFolderError: no such folder.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not self.folder.is_dir():
            raise RunFolderError(
                "no such folder" if not self.folder.exists() else "is a file, not a folder",
                where=str(folder),
                expected="a folder with runs in it, such as runs",
                remedy="mkdir runs, or name the folder in which your runs are",
            )
        self.folder = self.folder.resolve()

    @property
    def name(self) -> str:
        return self.folder.name or str(self.folder)

    def at(self, asked: str, inside: Path | None = None) -> Path:
        """The path of a name that a browser sent.

        Args:
            asked: relative, with `/` between parts; "." is the folder itself.
            inside: a folder beneath this one that the path must not leave either.

        Raises:
            RunFolderError: it leads out of the folder (by `..`, absolutely, or over a link), or is not there.
        """
        root = self.folder if inside is None else inside.resolve()
        parts = Path(asked).parts
        clean = 0 < len(asked) <= LONGEST and asked.isprintable() and "\\" not in asked
        if not clean or Path(asked).is_absolute() or ".." in parts:
            raise outside(asked)
        try:
            found = (root / asked).resolve(strict=True)
        except (OSError, RuntimeError):
            raise RunFolderError("is not there", where=asked, expected=f"a name beneath {self.name}") from None
        if not found.is_relative_to(root) or not found.is_relative_to(self.folder):
            raise outside(asked)
        return found

    def name_of(self, path: Path) -> str:
        """How a browser asks for a path: the inverse of `at`."""
        return path.relative_to(self.folder).as_posix()


def outside(asked: str) -> RunFolderError:
    """The refusal of a path that leads out; what was asked for is shown in part only."""
    return RunFolderError(
        "leads out of the folder that this app shows", where=ascii(asked[:100]), expected="a name beneath it"
    )
