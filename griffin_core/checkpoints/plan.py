"""What a conversion will do, tensor by tensor, known before anything is written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from griffin_core.checkpoints.checkpoint import Checkpoint
from griffin_core.checkpoints.formats import FORMATS, OFFICIAL_FLAX
from griffin_core.checkpoints.framework_writing import scratch_bytes
from griffin_core.checkpoints.shards import Shard
from griffin_core.checkpoints.tensor_directory import Draft
from griffin_core.checkpoints.tensor_file import WORKING_BYTES
from griffin_core.layouts.places import Place, places


@dataclass(frozen=True)
class Plan:
    """What a conversion will do, known from headers alone.

    Attributes:
        checkpoint: the opened source.
        draft: what is written, with the dtypes that it shall have.
        shards: files of a safetensors directory and the tensors in them; empty where a framework writes its own.
        expected: digest that the weights turn out to have when they are read; None where no manifest says it, or
            where it is not asked for.
    """

    checkpoint: Checkpoint
    draft: Draft
    shards: tuple[Shard, ...]
    expected: str | None

    @property
    def source_format(self) -> str:
        """Name of the format that was found."""
        return self.checkpoint.format

    @property
    def target_format(self) -> str:
        """Name of the format to write."""
        return self.draft.format

    @property
    def nbytes(self) -> int:
        """Bytes of tensors to write."""
        return self.draft.nbytes

    @property
    def files(self) -> list[str]:
        """The files that hold tensors."""
        return [shard.file for shard in self.shards] or list(FORMATS[self.target_format].files)

    @property
    def scratch(self) -> int:
        """Bytes on disk that are needed for a while beside the checkpoint itself."""
        return scratch_bytes(self.draft)

    @property
    def peak(self) -> int:
        """Bytes of memory that the conversion takes: a few blocks and what the frameworks' libraries need.

        An orbax tree of another program is decoded a whole tensor at a time.
        """
        source = self.checkpoint
        whole = source.format == OFFICIAL_FLAX and source.manifest is None
        largest = max(tensor.nbytes for tensor in self.draft.tensors) if whole else 0
        return WORKING_BYTES + largest + sum(FORMATS[name].memory for name in {source.format, self.target_format})

    def rows(self) -> list[dict[str, Any]]:
        """One row per parameter: where from, where to, transform, dtypes, shape, file, bytes."""
        layout = FORMATS[self.target_format].layout
        there = {} if layout is None else {place.canonical: place for place in places(self.draft.config, layout)}
        files = {tensor.name: shard.file for shard in self.shards for tensor in shard.tensors}
        rows = []
        for tensor in self.draft.tensors:
            source, target = self.checkpoint.places.get(tensor.name), there.get(tensor.name)
            before = tensor.array.dtype.name
            steps = [*_steps(source, target), *([] if before == tensor.dtype else ["cast"])]
            rows.append(
                {
                    "source": _label(source, tensor.name),
                    "target": _label(target, tensor.name),
                    "transform": ", ".join(steps) or "none",
                    "source_dtype": before,
                    "dtype": tensor.dtype,
                    "shape": list(tensor.array.shape),
                    "shard": files.get(tensor.name, *self.files[:1]),
                    "bytes": tensor.nbytes,
                }
            )
        return rows


def _label(place: Place | None, canonical: str) -> str:
    """A parameter's name in a format: its tensor, and which half of it."""
    if place is None:
        return canonical
    return place.stored if place.half is None else f"{place.stored}[{place.half}]"


def _steps(source: Place | None, target: Place | None) -> list[str]:
    """What happens to the axes between two formats."""
    before = "none" if source is None else source.transform.back_name
    after = "none" if target is None else target.transform.name
    if source is not None and target is not None and source.transform is target.transform:
        return []
    return [name for name in (before, after) if name != "none"]
