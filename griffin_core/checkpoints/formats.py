"""The formats a checkpoint may have: what each looks like, what it can say, who reads it.

A format joins by a row here; one that is not safetensors also by a store (``stores``), named as an entry point.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from griffin_core.checkpoints.hf_config import inexpressible
from griffin_core.config import GriffinConfig
from griffin_core.errors import ConfigError, nearest
from griffin_core.layouts.keras import KERAS as KERAS_LAYOUT
from griffin_core.layouts.official import FLAX, TORCH, unofficial
from griffin_core.layouts.places import Layout

NATIVE = "native"
HUGGINGFACE = "huggingface"
OFFICIAL_FLAX = "recurrentgemma-flax"
OFFICIAL_TORCH = "recurrentgemma-torch"
KERAS = "keras"


def _everything(config: GriffinConfig) -> list[str]:
    return []


@dataclass(frozen=True)
class Format:
    """One format.

    Attributes:
        about: what it is, for messages.
        cannot: what the format cannot say of a config, one phrase per field.
        layout: names and orientations; None are the canonical ones.
        extra: the extra of griffin-core that reads and writes its files; None needs NumPy alone.
        files: what a framework's own files are called, for plans.
        in_place: its store makes a file to be filled in where it stands (``create_tensors``).
        memory: bytes that its library takes to read or write, as measured, largest tensor not counted.
        one_dtype: a dtype that is asked for is given to every tensor, as its programs need it.
        programs: who reads it beside us, as long as ``cannot`` is empty.
    """

    name: str
    about: str
    cannot: Callable[[GriffinConfig], list[str]]
    layout: Layout | None = None
    extra: str | None = None
    files: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    one_dtype: bool = False
    in_place: bool = False
    memory: int = 0


_MLX = "mlx-lm"
_HF_PROGRAMS = ("transformers", _MLX, "candle")
FORMATS: dict[str, Format] = {
    row.name: row
    for row in (
        Format(NATIVE, "a native checkpoint of this library", _everything),
        Format(
            HUGGINGFACE,
            "a Hugging Face directory (config.json and *.safetensors)",
            inexpressible,
            programs=_HF_PROGRAMS,
            one_dtype=True,
        ),
        Format(
            OFFICIAL_FLAX,
            "an orbax directory, as the official Flax code writes",
            unofficial,
            FLAX,
            extra="jax",
            files=("the orbax tree",),
            programs=("recurrentgemma (JAX)",),
            memory=300_000_000,
        ),
        Format(
            OFFICIAL_TORCH,
            "a torch file, as the official PyTorch code writes",
            unofficial,
            TORCH,
            extra="torch",
            files=("model.pt",),
            programs=("recurrentgemma (PyTorch)",),
            memory=25_000_000,
        ),
        Format(
            KERAS,
            "a Keras file (.keras or .weights.h5)",
            _everything,
            KERAS_LAYOUT,
            extra="keras",
            files=("model.keras",),
            programs=("Keras 3",),
            in_place=True,
            memory=10_000_000,
        ),
    )
}
"""Every format by name, the library's own first."""


def find_format(name: str) -> Format:
    """The format of that name.

    Raises:
        ConfigError: there is none; the nearest name is given.
    """
    if name not in FORMATS:
        raise ConfigError(f"unknown format {name!r}; {nearest(name, FORMATS)}")
    return FORMATS[name]


def layout_of(name: str) -> Layout:
    """The layout of a format with names of its own.

    Raises:
        ConfigError: the format has canonical names.
    """
    layout = find_format(name).layout
    if layout is None:
        raise ConfigError(f"{name} has canonical names; no table belongs to it")
    return layout


def require_expressible(config: GriffinConfig, name: str) -> None:
    """Refuse a format that cannot say what the config says.

    Raises:
        ConfigError: naming every such field and the formats that can.
    """
    phrases = find_format(name).cannot(config)
    if phrases:
        able = [row.name for row in FORMATS.values() if not row.cannot(config)]
        raise ConfigError(f"{name} cannot express {'; '.join(phrases)}; what can: {', '.join(able)}")


def programs(config: GriffinConfig, name: str, dtypes: Collection[str], ours: bool) -> list[str]:
    """The programs beside this library that read a checkpoint of that format and config.

    Args:
        dtypes: of its tensors; mlx-lm computes with one only.
        ours: it has a config.json of this library, with the keys that each program looks for.
    """
    row = FORMATS[HUGGINGFACE if name == NATIVE else name]  # the native directory is one of theirs
    if row.cannot(config):
        return []
    able = [program for program in row.programs if program != _MLX or len(set(dtypes)) == 1]
    return able if ours or row.layout is not None else able[:1]
