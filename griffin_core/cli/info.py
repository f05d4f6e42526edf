"""``griffin info``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from griffin_core.cli.console import Output
from griffin_core.errors import InputError

_PARTS = ("weights", "state", "gradients", "moments", "activations", "total")


def info(
    path: str | None = None,
    /,
    *,
    preset: str | None = None,
    config: str | None = None,
    window_convention: str | None = None,
    no_verify: bool = False,
    json: bool = False,
) -> int:
    """Show backends, devices and kernels, or a checkpoint, or a preset.

    Without a path: every backend with its version, devices and
    capabilities, which kernel would run each operation and why not the
    others, and the environment variables.

    Parameters
    ----------
    path
        A checkpoint of any format: its config, parameters, files, integrity, tokenizer, and what can read it.
    preset
        A named config: its parameters, and the memory it needs.
    config
        A preset's name or a JSON file, for an official checkpoint with no config beside it.
    window_convention
        What the window in a config.json of another program counts: official (keys before the query) or hf.
    no_verify
        Skip hashing the checkpoint's files.
    json
        Print one JSON document.
    """
    from griffin_core import facts

    out = Output(json)
    if path is not None and preset is not None:
        raise InputError("a path and --preset are two questions; ask them one at a time")
    if path is not None:
        _show_checkpoint(out, facts.checkpoint_facts(path, not no_verify, config, window_convention))
    elif preset is not None:
        _show_preset(out, facts.preset_facts(preset))
    else:
        _show_installation(out)
    return 0


def _show_installation(out: Output) -> None:
    from griffin_core import facts, protocol
    from griffin_core.presets import PRESETS

    config = PRESETS["griffin-100m"].config
    found: dict[str, Any] = {
        "machine": facts.machine(),
        "backends": facts.backends(config),
        "environment": facts.environment(),
        "presets": list(PRESETS),
    }
    machine = found["machine"]
    free = "unknown" if machine["memory_available"] is None else _size(machine["memory_available"])
    out.say(
        f"griffin-core {machine['griffin_core']}, Python {machine['python']}, {machine['platform']}, "
        f"{machine['cores']} cores, {free} of memory free\n"
    )
    _show_backends(out, found["backends"])
    rows, tokens = protocol.EXAMPLE
    out.say(f"kernels: for {rows} x {tokens} tokens at the shapes of griffin-100m, float32")
    out.table(("backend", "operation", "runs", "others"), [row for b in found["backends"] for row in _kernel_rows(b)])
    out.table(("variable", "value", "meaning"), [(v["name"], v["value"], v["meaning"]) for v in found["environment"]])
    out.say("presets (griffin info --preset NAME): " + ", ".join(PRESETS))
    out.result(found)


def _show_backends(out: Output, backends: list[dict[str, Any]]) -> None:
    rows = []
    for backend in backends:
        mark = "chosen" if backend["chosen"] else ""
        if backend["problem"] is not None:
            rows.append((backend["name"], mark, backend["problem"], "", ""))
            continue
        able = [what for what, there in backend["capabilities"].items() if there]
        status = f"version {backend['version']}" + (f", engine {backend['engine']}" if backend["engine"] else "")
        row = (backend["name"], mark, status, ", ".join(backend["devices"]), ", ".join(able))
        rows.append(row)
    out.table(("backend", "", "status", "devices", "also has"), rows)


def _kernel_rows(backend: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    rows = []
    for operation in backend.get("kernels", ()):
        runs = operation["runs"] or operation["problem"] or "made of inner operations"
        others = [
            name if reason is None else f"{name} ({reason})"
            for name, reason in operation["kernels"].items()
            if name != operation["runs"]
        ]
        rows.append((backend["name"], operation["op"], runs, ", ".join(others)))
    return rows


def _show_preset(out: Output, found: dict[str, Any]) -> None:
    from griffin_core import facts

    out.say(f"{found['preset']}: {found['about']}; {found['parameters']:,} parameters, init {found['init']!r}")
    _show_config(out, found["config"])
    rows = [(f"generate in {how}", *_row(parts)) for how, parts in found["inference_bytes"].items()]
    rows += [(f"train in {how}", *_row(parts)) for how, parts in found["training_bytes"].items()]
    out.table(("memory", *_PARTS), rows)
    held = "" if found["capacity"] is None else f" Global layers hold {found['capacity']} tokens."
    out.say(f"One row; training rows have {facts.TOKENS} tokens.{held} Activations are estimates, the rest is exact.")
    out.result(found)


def _show_checkpoint(out: Output, found: dict[str, Any]) -> None:
    name = "no preset" if found["preset"] is None else f"the preset {found['preset']}"
    out.say(f"{found['path']}: {found['format']} format, {found['parameters']:,} parameters, the config of {name}")
    for note in found["notes"]:
        out.say(f"note: {note}")
    _show_config(out, found["config"])
    out.table(("dtype", "values"), list(found["dtypes"].items()))
    shards = [
        (shard["file"], shard["tensors"], _size(shard["bytes"]), (shard["sha256"] or "none")[:12])
        for shard in found["shards"]
    ]
    out.table(("file", "tensors", "size", "sha256"), shards)
    tokenizer, version = found["tokenizer"], found["library_version"]
    lines = {
        "integrity": found["integrity"],
        "size": _size(found["bytes"]),
        "weights": found["weights_sha256"] or "not hashed",
        "written by": "another program" if version is None else f"griffin-core {version}",
        "tokenizer": "none" if tokenizer is None else _tokenizer(tokenizer),
        "read by": ", ".join(["griffin-core", *found["programs"]]),
        **{
            f"--to {name}": "cannot express " + "; ".join(why) if why else "can"
            for name, why in found["formats"].items()
        },
        **{f"metadata {key}": value for key, value in found["metadata"].items()},
    }
    out.table(("", ""), list(lines.items()))
    out.result(found)


def _show_config(out: Output, config: Mapping[str, Any]) -> None:
    out.table(("config", ""), [(name, _text(value)) for name, value in config.items()])


def _tokenizer(found: Mapping[str, Any]) -> str:
    if found["problem"] is not None:
        return str(found["problem"])
    return f"{found['kind']}, {found['vocab_size']} ids, bos {found['bos']}, eos {found['eos']}, pad {found['pad']}"


def _row(parts: Mapping[str, int]) -> list[str]:
    return [_size(parts[name]) if parts[name] else "" for name in _PARTS]


def _text(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return "none" if value is None else str(value)


def _size(value: int) -> str:
    from griffin_core.memory import human

    return human(value)
