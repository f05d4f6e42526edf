"""The recipes: what they promise, and that the command in the text makes the same run."""

import re
import shlex
from dataclasses import replace

from griffin_core.api import packaged_checkpoint
from griffin_core.checkpoints import native
from griffin_core.cli.train import Begin, Engine, Schedule, _spec
from griffin_core.layouts.params import parameter_count
from griffin_core.text.tokenizer import ByteTokenizer
from griffin_core.training import recipes


def test_the_packaged_model_fits_six_megabytes_in_bfloat16():
    assert 2 * parameter_count(recipes.PACKAGED.config) < 6_000_000


def test_the_packaged_checkpoint_has_todays_tokenizer_files():
    assert native.read(packaged_checkpoint(), verify=False).tokenizer_files == ByteTokenizer().files()


def test_the_demo_is_a_small_byte_level_griffin_on_the_embedded_text():
    assert parameter_count(recipes.DEMO.config) < 2_500_000
    assert recipes.DEMO.config.layer_kinds.count("attention") >= 1 < recipes.DEMO.config.layer_kinds.count("recurrent")
    assert recipes.DEMO.text is None
    assert recipes.DEMO.checkpoint_every == 0


def test_the_packaged_recipe_is_the_command_in_its_description():
    source = recipes.__spec__.loader.get_source("griffin_core.training.recipes")
    words = shlex.split(re.search(r"``griffin train (--preset .*?)``", source)[1])
    given = dict(zip(words[::2], words[1::2], strict=True))
    schedule = Schedule(
        steps=int(given["--steps"]),
        batch=int(given["--batch"]),
        length=int(given["--length"]),
        lr=float(given["--lr"]),
    )
    spec, _ = _spec(Begin(preset=given["--preset"]), schedule, Engine(), checkpoint_every=100, eval_every=0)
    assert replace(spec, backend=recipes.PACKAGED.backend) == recipes.PACKAGED
