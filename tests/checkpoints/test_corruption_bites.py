"""The proof by corruption notices when a check of the library is gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("h5py")

import torch

from griffin_core import config, errors
from griffin_core.checkpoints import (
    checkpoint,
    convert,
    files,
    framework,
    keras_file,
    keras_h5,
    manifest,
    shards,
    tensor_directory,
    tensor_file,
)
from griffin_core_torch import official_file
from tests.checkpoints.corruption import cases, groups
from tests.checkpoints.corruption.judging import Homes, judged

Plant = Callable[[pytest.MonkeyPatch], None]


def _values_are_not_looked_at(patch: pytest.MonkeyPatch) -> None:
    for module in (tensor_file, checkpoint):
        patch.setattr(module, "count_not_finite", lambda value: 0)


def _links_lead_anywhere(patch: pytest.MonkeyPatch) -> None:
    for module in (files, shards, framework, manifest):
        patch.setattr(module, "contained", lambda directory, name: directory / name)


def _hashes_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    for module in (manifest, checkpoint, convert):
        patch.setattr(module, "check_files", lambda *arguments: None)


def _gaps_are_not_seen(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tensor_file, "_check_gaps", lambda *arguments: None)


def _pickles_run_code(patch: pytest.MonkeyPatch) -> None:
    load = torch.load

    def unsafe(*arguments: Any, **options: Any) -> Any:
        return load(*arguments, **{**options, "weights_only": False})

    patch.setattr(official_file.torch, "load", unsafe)


def _checksums_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(official_file.TorchTensors, "check", lambda self: None)


def _archives_are_not_compared(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keras_file.KerasTensors, "check", lambda self: None)


def _datasets_are_links(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(keras_h5, "_linked", lambda path, group, key, name: group[key])


def _the_digest_is_not_compared(patch: pytest.MonkeyPatch) -> None:
    finish = tensor_directory.finish_directory
    patch.setattr(tensor_directory, "finish_directory", lambda *arguments: finish(*arguments[:5]))


def _messages_are_as_they_come(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(errors, "one_line", lambda text: text)


def _layers_have_no_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(config, "_MOST_LAYERS", 10**12)
    patch.setattr(cases, "SECONDS", 1.0)


def _shards_may_be_anything(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(shards, "_SUFFIX", "")


FAULTS: list[tuple[Plant, str, str, str, str]] = [
    (_values_are_not_looked_at, "foreign", "not finite", "NaN", "was converted"),
    (_values_are_not_looked_at, "torch-bare", "not finite", "infinity", "was converted"),
    (_links_lead_anywhere, "unlisted", "not files", "link out", "was converted"),
    (_links_lead_anywhere, "torch", "not files", "model.pt is a link out", "was converted"),
    (_hashes_are_not_compared, "native", "flip anything", "tokenizer", "was converted"),
    (_gaps_are_not_seen, "foreign", "edited header", "a gap", "was converted"),
    (_pickles_run_code, "torch-bare", "hostile", "os.system", "code of the file was run"),
    (_checksums_are_not_compared, "torch-bare", "flip records", "bit", "other weights came out|was converted"),
    (_archives_are_not_compared, "keras-bare", "flip records", "bit", "other weights came out|was converted"),
    (_datasets_are_links, "keras-bare", "edited datasets", "a soft link", "was converted"),
    (_the_digest_is_not_compared, "native-sharded", "manifest fields", "weights_sha256", "was converted"),
    (_messages_are_as_they_come, "foreign", "edited header", "31mred", "\x1b[31m"),
    (_layers_have_no_bound, "foreign", "absurd counts", "num_hidden_layers is 1000000000", "takes more than"),
    (_shards_may_be_anything, "foreign-sharded", "wrong index", "config.json", "is not named"),
]


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Homes:
    return Homes(tmp_path_factory.mktemp("homes"))


@pytest.mark.parametrize(("plant", "source", "group", "words", "complaint"), FAULTS)
def test_a_planted_fault_is_noticed(
    plant: Plant, source: str, group: str, words: str, complaint: str, homes: Homes, tmp_path: Path
) -> None:
    found = [case.label for case in groups.cases(source, group, homes.home(source), 1) if words in case.label][:12]

    def chosen(case: cases.Case) -> bool:
        return case.label in found

    assert judged(source, group, homes, tmp_path / "before", 1, chosen) == {}
    with pytest.MonkeyPatch.context() as patch:
        plant(patch)
        wrong = judged(source, group, homes, tmp_path / "after", 1, chosen)
    assert wrong
    assert any(part in text for text in wrong.values() for part in complaint.split("|"))
