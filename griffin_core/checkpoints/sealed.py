"""Small JSON files that carry their own SHA-256, so that a flipped bit is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from griffin_core.checkpoints.files import named_errors, read_small, write_file
from griffin_core.errors import CheckpointError

_SEAL = "sha256_of_the_rest"


def write_sealed(path: Path, kind: str, body: Mapping[str, Any]) -> None:
    """Write ``body`` as JSON of that kind and force it to disk; ``read_sealed`` is the inverse.

    Args:
        kind: what the file is and its version, such as "griffin-core trainer state 1".
        body: JSON-able, with string keys.

    Raises:
        CheckpointError: the file system refuses.
    """
    sealed = {"kind": kind, **body}
    with named_errors(f"write {path}"):
        write_file(path, (json.dumps({**sealed, _SEAL: _hash(sealed)}, indent=1) + "\n").encode())


def read_sealed(path: Path, kind: str) -> dict[str, Any]:
    """The body of a file that ``write_sealed`` wrote.

    Raises:
        CheckpointError: it cannot be read, is no regular file, is of another kind, or does not match its own hash.
    """
    data = read_small(path.parent, path.name)
    try:
        body = json.loads(data)
        seal, found = body.pop(_SEAL), body.get("kind")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(f"{path} is not a {kind!r} file of this library, or is damaged; copy it again") from error
    if seal != _hash(body):
        raise CheckpointError(f"{path} does not match its own hash, so it was changed or damaged; copy it again")
    if found != kind:
        raise CheckpointError(f"{path} is {found!r}; expected {kind!r}")
    del body["kind"]
    return dict(body)


def _hash(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
