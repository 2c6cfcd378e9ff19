"""Where the local engine's programs and its state lie.

One state folder holds all that one engine leaves behind: whoever deletes it has forgotten the engine. Two engines
never share one. Nothing here touches the disk but to look.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[2]
ENGINE_PYTHON = PROJECT_ROOT / ".opx" / "engine" / "bin" / "python"
ENGINE_SCRIPT = PROJECT_ROOT / "pipeline" / "local" / "bounded_engine.py"
SAM = PROJECT_ROOT / ".opx" / "sam" / "bin" / "sam"
DEFAULT_STATE = PROJECT_ROOT / ".opx" / "local"
# The supervisor's word for an engine that checks signatures and permissions.
CHECKED = "checked"
PYTHON_MINOR = f"{sys.version_info.major}.{sys.version_info.minor}"


@dataclass(frozen=True, slots=True)
class StateFolder:
    """The layout of one engine's state folder."""

    root: Path

    @classmethod
    def at(cls, root: Path) -> "StateFolder":
        """Return the layout under `root`, created if it is missing."""
        folder = cls(root.resolve())
        folder.root.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def running(self) -> Path:
        """Who runs: written when the engine answers, removed when it has ended."""
        return self.root / "engine.json"

    @property
    def log(self) -> Path:
        return self.root / "engine.log"

    @property
    def lock(self) -> Path:
        return self.root / "start.lock"

    @property
    def scratch(self) -> Path:
        """The engine's TMPDIR and unpacked functions; removed when it ends."""
        return self.root / "scratch"

    @property
    def home(self) -> Path:
        """HOME of the engine and of the SAM CLI, so that neither reads nor writes a person's settings."""
        return self.root / "home"

    @property
    def build(self) -> Path:
        """What the SAM CLI built last."""
        return self.root / "build"

    @property
    def built(self) -> Path:
        """From which inputs `build` was made."""
        return self.root / "built.json"

    @property
    def deployed(self) -> Path:
        """What was deployed last, into which engine, with which outputs."""
        return self.root / "deployed.json"

    @property
    def deploy_lock(self) -> Path:
        return self.root / "deploy.lock"

    @property
    def deploy_log(self) -> Path:
        return self.root / "deploy.log"
