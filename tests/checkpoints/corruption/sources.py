"""The undamaged checkpoints that the corruptions start from, a row each.

Another format joins by a row, with a word of its own for ``files``: it has all that is done to any directory at once
(``groups`` says what), and what is done to its own files by groups of its own.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from griffin_core.checkpoints import native
from griffin_core.checkpoints.convert import convert
from griffin_core.checkpoints.manifest import MANIFEST_FILE, FileRecord, Manifest, file_digest, read_manifest
from griffin_core.config import GriffinConfig
from griffin_core.layouts.initialise import init_params
from griffin_core.shapes import DTYPES
from griffin_core.text.tokenizer import ByteTokenizer

CONFIG = GriffinConfig(
    width=8,
    lru_width=8,
    mlp_width=12,
    num_heads=2,
    head_dim=4,
    gate_blocks=2,
    block_pattern=("recurrent", "attention"),
    num_layers=2,
    attention_window=9,
    vocab_size=20,
    logits_soft_cap=30.0,
    embedding_scale="sqrt_width",
)
"""Every format can express it."""
MODEL = "model"
"""Directory of the checkpoint, inside the home of a case."""
GIVEN = "given.json"
"""The config that ``--config`` gives, beside it."""
TORCH_FILE = "model.pt"
KERAS_FILE = "model.keras"
_SUFFIXES = {"safetensors": "*.safetensors", "torch": "*.pt", "keras": "*.keras"}
_SHARD = 2_000


@dataclass(frozen=True)
class Source:
    """One undamaged checkpoint.

    Attributes:
        build: fills a home.
        files: "safetensors", "torch" or "keras": whose damage fits.
        entry: what is given to the command, below the home.
        options: of the command.
        hashed: a manifest notices every flipped bit.
        to: format to convert to.
    """

    name: str
    build: Callable[[Path], None]
    files: str
    entry: str = MODEL
    options: tuple[str, ...] = ()
    hashed: bool = True
    to: str = "native"

    def command(self, home: Path, destination: Path) -> list[str]:
        """The arguments of ``griffin``."""
        options = [option.replace("{home}", str(home)) for option in self.options]
        return ["convert", str(home / self.entry), str(destination), "--to", self.to, *options]

    def weights(self, home: Path) -> list[Path]:
        """The files that hold tensors."""
        return sorted((home / MODEL).glob(_SUFFIXES[self.files]))

    def all_files(self, home: Path) -> list[Path]:
        """Every file of the checkpoint, in whatever directory below it."""
        return sorted(path for path in (home / MODEL).rglob("*") if path.is_file())

    def texts(self, home: Path) -> list[Path]:
        """The JSON files without which it is not whole."""
        given = [home / GIVEN] if (home / GIVEN).exists() else []
        return given + [path for path in sorted((home / MODEL).glob("*.json")) if path.name != MANIFEST_FILE]


def _native(home: Path, shard: int | None = None) -> None:
    params = {name: value.astype(DTYPES["float32"]) for name, value in init_params(CONFIG, 0).items()}
    native.save(home / MODEL, CONFIG, params, ByteTokenizer().files(), {"step": 7}, max_shard_size=shard)


def _converted(home: Path, to: str, shard: int | None = None) -> None:
    _native(home)
    (home / MODEL).rename(home / "first")
    convert(home / "first", home / MODEL, to=to, max_shard_size=shard)
    shutil.rmtree(home / "first")


def _unlisted(home: Path, shard: int | None = None) -> None:
    """A directory of ours that has lost its manifest."""
    _converted(home, "huggingface", shard)
    (home / MODEL / MANIFEST_FILE).unlink()


def _foreign(home: Path, shard: int | None = None) -> None:
    """As another program leaves a directory: no manifest, no section of ours."""
    _unlisted(home, shard)
    config = home / MODEL / "config.json"
    fields = json.loads(config.read_text())
    del fields["griffin"]
    fields["attention_window_size"] = (CONFIG.attention_window or 0) - 1
    config.write_text(json.dumps(fields, indent=2))


def _alone(home: Path, to: str, name: str) -> None:
    """A framework's file with nothing beside it."""
    _converted(home, to)
    for path in (home / MODEL).iterdir():
        if path.name != name:
            path.unlink()


def _bare(home: Path) -> None:
    """A torch file; its config is given."""
    _alone(home, "recurrentgemma-torch", TORCH_FILE)
    (home / GIVEN).write_text(CONFIG.to_json())


SOURCES: dict[str, Source] = {
    source.name: source
    for source in (
        Source("native", _native, "safetensors", to="recurrentgemma-torch"),
        Source("native-sharded", lambda home: _native(home, _SHARD), "safetensors"),
        Source("huggingface", lambda home: _converted(home, "huggingface"), "safetensors"),
        Source("unlisted", _unlisted, "safetensors", hashed=False),
        Source("foreign", _foreign, "safetensors", hashed=False),
        Source("foreign-sharded", lambda home: _foreign(home, _SHARD), "safetensors", hashed=False, to="huggingface"),
        Source("torch", lambda home: _converted(home, "recurrentgemma-torch"), "torch"),
        Source(
            "torch-bare", _bare, "torch", f"{MODEL}/{TORCH_FILE}", ("--config", "{home}/" + GIVEN), False, "huggingface"
        ),
        Source("keras", lambda home: _converted(home, "keras"), "keras", to="huggingface"),
        Source(
            "keras-bare", lambda home: _alone(home, "keras", KERAS_FILE), "keras", f"{MODEL}/{KERAS_FILE}", hashed=False
        ),
    )
}


def reseal(directory: Path) -> None:
    """Make the manifest fit the files again, as an attacker or a careless tool could; no manifest stays none."""
    if not (directory / MANIFEST_FILE).exists():
        return
    old = read_manifest(directory)
    paths = [path for path in directory.rglob("*") if path.is_file() and path.name != MANIFEST_FILE]
    found = {p.relative_to(directory).as_posix(): FileRecord(p.stat().st_size, file_digest(p)) for p in paths}
    made = Manifest(
        files=found,
        weights_sha256=old.weights_sha256,
        config_sha256=old.config_sha256,
        library_version=old.library_version,
        metadata=old.metadata,
        format=old.format,
    )
    (directory / MANIFEST_FILE).write_text(made.to_json())
